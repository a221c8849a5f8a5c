"""What the meters of a training step cost: the same training with and without them, in turns.

`python bench/meters.py` prints CPU milliseconds a step and the share that the meters add.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.step import processor
from toyqs import train
from toyqs.build import build_model, build_objective, build_settings
from toyqs.config import RunConfig
from toyqs.config_key import resolved
from toyqs.objectives.family import member

SEEDS = [0, 1, 2, 3]
TEMPERED: dict[str, Any] = {"temperature_scale": "spread", "entropy_encouragement_coef": 0.0}
RUNS: dict[str, dict[str, Any]] = {
    "reinforce, the default job": {},
    "reinforce, Gaussian thoughts": {"thoughts": "gaussian", "entropy_encouragement_coef": 0.0},
    "listwise": {"objective": "listwise", **TEMPERED},
    "weighted_mle": {"objective": "weighted_mle", **TEMPERED},
    "logz_mse, K = 8": {"objective": "logz_mse", "trice_samples": 8, **TEMPERED},
}


def trainer(config: RunConfig, *, meters: bool) -> Callable[[], float]:
    """A function that trains a new model and returns the CPU seconds of a step."""
    config = resolved(config)

    def run() -> float:
        model, settings = build_model(config, SEEDS), build_settings(config)
        data = train.draws(config.task, SEEDS, settings, next(model.parameters()))
        with ExitStack() as patches:
            if not meters:
                patches.enter_context(patch.object(train, "measured_at", lambda steps: set()))
                patches.enter_context(patch.object(member(config), "meters", lambda *_: {}))
            clock = time.process_time()
            train.train(model, build_objective(config), data, settings, lambda step, values: None)
            return (time.process_time() - clock) / settings.steps

    return run


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="trainings of each kind (5)")
    parser.add_argument("--steps", type=int, default=450, help="steps of a training (450)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"CPU milliseconds a step of 4 seeds, 1 thread of {processor()}, torch {torch.__version__}")
    print(f"medians of {given.rounds} trainings of {given.steps} steps each, in turns")
    print(f"{'':32}{'without':>9}{'with':>9}{'added':>9}")
    for name, changes in RUNS.items():
        config = replace(RunConfig(max_steps=given.steps), **changes)
        pair = [trainer(config, meters=meters) for meters in (False, True)]
        pair[0]()
        rounds = [[run() for run in pair] for _ in range(given.rounds)]
        without, having = (1000 * statistics.median(column) for column in zip(*rounds, strict=True))
        added = 100 * (statistics.median(b / a for a, b in rounds) - 1)
        print(f"{name:32}{without:9.2f}{having:9.2f}{added:8.1f}%", flush=True)


if __name__ == "__main__":
    main()
