"""One prediction from all K thoughts: rewards and gradients, every tuple of thoughts summed exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.objectives import joint
from tests.objectives.tables import BACKBONES, expected
from toyqs.config.run_config import RunConfig
from toyqs.model.predicting import attending, attention
from toyqs.objectives import advantages, losses
from toyqs.objectives.policy.reinforce import Reinforce

BY_SCORES: dict[str, Any] = {"attend_by": "scores", "attend_temperature": 0.3}
OF_ALL: dict[str, Any] = {"mixing": "attend", "baseline": "none", "reward": "contribution"}
# At width 3 all units of the scorer are dead, and its weights would all be 1 / K.
WIDE: dict[str, Any] = {"base_lm_hidden_dim": 5, "reasoner_hidden_dim": 5, "weight_groups": "AABC"}


def config(**changes: Any) -> RunConfig:
    return tiny.config(**OF_ALL | WIDE | changes)


def wanted(settings: RunConfig, count: int = 2) -> tiny.Gradients:
    """∇ of −E log q(y | h_1 … h_K, x), by autograd through the sum over all tuples."""
    truth = joint.tuples(settings, count)
    found = truth.gradient(-(truth.probability * truth.log_q).sum())
    assert norm(found) > 1e-3, "nothing to compare"
    of_weights = {name: g for name, g in found.items() if name.startswith("mixer.scorer")}
    # A transformer's thoughts differ little at first: 5e-5 there, compared to 1e-10.
    assert not of_weights or norm(of_weights) > 1e-5, "all thoughts weigh the same"
    return found


def check(settings: RunConfig, count: int = 2, **fields: Any) -> None:
    """E[∇(policy + nll)] is that gradient, for all parameters."""
    every = tiny.enumerate_tuples(settings, count)
    objective = Reinforce(reward=settings.reward, **{"baseline": settings.baseline} | fields)
    more = {"running_reward": torch.full((len(every.probability),), -0.6).double()}
    tiny.close(expected(every, objective, "policy", "nll", **more), wanted(settings, count))


@pytest.mark.parametrize("reward", ["contribution", "likelihood"])
@pytest.mark.parametrize("groups", ["AAAA", "ABCD"])
@BACKBONES
def test_the_expected_gradient_is_that_of_the_one_prediction(groups: str, reward: str) -> None:
    check(config(weight_groups=groups, reward=reward))


@pytest.mark.parametrize("baseline", ["ema", "value"])
def test_with_baselines_that_know_no_thought(baseline: str) -> None:
    check(config(baseline=baseline, value_sees="target"), value_sees="target")


@pytest.mark.parametrize("own", [None, 3])
@pytest.mark.parametrize("start", tiny.STARTS)
def test_where_scores_weigh_the_thoughts(start: str, own: int | None) -> None:
    """Also through the weights: by the angle of base state and reading, and the symbols under base_lm."""
    check(config(interpreter_start=start, thought_vocab=own, **BY_SCORES))


def test_of_three_thoughts() -> None:
    check(config(), 3)


@pytest.mark.parametrize("extra", [{}, BY_SCORES])
@pytest.mark.parametrize("count", [2, 3])
def test_contributions_are_differences_of_predictions(count: int, extra: dict[str, Any]) -> None:
    settings = config(**extra)
    every, truth = tiny.enumerate_tuples(settings, count), joint.tuples(settings, count)
    got = Reinforce(reward="contribution", baseline="none").earned(every.trace, every.batch)
    right = truth.log_q[:, None] - truth.without
    torch.testing.assert_close(got[:, tiny.AT[0], tiny.AT[1]], right.detach(), rtol=0, atol=1e-12)
    assert float(right.detach().std()) > 1e-2


def unbiased(settings: RunConfig, **fields: Any) -> bool:
    try:
        check(settings, **fields)
    except AssertionError as error:
        assert "off by" in str(error)
        return False
    return True


@pytest.mark.parametrize("baseline", ["leave_one_out", "group_mean"])
@pytest.mark.parametrize("groups", ["AAAA", "ABCD"])
def test_baselines_of_the_other_thoughts_are_biased(groups: str, baseline: str) -> None:
    """r_j depends on h_i: why they are refused. Of mixing=concat the same baseline is unbiased."""
    assert not unbiased(config(weight_groups=groups), baseline=baseline)


def test_the_bias_of_leave_one_out_is_what_others_earn_by_a_thought() -> None:
    """It is E Σ_i r_−i ∇ log π(h_i): of two thoughts all that r_2 owes to h_1, and the reverse."""
    settings = config()
    every, truth = tiny.enumerate_tuples(settings, 2), joint.tuples(settings, 2)
    exact, got = (
        expected(every, Reinforce(reward="contribution", baseline=x), "policy")
        for x in ("none", "leave_one_out")
    )
    r = (truth.log_q[:, None] - truth.without).detach()
    p = truth.probability.detach()
    bias = truth.gradient((p * (r.flip(-1) * truth.log_prob).sum(-1)).sum())
    tiny.close({name: got[name] - exact[name] for name in got}, bias)
    ratio = norm(bias) / norm(exact)
    assert ratio > 0.3


def norm(grads: tiny.Gradients) -> float:
    return float(tiny.flat({n: g[None] for n, g in grads.items()}).norm())


def of_positions(scale: Any, count: int) -> float:
    """Return how far the expected gradient with a scale points from the exact one: 1 − cosine.

    A table of two thoughts, two of them at each position, every joint choice summed; one logit for each
    position, rewards r(h_1, h_2) drawn once.
    """
    generator = torch.Generator().manual_seed(3)
    table = torch.randn(count, 2, 2, 2, generator=generator, dtype=torch.float64)  # position, h_1, h_2, whose
    logit = torch.randn(count, generator=generator, dtype=torch.float64, requires_grad=True)
    log_p = torch.stack([nn_log_sigmoid(logit), nn_log_sigmoid(-logit)], -1)  # (positions, 2)
    choices = torch.cartesian_prod(*[torch.arange(2)] * (2 * count)).view(-1, count, 2)
    at = torch.arange(count)
    reward = table[at, choices[..., 0], choices[..., 1]]  # (choices, positions, 2)
    log_prob = log_p[at[:, None], choices]
    weights = torch.ones(len(choices), 1, count, dtype=torch.float64)
    scaled = scale(reward[:, None], reward[:, None], weights)[:, 0]
    probability = log_prob.sum((1, 2)).exp().detach()
    both = []
    for advantage in (reward, scaled):
        loss = (probability * (advantage * log_prob).sum((1, 2))).sum()
        both.append(torch.autograd.grad(loss, logit, retain_graph=True)[0])
    return float(1 - torch.nn.functional.cosine_similarity(*both, 0))


def nn_log_sigmoid(x: Tensor) -> Tensor:
    return torch.nn.functional.logsigmoid(x)


def test_which_scales_keep_the_direction() -> None:
    """A scale of a position's thoughts turns the gradient for good, one of the batch ever less."""
    assert of_positions(advantages.no_scale, 3) < 1e-12
    group = [of_positions(advantages.group_std, count) for count in (2, 3, 4)]
    batch = [of_positions(advantages.batch_std, count) for count in (2, 3, 4)]
    assert min(group) > 0.2
    assert batch == sorted(batch, reverse=True) and batch[2] < 0.01


