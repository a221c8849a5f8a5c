"""A run beside its controls: which stacks are needed, all of them on the cores at hand, the report."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from toyqs.build import count_cost, count_parameters
from toyqs.config import RunConfig
from toyqs.config_key import run_key
from toyqs.controls import fair_controls
from toyqs.cost import Cost
from toyqs.report import comparison_csv, comparison_figure, comparison_table
from toyqs.results import load_curve, load_rows
from toyqs.workers import Arm, run_all


def main(config: RunConfig) -> int:
    """Train a run and its controls, skip what is complete, print the table and the verdict.

    Args:
        config: checked and resolved.

    Returns:
        0, or 1 where an arm failed.
    """
    cost = _counted_once()
    try:
        arms = arms_of(config, cost)
    except (RuntimeError, MemoryError) as error:  # torch says so where a tensor is too large
        print(f"toyqs: the model cannot be built: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    seeds = config.seed if isinstance(config.seed, list) else [config.seed]
    keys = {name: {seed: run_key(arm, seed) for seed in seeds} for name, arm in arms.items()}
    # Two arms can be one run, such as policy_off where policy_loss_beta=0: it is done once.
    undone = {key for by_seed in keys.values() for key in by_seed.values()}
    total = len(undone)
    undone = {key for key in undone if config.force or not _complete(config.runs_dir, key)}
    if done := total - len(undone):
        print(f"{done} of {total} runs are complete already")
    todo = []
    for name, arm in arms.items():
        missing = [seed for seed in seeds if keys[name][seed] in undone]
        undone.difference_update(keys[name].values())
        if missing:
            todo.append(Arm(name, arm, missing, cost(arm)))
    failures = run_all(sorted(todo, key=lambda arm: -arm.work), config.processes)
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
    """Whether a run has its row and its curve, both readable; a damaged one is run again."""
    try:
        return not load_rows(runs_dir, [key]).empty and not load_curve(runs_dir, key).empty
    except (OSError, ValueError):
        return False


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
    print(comparison_table(arms))
    print(f"\nfigure {figure}\ntable  {table}\nrows   {config.runs_dir}/KEY/summary.json")


def _held_out(runs_dir: str, key: str) -> pd.DataFrame:
    curve = load_curve(runs_dir, key)
    return curve[curve["kind"] == "held_out"]
