"""What the cells say in numbers: arms, gains paired by seed, verdicts, tables, what is missing."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from toyqs.evidence import style
from toyqs.evidence.cells import Cell
from toyqs.evidence.decision import verdict
from toyqs.evidence.gain import Interval, interval, reasoning_gain
from toyqs.evidence.selection import BASE, place_of
from toyqs.evidence.text import spans, spelled

LINE = 110  # columns of what is printed
COSTS = ("parameters", "flops_per_token", "train_steps", "cpu_seconds")
NLL_HEADING = "held-out NLL, nats per counted position, ± half of a 95 % t-interval over seeds:"
GAIN_HEADING = "gain of thinking over each control, nats, ± half of a 95 % t-interval, paired by seed:"
SHORT = {BASE: "base_width"}  # headings that would make a table too wide
NOTHING = Interval(math.nan, math.nan, 0)


class Finding(NamedTuple):
    """A cell and what its rows say."""

    cell: Cell
    losses: dict[str, pd.Series]  # each arm's held-out NLL by seed; an arm without a finished seed is absent
    gains: dict[str, pd.Series]  # of thinking over each control that has a seed in common, by seed
    verdict: str  # one of the words of evidence.verdict


def find(cell: Cell) -> Finding:
    """Pair the arms of a cell and judge it; a seed that diverged has NaN."""
    thinking, *controls = cell.arms
    # without their hundred other columns pairing rows is several times faster
    rows = {arm: frame[["seed", "nll"]] for arm, frame in cell.arms.items() if len(frame)}
    seeds = set(rows[thinking]["seed"]) if thinking in rows else set()
    losses = {arm: pd.to_numeric(frame.set_index("seed")["nll"]).astype(float) for arm, frame in rows.items()}
    gains = {
        arm: reasoning_gain(rows[thinking], rows[arm])
        for arm in controls
        if arm in rows and seeds & set(rows[arm]["seed"])
    }
    return Finding(cell, losses, gains, verdict(gains).word)


def arm_names(arms: Iterable[str]) -> list[str]:
    """Arms, each once, in the order of display."""
    found = dict.fromkeys(arms)
    known = [arm for arm in style.ARM_COLOURS if arm in found]
    return [*known, *(arm for arm in found if arm not in known)]


def estimate(values: pd.Series | None) -> Interval:
    """Mean and interval over seeds; of no seeds, NaN."""
    return NOTHING if values is None or values.empty else interval(values)


def arm_table(findings: Sequence[Finding], keys: Sequence[str]) -> pd.DataFrame:
    """One row per cell and arm.

    Returns:
        The cell's values of `keys`; `arm`, `seeds` (their number); `nll` and `gain` (of thinking over the
        arm, paired over `gain_seeds` seeds), each with its `_half_width` (95 % t over seeds); the costs, each
        a mean over seeds; `started`, how many seeds started to think; `verdict` beside the thinking arm.
    """
    rows = []
    for found in findings:
        for place, (arm, frame) in enumerate(found.cell.arms.items()):
            nll, over = estimate(found.losses.get(arm)), estimate(found.gains.get(arm))
            row: dict[str, Any] = {key: found.cell.settings.get(key) for key in keys}
            row |= {"arm": arm, "seeds": len(frame), "nll": nll.mean, "nll_half_width": nll.half_width}
            row |= {"gain_seeds": over.count, "gain": over.mean, "gain_half_width": over.half_width}
            row |= {name: frame[name].astype(float).mean() if name in frame else None for name in COSTS}
            known = frame["started"].dropna() if "started" in frame else ()
            row |= {"started": int(sum(known)) if len(known) else None}
            rows.append(row | {"verdict": None if place else found.verdict})
    return pd.DataFrame(rows).astype({"started": "Int64"})


def loss_lines(findings: Sequence[Finding], keys: Sequence[str]) -> list[str]:
    """A text table of every arm's NLL, one line per cell, after the cell's values of some settings."""
    arms = arm_names(arm for found in findings for arm in found.cell.arms)
    rows = [[_plus_minus(estimate(found.losses.get(arm))) for arm in arms] for found in findings]
    return _aligned(findings, keys, arms, rows)


def gain_lines(findings: Sequence[Finding], keys: Sequence[str]) -> list[str]:
    """A text table of the gain over every control and the verdict; see `loss_lines`."""
    arms = arm_names(arm for found in findings for arm in list(found.cell.arms)[1:])
    rows = [[_plus_minus(estimate(found.gains.get(arm)), "+") for arm in arms] for found in findings]
    rows = [[*row, found.verdict] for row, found in zip(rows, findings, strict=True)]
    return _aligned(findings, keys, [*arms, "verdict"], rows)


def _plus_minus(found: Interval, sign: str = "") -> str:
    if not found.count:
        return "–"
    if math.isnan(found.mean):
        return "diverged"
    return f"{found.mean:{sign}.3f}" + ("" if math.isnan(found.half_width) else f"±{found.half_width:.3f}")


def _aligned(
    findings: Sequence[Finding], keys: Sequence[str], headings: Sequence[str], rows: Sequence[Sequence[str]]
) -> list[str]:
    """Columns under two lines of headings, which break at an underscore; a verdict stands to the left."""
    values = [
        (SHORT.get(key, key), [spelled(found.cell.settings.get(key)) for found in findings]) for key in keys
    ]
    numbers = [(heading, [row[place] for row in rows]) for place, heading in enumerate(headings)]
    columns = []
    for heading, texts in values + numbers:
        first, _, second = heading.rpartition("_")
        columns.append([first, second, *texts])
    widths = [max(map(len, column)) for column in columns]
    verdicts = headings[-1:] == ["verdict"]
    lines = []
    for line in zip(*columns, strict=True):
        cells = [text.rjust(width) for text, width in zip(line, widths, strict=True)]
        lines.append("  ".join([*cells[:-1], line[-1]] if verdicts else cells).rstrip())
    return lines


def notes(findings: Sequence[Finding], keys: Sequence[str]) -> list[str]:
    """What a reader must know beside the numbers: seeds missing, diverged, and such as never thought."""
    lines = ["Missing: nothing that was asked for."]
    if missing := _said(findings, keys, _missing):
        lines = ["Missing, asked for but not finished:", *(f"  {line}" for line in missing)]
    if lost := _said(findings, keys, _diverged):
        text = f"Diverged, so no mean is given, which the other seeds would flatter: {'; '.join(lost)}."
        lines += textwrap.wrap(text, LINE)
    if never := _said(findings, keys, _never):
        lines += textwrap.wrap(f"Never started to think: {'; '.join(never)}.", LINE)
    return lines


def _said(findings: Iterable[Finding], keys: Sequence[str], tell: Callable[[Finding], str]) -> list[str]:
    told = [(place_of(found.cell, keys), tell(found)) for found in findings]
    return [f"{place}: {what}" if place else what for place, what in told if what]


def _missing(found: Finding) -> str:
    missing = found.cell.missing
    if missing and missing.keys() == found.cell.arms.keys() and not found.losses:
        return _seeds({"everything": set().union(*missing.values())})
    return _seeds(missing)


def _diverged(found: Finding) -> str:
    return _seeds({arm: loss.index[loss.isna()] for arm, loss in found.losses.items()})


def _never(found: Finding) -> str:
    thinking = next(iter(found.cell.arms.values()))
    if "started" not in thinking:
        return ""
    seeds = list(thinking.loc[thinking["started"].eq(False), "seed"])
    return _seeds({f"{len(seeds)} of {len(thinking)}": seeds})


def _seeds(found: Mapping[str, Collection[int]]) -> str:
    return ", ".join(f"{what} (seed {spans(seeds)})" for what, seeds in found.items() if len(seeds))


def origins(cells: Iterable[Cell]) -> str | None:
    """One line where the rows were made by several commits or results versions."""
    frames = [frame for cell in cells for frame in cell.arms.values() if len(frame)]
    parts = []
    for column, noun in (("commit", "commits"), ("results_version", "results versions")):
        found = {str(value) for frame in frames if column in frame for value in frame[column]}
        if len(found) > 1:
            parts.append(f"{len(found)} {noun} ({', '.join(sorted(found))})")
    return f"warning: these rows are of {' and '.join(parts)}" if parts else None


def floor_of(cells: Iterable[Cell]) -> float | None:
    """The least NLL possible (Bayes), where the task knows it and it is the same for all cells."""
    frames = [frame for cell in cells for frame in cell.arms.values() if "bayes_floor" in frame]
    found = {float(value) for frame in frames for value in frame["bayes_floor"].dropna()}
    return found.pop() if len(found) == 1 else None
