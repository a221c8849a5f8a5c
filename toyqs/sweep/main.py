"""Run a command: plan its cells, train their runs on the available cores, print the report."""

from __future__ import annotations

import shlex
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from toyqs.assets.pretrained import CheckpointError
from toyqs.config.builders.kernels import settled
from toyqs.config.plugins import load
from toyqs.config.run_config import RunConfig
from toyqs.evidence.cells import FOLDER, Cell, by_key, cell_of, name_of, write_cell
from toyqs.evidence.judging.findings import find, write_arm_table
from toyqs.evidence.rows import damaged_files, load_curve, load_rows
from toyqs.evidence.selection import columns_of, differing
from toyqs.evidence.tables.comparison import comparison_table
from toyqs.evidence.tables.pairs import reasoner_pairs
from toyqs.evidence.tables.sweep import sweep_table
from toyqs.evidence.text import WIDTH
from toyqs.files import Refusal, make_folder, visible
from toyqs.installation import program
from toyqs.sweep.costs import cached_cost
from toyqs.sweep.estimate import PLAN_SECONDS, estimate, estimate_in_passing
from toyqs.sweep.executors.connect import connect, local_processes, most_at_once
from toyqs.sweep.locks import check_locks
from toyqs.sweep.plan import PlannedCell, Stack, differences, label, plan_cell, stacks_of
from toyqs.sweep.plan_text import Plan, as_line, as_table
from toyqs.sweep.progress import Progress
from toyqs.sweep.scheduler import Failure, run_all
from toyqs.sweep.worker import is_settled
from toyqs.training.flops import Cost


class Done(NamedTuple):
    """What has become of a command."""

    code: int  # of the exit
    arms: dict[str, str]  # key -> arm of each run that was asked for, the first where it is one of several
    faults: Sequence[str] = ()  # the lines that were printed of what went wrong


def main(configs: Sequence[RunConfig], *, sweep: bool = False, cluster: object = None) -> int:
    """Do the same as `train_and_report`, and return the exit code.

    Returns:
        0, or 1 where a run failed or a file could not be written, or 2 where the folder of runs cannot be
        made.
    """
    return train_and_report(configs, sweep=sweep, cluster=cluster).code


def train_and_report(
    configs: Sequence[RunConfig], *, sweep: bool = False, isolate: bool = False, cluster: object = None
) -> Done:
    """Train runs and their controls, skip those that are complete, print the table.

    With plan=true print what would be done, and write nothing.

    Args:
        configs: checked and resolved, with one folder of runs.
        sweep: print what is to be done before it begins; train as with `isolate`.
        isolate: train in worker processes even one stack at a time, so that no failure stops the others.
        cluster: the settings of a launcher that trains on other machines; None: on this one.
    """
    configs = _settled(configs)
    runs_dir, force = configs[0].runs_dir, any(config.force for config in configs)
    cost = cached_cost()
    settled = cache(lambda key: is_settled(runs_dir, key))
    cells, unplanned = _plan(configs, cost, settled)
    if not cells:
        return Done(1, {}, unplanned)
    keys = {key for cell in cells for key in cell.run_keys}
    undone = {key for key in keys if force or not settled(key)}
    stacks, done = stacks_of(cells, undone, cost, most_at_once(cluster, configs)), len(keys) - len(undone)
    here = local_processes(configs, len(stacks)) if cluster is None else None
    plan = (cells, undone, stacks, runs_dir, here)
    if any(config.plan for config in configs):
        print(as_table(Plan(*plan, estimate(stacks, PLAN_SECONDS, large=True))), flush=True)
        finished = {key: arm for key, arm in _arms(cells).items() if key not in undone}
        return Done(1 if unplanned else 0, finished, unplanned)
    try:
        make_folder(runs_dir)
    except OSError as error:
        why = f"runs_dir={runs_dir}: cannot be made ({error.strerror}); give a folder of your own"
        print(f"toyqs: {why}", file=sys.stderr)
        return Done(2, {}, [why])
    unwritten = _note(runs_dir, cells)
    if sweep:
        print(f"toyqs: {as_line(Plan(*plan, estimate_in_passing(stacks)))}", file=sys.stderr, flush=True)
    elif done:
        print(f"{done} of {len(keys)} runs are finished already", flush=True)
    if not force:
        _say_damaged(runs_dir, undone)
    isolate |= sweep
    try:
        failures = _train(stacks, done, configs, isolate=isolate, cluster=cluster) if stacks else []
    except Refusal as refusal:  # of the folder's locks, or of a cluster
        print(f"toyqs: {refusal}", file=sys.stderr)
        return Done(refusal.code, {}, [str(refusal)])
    unwritten += _report(runs_dir, cells)
    lines = [*unplanned, *map(_describe, failures)]
    if unwritten:
        lines.append(f"cannot be written to: {', '.join(unwritten)}; rows and table are whole")
    for each in lines:
        print(f"toyqs: {each}", file=sys.stderr)
    return Done(1 if lines else 0, _arms(cells), lines)


