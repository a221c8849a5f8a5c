"""Run a command: plan its cells, train their runs on the available cores, print the report."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from toyqs.assets.pretrained import CheckpointError
from toyqs.config.builders.model import count_parameters
from toyqs.config.identity import settings
from toyqs.config.inactive import inactive_keys
from toyqs.config.run_config import RunConfig
from toyqs.evidence.cells import name_of, write_cell
from toyqs.evidence.comparison import comparison_csv, comparison_figure, comparison_table
from toyqs.evidence.overview import sweep_csv, sweep_table
from toyqs.evidence.rows import load_curve, load_rows
from toyqs.sweep.plan import (
    PlannedCell,
    Stack,
    cached_cost,
    differences,
    plan_cell,
    stacks_of,
)
from toyqs.sweep.progress import Progress
from toyqs.sweep.scheduler import Failure, run_all
from toyqs.sweep.worker import is_settled
from toyqs.training.flops import Cost


def main(configs: Sequence[RunConfig], *, sweep: bool = False) -> int:
    """Train runs and their controls, skip those that are complete, print the table.

    Args:
        configs: checked and resolved, with one folder of runs.
        sweep: train in worker processes even one stack at a time, so that no failure stops the other stacks.

    Returns:
        0, or 1 where a run failed, or 2 where the folder of runs cannot be made.
    """
    runs_dir, force = configs[0].runs_dir, any(config.force for config in configs)
    try:
        Path(runs_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = f"cannot be made ({error.strerror}); give a folder of your own"
        print(f"toyqs: runs_dir={runs_dir}: {why}", file=sys.stderr)
        return 2
    cost = cached_cost()
    cells, unbuildable = _plan(configs, cost)
    if not cells:
        return 1
    for cell in cells:
        columns = settings(cell.config, cell.seeds[0])
        write_cell(runs_dir, columns, cell.keys, cell.arms, inactive_keys(cell.config))
    keys = {key for cell in cells for key in cell.run_keys}
    undone = {key for key in keys if force or not is_settled(runs_dir, key)}
    if done := len(keys) - len(undone):
        print(f"{done} of {len(keys)} runs are complete already", flush=True)
    stacks = stacks_of(cells, undone, cost)
    progress = Progress(stacks, done)
    try:
        failures = run_all(stacks, _processes(configs, stacks), progress, isolate=sweep) if stacks else []
    finally:
        progress.close()
    _report(runs_dir, cells)
    for failure in failures:
        print(f"toyqs: {_describe(failure)}", file=sys.stderr)
    return 1 if failures or unbuildable else 0


def _plan(configs: Sequence[RunConfig], cost: Callable[[RunConfig], Cost]) -> tuple[list[PlannedCell], int]:
    """Plan the cells, equal ones once, and count the configurations whose model cannot be built."""
    cells: dict[str, PlannedCell] = {}
    failed = 0
    for config in configs:
        try:
            if config.pretrained is not None:
                count_parameters(config)  # builds the model: a damaged checkpoint is found before any work
            cell = plan_cell(config, cost)
        except (RuntimeError, MemoryError) as error:  # torch's, where a tensor is too large
            failed += 1
            print(f"toyqs: the model cannot be built: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        except CheckpointError as error:
            failed += 1
            print(f"toyqs: {error}", file=sys.stderr)
            continue
        # Two spellings can be one cell, such as the patterns BAAA and ABBB.
        cells.setdefault(name_of(cell.run_keys), cell)
    return list(cells.values()), failed


def _processes(configs: Sequence[RunConfig], stacks: Sequence[Stack]) -> int:
    given = next((config.processes for config in configs if config.processes), None)
    on_gpu = any(config.device == "cuda" for config in configs)
    return min(len(stacks), given or (1 if on_gpu else len(os.sched_getaffinity(0))))


def _describe(failure: Failure) -> str:
    names = ", ".join(f"{seed} (key {key})" for seed, key in failure.runs)
    return f"failed: {failure.stack.name}, seed {names}: {failure.why}; log {failure.log}"


def _report(runs_dir: str, cells: Sequence[PlannedCell]) -> None:
    known = {key for cell in cells for by_seed in cell.keys.values() for key in by_seed.values()}
    rows = load_rows(runs_dir, known)
    if rows.empty:
        return
    folder = Path(runs_dir) / "reports"
    folder.mkdir(exist_ok=True)
    arms = [_arms(cell, rows) for cell in cells]
    name = name_of(key for cell in cells for key in cell.run_keys)
    figure, table = folder / f"{name}.png", folder / f"{name}.csv"
    if len(cells) > 1:
        labelled = list(zip(differences(cells), arms, strict=True))
        sweep_csv(labelled, table)
        print(sweep_table(labelled))
    elif not next(iter(arms[0].values())).empty:
        comparison_figure(arms[0], _curves(runs_dir, arms[0]), figure)
        comparison_csv(arms[0], table)
        print(comparison_table(arms[0]))
        print(f"\nfigure {figure}", end="")
    print(f"\ntable  {table}\nrows   {runs_dir}/KEY/summary.json")


def _arms(cell: PlannedCell, rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Split the rows of a cell into its arms, without the settings that have no effect in an arm."""
    arms = {}
    for arm, config in cell.arms.items():
        frame = rows[rows["key"].isin(cell.keys[arm].values())].sort_values("seed")
        arms[arm] = frame.drop(columns=inactive_keys(config), errors="ignore")
    return arms


def _curves(runs_dir: str, arms: dict[str, pd.DataFrame]) -> dict[str, dict[int, pd.DataFrame]]:
    return {
        arm: {row["seed"]: _held_out(runs_dir, row["key"]) for _, row in frame.iterrows()}
        for arm, frame in arms.items()
    }


def _held_out(runs_dir: str, key: str) -> pd.DataFrame:
    curve = load_curve(runs_dir, key)
    return curve[curve["kind"] == "held_out"]
