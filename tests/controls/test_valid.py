"""Every control of a run that can be trained can be trained: a search over settings."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.config.test_canonical import drawn
from toyqs.config.builders.model import count_parameters
from toyqs.config.checks.values import check
from toyqs.config.controls import unmatched_controls
from toyqs.config.errors import Refusal
from toyqs.config.identity import canonical
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.evidence.arms import CONTROLS
from toyqs.experiment.stack import Training
from toyqs.tasks.iterate import Iterate

HERE = {"tasks": (None, Iterate()), "backbones": ("gru", "gru", "gpt2", "llama"), "widths": (8, 12)}
SIZES = {"model_n_head": 2, "model_n_layer": 1, "max_steps": 1, "controls": "all"}


def valid(generator: random.Random) -> Iterator[RunConfig]:
    """Draw settings of runs that think and that the checks accept."""
    pytest.importorskip("transformers")
    for _ in range(4000):
        changes: dict[str, Any] = drawn(generator) | SIZES
        changes |= {"backbone": generator.choice(HERE["backbones"])}
        for key in ("base_lm_hidden_dim", "interpreter_hidden_dim"):
            changes[key] = generator.choice(HERE["widths"])
        changes["thought_vocab"] = generator.choice((None, 6))
        if task := generator.choice(HERE["tasks"]):
            changes["task"] = task
        config = RunConfig(**changes | {"use_reasoner": True})
        try:
            check(config)
        except Refusal:
            continue
        yield canonical(resolved(config))


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))])
def test_every_control_passes_the_checks_and_trains(seed: int) -> None:
    seen, trained = 0, 0
    for config in valid(random.Random(seed)):
        controls = unmatched_controls(config)
        assert list(controls) == [name for name in CONTROLS if name in controls]
        for name, control in controls.items():
            settings = replace(canonical(control), controls="none")
            try:
                check(settings)
            except Refusal as refusal:
                pytest.fail(f"{name} of {config}: {refusal}")
            assert count_parameters(settings) > 0
            if trained < 3 and config.backbone == "gru":
                step = Training(settings, [seed])
                step.run(lambda number, values: None, None)
                weights = step.weights().values()
                assert all(torch.isfinite(weight).all() for weight in weights), (name, config)
        seen, trained = seen + 1, trained + (config.backbone == "gru")
        if seen == 25:
            return
    pytest.fail("too few of the settings can run")