def _settled(configs: Sequence[RunConfig]) -> list[RunConfig]:
    """Settle kernels=auto, before any run has a key; say where a compiler is missing."""
    configs, note = settled(configs)
    if note:
        print(f"toyqs: {note}", file=sys.stderr, flush=True)
    return configs


def _arms(cells: Sequence[PlannedCell]) -> dict[str, str]:
    """Return the arm of each run, by key, in the order of the cells."""
    arms: dict[str, str] = {}
    for cell in cells:
        for arm in cell.arms:
            arms |= {key: arms.get(key, arm) for key in cell.keys[arm].values()}
    return arms


def _train(
    stacks: list[Stack], done: int, configs: Sequence[RunConfig], *, isolate: bool, cluster: object
) -> list[Failure]:
    """Train stacks, showing the progress beside that of the runs done before; return the failures.

    Raises:
        Refusal: the folder has no locks, or a cluster cannot be asked.
    """
    progress = Progress(stacks, done)
    try:
        if note := check_locks(configs[0].runs_dir):
            progress.say(note)
        return run_all(stacks, connect(cluster, configs, len(stacks), isolate=isolate), progress)
    finally:
        progress.close()


def _note(runs_dir: str, cells: Sequence[PlannedCell]) -> list[str]:
    """Note the cells on disk, for the scripts in analysis/; return the folder where that cannot be done."""
    try:
        for cell in cells:
            asked = [*cell.arms, *cell.same]
            write_cell(runs_dir, cell.columns | cell.beside, cell.keys, asked, cell.inactive)
    except OSError as error:
        return [f"{runs_dir}/{FOLDER} ({error.strerror})"]
    return []


def _say_damaged(runs_dir: str, keys: Iterable[str]) -> None:
    """Name those of the runs to be trained that have a row already."""
    found = {key: damaged_files(runs_dir, key) for key in sorted(keys)}
    if damaged := [f"{key} ({', '.join(files)})" for key, files in found.items() if files]:
        print(f"toyqs: damaged, trained again: run {', run '.join(damaged)}", file=sys.stderr, flush=True)


def _plan(
    configs: Sequence[RunConfig], cost: Callable[[RunConfig], Cost], settled: Callable[[str], bool]
) -> tuple[list[PlannedCell], list[str]]:
    """Plan the cells, equal ones once; return them, and a line on each that cannot be trained, also printed.

    A step of every run that is still to be trained is counted here: no cell is noted that can never be.
    """
    cells: dict[str, PlannedCell] = {}
    unplanned = []
    difference = cache(lambda: differences(configs))
    for place, config in enumerate(configs):
        try:
            cell = plan_cell(config, cost)
            for arm, settings_of_arm in cell.arms.items():
                if config.force or not all(map(settled, cell.keys[arm].values())):
                    cost(settings_of_arm)
        except Exception as error:
            ours = isinstance(error, MemoryError | CheckpointError)
            line = load.described(error, None if ours else config)
            if line is None and not isinstance(error, RuntimeError) and not ours:
                raise  # RuntimeError: torch's, too large
            which = label(difference()[place]) or "this run"
            unplanned.append(f"{which} cannot be trained: {line or str(error).splitlines()[0]}")
            print(f"toyqs: {unplanned[-1]}", file=sys.stderr)
            continue
        # Two spellings can be one cell, such as the patterns BAAA and ABBB.
        cells.setdefault(name_of(cell.run_keys), cell)
    return list(cells.values()), unplanned


