"""Cells in numbers: arms, gains paired by seed, verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from toyqs.evidence.arms import JUDGED
from toyqs.evidence.cells import Cell
from toyqs.evidence.judging.decision import Case, Verdict, verdicts
from toyqs.evidence.judging.gain import (
    by_seed,
    column_of,
    estimate,
    mean_of,
    paired_gains,
    reasoning_gain,
)
from toyqs.evidence.judging.significance import p_value
from toyqs.evidence.rows import ORIGINS
from toyqs.evidence.text import csv_text, plus_minus
from toyqs.files import write_text

COSTS = ("parameters", "recurrent_steps_per_token", "flops_per_token", "train_steps", "cpu_seconds")
OTHERS_ALONE = "judged by other sequences' thoughts alone: the model predicts nothing without a thought"


# Settings with which there is no plain model of another width: no weights of a wider one are given.
WITHOUT_WIDER = ("pretrained", "start_from", "infer_pretrained_base", "infer_pretrained_base_reasoner")


class Finding(NamedTuple):
    """A cell, its losses, its gains and its verdict."""

    cell: Cell
    losses: dict[str, pd.Series]  # of each arm by seed, see Cell.loss; one without a finished seed is absent
    # Of thinking over each control that has a seed in common, by seed; none of a run without thoughts.
    gains: dict[str, pd.Series]
    verdict: Verdict | None  # None: of a run without thoughts


def find(cells: Sequence[Cell]) -> list[Finding]:
    """Pair the arms of the cells of one table and judge them together; a seed that diverged has NaN.

    A verdict is corrected for the number of these cells, not counting those without thoughts: give all
    cells that are shown, or chosen among.
    """
    gains = [paired_gains(cell.arms, cell.loss) if cell.thinks else {} for cell in cells]
    cases = [_case(cell, over) for cell, over in zip(cells, gains, strict=True) if cell.thinks]
    judged = iter(verdicts(cases))
    findings = []
    for cell, over in zip(cells, gains, strict=True):
        losses = {arm: by_seed(frame, cell.loss) for arm, frame in cell.arms.items() if len(frame)}
        findings.append(Finding(cell, losses, over, next(judged) if cell.thinks else None))
    return findings


def _case(cell: Cell, gains: Mapping[str, pd.Series]) -> Case:
    """Return what a cell is judged by.

    A control that is the run itself gains nothing over it. One that is another control's run is judged once:
    under the judged control's name.
    """
    (thinking, frame), *controls = cell.arms.items()
    over = {arm: gains.get(arm, pd.Series(dtype=float)) for arm, _ in controls}
    absent = {"param_matched"} if any(map(cell.settings.get, WITHOUT_WIDER)) else set()
    for arm, other in cell.same.items():
        if other == thinking:
            over[arm] = reasoning_gain(frame, frame, cell.loss) if len(frame) else pd.Series(dtype=float)
        elif other in JUDGED:
            absent.add(arm)
        elif other in over:
            over[arm] = over[other]
    if "policy_off" not in {*over, *cell.not_run, *cell.same}:
        absent.add("policy_off")  # the plan of a run whose thoughts a policy loss trains knows it
    flags = started_flags(frame)
    seeds = frame.loc[flags.index, "seed"] if len(flags) else []
    return Case(over, flags.astype(bool).set_axis(seeds), absent, cell.settings.get("use_base_lm", True))


def verdict_text(finding: Finding) -> str:
    """Return a cell's verdict, "–" where it has none."""
    return finding.verdict.text if finding.verdict else "–"


def estimate_text(values: pd.Series | None, form: str, absent: str = "–", sign: str = " ± ") -> str:
    """Return mean ± half width over seeds, "diverged" where a seed did, `absent` where there is none."""
    mean, half_width, count = estimate(values)
    return plus_minus(mean, half_width, form, "diverged" if count else absent, sign)


def direction(gain: pd.Series) -> str:
    """Return "better", "worse" or "undecided": where the 95 % interval of a gain by seed lies."""
    found = estimate(gain)
    return "better" if found.lower > 0 else "worse" if found.upper < 0 else "undecided"


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


def arm_table(findings: Sequence[Finding], keys: Sequence[str] = ()) -> pd.DataFrame:
    """Return the cells as numbers, one row per cell and arm.

    Returns:
        The cell's values of `keys`; `arm`, `seeds` (their number); `nll` (`nll_joint` of a cell judged by
        it), `accuracy` and `gain` (of thinking over the arm, paired over `gain_seeds` seeds), each with its
        `_half_width` (95 % t over seeds); `joint_floor` where it is known; `gain_p`, two-sided and
        uncorrected; the costs, each a mean over seeds; `started`, how many seeds started to think. In the row
        of the run itself `verdict`, the word after correction for the number of cells, `verdict_p`, the
        largest of the p-values that it needs, and `verdict_uncorrected`, the word of the cell by itself.
    """
    rows = []
    for finding in findings:
        judged = finding.verdict
        for place, (arm, frame) in enumerate(finding.cell.arms.items()):
            row: dict[str, Any] = {key: finding.cell.settings.get(key) for key in keys}
            row |= {"arm": arm, "seeds": len(frame)}
            gain = finding.gains.get(arm, pd.Series(dtype=float))
            columns = {name: column_of(frame, name) for name in (finding.cell.loss, "accuracy")}
            columns["gain"] = gain
            for name, column in columns.items():
                row |= dict(zip((name, f"{name}_half_width"), estimate(column), strict=False))
            row |= {"gain_seeds": len(gain), "gain_p": p_value(gain)}
            if (floor := mean_of(frame, "joint_floor")) is not None:
                row["joint_floor"] = floor
            row |= {name: column_of(frame, name).mean() for name in COSTS}
            row |= {"started": num_started(frame), "verdict": None, "verdict_p": None}
            row["verdict_uncorrected"] = None
            if judged and not place:
                row |= {"verdict": judged.word, "verdict_p": judged.p, "verdict_uncorrected": judged.before}
            rows.append(row)
    return pd.DataFrame(rows).astype({"started": "Int64"})


def write_arm_table(findings: Sequence[Finding], keys: Sequence[str], path: Path | str) -> None:
    """Write `arm_table` as CSV so that a reader sees the whole file or none.

    Args:
        findings: of the cells; one of which nothing of the run itself has finished is left out.
        keys: as for `arm_table`.
        path: its folder exists.
    """
    finished = [finding for finding in findings if len(next(iter(finding.cell.arms.values())))]
    write_text(path, csv_text(arm_table(finished, keys)) if finished else "")


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
