"""Thinking against controls each of which was tuned as thinking was."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from toyqs.evidence.arms import THINKING, arm_names
from toyqs.evidence.cells import Cell, load_cells
from toyqs.evidence.judging.gain import by_seed, estimate, reasoning_gain
from toyqs.evidence.judging.significance import holm_bar, p_value
from toyqs.evidence.measures import measure_of
from toyqs.evidence.selection import differing, order
from toyqs.evidence.text import spans, spelled
from toyqs.files import Refusal

MEASURED = ("nll", "accuracy", "nll_deeper", "accuracy_deeper", "started")
LENGTH = "thought_length"  # a column where lengths differ
SPENT = ("flops_per_step", "train_steps", "cpu_seconds", "commit")

Point = tuple[Any, ...]  # values of the settings of a grid
Grid = dict[Point, pd.DataFrame]  # one row per seed, at each point


class Tuned(NamedTuple):
    """The arms of one setting, compared at their best points; thinking is the first."""

    measure: str  # the column to choose and compare by
    chosen: dict[str, Point]
    at_edge: dict[str, bool]  # whether that point has the largest value tried of some setting
    tuning: dict[str, pd.Series]  # the measure there, by seed of the tuning
    values: dict[str, pd.Series]  # the measure by seed of the report
    gains: dict[str, pd.Series]  # of thinking over each control by seed, above 0 where thinking is better
    rows: pd.DataFrame  # of all runs

    @property
    def words(self) -> dict[str, str]:
        """Return "better", "worse" or "undecided" for thinking against each control, corrected by Holm."""
        bar = holm_bar([_p(gain) for gain in self.gains.values()])
        sides = {arm: "better" if estimate(gain).mean > 0 else "worse" for arm, gain in self.gains.items()}
        return {arm: sides[arm] if _p(gain) <= bar else "undecided" for arm, gain in self.gains.items()}

    @property
    def verdict(self) -> str:
        """Return that thinking beats every control, or which it does not beat."""
        others = [arm for arm, word in self.words.items() if word != "better"]
        return f"does not beat {', '.join(others)}" if others else "beats every control"


def as_run(report: Path, measure: str) -> Tuned:
    """Compare the arms of one setting as they were run, none of them tuned; see `tuned_alike`.

    Args:
        report: a folder with one run of thoughts without a label, its controls, and runs with labels.
        measure: the column.

    Raises:
        Refusal: as there.
    """
    grids = _grids(report, ())
    seeds = _seeds(grids)
    for arm in arm_names(grids):
        _check(report, arm, (), (), grids[arm], seeds)
    best = {arm: grids[arm][()] for arm in arm_names(grids)}
    values = {arm: _column(report, frame, measure) for arm, frame in best.items()}
    chosen: dict[str, Point] = {arm: () for arm in best}
    edges = {arm: False for arm in best}
    return Tuned(measure, chosen, edges, {}, values, _gains(best, measure), _rows("report", grids, ()))


def tuned_alike(tune: Path, report: Path, by: Sequence[str], measure: str) -> Tuned:
    """Choose each arm's point of a grid in one folder of runs, and compare the arms there in another.

    An arm's point is the one with the best mean over the seeds of `tune`; of equal ones that of the least
    NLL, then the first. Of a measure in percent more is better, of others less. A run with a label
    (info=NAME) is one more arm of that name.

    Args:
        tune: the folder to choose by; every arm has every point that thinking has, and perhaps others.
        report: the folder to compare in.
        by: the settings of the grid.
        measure: the column.

    Raises:
        Refusal: one line; there are no runs, an arm lacks runs or the measure, or a seed is in both folders.
    """
    tried, reported = _grids(tune, by), _grids(report, by)
    seeds = {folder: _seeds(grids) for folder, grids in ((tune, tried), (report, reported))}
    if both := seeds[tune] & seeds[report]:
        raise Refusal(f"{report}: settings were chosen by seed {spans(both)} in {tune}; report other seeds")
    if new := sorted(reported.keys() - tried.keys()):
        raise Refusal(f"{tune}: {new[0]} is in {report} and was not tuned here; run it here as well")
    chosen, at_edge, tuning, best = {}, {}, {}, {}
    for arm in arm_names(tried):
        for point in tried[THINKING]:
            _check(tune, arm, by, point, tried[arm], seeds[tune])
        found = {point: _column(tune, frame, measure) for point, frame in tried[arm].items()}
        chosen[arm] = point = max(found, key=lambda x: _rank(found[x], tried[arm][x], measure))
        tuning[arm] = found[point]
        at_edge[arm] = len(found) > 1 and _is_largest(point, found)
        _check(report, arm, by, point, reported.get(arm, {}), seeds[report])
        best[arm] = reported[arm][point]
    rows = pd.concat([_rows("tune", tried, by), _rows("report", reported, by)], ignore_index=True)
    values = {arm: _column(report, frame, measure) for arm, frame in best.items()}
    return Tuned(measure, chosen, at_edge, tuning, values, _gains(best, measure), rows)


def point_text(point: Point) -> str:
    """Return a point's values as typed, "0.1, 2000"; – for one that does not matter there."""
    return ", ".join("–" if x is None else spelled(x) for x in point)