def _describe(failure: Failure) -> str:
    names = ", ".join(f"{seed} (key {key})" for seed, key in failure.runs)
    log = "" if failure.log is None else f"; log {failure.log}"
    return f"failed: {failure.stack.name}, seed {names}: {visible(failure.why)}{log}"


def _report(runs_dir: str, cells: Sequence[PlannedCell]) -> list[str]:
    """Print the table, and write it and the figure; return the folder where that cannot be done."""
    known = {key for cell in cells for by_seed in cell.keys.values() for key in by_seed.values()}
    with warnings.catch_warnings(record=True) as caught:  # an error where Python was told so: -W error
        warnings.simplefilter("always")
        rows = load_rows(runs_dir, known)
    for warning in caught:
        print(f"toyqs: {warning.message}", file=sys.stderr)
    if rows.empty:
        return []
    by_run = by_key(rows)
    found = [_cell(cell, by_run) for cell in cells]
    findings, keys = find(found), list(differing(found))
    several, finished = len(cells) > 1, not next(iter(found[0].arms.values())).empty
    if several or finished:
        lines = sweep_table(findings, columns_of(found)) if several else comparison_table(findings[0])
        print(lines, *reasoner_pairs(found, keys), sep="\n", flush=True)
    folder, name = Path(runs_dir) / "reports", name_of(key for cell in cells for key in cell.run_keys)
    figure, table = folder / f"{name}.png", folder / f"{name}.csv"
    try:
        folder.mkdir(exist_ok=True)
        write_arm_table(findings, keys, table)
        if finished and not several:
            from toyqs.evidence.figures.comparison import comparison_figure  # matplotlib, slow to import

            comparison_figure(findings[0], _curves(runs_dir, found[0]), figure)
            print(f"\nfigure {figure} (also .svg and .pdf)", end="")
    except OSError as error:
        return [f"{folder} ({error.strerror})"]
    print(f"\ntable  {table}\nrows   {runs_dir}/KEY/summary.json")
    print(f"look   {program('toyqs.evidence')} report {shlex.quote(runs_dir)}")
    if several:
        print(f"draw   {program('capacity_vs_gain')} {shlex.quote(runs_dir)}")
    elif finished:
        print(*_folders(runs_dir, found[0]), sep="\n")
    return []


def _folders(runs_dir: str, cell: Cell) -> list[str]:
    """Return lines on how to ask the run's own seeds, with their folders."""
    lines = [f"ask    {program('toyqs.answers')} MEASURE"]
    for folder in (shlex.quote(str(Path(runs_dir) / key)) for key in next(iter(cell.arms.values()))["key"]):
        if len(lines[-1]) + 1 + len(folder) > WIDTH:
            lines.append(" " * 6)
        lines[-1] += f" {folder}"
    return lines


def _cell(cell: PlannedCell, finished: Mapping[str, Mapping[str, Any]]) -> Cell:
    """Return a planned cell with the rows of the arms that were asked for, of those that have finished."""
    asked = [(arm, seed) for arm in (*cell.arms, *cell.same) for seed in cell.seeds]
    rows = {key: finished[key] for key in cell.run_keys if key in finished}
    settings = {name: x for name, x in cell.settings.items() if name != "seed"}
    return cell_of(settings, cell.keys, asked, rows)


def _curves(runs_dir: str, cell: Cell) -> dict[str, dict[int, pd.DataFrame]]:
    return {
        arm: {row["seed"]: _held_out(runs_dir, row["key"]) for _, row in frame.iterrows()}
        for arm, frame in cell.arms.items()
    }


def _held_out(runs_dir: str, key: str) -> pd.DataFrame:
    curve = load_curve(runs_dir, key)
    return curve[curve["kind"] == "held_out"]
