"""Rewards that compare with a reference: log-ratios and divergences, by enumeration."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.objectives.tables import BACKBONES, expected
from toyqs.objectives.policy.reinforce import Reinforce
from toyqs.types import Trace


def reference(trace: Trace, seed: int = 4) -> Tensor:
    """Log-probabilities (S, B, T, 1, V) of some other model."""
    generator = torch.Generator().manual_seed(seed)
    shape = (*trace.logits.shape[1:3], *trace.logits.shape[4:])
    logits = torch.randn(shape, generator=generator, dtype=torch.float64)
    return logits.log_softmax(-1).expand(len(trace.logits), *shape)


@pytest.mark.parametrize("groups", ["AAAA", "AABC", "ABCD"])
@BACKBONES
def test_log_ratio_is_the_likelihood_under_a_group_baseline(groups: str) -> None:
    every = tiny.enumerate_tuples(tiny.config(weight_groups=groups), 2)
    more = {"reference_log_probs": reference(every.trace)}
    got = expected(every, Reinforce(reward="log_ratio"), "policy", "nll", **more)
    tiny.close(got, expected(every, Reinforce(), "policy", "nll"), tolerance=1e-12)
    loss = Reinforce(reward="log_ratio")(every.trace._replace(**more), every.batch)
    assert not torch.allclose(loss.reward, Reinforce()(every.trace, every.batch).reward)


def divergence(every: tiny.Enumeration, reward: str, beta: float = 1.0) -> Tensor:
    """The reward of every thought at the counted position, by torch's own kl_div where β = 1."""
    log_lm = reference(every.trace)[:, :, :, 0].unsqueeze(3)
    log_p = every.trace.logits[..., 0, :].log_softmax(-1)
    if reward == "kl_forward":
        return -torch.nn.functional.kl_div(log_p, log_lm, log_target=True, reduction="none").sum(-1)
    if beta == 1.0:
        return -torch.nn.functional.kl_div(
            log_lm.expand_as(log_p), log_p, log_target=True, reduction="none"
        ).sum(-1)
    entropy = torch.distributions.Categorical(logits=log_p).entropy()
    return (log_p.exp() * log_lm).sum(-1) + beta * entropy


@pytest.mark.parametrize(("reward", "beta"), [("kl_forward", 1.0), ("kl_reverse", 1.0), ("kl_reverse", 0.5)])
@pytest.mark.parametrize("groups", ["AAAA", "ABBA", "ABCD"])
@BACKBONES
def test_divergences_reach_reasoner_and_predictor(groups: str, reward: str, beta: float) -> None:
    """E[∇(policy + nll)] = −∇ Σ_h π(h) r(h), the expectation and the thoughts' own path together."""
    every = tiny.enumerate_tuples(tiny.config(weight_groups=groups), 2)
    more = {"reference_log_probs": reference(every.trace)}
    got = expected(every, Reinforce(reward=reward, reward_beta=beta), "policy", "nll", **more)
    one = tiny.enumerate_tuples(tiny.config(weight_groups=groups), 1)
    value = divergence(one, reward, beta)[:, tiny.AT[0], tiny.AT[1], 0]
    log_prob = one.trace.log_prob[:, tiny.AT[0], tiny.AT[1], 0].sum(-1)
    # Copy by copy of the enumeration: d(π r) = r dπ + π dr, summed over the nine thoughts.
    grads = tiny.gradients(-(log_prob.exp() * value).sum(), one.built)
    tiny.close(got, {name: g.sum(0) for name, g in grads.items()})


def test_what_a_reference_holds_impossible_adds_nothing_to_the_forward_divergence() -> None:
    every = tiny.enumerate_tuples(tiny.config(), 1)
    certain = torch.full_like(reference(every.trace), -torch.inf)
    certain[..., 1] = 0.0
    trace = every.trace._replace(reference_log_probs=certain)
    loss = Reinforce(reward="kl_forward", baseline="none")(trace, every.batch)
    ones = every.batch._replace(targets=torch.ones_like(every.batch.targets))
    plain = Reinforce(baseline="none")(every.trace, ones)
    torch.testing.assert_close(loss.parts["nll"], plain.parts["nll"], rtol=0, atol=1e-12)
    grads = tiny.gradients(loss.parts["nll"].sum(), every.built)
    assert all(bool(g.isfinite().all()) for g in grads.values())
