"""Credit for symbols, rewards of all steps, a loss of prefixes: what is refused, and what controls keep."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.config.checks.checking import accepted, refused
from tests.keys import same
from toyqs.config.controls import unmatched_controls
from toyqs.config.identity import canonical
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig

PREFIX = {"credit": "prefix"}


def test_what_it_goes_with() -> None:
    for baseline in ("leave_one_out", "group_mean", "trice", "none"):
        assert accepted(**PREFIX, baseline=baseline) == []
    for changes in (
        {"advantage_scale": "positive_only"},
        {"objective": "ppo_clip", "clip_each": "symbol", "inner_steps": 2},
        {"objective": "maxent", "baseline": "ema"},  # reads neither
        {"variable_len": True, "length_penalty": 0.1},
        {"thoughts": "gaussian", "interpreter_start": "onward"},
        {"trice_samples": 1, "baseline": "none"},
    ):
        assert accepted(**PREFIX, **changes) == []


@pytest.mark.parametrize("baseline", ["value", "ema", "null_thought", "greedy_thought", "average_thought"])
def test_a_baseline_of_whole_thoughts_is_refused(baseline: str) -> None:
    said = f"baseline={baseline}: .*give baseline=none or group_mean or leave_one_out, or credit=outcome"
    refused(said, **PREFIX, baseline=baseline)
    assert accepted(**PREFIX, baseline=baseline, policy_loss_beta=0.0) == []


@pytest.mark.parametrize(
    ("said", "changes"),
    [
        ("advantage_scale=group_std: .*give advantage_scale=", {"advantage_scale": "group_std"}),
        ("learned_reward=true: .*give learned_reward=false", {"learned_reward": True}),
        ("reward=trajectory: .*give reward=likelihood", {"reward": "trajectory"}),
        ("clip_each=thought: .*give clip_each=symbol", {"objective": "ppo_clip"}),
    ],
)
def test_what_is_of_whole_thoughts_is_refused(said: str, changes: dict[str, Any]) -> None:
    refused(f"{said}.* or credit=outcome", **PREFIX, **changes)
    assert accepted(**changes) == []


def test_a_reward_of_all_steps() -> None:
    trajectory = {"reward": "trajectory"}
    for changes in ({}, {"thoughts": "gaussian"}, {"objective": "vargrad"}, {"baseline": "value"}):
        assert accepted(**trajectory, **changes) == []
    refused("reward=trajectory: objective=multi_sample", **trajectory, objective="multi_sample")
    refused("reward_sees=prediction", **trajectory, learned_reward=True, reward_sees="prediction")
    refused("trajectory_alpha=-1", **trajectory, trajectory_alpha=-1.0)


def test_the_loss_of_prefixes_can_be_the_only_one() -> None:
    assert accepted(prefix_nll_beta=1.0, nll_loss_beta=0.0, policy_loss_beta=0.0, controls="none") == []
    refused("prefix_nll_beta=-1", prefix_nll_beta=-1.0)


KEPT = {  # control -> whether it keeps credit or the reward of all steps, and the loss of prefixes
    "zero_length": (False, False),
    "state_handed_on": (False, False),
    "pause": (False, True),
    "policy_off": (False, True),
    "deterministic": (False, True),
    "random": (False, True),
    "constant": (False, True),
    "reward_shuffled": (True, True),
    "policy_reversed": (True, True),
    "no_reasoner": (False, False),
}


@pytest.mark.parametrize("changes", [PREFIX, {"reward": "trajectory", "trajectory_alpha": 1.0}])
def test_what_controls_keep(changes: dict[str, Any]) -> None:
    """Those that pay a policy are paid so; those that have symbols train their prefixes."""
    config = replace(RunConfig(), controls="all", prefix_nll_beta=0.5, **changes)
    plain = RunConfig()
    controls = unmatched_controls(resolved(config))
    assert controls.keys() == KEPT.keys()
    for name, control in controls.items():
        settings = canonical(control)
        for key, value in changes.items():
            assert getattr(settings, key) == (value if KEPT[name][0] else getattr(plain, key)), (name, key)
        assert settings.prefix_nll_beta == (0.5 if KEPT[name][1] else 0.0), name


def test_it_is_another_run() -> None:
    assert not same({}, PREFIX) and not same({}, {"prefix_nll_beta": 0.5})
    assert not same({"reward": "trajectory"}, {"reward": "trajectory", "trajectory_alpha": 1.0})
    path = {"thoughts": "gaussian", "objective": "pathwise"}
    assert same(path, path | PREFIX) and not same(path, path | {"prefix_nll_beta": 0.5})