def _gains(best: Mapping[str, pd.DataFrame], measure: str) -> dict[str, pd.Series]:
    """Return what thinking gains over each other arm by seed."""
    sign = -1.0 if _more_is_better(measure) else 1.0
    controls = [arm for arm in best if arm != THINKING]
    return {arm: sign * reasoning_gain(best[THINKING], best[arm], measure) for arm in controls}


def _grids(folder: Path, by: Sequence[str]) -> dict[str, Grid]:
    """Return the finished rows of each arm at each point."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of several commits, which the rows name, and of what is missing
            cells = load_cells(folder)
    except (OSError, ValueError) as error:
        raise Refusal(str(error)) from None
    unlabelled = [cell for cell in cells if not cell.settings.get("info")]
    if not any(cell.thinks and len(cell.arms[THINKING]) for cell in unlabelled):
        raise Refusal(f"{folder}: no thinking run has finished here", 1)
    if other := sorted(differing(unlabelled).keys() - set(by)):
        raise Refusal(
            f"{folder}: the cells differ in {', '.join(other)} too; name it as a setting of the grid"
        )
    grids: dict[str, Grid] = {}
    for cell in cells:
        point = tuple(cell.settings.get(key) for key in by)
        for arm, frame in _arms(cell).items():
            if len(frame):
                grid = grids.setdefault(arm, {})
                rows = pd.concat([grid.get(point, frame), frame]).drop_duplicates("key").sort_values("seed")
                if rows["seed"].duplicated().any():
                    where = f"{', '.join(by)} = {point_text(point)}"
                    raise Refusal(f"{folder}: {arm} has several runs of a seed at {where}; add what differs")
                grid[point] = rows
    ascending = [
        (arm, sorted(grid, key=lambda point: [order(x) for x in point])) for arm, grid in grids.items()
    ]
    return {arm: {point: grids[arm][point] for point in points} for arm, points in ascending}


def _arms(cell: Cell) -> Mapping[str, pd.DataFrame]:
    """Return the rows of a cell's arms; of a cell with a label those of the run itself, under that name."""
    if label := cell.settings.get("info"):
        return {label: next(iter(cell.arms.values()))}
    return {**cell.arms, **{arm: cell.arms[other] for arm, other in cell.same.items() if other in cell.arms}}


def _seeds(grids: Mapping[str, Grid]) -> set[int]:
    """Return the seeds that thinking has at some point."""
    return {int(seed) for frame in grids[THINKING].values() for seed in frame.get("seed", ())}


def _check(folder: Path, arm: str, by: Sequence[str], point: Point, grid: Grid, seeds: Iterable[int]) -> None:
    """Refuse an arm that lacks a seed at a point."""
    have = set(grid[point].get("seed", ())) if point in grid else set()
    if lacking := set(seeds) - have:
        raise Refusal(
            f"{folder}: {arm} lacks seed {spans(lacking)} at {', '.join(by)} = {point_text(point)}; run it"
        )


def _column(folder: Path, frame: pd.DataFrame, measure: str) -> pd.Series:
    """Return the measure by seed, NaN where a run diverged."""
    if measure not in frame:
        raise Refusal(f"{folder}: the rows have no {measure}; give another column, such as nll or accuracy")
    return by_seed(frame, measure)


def _more_is_better(measure: str) -> bool:
    return measure_of(measure).form == "%"


def _rank(values: pd.Series, frame: pd.DataFrame, measure: str) -> tuple[bool, float, float]:
    """Return what is largest for the best point; one at which a seed diverged is below all others."""
    mean, loss = estimate(values).mean, estimate(by_seed(frame, "nll")).mean
    lost = math.isnan(mean)
    return not lost, 0.0 if lost else mean if _more_is_better(measure) else -mean, -loss


def _is_largest(point: Point, grid: Iterable[Point]) -> bool:
    """Tell whether a point has the largest of several values of some setting."""
    tried = zip(point, *grid, strict=True)
    return any(len(set(values)) > 1 and order(own) == max(map(order, values)) for own, *values in tried)


def _p(gain: pd.Series) -> float:
    """Return the two-sided p-value of gains; 1 where a run diverged or there is one seed."""
    p = p_value(gain)
    return 1.0 if math.isnan(p) else p


def _rows(part: str, grids: Mapping[str, Grid], by: Sequence[str]) -> pd.DataFrame:
    """Return all runs: part, arm, point, seed, what they measured and spent."""
    tables = []
    for arm in arm_names(grids):
        for point, frame in grids[arm].items():
            length = [LENGTH] if LENGTH in frame and frame[LENGTH].notna().any() else []
            table = frame.reindex(columns=["seed", *MEASURED, *length, *SPENT]).round(6)
            own = {"part": part, "arm": arm, **dict(zip(by, map(spelled, point), strict=True))}
            table["commit"] = table["commit"].str[:7]
            tables.append(table.assign(**own)[[*own, *table]])
    return pd.concat(tables, ignore_index=True)
