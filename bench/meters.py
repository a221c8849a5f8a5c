"""What the meters of a training step cost: they are on a clock of their own while the training runs.

`python bench/meters.py` prints the CPU time of a step and the shares of it that the meters add. (The
difference of two whole trainings, with and without, is noise of several percent on a shared machine.)
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from toyqs.training import batches

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.step import processor
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import build_objective, build_settings
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.objectives.registry import member
from toyqs.training import loop

SEEDS = [0, 1, 2, 3]
TEMPERED: dict[str, Any] = {"temperature_scale": "spread", "entropy_encouragement_coef": 0.0}
RUNS: dict[str, dict[str, Any]] = {
    "reinforce, the default job": {},
    "reinforce, Gaussian thoughts": {"thoughts": "gaussian", "entropy_encouragement_coef": 0.0},
    "listwise": {"objective": "listwise", **TEMPERED},
    "weighted_mle": {"objective": "weighted_mle", **TEMPERED},
    "logz_mse, K = 8": {"objective": "logz_mse", "trice_samples": 8, **TEMPERED},
}


class Spent:
    """CPU seconds that calls of a function took."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def clocked(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, on the clock."""

        def call(*given: Any, **named: Any) -> Any:
            begun = time.process_time()
            found = function(*given, **named)
            self.seconds += time.process_time() - begun
            return found

        return call


def shares(config: RunConfig) -> tuple[float, float, float]:
    """Train a new model once.

    Returns:
        CPU seconds of a step without its meters; what the meters added, as shares of that: those of every
        step, and the ten measures of the policy's signal.
    """
    config = resolved(config)
    model, settings = build_model(config, SEEDS), build_settings(config)
    data = batches.draws(config.task, SEEDS, settings, next(model.parameters()))
    often, seldom, kind = Spent(), Spent(), member(config)
    with (
        patch.object(kind, "meters", often.clocked(kind.meters)),
        patch.object(loop, "_signal", seldom.clocked(loop._signal)),
    ):
        begun = time.process_time()
        loop.train(model, build_objective(config), data, settings, lambda step, values: None)
        whole = time.process_time() - begun
    bare = whole - often.seconds - seldom.seconds  # a signal's own meters count twice: never too cheap
    return bare / settings.steps, often.seconds / bare, seldom.seconds / bare


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="trainings of each run (5)")
    parser.add_argument("--steps", type=int, default=450, help="steps of a training (450)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"CPU time of 4 seeds, 1 thread of {processor()}, torch {torch.__version__}")
    print(f"medians of {given.rounds} trainings of {given.steps} steps each, and the range of what is added")
    print(f"{'':32}{'a step':>9}{'its meters':>12}{'the signal':>12}{'together':>10}{'range':>16}")
    for name, changes in RUNS.items():
        config = replace(RunConfig(max_steps=given.steps), **changes)
        rounds = [shares(config) for _ in range(given.rounds)]
        step, often, seldom = (statistics.median(column) for column in zip(*rounds, strict=True))
        added = sorted(often + seldom for _, often, seldom in rounds)
        together, ends = statistics.median(added), f"{added[0]:.1%} to {added[-1]:.1%}"
        parts = f"{1000 * step:6.2f} ms{often:12.1%}{seldom:12.1%}"
        print(f"{name:32}{parts}{together:10.1%}{ends:>16}", flush=True)


if __name__ == "__main__":
    main()
