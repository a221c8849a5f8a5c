"""A run and its canonical settings, by which it is named, train to the same bits: one key, one result.

Settings are drawn at random, so that those that have no effect stand next to all kinds of others. A command
trains the canonical settings (`plan_cell`); here the others are held against them.
"""

from __future__ import annotations

import random
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.keys import OTHER
from toyqs.config.builders.cost import count_cost
from toyqs.config.checks.values import check
from toyqs.config.errors import Refusal
from toyqs.config.identity import canonical, run_key
from toyqs.config.inactive import inactive_keys
from toyqs.config.keys import STARTS
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.experiment.stack import Training
from toyqs.training.flops import Cost

SMALL = {"max_steps": 3, "data_loader_batch_size": 8, "eval_sequences": 8, "reasoner_hidden_dim": 12}
LEFT_OUT = {  # transformers, files, devices, sizes, and what cannot change a run's numbers
    *("backbone", "pretrained", "lora_rank", "model_n_layer", "model_n_head", "model_n_kv_head", "autocast"),
    *("branch_attention", "device", "reference_run", "task", "model_hidden_dim", "interpreter_hidden_dim"),
    *SMALL,
    *STARTS,
}
KEYS = sorted(OTHER.keys() - LEFT_OUT)
MORE = {"policy_loss_beta": (-1.0, 0.0)}


def drawn(generator: random.Random) -> dict[str, Any]:
    """Draw some settings: a key's other value or, where it has choices, any of them."""
    choices = {key.name: key.metadata.get("choices") for key in fields(RunConfig)} | MORE
    names = [name for name in KEYS if generator.random() < 0.25]
    changes = {name: generator.choice(choices[name] or [OTHER[name]]) for name in names}
    return {"reference": "oracle", "interpreter_hidden_dim": 12, **SMALL, **changes}


def result(config: RunConfig) -> tuple[dict[str, Tensor], dict[str, Tensor], Cost]:
    """Return a short training's weights, metrics and cost."""
    training = Training(config, [3])
    training.run(lambda step, values: None, None)
    return training.weights(), training.evaluate(), count_cost(config)


def require_one_result(changes: dict[str, Any]) -> bool:
    """Compare a run with its canonical settings; return False where it is refused."""
    config = RunConfig(**changes)
    try:
        check(config)
    except Refusal:
        return False
    config = resolved(config)
    named = resolved(canonical(config))
    assert run_key(config, 3) == run_key(named, 3), changes
    idle = sorted(inactive_keys(config) & changes.keys())
    ours, theirs = result(config), result(named)
    for one, other in zip(ours[:2], theirs[:2], strict=True):
        assert one.keys() == other.keys(), (idle, changes)
        for name, value in one.items():
            assert torch.equal(value.nan_to_num(7.0), other[name].nan_to_num(7.0)), (name, idle, changes)
    assert ours[2] == theirs[2], (idle, changes)
    return True


FOUND = {  # each once trained to other numbers, or at another cost, than the run of the same name
    "a vector's markers": {"thoughts": "gaussian", "thought_vocab": None},
    "a plain run that thinks everywhere": {"use_reasoner": False, "think_at": "all"},
    "no reference asked": {"reference": "oracle"},
}


@pytest.mark.parametrize("name", FOUND)
def test_a_setting_without_effect_has_none(name: str) -> None:
    assert require_one_result({**SMALL, **FOUND[name]})


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))])
def test_a_run_is_what_its_name_says(seed: int) -> None:
    generator = random.Random(seed)
    trained = 0
    for _ in range(2000):
        trained += require_one_result(drawn(generator))
        if trained == 25:
            return
    pytest.fail("too few of the settings can run")