# Mutants.


def summed_readings(scores: Tensor) -> Tensor:
    """Weights that are not renormalised without a thought."""
    rest = attention.attention(scores).expand(*scores.shape[:3], scores.shape[3], scores.shape[3])
    return rest.masked_fill(torch.eye(scores.shape[3], dtype=torch.bool), 0.0)


def with_itself(scores: Tensor) -> Tensor:
    """The thought alone, in place of all others."""
    count = scores.shape[3]
    return torch.eye(count, dtype=scores.dtype).expand(*scores.shape[:3], count, count)


@pytest.mark.parametrize("mutant", [summed_readings, with_itself])
def test_a_wrong_rest_is_caught(monkeypatch: pytest.MonkeyPatch, mutant: Any) -> None:
    """Its own reading does not bias a contribution's baseline term only if it is left out rightly."""
    monkeypatch.setattr(attending, "attention_without_each", mutant)
    with pytest.raises(AssertionError, match="not close"):
        test_contributions_are_differences_of_predictions(3, {})


def test_a_rest_that_has_the_thought_in_it_is_biased(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attending, "attention_without_each", with_itself)
    assert not unbiased(config())


def averaged(advantages: Tensor, log_prob: Tensor) -> Tensor:
    """The mean over the thoughts in spite of the sum."""
    return right_loss(advantages / advantages.shape[-1], log_prob)


right_loss = losses.score_function_loss


def detached_weights(scores: Tensor) -> Tensor:
    return attention.attention(scores.detach())


def flat_weights(scores: Tensor) -> Tensor:
    return attention.attention(torch.zeros_like(scores))


@pytest.mark.parametrize(
    ("owner", "name", "mutant"),
    [
        (losses, "score_function_loss", averaged),
        (attending, "attention", detached_weights),
        (attending, "attention", flat_weights),
    ],
)
def test_a_wrong_gradient_is_caught(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, mutant: Any
) -> None:
    monkeypatch.setattr(owner, name, mutant)
    assert not unbiased(config())
