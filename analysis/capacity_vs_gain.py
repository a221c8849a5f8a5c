"""Draw a setting or a cost against the loss of every arm and what thinking gains over each control."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

if not __package__:  # called as a file, in a checkout
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toyqs.evidence.arms import arm_names
from toyqs.evidence.cells import Cell
from toyqs.evidence.figures import marks, style
from toyqs.evidence.figures.axis import BESIDE, COSTS, Axis, at_thinking, cost_axis, cost_of, setting_axis
from toyqs.evidence.figures.beside import write_beside
from toyqs.evidence.figures.script import Product, run_script
from toyqs.evidence.judging.findings import Finding, arm_table, find, floor_of
from toyqs.evidence.measures import loss_words
from toyqs.evidence.selection import (
    BASE,
    INTERPRETER,
    REASONER,
    differing,
    one_per_place,
    telling_apart,
    thinking_cells,
    value_of,
)
from toyqs.evidence.tables.sweep import GAIN_HEADING, gain_lines, loss_heading, loss_lines, verdict_lines
from toyqs.files import Refusal

if TYPE_CHECKING:  # a notebook's MPLBACKEND stops matplotlib's import, unless toyqs comes first
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DESCRIPTION = """\
Draw a setting that differs among the cells of a sweep, such as the base width, against the held-out NLL of
every arm, and against what thinking gains over each control: every seed's point, means and 95 % t-intervals.
Where no control has finished, the NLL alone. Print both as tables, with the verdict on each cell."""
OVER = f"""\
what the cells are drawn over: a setting that differs among them (without this the first of base,
reasoner and interpreter width, L, K, policy_loss_beta and mixing that does; model_hidden_dim: all widths
together), several that change together (KEY,KEY), or what each arm costs: {", ".join(COSTS)}"""

AXES = (
    *(BASE, REASONER, INTERPRETER, "max_reasoning_len", "trice_samples", "policy_loss_beta", "mixing"),
    "weight_groups",
)
ALL_WIDTHS = "model_hidden_dim"  # a setting that stands for all of them


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line described by DESCRIPTION; return the exit code."""
    return run_script(capacity, DESCRIPTION, "capacity.png", words, {"help": OVER})


def capacity(runs: Path, cells: Sequence[Cell], over: str | None = None) -> Product:
    """Make figure and table of the cells of one sweep.

    Args:
        runs: their folder.
        cells: those chosen; plain models among them are left out.
        over: the setting or the cost to draw them over; None: a setting that differs.
    """
    cells = thinking_cells(runs, cells)
    if over in COSTS:
        keys = telling_apart(cells, AXES)
        cells = one_per_place(
            runs, cells, [name for name in differing(cells) if name.partition(".")[0] != "task"]
        )
        findings = find(cells)
        if not any(cost_of(frame, over) > 0 for cell in cells for frame in cell.arms.values()):
            raise Refusal(f"{runs}: no row says its {over}; give --over a setting", 1)
        axis = cost_axis(cells, over, joined=len(keys) < 2)
    else:
        cells, keys = _over_setting(runs, cells, over)
        findings, axis = find(cells), setting_axis(cells, keys)
    text = [loss_heading(findings), *loss_lines(findings, keys)]
    gained = any(finding.gains for finding in findings)
    if gained:
        text += ["", GAIN_HEADING, *gain_lines(findings, keys), "", *verdict_lines(findings, keys)]
    table = arm_table(findings, keys)
    if over in COSTS and over not in table:
        table[over] = [cost_of(frame, over) for cell in cells for frame in cell.arms.values()]
    arms = arm_names(arm for cell in cells for arm in cell.arms)
    about = f"numbers beside the points of thinking: {keys[0]}" if over in COSTS and len(keys) == 1 else ""
    verdict = "verdicts: in the table; intervals are not corrected for their number" if gained else ""
    beside = BESIDE if gained else ""
    notes = ["; ".join(filter(None, [beside, about, marks.left_out(arms)])), *filter(None, [verdict])]
    value = "gain of thinking" if gained else "loss"
    question = f"How does the {value} change with {axis.label.partition(' (')[0]}?"
    return Product(question, _figure(findings, axis, arms, keys), table, text, findings, keys, notes)


