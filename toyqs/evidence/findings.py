"""Cells in numbers: arms, gains paired by seed, verdicts, tables, what is missing."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from toyqs.evidence.arms import arm_names
from toyqs.evidence.cells import Cell
from toyqs.evidence.decision import verdict
from toyqs.evidence.divergence import divergence_notes
from toyqs.evidence.gain import by_seed, estimate, paired_gains
from toyqs.evidence.rows import ORIGINS
from toyqs.evidence.selection import BASE, place_of, value_of
from toyqs.evidence.text import WIDTH, aligned, plus_minus, spans

COSTS = ("parameters", "flops_per_token", "train_steps", "cpu_seconds")
NLL_HEADING = "held-out NLL, nats per counted position, ± half of a 95 % t-interval over seeds:"
GAIN_HEADING = "gain of thinking over each control, nats, ± half of a 95 % t-interval, paired by seed:"
OTHERS_ALONE = "judged by other sequences' thoughts alone: the model predicts nothing without a thought"
SHORT = {BASE: "base_width"}  # headings that would make a table too wide


class Finding(NamedTuple):
    """A cell, its losses, its gains and its verdict."""

    cell: Cell
    losses: dict[str, pd.Series]  # each arm's held-out NLL by seed; an arm without a finished seed is absent
    gains: dict[str, pd.Series]  # of thinking over each control that has a seed in common, by seed
    verdict: str  # one of the words of evidence.verdict


def find(cell: Cell) -> Finding:
    """Pair the arms of a cell and judge it; a seed that diverged has NaN."""
    losses = {arm: by_seed(frame, "nll") for arm, frame in cell.arms.items() if len(frame)}
    gains = paired_gains(cell.arms)
    return Finding(cell, losses, gains, verdict(gains).word)


def estimate_text(values: pd.Series | None, form: str, absent: str = "–", sign: str = " ± ") -> str:
    """Return mean ± half width over seeds, "diverged" where a seed did, `absent` where there is none."""
    mean, half_width, count = estimate(values)
    return plus_minus(mean, half_width, form, "diverged" if count else absent, sign)


def started_flags(frame: pd.DataFrame) -> pd.Series:
    """Return whether each seed of an arm started to think; seeds of which it is not known are left out."""
    return frame["started"].dropna() if "started" in frame else pd.Series(dtype=bool)


def num_started(frame: pd.DataFrame) -> int | None:
    """Return how many seeds of an arm started to think; None where it is known of none."""
    flags = started_flags(frame)
    return int(flags.sum()) if len(flags) else None


def started_text(frame: pd.DataFrame) -> str:
    """Return how many seeds of an arm started, "3 of 4"; with a * where OTHERS_ALONE holds; "" if unknown."""
    flags = started_flags(frame)
    if not len(flags):
        return ""
    return f"{int(flags.sum())} of {len(flags)}{'' if without_thought(frame) else ' *'}"


def without_thought(frame: pd.DataFrame) -> bool:
    """Tell whether the rows of an arm say what its model predicts without a thought; diverged ones cannot."""
    known = frame[frame["nll"].notna()] if len(frame) else frame
    return known.empty or ("nll_no_thought" in known and bool(known["nll_no_thought"].notna().any()))


def arm_table(findings: Sequence[Finding], keys: Sequence[str]) -> pd.DataFrame:
    """Return one row per cell and arm.

    Returns:
        The cell's values of `keys`; `arm`, `seeds` (their number); `nll` and `gain` (of thinking over the
        arm, paired over `gain_seeds` seeds), each with its `_half_width` (95 % t over seeds); the costs, each
        a mean over seeds; `started`, how many seeds started to think; `verdict` in the thinking arm's row.
    """
    rows = []
    for finding in findings:
        for place, (arm, frame) in enumerate(finding.cell.arms.items()):
            nll, over = estimate(finding.losses.get(arm)), estimate(finding.gains.get(arm))
            row: dict[str, Any] = {key: finding.cell.settings.get(key) for key in keys}
            row |= {"arm": arm, "seeds": len(frame), "nll": nll.mean, "nll_half_width": nll.half_width}
            row |= {"gain_seeds": over.count, "gain": over.mean, "gain_half_width": over.half_width}
            row |= {name: frame[name].astype(float).mean() if name in frame else None for name in COSTS}
            row["started"] = num_started(frame)
            rows.append(row | {"verdict": None if place else finding.verdict})
    return pd.DataFrame(rows).astype({"started": "Int64"})


def loss_lines(findings: Sequence[Finding], keys: Sequence[str]) -> list[str]:
    """Return a text table of every arm's NLL, one line per cell, after the cell's values of some settings."""
    arms = arm_names(arm for finding in findings for arm in finding.cell.arms)
    return _lines(findings, keys, _texts([finding.losses for finding in findings], arms, ".3f"))


def gain_lines(findings: Sequence[Finding], keys: Sequence[str]) -> list[str]:
    """Return a text table of the gain over every control and the verdict; see `loss_lines`."""
    arms = arm_names(arm for finding in findings for arm in list(finding.cell.arms)[1:])
    gains = _texts([finding.gains for finding in findings], arms, "+.3f")
    return _lines(findings, keys, gains | {"verdict": [finding.verdict for finding in findings]})


def _texts(cells: Sequence[Mapping[str, pd.Series]], arms: Sequence[str], form: str) -> dict[str, list[str]]:
    return {arm: [estimate_text(values.get(arm), form, sign="±") for values in cells] for arm in arms}


def _lines(findings: Sequence[Finding], keys: Sequence[str], texts: dict[str, list[str]]) -> list[str]:
    """Return columns under two lines of headings, which break at an underscore; a verdict is left-aligned."""
    settings = {key: [value_of(finding.cell, key) for finding in findings] for key in keys}
    headed = [(SHORT.get(key, key), column) for key, column in (settings | texts).items()]
    columns = [[*heading.rpartition("_")[::2], *column] for heading, column in headed]
    return aligned(columns, left=[len(columns) - 1] if "verdict" in texts else [])


def notes(findings: Sequence[Finding], keys: Sequence[str]) -> list[str]:
    """Return what a reader must know in addition: which seeds are missing, diverged or never thought.

    Args:
        findings: of the cells shown.
        keys: the settings that name a cell.
    """
    lines = ["Missing: nothing that was asked for."]
    if missing := _by_cell(findings, keys, _missing):
        lines = ["Missing, asked for but not finished:", *(f"  {line}" for line in missing)]
    for note in _by_cell(findings, keys, _divergence):
        lines += textwrap.wrap(note, WIDTH)
    if never := _by_cell(findings, keys, _never):
        lines += textwrap.wrap(f"Never started to think: {'; '.join(never)}.", WIDTH)
    return lines


def _by_cell(
    findings: Iterable[Finding], keys: Sequence[str], describe: Callable[[Finding], str]
) -> list[str]:
    """Return the description of each cell that has one, after the cell's name."""
    described = [(place_of(finding.cell, keys), describe(finding)) for finding in findings]
    return [f"{place}: {text}" if place else text for place, text in described if text]


