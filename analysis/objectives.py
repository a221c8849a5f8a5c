"""Compare objectives on one task: what each gains, what it costs, how clear its gradient is."""

from __future__ import annotations

import math
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

if not __package__:  # called as a file, in a checkout
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toyqs.evidence.cells import Cell
from toyqs.evidence.figures import marks, style
from toyqs.evidence.figures.script import Product, run_script
from toyqs.evidence.judging.findings import (
    OTHERS_ALONE,
    Finding,
    find,
    num_started,
    started_text,
    verdict_text,
)
from toyqs.evidence.judging.gain import estimate, onset
from toyqs.evidence.measures import loss_words
from toyqs.evidence.rows import by_step
from toyqs.evidence.selection import differing, telling_apart, thinking_cells, value_of
from toyqs.evidence.tables.layout import Column, plain_text, varying
from toyqs.evidence.text import WIDTH, plus_minus, short
from toyqs.files import Refusal

if TYPE_CHECKING:  # a notebook's MPLBACKEND stops matplotlib's import, unless toyqs comes first
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DESCRIPTION = """\
Draw for every objective in a folder, and every number of thoughts K, what thinking gains over zero-length
thoughts (every seed's point, means and 95 % t-intervals), the CPU seconds of a seed and the
signal-to-noise ratio of the policy's gradient. Print them as a table, with the step from which thinking is
better beyond chance. Run the objectives with controls=fair; without a zero-length control the held-out NLL
takes the place of the gain."""

QUESTION = {
    "gain": "With which objective do thoughts gain most?",
    "nll": "Which objective has the least loss?",
}
NUMBER, CONTROL = "trice_samples", "zero_length"
NAMING = ("objective", "thoughts", "reward", "baseline", "advantage_scale", "value_sees")
LEGEND = """\
gain: over zero-length thoughts, paired by seed; from step: the evaluation from which on it is above 0
beyond chance; started: seeds whose thoughts are used at the end; SNR: signal-to-noise ratio of the
policy's gradient, the mean of its measures over the training; ±: half of a 95 % t-interval over seeds"""
MOST = 40  # rows that can still be read
BAND = 0.8  # of a row's height, for the marks of all K
SHADES = ("#85C1E9", "#2E75B6", "#08306B", "#000000")


