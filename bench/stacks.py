"""Time of a training step per seed, by the number of seeds trained side by side on one core.

`python bench/stacks.py` prints the numbers behind STACK_SIZES in toyqs/sweep/plan.py.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.step import now, processor
from toyqs.command_line import Parser, run, whole
from toyqs.config.builders.cost import count_cost
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.training.batches import draw_batches
from toyqs.training.loop import train

SIZES = (1, 2, 4, 8, 16)

RUNS = {
    "plain, base 2": {"use_reasoner": False, "base_lm_hidden_dim": 2},
    "plain, base 16": {"use_reasoner": False, "base_lm_hidden_dim": 16},
    "plain, base 64": {"use_reasoner": False, "base_lm_hidden_dim": 64},
    "thinking, 12 and 24": {},
    "thinking, 32 and 100": {"base_lm_hidden_dim": 32, "reasoner_hidden_dim": 100},
}


class Enough(Exception):
    """Raised to end a training that has run long enough."""


def step_seconds(config: RunConfig, size: int, limit: float = math.inf) -> list[float]:
    """Time the training steps of a new model, each until the device has finished it.

    Args:
        config: resolved; it trains for max_steps, if the limit allows.
        size: seeds side by side.
        limit: seconds after which the training ends, but not before its fourth step.

    Returns:
        Seconds of each step but the first two, which also draw data and allocate memory.
    """
    seeds = list(range(size))
    model, settings = build_model(config, seeds), build_training_params(config)
    data = draw_batches(config.task, seeds, settings, next(model.parameters()))
    times = [now(config.device)]

    def report(step: int, _: object) -> None:
        times.append(now(config.device))
        if step >= 4 and times[-1] - times[2] > limit:
            raise Enough

    with suppress(Enough):
        train(model, build_objective(config), data, settings, report)
    return [after - before for before, after in pairwise(times[2:])]


def milliseconds(config: RunConfig, size: int) -> float:
    """Time a step per seed; the shortest counts, as other work on the machine only adds to it."""
    return 1000 * min(step_seconds(config, size)) / size


def measured(rounds: int, steps: int) -> dict[str, dict[int, float]]:
    """Time every run at every stack size, in turns: run -> size -> milliseconds per seed."""
    found: dict[str, dict[int, float]] = {name: {} for name in RUNS}
    for _ in range(rounds):
        for name, changes in RUNS.items():
            config = resolved(replace(RunConfig(), max_steps=steps + 3, **changes))
            for size in SIZES:
                now = milliseconds(config, size)
                found[name][size] = min(now, found[name].get(size, now))
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; return the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=whole, default=3, help="turns of every size (3)")
    parser.add_argument("--steps", type=whole, default=12, help="steps of a turn (12)")
    return run(_tabulate, parser, words)


def _tabulate(given: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    print(f"Milliseconds per seed and training step, 1 thread of {processor()}, torch {torch.__version__}")
    print("S: seeds side by side")
    print(f"{'run (widths of base and reasoner)':34}{'FLOPs':>8}" + "".join(f"{f'S={s}':>8}" for s in SIZES))
    for name, by_size in measured(given.rounds, given.steps).items():
        flops = count_cost(resolved(replace(RunConfig(), **RUNS[name]))).flops_per_step
        print(f"{name:34}{flops / 1e6:7.1f}M" + "".join(f"{by_size[size]:8.2f}" for size in SIZES))


if __name__ == "__main__":
    sys.exit(main())
