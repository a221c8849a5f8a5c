"""What a run starts from, and what that start is worth: steps and CPU time to the same loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from toyqs.evidence.cells import Cell
from toyqs.evidence.judging.gain import by_seed
from toyqs.evidence.rows import held_out

SCRATCH = "from scratch"
Row = Mapping[Any, Any]


class Kind(NamedTuple):
    """Runs that think and start from runs of one kind, each seed from its own."""

    name: str
    cell: Cell  # of all its seeds: the run itself first, then its controls
    curves: dict[int, pd.Series]  # seed -> held-out loss by step
    before: dict[int, list[Row]]  # seed -> the rows of the runs that came before, the last first

    @property
    def runs(self) -> pd.DataFrame:
        """Return the rows of the runs that think, one per seed."""
        return next(iter(self.cell.arms.values()))

    def steps_to(self, level: float) -> pd.Series:
        """Return by seed the first step at which the held-out loss is no greater; NaN: at none."""
        found = {}
        for seed, curve in self.curves.items():
            there = curve.index[curve <= level]
            found[seed] = float(there[0]) if len(there) else math.nan
        return pd.Series(found, dtype=float)

    def total_before(self, column: str) -> pd.Series:
        """Return by seed the sum of a column of the rows of all runs that came before."""
        return pd.Series(
            {seed: float(sum(row[column] for row in rows)) for seed, rows in self.before.items()}
        )

    def cpu_to(self, level: float) -> pd.Series:
        """Return by seed the CPU seconds to that loss, those of the runs before among them.

        A run's CPU seconds are spread evenly over its steps.
        """
        share = self.steps_to(level) / by_seed(self.runs, "train_steps")
        return self.total_before("cpu_seconds") + share * by_seed(self.runs, "cpu_seconds")


def kinds_of(runs: Path, cells: Sequence[Cell], finished: Mapping[str, Row]) -> list[Kind]:
    """Put cells that think together by what they start from.

    Args:
        runs: their folder, which holds the runs that they start from too.
        cells: those chosen, with rows.
        finished: key -> row, of all runs of the folder.

    Returns:
        Those from scratch first, then the others in the order of their names.

    Raises:
        KeyError: a run that one starts from is not in the folder.
        ValueError: two cells of one kind have a seed in common.
    """
    found: dict[str, list[tuple[Cell, list[Row]]]] = {}
    for cell in cells:
        before = _before(cell.settings.get("start_from"), finished)
        found.setdefault(_name(before), []).append((cell, before))
    names = sorted(found, key=lambda name: (name != SCRATCH, name))
    return [_kind(runs, name, found[name]) for name in names]


def _before(start: str | None, finished: Mapping[str, Row]) -> list[Row]:
    """Return the rows of the run that one starts from, of the run that this one started from, and so on."""
    rows: list[Row] = []
    while isinstance(start, str):
        row = finished[Path(start).name]
        rows.append(row)
        start = row.get("start_from")
    return rows


def _name(before: Sequence[Row]) -> str:
    if not before:
        return SCRATCH
    stages = [_stage(row) for row in reversed(before)]
    return f"after {', then '.join(stages)}"


def _stage(row: Row) -> str:
    if row.get("stage") == "bake":
        return "baking"
    what = "thinking" if row.get("use_reasoner") else "NLL"
    return f"{what} with hints" if row.get("hint_share") else what


def _kind(runs: Path, name: str, members: Sequence[tuple[Cell, list[Row]]]) -> Kind:
    cell = _pooled([cell for cell, _ in members], name)
    frame = next(iter(cell.arms.values()))
    rows = zip(frame["key"], frame["seed"], strict=True)
    curves = {int(seed): held_out(runs, key, cell.loss) for key, seed in rows}
    before = {int(seed): rows for each, rows in members for seed in next(iter(each.arms.values()))["seed"]}
    return Kind(name, cell, curves, before)


def _pooled(cells: Sequence[Cell], name: str) -> Cell:
    """Return the cells as one, without the settings that name each one's start."""
    first = cells[0]
    arms: dict[str, pd.DataFrame] = {}
    for arm in dict.fromkeys(arm for cell in cells for arm in cell.arms):
        frames = [cell.arms[arm] for cell in cells if arm in cell.arms and len(cell.arms[arm])]
        arms[arm] = (
            pd.concat(frames).sort_values("seed", ignore_index=True)
            if frames
            else first.arms.get(arm, pd.DataFrame())
        )
        if len(arms[arm]) and not arms[arm]["seed"].is_unique:
            raise ValueError(f"runs {name}: two of them have one seed; choose with KEY=VALUE")
    missing = {
        arm: sorted(seed for cell in cells for seed in cell.missing.get(arm, []))
        for arm in dict.fromkeys(arm for cell in cells for arm in cell.missing)
    }
    given = {key: value for key, value in first.settings.items() if not key.startswith("start_from")}
    if name != SCRATCH:
        given["start_from"] = name
    return first._replace(settings=given, arms=arms, missing=missing)
