"""Refusals about samplers: which thoughts have such a law, which objectives bear it."""

from __future__ import annotations

import pytest

from tests.config.checks.checking import NO_REASONER, accepted, refused
from toyqs.config.choices import SAMPLERS
from toyqs.model.latent_heads import HEADS
from toyqs.objectives.registry import registry

OFF_POLICY = {
    *("listwise", "plackett_luce", "weighted_mle", "vargrad", "logz_mse", "logz_learned", "ppo_clip"),
}


@pytest.mark.parametrize("objective", registry())
def test_off_policy_objectives(objective: str) -> None:
    given = {"sampler": "tempered", "objective": objective, "thoughts": "gaussian"}
    if objective == "wake_sleep":
        refused("sampler=tempered: objective=wake_sleep learns the network .*sampler=inference", **given)
    elif objective in OFF_POLICY:
        assert accepted(**given) == []
    else:
        why = "own draw" if objective == "pathwise" else "biased without importance weights"
        refused(f"sampler=tempered: objective={objective} .*{why}.*sampler=policy", **given)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("kind", HEADS)
def test_laws_of_symbols(sampler: str, kind: str) -> None:
    given = {"sampler": sampler, "objective": "vargrad", "thoughts": kind}
    if kind in ("gumbel", "deterministic"):
        refused(f"thoughts={kind}: have no density", **given)
        refused(f"sampler={sampler}: objective=pathwise", **(given | {"objective": "pathwise"}))
    elif sampler == "inference" and kind == "token":
        refused("sampler=inference: objective=vargrad does not train .*objective=wake_sleep", **given)
    elif kind in SAMPLERS[sampler]:
        assert accepted(**given) == []
    else:
        refused(f"sampler={sampler}: is a law of thoughts=.*, not of {kind}", **given)


def test_positions_are_chosen_before_their_thoughts_are_drawn() -> None:
    hard = {"think_at": "hard", "objective": "vargrad"}
    refused("think_at=hard: sampler=uniform .*sampler=policy", sampler="uniform", **hard)
    assert accepted(sampler="uniform", max_reasoning_len=0, **hard) == []


def test_a_sampler_without_a_policy_or_thoughts() -> None:
    for harmless in ({"policy_loss_beta": 0.0}, {"max_reasoning_len": 0}, NO_REASONER):
        assert accepted(sampler="uniform", **harmless) == []
