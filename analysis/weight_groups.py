"""Draw what thinking gains over each control for each way in which the four roles can share weights."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

if not __package__:  # called as a file, in a checkout
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toyqs.evidence.arms import arm_names
from toyqs.evidence.cells import Cell
from toyqs.evidence.figures import marks, style
from toyqs.evidence.figures.heat_map import Layout, heat_map
from toyqs.evidence.figures.script import Product, run_script
from toyqs.evidence.judging.findings import Finding, arm_table, find, floor_of
from toyqs.evidence.measures import loss_words
from toyqs.evidence.selection import BASE, differing, one_per_place, order, place_of, thinking_cells
from toyqs.evidence.tables.sweep import GAIN_HEADING, gain_lines, loss_heading, loss_lines, verdict_lines
from toyqs.evidence.text import spelled
from toyqs.files import Refusal

if TYPE_CHECKING:  # a notebook's MPLBACKEND stops matplotlib's import, unless toyqs comes first
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DESCRIPTION = """\
Draw what thinking gains over each control (every seed's point, means and 95 % t-intervals) under each
sharing pattern of weight_groups, a row each: one letter per role, in the order base_lm, base_reasoner,
reasoner, interpreter. A panel for each policy_loss_beta. Where the base has several widths, a map of patterns
by widths for each control: the mean gain as a colour, hatched where its 95 % t-interval holds 0. Print the
gains as tables, with the verdict on each pattern. Where no control has finished, the held-out NLL takes the
place of the gains."""

GROUPS, BETA = "weight_groups", "policy_loss_beta"
FACET = (BASE, BETA)
LETTERS = "letters in the order base LM, base reasoner, reasoner, interpreter: equal ones share weights"
UNCORRECTED = "gains: 95 % t-intervals, uncorrected"
IN_TABLE = "verdicts: in the table"
CORRECTED = "†: another verdict before correction for the number of cells"
BETAS, WIDTHS = 3, 12  # values that can still be read
BAND = 0.8  # of a row's height, for the marks of all controls
VERDICT = 28  # letters of a line of a verdict


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line described by DESCRIPTION; return the exit code."""
    return run_script(weight_groups, DESCRIPTION, "weight_groups.png", words)


def weight_groups(runs: Path, cells: Sequence[Cell]) -> Product:
    """Make figure and tables of the cells of one sweep over weight_groups.

    Args:
        runs: their folder.
        cells: those chosen; plain models among them are left out.
    """
    keys = [*FACET, GROUPS]
    cells = one_per_place(runs, thinking_cells(runs, cells), keys)
    cells.sort(key=lambda cell: (*map(order, _facet(cell)), _rank(cell.settings[GROUPS])))
    _check_number(runs, cells)
    findings = find(cells)
    gained, labels = any(finding.gains for finding in findings), _labels(findings)
    text, lines = ([GAIN_HEADING], gain_lines) if gained else ([loss_heading(findings)], loss_lines)
    for facet in _facets(findings).values():
        text += ["", place_of(facet[0].cell, FACET), *lines(facet, [GROUPS])]
        run = [finding.cell.settings[GROUPS] for finding in facet]
        if lacking := [label for label in labels if label not in run]:
            text.append(f"not in the sweep here: {', '.join(lacking)}")
    if gained:
        named = {GROUPS, *differing(cells)}
        text += ["", *verdict_lines(findings, [key for key in keys if key in named])]
    arms = arm_names(arm for cell in cells for arm in cell.arms)
    corrected = any(finding.verdict and finding.verdict.corrected for finding in findings)
    several = len(_panels(cells)[0]) > 1
    verdicts = IN_TABLE if several or style.is_large() else CORRECTED if corrected else ""
    about = "; ".join(filter(None, [UNCORRECTED, verdicts])) if gained else ""
    notes = [*filter(None, [LETTERS, marks.left_out(arms), about])]
    question = f"{'What does thinking gain' if gained else 'What is the loss'} when roles share weights?"
    figure = (_map if several else _figure)(findings, marks.drawn(arms), gained)
    return Product(question, figure, arm_table(findings, keys), text, findings, keys, notes)


def _rank(label: str) -> tuple[int, str]:
    return len(set(label)), label


def _labels(findings: Sequence[Finding]) -> list[str]:
    return sorted({finding.cell.settings[GROUPS] for finding in findings}, key=_rank)


def _facet(cell: Cell) -> tuple[float | None, ...]:
    """Return the values that choose a cell's panel; None where a setting has no effect in it."""
    return tuple(cell.settings.get(key) for key in FACET)


def _facets(findings: Sequence[Finding]) -> dict[tuple[float | None, ...], list[Finding]]:
    facets: dict[tuple[float | None, ...], list[Finding]] = {}
    for finding in findings:
        facets.setdefault(_facet(finding.cell), []).append(finding)
    return facets


def _panels(cells: Sequence[Cell]) -> list[list[float | None]]:
    """Return the values of each setting of FACET, ascending."""
    return [sorted(set(values), key=order) for values in zip(*map(_facet, cells), strict=True)]


def _check_number(runs: Path, cells: Sequence[Cell]) -> None:
    for key, most, values in zip(FACET, (WIDTHS, BETAS), _panels(cells), strict=True):
        if len(values) > most:  # None, where it has no effect, is the last
            some = ",".join(spelled(value) for value in values[:most])
            raise Refusal(f"{runs}: {len(values)} values of {key} are too many; add, say, {key}={some}")


def _map(findings: Sequence[Finding], arms: Sequence[str], gained: bool) -> Figure:
    """Draw a map of patterns by base widths, a row of panels for each weight of the policy loss."""
    labels, (widths, betas) = _labels(findings), _panels([finding.cell for finding in findings])
    places = {}
    for number, finding in enumerate(findings):
        width, beta = _facet(finding.cell)
        row = labels.index(finding.cell.settings[GROUPS])
        places[number] = (betas.index(beta), row, widths.index(width))
    titles = [f"{BETA} {spelled(beta)}" for beta in betas] if len(betas) > 1 else [GROUPS]
    layout = Layout(labels, [spelled(width) for width in widths], titles, "base width", places)
    shown = [arm for arm in arms if any(arm in (f.gains if gained else f.losses) for f in findings)]
    return heat_map(findings, shown, layout, gained)


def _figure(findings: Sequence[Finding], arms: Sequence[str], gained: bool) -> Figure:
    """Draw a row for each pattern, a panel for each weight of the policy loss, at one base width."""
    cells, labels, facets = [finding.cell for finding in findings], _labels(findings), _facets(findings)
    (width,), betas = _panels(cells)
    values = [finding.gains if gained else finding.losses for finding in findings]
    arms = [arm for arm in arms if any(arm in each for each in values)]
    words = [_beside(finding, gained) for finding in findings]
    height = max([min(0.5, 0.25 + 0.05 * len(arms)), *(0.15 * (1 + word.count("\n")) for word in words)])
    figure = style.new_figure(12, 1.0 + height * len(labels))
    panels = figure.subplots(1, len(betas), squeeze=False, sharey=True, sharex=True)[0]
    shown: dict[str, list[pd.Series]] = {}
    for axes, beta in zip(panels, betas, strict=True):
        _draw(axes, facets.get((width, beta), []), labels, arms, shown, gained)
        parts = (("base width", width), (BETA, beta))
        axes.set_title(", ".join(f"{word} {spelled(x)}" for word, x in parts if x is not None))
    panels[0].set_ylabel(GROUPS if len(labels) > 1 else "")  # a single row has no room for it
    floor = None if gained else floor_of(cells)
    added = marks.fit(panels, "x", shown, [0.0] if gained else [] if floor is None else [floor])
    for axes in panels:
        marks.draw_floor(axes, floor, sideways=True)
        words = "gain of thinking" if gained else f"held-out {loss_words(f.cell.loss for f in findings)}"
        axes.set_xlabel(f"{words}, nats{added}")
    marks.legend(figure, arms, floor is not None)
    return figure


def _verdict(finding: Finding) -> str:
    if not finding.verdict:
        return "–"
    return textwrap.fill(finding.verdict.word + (" †" if finding.verdict.corrected else ""), VERDICT)


def _beside(finding: Finding, gained: bool) -> str:
    """Return what stands beside a cell's row: its verdict, for which a slide has no room."""
    return _verdict(finding) if gained and not style.is_large() else ""


def _draw(
    axes: Axes,
    facet: Sequence[Finding],
    labels: Sequence[str],
    arms: Sequence[str],
    shown: dict[str, list[pd.Series]],
    gained: bool,
) -> None:
    """Draw one panel, and add its values of each arm to `shown`."""
    rows = {labels.index(finding.cell.settings[GROUPS]): finding for finding in facet}
    found = {row: finding.gains if gained else finding.losses for row, finding in rows.items()}
    for arm, shift in zip(arms, marks.offsets(len(arms), BAND), strict=True):
        having = [row for row in found if arm in found[row]]
        values = [found[row][arm] for row in having]
        marks.draw_arm(axes, arm, [row + shift for row in having], values, sideways=True)
        shown.setdefault(arm, []).extend(values)
    for row, label in enumerate(labels):
        word = _beside(rows[row], gained) if row in rows else "not run"
        if row and _rank(label)[0] > _rank(labels[row - 1])[0]:
            axes.axhline(row - 0.5, color="#888888", linewidth=0.8)
        place: dict[str, Any] = {"xy": (1.01, row), "xycoords": ("axes fraction", "data")}
        axes.annotate(word, **place, va="center", fontsize="x-small", annotation_clip=False)
    if gained:
        axes.axvline(0, color="black", linewidth=1, zorder=1)
    marks.label_rows(axes, labels, family="monospace")
    axes.tick_params(labelbottom=True)


if __name__ == "__main__":
    sys.exit(main())