def _over_setting(runs: Path, cells: Sequence[Cell], over: str | None) -> tuple[list[Cell], list[str]]:
    """Return the cells in the order of a setting, or of several that change together, and their names."""
    names = differing(cells)
    known = {name for cell in cells for name in cell.settings}
    varied = [name for name in (*AXES, *names) if name in names] or [name for name in AXES if name in known]
    keys = [BASE] if over == ALL_WIDTHS else over.split(",") if over else varied[:1]
    for key in keys:
        if key in COSTS:
            raise Refusal(f"--over {over}: {key} is no setting, and an axis of its own; give --over {key}")
        if key not in known:
            near = difflib.get_close_matches(key, [*known, *COSTS], 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            costs = ", ".join(COSTS)
            raise Refusal(f"--over {key}: neither a setting of these cells nor one of {costs}{hint}")
        if not all(key in cell.settings for cell in cells):
            others = _having(cells, key) or "KEY=VALUE"
            raise Refusal(f"{runs}: has cells in which {key} has no effect; choose the others with {others}")
    more = f" over {','.join(keys)} (--over AXIS takes another, --over KEY,KEY two that change together)"
    return one_per_place(runs, cells, keys, more), keys


def _having(cells: Sequence[Cell], key: str) -> str | None:
    """Return the word that chooses the cells that have a setting, if there is one."""
    for name, spellings in differing(cells).items():
        with_it, without = (
            {value_of(c, name) for c in cells if (key in c.settings) == has} for has in (True, False)
        )
        if with_it.isdisjoint(without) and "–" not in with_it:
            return f"{name}={','.join(value for value in spellings if value in with_it)}"
    return None


def _figure(findings: Sequence[Finding], axis: Axis, arms: Sequence[str], keys: Sequence[str]) -> Figure:
    cells, shown = [finding.cell for finding in findings], marks.drawn(arms)
    gained = [arm for arm in shown if any(arm in finding.gains for finding in findings)]
    figure = style.new_figure(12, 4.4)
    left, *right = figure.subplots(1, 2 if gained else 1, squeeze=False)[0]
    floor = floor_of(cells)
    loss = _draw(left, axis, shown, [finding.losses for finding in findings])
    added = marks.fit([left], "y", loss, [] if floor is None else [floor])
    marks.draw_floor(left, floor)
    left.set(
        ylabel=f"held-out {loss_words(cell.loss for cell in cells)}, nats per counted position{added}",
        title="Loss: seeds, mean, 95 % interval",
    )
    if not axis.names and len(keys) == 1:
        _name_cells(left, axis, findings, keys[0])
    for axes in right:
        gain = _draw(
            axes, axis if axis.names else at_thinking(axis), gained, [finding.gains for finding in findings]
        )
        added = marks.fit([axes], "y", gain, [0.0])
        axes.axhline(0, color="black", linewidth=1, zorder=1)
        axes.set(
            ylabel=f"gain, nats{added}",
            title="Gain over each control (above 0: better)",
        )
    marks.legend(figure, loss, floor is not None)
    return figure


def _draw(
    axes: Axes, axis: Axis, arms: Sequence[str], values: Sequence[dict[str, pd.Series]]
) -> dict[str, list[pd.Series]]:
    """Draw the values of each cell and arm; return them by arm."""
    shown = {}
    for arm, share in zip(arms, marks.offsets(len(arms), axis.band), strict=True):
        having = [
            (place, cell[arm])
            for place, cell in zip(axis.places[arm], values, strict=True)
            if arm in cell and not math.isnan(place)
        ]
        if having:
            having.sort(key=lambda each: each[0])
            places = axis.shifted([place for place, _ in having], share if axis.together else 0.0)
            shown[arm] = [seeds for _, seeds in having]
            marks.draw_arm(axes, arm, places, shown[arm], joined=axis.joined)
    axis.finish(axes, len(shown))
    return shown


def _name_cells(axes: Axes, axis: Axis, findings: Sequence[Finding], key: str) -> None:
    """Write each cell's value of a setting beside the thinking run's mean."""
    arm, places = next(iter(axis.places.items()))
    for x, finding in zip(places, findings, strict=True):
        if arm in finding.losses and math.isfinite(x):
            write_beside(axes, x, finding.losses[arm].mean(), value_of(finding.cell, key))


if __name__ == "__main__":
    sys.exit(main())
