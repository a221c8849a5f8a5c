"""A run beside its controls: which stacks are needed, all of them on the cores at hand, the report."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import queue
import sys
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from toyqs.build import count_cost, count_parameters
from toyqs.config import RunConfig
from toyqs.config_key import run_key
from toyqs.controls import fair_controls
from toyqs.cost import Cost
from toyqs.experiment import run_stack
from toyqs.report import comparison_csv, comparison_figure, comparison_table
from toyqs.results import load_curve, load_rows
from toyqs.tracking import Progress

STEP_SECONDS = 2e-3  # what a step takes beside its arithmetic
FLOPS_PER_SECOND = 1e10


class Arm(NamedTuple):
    """One stack of runs to do."""

    name: str
    config: RunConfig
    seeds: list[int]
    cost: Cost

    @property
    def work(self) -> float:
        """Rough seconds: they only order the arms and weigh the progress bar."""
        flops = self.cost.flops_per_step * len(self.seeds)
        return self.config.max_steps * (STEP_SECONDS + flops / FLOPS_PER_SECOND)


def main(config: RunConfig) -> int:
    """Train a run and its controls, skip what is complete, print the table and the verdict.

    Args:
        config: checked and resolved.

    Returns:
        0, or 1 where an arm failed.
    """
    cost = _counted_once()
    arms = arms_of(config, cost)
    seeds = config.seed if isinstance(config.seed, list) else [config.seed]
    keys = {name: {seed: run_key(arm, seed) for seed in seeds} for name, arm in arms.items()}
    todo = []
    for name, arm in arms.items():
        missing = [s for s in seeds if config.force or not _complete(config.runs_dir, keys[name][s])]
        if missing:
            todo.append(Arm(name, arm, missing, cost(arm)))
    done = sum(map(len, keys.values())) - sum(len(arm.seeds) for arm in todo)
    if done:
        print(f"{done} of {done + sum(len(arm.seeds) for arm in todo)} runs are complete already")
    failures = _run_all(sorted(todo, key=lambda arm: -arm.work), config.processes)
    for name, failure in failures.items():
        print(f"toyqs: {name} failed: {failure}", file=sys.stderr)
    _report(config, keys)
    return 1 if failures else 0


def arms_of(config: RunConfig, cost: Callable[[RunConfig], Cost] = count_cost) -> dict[str, RunConfig]:
    """The run and its controls, with the number of steps filled in, in the order of display."""
    if config.max_steps < 0:
        steps = config.task.steps(config.data_loader_batch_size, config.seq_len, config.epochs)
        config = replace(config, max_steps=steps)
    name = "thinking" if config.use_reasoner else "no_reasoner"
    if config.controls == "none":
        return {name: config}
    return {name: config, **fair_controls(config, cost, count_parameters)}


def _counted_once() -> Callable[[RunConfig], Cost]:
    """`count_cost`, which runs a training step, at most once for each set of settings."""
    known: dict[str, Cost] = {}

    def cost(config: RunConfig) -> Cost:
        key = run_key(replace(config, max_steps=1), 0)
        if key not in known:
            known[key] = count_cost(config)
        return known[key]

    return cost


def _complete(runs_dir: str, key: str) -> bool:
    return (Path(runs_dir) / key / "summary.json").is_file()


def _run_all(arms: list[Arm], processes: int | None) -> dict[str, str]:
    """Run every arm; a failing one stops no other.

    Returns:
        Name -> what went wrong, for the arms that failed.
    """
    progress = Progress(sum(arm.work for arm in arms), enabled=bool(arms))
    on_gpu = any(arm.config.device == "cuda" for arm in arms)
    workers = min(len(arms), processes or (1 if on_gpu else len(os.sched_getaffinity(0))))
    try:
        return _in_processes(arms, workers, progress) if workers > 1 else _in_turn(arms, progress)
    finally:
        progress.close()


def _in_turn(arms: list[Arm], progress: Progress) -> dict[str, str]:
    failures = {}
    for arm in arms:
        failure = _attempt(arm, partial(progress.update, arm.name))
        if failure:
            failures[arm.name] = failure
    return failures


Update = tuple[str, float, float | None]
_updates: Any = None  # in a worker process: the queue to the parent


def _connect(updates: Any) -> None:
    global _updates  # noqa: PLW0603, the one thing a worker process is given at its start
    _updates = updates


def _work_on(arm: Arm) -> str | None:
    return _attempt(arm, lambda done, loss: _updates.put((arm.name, done, loss)))


def _attempt(arm: Arm, tell: Callable[[float, float | None], None]) -> str | None:
    """Run an arm; what went wrong in a line, None if nothing did."""
    every = max(1, arm.config.max_steps // 200)

    def progress(step: int, loss: float | None) -> None:
        if loss is not None or step % every == 0:
            tell(arm.work * step / arm.config.max_steps, loss)

    try:
        run_stack(arm.config, arm.seeds, arm.cost, progress)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
    return None


def _in_processes(arms: list[Arm], workers: int, progress: Progress) -> dict[str, str]:
    context = multiprocessing.get_context("spawn")
    updates = context.Queue()
    pool = ProcessPoolExecutor(workers, context, initializer=_connect, initargs=(updates,))
    futures = {arm.name: pool.submit(_work_on, arm) for arm in arms}
    try:
        while not all(future.done() for future in futures.values()):
            try:
                progress.update(*updates.get(timeout=0.2))
            except queue.Empty:
                continue
        outcomes = {name: _outcome(future) for name, future in futures.items()}
        return {name: failure for name, failure in outcomes.items() if failure}
    except KeyboardInterrupt:
        for process in list(pool._processes.values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _outcome(future: Future[str | None]) -> str | None:
    try:
        return future.result()
    except BrokenProcessPool:
        return "its worker process was killed, or ran out of memory"


def _report(config: RunConfig, keys: Mapping[str, Mapping[int, str]]) -> None:
    wanted = [key for by_seed in keys.values() for key in by_seed.values()]
    if not Path(config.runs_dir).is_dir():  # nothing came as far as a folder of its own
        return
    rows = load_rows(config.runs_dir, wanted)
    if rows.empty:
        return
    arms = {
        name: rows[rows["key"].isin(by_seed.values())].sort_values("seed") for name, by_seed in keys.items()
    }
    if arms[next(iter(arms))].empty:
        return
    print(comparison_table(arms))
    curves = {
        name: {seed: _held_out(config.runs_dir, keys[name][seed]) for seed in frame["seed"]}
        for name, frame in arms.items()
    }
    folder = Path(config.runs_dir) / "reports"
    folder.mkdir(exist_ok=True)
    name = hashlib.sha256("".join(sorted(wanted)).encode()).hexdigest()[:12]
    figure, table = folder / f"{name}.png", folder / f"{name}.csv"
    comparison_figure(arms, curves, figure)
    comparison_csv(arms, table)
    print(f"\nfigure {figure}\ntable  {table}\nrows   {config.runs_dir}/KEY/summary.json")


def _held_out(runs_dir: str, key: str) -> pd.DataFrame:
    curve = load_curve(runs_dir, key)
    return curve[curve["kind"] == "held_out"]
