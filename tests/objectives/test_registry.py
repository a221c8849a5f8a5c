"""The other objectives on whole models: every group of thoughts summed, against the plain reference."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.objectives.tables import BACKBONES, PATTERNS, STARTS, expected, log_q_of, of_tuples
from toyqs.objectives.advantages import BASELINES
from toyqs.objectives.objective import ThoughtObjective
from toyqs.objectives.policy.logz import log_z_of_others, logz
from toyqs.objectives.policy.ranking import listwise, plackett_luce, weighted_mle
from toyqs.objectives.policy.reinforce import ClippedReinforce, Reinforce
from toyqs.objectives.policy.tempered import Tempered
from toyqs.objectives.registry import registry
from toyqs.objectives.rewards import REWARDS

BETA = 0.4
FAMILY = registry()


def soft_loss(truth: tiny.Exact) -> Tensor:
    """−(E log q + β H(π))."""
    log_prob = truth.log_prob.sum(-1)
    return -(log_prob.exp() * (truth.log_q - BETA * log_prob)).sum()


@STARTS
@PATTERNS
@pytest.mark.parametrize("method", ["maxent", "vargrad", "logz_learned"])
@BACKBONES
def test_reward_and_entropy_of_whole_thoughts(method: str, groups: str, start: str) -> None:
    settings = tiny.config(weight_groups=groups, interpreter_start=start)
    every, truth = tiny.enumerate_tuples(settings, 2), tiny.exact(settings)
    log_z = torch.full((*every.trace.log_prob.shape[:3], 1), 0.3).double()
    got = expected(every, FAMILY[method](temperature=BETA), "policy", "nll", correction=log_z)
    tiny.close(got, truth.gradient(soft_loss(truth)))


@BACKBONES
def test_reward_and_entropy_by_the_estimated_log_z() -> None:
    """With three thoughts the estimate rests on two, which count as two only if they weigh alike."""
    settings = tiny.config(weight_groups="ABCD", max_reasoning_len=1)
    symbols = torch.arange(3).view(3, 1)
    every, truth = tiny.enumerate_tuples(settings, 3, symbols), tiny.exact(settings, symbols)
    log_prob = every.trace.log_prob.sum(-1)

    def unmasked(log_q: Tensor, log_pi: Tensor) -> Tensor:
        log_z, _ = log_z_of_others(log_q, BETA, log_pi.detach())
        return logz(log_q, log_pi, BETA, log_z).mean(-1)

    loss = unmasked(log_q_of(every), log_prob)
    got = every.expected((loss * every.batch.weights).sum((1, 2)) / every.batch.weights.sum((1, 2)))
    probability = truth.probability
    wanted = truth.gradient(-(probability * (truth.log_q.detach() - BETA * truth.log_prob.sum(-1))).sum())
    tiny.close(got, wanted)
    masked = expected(every, FAMILY["logz_mse"](temperature=BETA), "policy")
    assert float(tiny.flat({n: g[None] for n, g in masked.items()}).norm()) < float(
        tiny.flat({n: g[None] for n, g in wanted.items()}).norm()
    )


TABLES = {
    "listwise": partial(listwise, beta=BETA),
    "plackett_luce": plackett_luce,
    "weighted_mle": lambda r, lp: weighted_mle(r, lp, BETA, lp.detach()),
}


@STARTS
@PATTERNS
@pytest.mark.parametrize("method", TABLES)
@BACKBONES
def test_what_is_fitted_within_a_group(method: str, groups: str, start: str) -> None:
    """The trace's log-probabilities and rewards are the plain model's; worlds.py proves the loss itself."""
    settings = tiny.config(weight_groups=groups, interpreter_start=start)
    every, truth = tiny.enumerate_tuples(settings, 2), tiny.exact(settings)
    objective = FAMILY[method]() if method == "plackett_luce" else FAMILY[method](temperature=BETA)
    got = expected(every, objective, "policy")
    tiny.close(got, of_tuples(truth, 2, lambda log_q, log_pi: TABLES[method](log_q.detach(), log_pi)))


@pytest.mark.parametrize("groups", ["AAAA", "ABCD"])
@BACKBONES
def test_the_first_clipped_step_is_reinforce_and_a_far_one_is_none(groups: str) -> None:
    every = tiny.enumerate_tuples(tiny.config(weight_groups=groups), 2)
    log_prob = every.trace.log_prob.detach()
    for each in ("thought", "symbol"):
        got = expected(every, ClippedReinforce(clip_each=each), "policy", sampler_log_prob=log_prob)
        tiny.close(got, expected(every, Reinforce(), "policy"), tolerance=1e-12)
    # Where every thought is now far likelier, only those to be discouraged still move.
    trace = every.trace._replace(sampler_log_prob=log_prob - 0.5)
    (grad,) = torch.autograd.grad(
        ClippedReinforce()(trace, every.batch).parts["policy"].sum(), every.trace.log_prob, retain_graph=True
    )
    advantages = Reinforce().advantages(log_q_of(every).detach(), every.trace, every.batch)
    counted = every.batch.weights.unsqueeze(-1) > 0
    assert not grad[(advantages > 0) & counted].any()
    assert bool((grad[(advantages < 0) & counted] != 0).all())


@pytest.mark.parametrize("baseline", [name for name, x in BASELINES.items() if x.is_prediction])
@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", ["AAAA", "AABC", "ABCD"])
@BACKBONES
def test_another_predictions_reward_is_an_unbiased_baseline(groups: str, start: str, baseline: str) -> None:
    settings = tiny.config(weight_groups=groups, interpreter_start=start, baseline=baseline)
    every, truth = tiny.enumerate_tuples(settings, 1), tiny.exact(settings)
    objective = Reinforce(baseline=baseline)
    base = getattr(every.trace, str(BASELINES[baseline].reads))
    got = expected(every, objective, "policy", "nll")
    tiny.close(got, truth.gradient(-(truth.probability * truth.log_q).sum()))
    reward = log_q_of(every).detach()
    target = base[..., 0, :].log_softmax(-1).gather(-1, every.batch.targets.unsqueeze(-1))
    torch.testing.assert_close(reward - objective.advantages(reward, every.trace, every.batch), target)
    assert bool((base != every.trace.logits[..., 0, :, :].squeeze(3).unsqueeze(3)).any())


@pytest.mark.parametrize(
    "sees", ["context", "target", "base_prediction", "average_thought", "greedy_thought"]
)
@pytest.mark.parametrize("num", [1, 2])
@pytest.mark.parametrize("groups", ["AAAA", "AABC", "ABCD"])
@BACKBONES
def test_a_value_is_an_unbiased_baseline(groups: str, num: int, sees: str) -> None:
    """It knows the context and the targets, never the thought; so with every reward."""
    settings = tiny.config(weight_groups=groups, baseline="value", value_sees=sees, n_tokens_ahead=num)
    every, truth = tiny.enumerate_tuples(settings, 1), tiny.exact(settings)
    objective = Reinforce(baseline="value", value_sees=sees)
    at = objective.expected(sees, every.trace, every.batch)[:, tiny.AT[0], tiny.AT[1]]
    torch.testing.assert_close(at, at[:1].expand_as(at), rtol=0, atol=1e-13)
    got = expected(every, objective, "policy", "nll")
    tiny.close(got, truth.gradient(-(truth.probability * truth.log_q).sum()))
    reference = torch.tensor([0.2, 0.5, 0.3]).double().log().expand(*every.trace.logits[:, :, :, 0].shape)
    for reward in REWARDS.keys() - {"trajectory", "contribution"}:  # which read other predictions
        plain, compared = (
            expected(
                every, replace(objective, reward=reward, baseline=b), "policy", reference_log_probs=reference
            )
            for b in ("none", "value")
        )
        tiny.close(compared, plain)


SCALES = {"positive_only": "group_mean", "group_std": "group_mean"}


@pytest.mark.parametrize("scale", SCALES)
def test_the_bias_of_scales_that_turn_the_gradient(scale: str) -> None:
    """At K = 2: cosine and length against the exact gradient, in every pattern."""
    for groups in tiny.PATTERNS:
        settings = tiny.config(weight_groups=groups)
        every, truth = tiny.enumerate_tuples(settings, 2), tiny.exact(settings)
        objective = Reinforce(baseline=SCALES[scale], advantage_scale=scale)
        wanted = truth.gradient(-(truth.probability * truth.log_q.detach()).sum())
        got, exact = (
            tiny.flat({n: g[None] for n, g in x.items()})[0]
            for x in (expected(every, objective, "policy"), wanted)
        )
        cosine = float(torch.cosine_similarity(got, exact, dim=0))
        assert 0.05 < cosine < 0.9999, (groups, cosine)


def test_equal_rewards_give_no_advantage_and_no_nan() -> None:
    every = tiny.enumerate_tuples(tiny.config(weight_groups="ABCD"), 2)
    objective = Reinforce(baseline="group_mean", advantage_scale="group_std")
    for level in (0.0, -0.7, -1e3, 1e-12):
        equal = torch.full(every.trace.log_prob.shape[:-1], level).double()
        assert not objective.advantages(equal, every.trace, every.batch).any()


@pytest.mark.parametrize(
    ("objective", "lacking"),
    [
        (Reinforce(reward="log_ratio"), "reference_log_probs"),
        (Reinforce(reward="kl_forward"), "reference_log_probs"),
        (Reinforce(baseline="null_thought"), "base_logits"),
        (Reinforce(baseline="average_thought"), "average_logits"),
        (Reinforce(baseline="greedy_thought"), "greedy_logits"),
        (Reinforce(baseline="value"), "correction"),
        (FAMILY["logz_learned"](value_sees="greedy_thought"), "correction"),
        (ClippedReinforce(), "sampler_log_prob"),
        (FAMILY["logz_learned"](), "correction"),
    ],
)
def test_what_a_trace_lacks_is_named(objective: ThoughtObjective, lacking: str) -> None:
    every = tiny.enumerate_tuples(tiny.config(), 1)
    with pytest.raises(ValueError, match=lacking):
        objective(every.trace, every.batch)


@pytest.mark.parametrize("method", [name for name, kind in FAMILY.items() if issubclass(kind, Tempered)])
def test_a_relative_temperature_follows_the_rewards_spread(method: str) -> None:
    """Rewards a hundred times as far apart: the same policy gradient, up to their scale where it counts."""
    every = tiny.enumerate_tuples(tiny.config(weight_groups="ABCD"), 3, tiny.THOUGHTS[:4])
    log_z = torch.zeros(*every.trace.log_prob.shape[:3], 1).double()
    trace = every.trace._replace(correction=log_z)
    objective = FAMILY[method](temperature=BETA, temperature_scale="spread")
    reward = log_q_of(every).detach()
    reward = reward - reward.mean(-1, keepdim=True)  # a learned log Z of 0 is as far from both
    grads = [
        torch.autograd.grad(
            (objective.policy_loss(scale * reward, trace, every.batch) * every.batch.weights).sum(),
            trace.log_prob,
            retain_graph=True,
        )[0]
        for scale in (1.0, 100.0)
    ]
    factor = 1.0 if method in {"listwise", "weighted_mle"} else 100.0
    different = reward[:, tiny.AT[0], tiny.AT[1]].std(-1) > 1e-12  # thrice the same thought has no spread
    assert 0 < int(different.sum()) < len(different)
    torch.testing.assert_close(grads[1][different], factor * grads[0][different], rtol=1e-5, atol=1e-9)