class Line(NamedTuple):
    """One objective at one K; each series is indexed by seed."""

    name: str
    number: int  # K
    finding: Finding
    nll: pd.Series
    gain: pd.Series  # over zero_length
    seconds: pd.Series
    snr: pd.Series
    onset: int | None
    started: int | None  # seeds


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line described by DESCRIPTION; return the exit code."""
    return run_script(objectives, DESCRIPTION, "objectives.png", words)


def objectives(runs: Path, cells: Sequence[Cell]) -> Product:
    """Make figure and table of the cells of a sweep over objectives, and perhaps over K.

    Args:
        runs: their folder.
        cells: those chosen; plain models and zero-length thoughts among them are left out.
    """
    cells = [cell for cell in thinking_cells(runs, cells) if cell.thinks]
    if not cells:
        raise Refusal(f"{runs}: zero-length thoughts only; no objective to compare with them", 1)
    apart = telling_apart(cells, (NUMBER, *NAMING))
    keys = [*apart, *(key for key in NAMING if key in differing(cells) and key not in apart)]
    lines = [_line(runs, *each) for each in zip(find(cells), names(cells, keys), strict=True)]
    judged = "gain" if any(len(line.gain) for line in lines) else "nll"
    best = _best(lines, judged)
    if len(best) > MOST:
        raise Refusal(f"{runs}: {len(best)} objectives, more than {MOST}; choose among them with KEY=VALUE")
    lines.sort(key=lambda line: (-best[line.name], line.name, line.number))
    findings = [line.finding for line in lines]
    text = [*_text(lines), *textwrap.wrap(unsaid(cells, keys), WIDTH)]
    return Product(QUESTION[judged], _figure(lines, judged), _table(lines), text, findings, apart)


def names(cells: Sequence[Cell], keys: Sequence[str]) -> list[str]:
    """Name each cell's objective: `objective`, and the settings that few other cells have.

    Settings of NAMING are given by their value alone, others as KEY=VALUE.

    Args:
        cells: of a sweep.
        keys: the settings that names may hold.
    """
    usual, named = _usual(cells, keys), []
    for cell in cells:
        values = {key: value_of(cell, key) for key in usual if key in cell.settings}
        unusual = [x if key in NAMING else f"{key}={x}" for key, x in values.items() if x != usual[key]]
        named.append(" ".join([str(cell.settings.get("objective")), *unusual]))
    return named


def unsaid(cells: Sequence[Cell], keys: Sequence[str]) -> str:
    """Return what the `names` of cells leave out: usual values, and other settings that differ; or ""."""
    hidden = {key: value for key, value in _usual(cells, keys).items() if key in differing(cells)}
    said = {*keys, "objective", NUMBER}
    other = {name: values for name, values in differing(cells).items() if name not in said}
    for name in [*other]:  # such as train_nll_num, which is K where it is not given
        if all(cell.settings.get(name) == cell.settings.get(NUMBER) for cell in cells):
            del other[name]
    usual = "; ".join(f"{key}={value}" for key, value in hidden.items())
    differ = "; ".join(f"{name}={','.join(values)}" for name, values in other.items())
    sentences = [f"Where a name says no other: {usual}."] if usual else []
    sentences += [f"Different too, but in no name: {differ}."] if differ else []
    return " ".join(sentences)


def _usual(cells: Sequence[Cell], keys: Sequence[str]) -> dict[str, str]:
    """Return the value that most of the cells that have a setting share, for each setting of a name."""
    found = {key: [value_of(cell, key) for cell in cells if key in cell.settings] for key in keys}
    return {
        key: Counter(values).most_common(1)[0][0]
        for key, values in found.items()
        if values and key not in (NUMBER, "objective")
    }


def _line(runs: Path, finding: Finding, name: str) -> Line:
    cell = finding.cell
    arm, thinking = next(iter(cell.arms.items()))
    nothing = pd.Series(dtype=float)
    rows = thinking.set_index("seed") if len(thinking) else thinking
    seconds, snr = (rows[x].astype(float) if x in rows else nothing for x in ("cpu_seconds", "policy_snr"))
    control = cell.arms.get(CONTROL)
    return Line(
        name,
        cell.settings[NUMBER],
        finding,
        nll=finding.losses.get(arm, nothing),
        gain=finding.gains.get(CONTROL, nothing),
        seconds=seconds,
        snr=snr.dropna(),
        onset=None
        if control is None
        else onset(*(by_step(runs, rows, cell.loss) for rows in (thinking, control))),
        started=num_started(thinking),
    )


def _best(lines: Sequence[Line], judged: str) -> dict[str, float]:
    """Return the greatest mean gain of each objective over its K, or minus its least NLL."""
    best: dict[str, float] = {}
    for line in lines:
        mean = estimate(line.gain).mean if judged == "gain" else -estimate(line.nll).mean
        best[line.name] = max(best.get(line.name, -math.inf), -math.inf if math.isnan(mean) else mean)
    return best


def _table(lines: Sequence[Line]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for line in lines:
        row: dict[str, Any] = {"objective": line.name, "K": line.number, "seeds": len(line.nll)}
        for column in ("nll", "gain", "snr"):
            mean, half_width, _ = estimate(getattr(line, column))
            row |= {column: mean, f"{column}_half_width": half_width}
        row |= {"onset": line.onset, "cpu_seconds": estimate(line.seconds).mean, "started": line.started}
        rows.append(row | {"verdict": verdict_text(line.finding)})
    return pd.DataFrame(rows).astype({"onset": "Int64", "started": "Int64"})


def _text(lines: Sequence[Line]) -> list[str]:
    """Return the table as text."""
    started = [started_text(next(iter(line.finding.cell.arms.values()))) or "–" for line in lines]
    columns = [
        Column("", "objective", [line.name for line in lines], left=True),
        Column("", "K", [str(line.number) for line in lines]),
        Column(_words(lines), "nats", [plus_minus(*estimate(line.nll)[:2], ".3f") for line in lines]),
        Column("gain", "nats", [plus_minus(*estimate(line.gain)[:2], "+.3f") for line in lines]),
        Column("from", "step", ["–" if line.onset is None else str(line.onset) for line in lines]),
        Column("", "started", started),
        Column("", "SNR", [plus_minus(*estimate(line.snr)[:2], ".2f") for line in lines]),
        Column("CPU s", "/seed", [_seconds(line) for line in lines]),
    ]
    shown, said = varying(columns, ("objective", f"{_words(lines)} nats", "gain nats"))
    same = [f"the same in every line: {'; '.join(said)}"] if said else []
    alone = [f"*: {OTHERS_ALONE}"] if any("*" in text for text in started) else []
    return [*plain_text(shown), "", *same, *LEGEND.splitlines(), *alone]


def _words(lines: Sequence[Line]) -> str:
    return loss_words(line.finding.cell.loss for line in lines)


def _seconds(line: Line) -> str:
    return short(line.seconds.mean(), ".1f") if len(line.seconds) else "–"


def _figure(lines: Sequence[Line], judged: str) -> Figure:
    rows = list(dict.fromkeys(line.name for line in lines))
    numbers = sorted({line.number for line in lines})
    figure = style.new_figure(13, 1.0 + (0.25 + 0.12 * len(numbers)) * len(rows))
    panels = figure.subplots(1, 3, sharey=True, width_ratios=(2, 1, 1))
    shift = dict(zip(numbers, marks.offsets(len(numbers), BAND), strict=True))
    colours = {number: SHADES[min(place, len(SHADES) - 1)] for place, number in enumerate(numbers)}
    for axes, column in zip(panels, (judged, "seconds", "snr"), strict=True):
        for line in lines:
            place = rows.index(line.name) + shift[line.number]
            _mark(axes, place, getattr(line, column), colours[line.number])
        marks.label_rows(axes, [textwrap.fill(row, 36) for row in rows])
    if judged == "gain":
        panels[0].axvline(0, color="black", linewidth=1, zorder=1)
    panels[2].axvline(0, color="black", linewidth=1, zorder=1)
    panels[1].set_xlim(left=0)
    panels[2].set_xscale("symlog", linthresh=1.0)
    labels = (
        "gain over zero-length thoughts, nats" if judged == "gain" else f"held-out {_words(lines)}, nats",
        "CPU seconds a seed",
        "signal-to-noise of the policy\n(linear to ±1,\nlogarithmic beyond)",
    )
    for axes, label in zip(panels, labels, strict=True):
        axes.set_xlabel(label)
    handles = [marks.handle(colours[x], f"K = {x}") for x in numbers]
    figure.legend(handles=handles)
    return figure


def _mark(axes: Axes, place: float, values: pd.Series, colour: str) -> None:
    """Draw every seed's point, the mean and its interval, along x."""
    values = values.dropna()
    if values.empty:
        return
    mean, half_width, _ = estimate(values)
    half = 0.0 if math.isnan(half_width) else half_width
    axes.errorbar(
        [mean], [place], xerr=[half], fmt="o", color=colour, markersize=style.points(4.5), capsize=2
    )
    axes.scatter(
        values,
        [place] * len(values),
        color=colour,
        s=style.points(3) ** 2,
        alpha=0.45,
        linewidths=0,
        zorder=3,
    )


if __name__ == "__main__":
    sys.exit(main())