def _missing(finding: Finding) -> str:
    missing = finding.cell.missing
    if missing and missing.keys() == finding.cell.arms.keys() and not finding.losses:
        return _seeds({"everything": set().union(*missing.values())})
    return _seeds(missing)


def _divergence(finding: Finding) -> str:
    return " ".join(divergence_notes(finding.cell.arms))


def _never(finding: Finding) -> str:
    thinking = next(iter(finding.cell.arms.values()))
    if "started" not in thinking:
        return ""
    seeds = list(thinking.loc[thinking["started"].eq(False), "seed"])
    return _seeds({f"{len(seeds)} of {len(thinking)}": seeds})


def _seeds(named: Mapping[str, Collection[int]]) -> str:
    return ", ".join(f"{name} (seed {spans(seeds)})" for name, seeds in named.items() if len(seeds))


def origins(cells: Iterable[Cell]) -> str | None:
    """Return a warning in one line where several commits or results versions made the rows; else None."""
    frames = [frame for cell in cells for frame in cell.arms.values() if len(frame)]
    parts = []
    for column, noun in ORIGINS.items():
        values = {str(value) for frame in frames if column in frame for value in frame[column]}
        if len(values) > 1:
            parts.append(f"{len(values)} {noun} ({', '.join(sorted(values))})")
    return f"warning: these rows are of {' and '.join(parts)}" if parts else None


def floor_of(cells: Iterable[Cell]) -> float | None:
    """Return the least possible NLL (Bayes) where the task knows it and all cells share it; else None."""
    frames = [frame for cell in cells for frame in cell.arms.values() if len(frame)]
    if not all("bayes_floor" in frame and frame["bayes_floor"].notna().all() for frame in frames):
        return None
    floors = {float(value) for frame in frames for value in frame["bayes_floor"]}
    return floors.pop() if len(floors) == 1 else None
