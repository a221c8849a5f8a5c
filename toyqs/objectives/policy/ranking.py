"""Objectives that rank or weight the thoughts of a position by their rewards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from toyqs.objectives.objective import ThoughtObjective
from toyqs.objectives.policy.tempered import (
    Temperature,
    Tempered,
    below_highest,
    effective_samples,
    sampling_density,
)
from toyqs.objectives.rewards import rounding
from toyqs.types import Batch, Trace


def listwise(rewards: Tensor, log_prob: Tensor, beta: Temperature) -> Tensor:
    """Fit the policy's ranking of the K thoughts to the rewards' (cross entropy of two softmaxes).

        −Σ_i sg softmax(r / β)_i · log softmax(log π)_i

    Zero gradient at π* ∝ exp(r / β), whatever the thoughts were drawn from. K = 1 trains nothing;
    K = 2 is the soft-label form of DPO with β = 1.

    Args:
        rewards: (S, B, T, K).
        log_prob: (S, B, T, K), differentiable.
        beta: temperature of the rewards, above 0.

    Returns:
        (S, B, T); its gradient descends the Kullback-Leibler divergence of the two rankings.

    Source: Cao et al. 2007, "Learning to rank: from pairwise approach to listwise approach" (ListNet).
    """
    wanted = (rewards.detach() / beta).softmax(-1)
    return -(wanted * log_prob.log_softmax(-1)).sum(-1)


@dataclass(frozen=True)
class Listwise(Tempered):
    """The objective of `listwise`."""

    name: ClassVar[str] = "listwise"
    off_policy: ClassVar[bool] = True
    least_thoughts: ClassVar[int] = 2

    def at_temperature(
        self, beta: Temperature, reward: Tensor, log_prob: Tensor, trace: Trace, batch: Batch
    ) -> Tensor:
        """Compute `listwise`, (S, B, T)."""
        return listwise(reward, log_prob, beta)

    def meters(self, reward: Tensor, trace: Trace, batch: Batch) -> dict[str, Tensor]:
        """Compute the effective number of thoughts in the rewards' softmax."""
        beta, reward = self.scaled(reward, batch)
        return {"effective_samples": effective_samples((reward / beta).softmax(-1))}


def plackett_luce(rewards: Tensor, log_prob: Tensor) -> Tensor:
    """Compute minus the log-probability that drawing by π without replacement ranks thoughts by reward.

        −Σ_i [ log π_(i) − log Σ_{j ≥ i} π_(j) ],    r_(1) ≥ r_(2) ≥ …

    Rewards that differ by rounding alone keep the order in which they were drawn. K = 1 trains nothing;
    K = 2 is DPO on one pair with no reference policy.

    Args:
        rewards: (S, B, T, K).
        log_prob: (S, B, T, K), differentiable.

    Returns:
        (S, B, T).

    Source: Plackett 1975, "The analysis of permutations"; Luce 1959.
    """
    ranked = log_prob.gather(-1, ranks(rewards.detach()).argsort(dim=-1, stable=True))
    remaining = ranked.flip(-1).logcumsumexp(-1).flip(-1)
    return -(ranked - remaining).sum(-1)


def ranks(rewards: Tensor) -> Tensor:
    """Return the rank of each thought's reward, 0 the highest; rewards a rounding apart share one.

    Args:
        rewards: (S, B, T, K).

    Returns:
        (S, B, T, K) long.
    """
    highest_first, order = rewards.sort(dim=-1, descending=True)
    higher, lower = highest_first[..., :-1], highest_first[..., 1:]
    below = (higher - lower > rounding(higher)).long().cumsum(-1)
    return torch.zeros_like(order).scatter_(-1, order[..., 1:], below)


@dataclass(frozen=True)
class PlackettLuce(ThoughtObjective):
    """The objective of `plackett_luce`."""

    name: ClassVar[str] = "plackett_luce"
    off_policy: ClassVar[bool] = True
    least_thoughts: ClassVar[int] = 2

    def policy_loss(self, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
        """Compute `plackett_luce`, (S, B, T)."""
        assert trace.log_prob is not None
        return plackett_luce(reward, trace.log_prob.sum(-1))


def weighted_mle(rewards: Tensor, log_prob: Tensor, beta: Temperature, sampler_log_prob: Tensor) -> Tensor:
    """Compute the weighted negative log-likelihood of the thoughts drawn.

        −Σ_i sg w̄_i · log π(h_i),    w̄ = softmax(r / β − log of the sampling density)

    With the whole thought space as the group the optimum is π* ∝ exp(r / β) exactly; at finite K it is
    biased. Without the density, on-policy, it would collapse: a thought drawn often would count twice.

    Args:
        rewards: (S, B, T, K).
        log_prob: (S, B, T, K), differentiable.
        beta: temperature, above 0.
        sampler_log_prob: (S, B, T, K) log-density that each thought was drawn from.

    Returns:
        (S, B, T).

    Source: Peters and Schaal 2007, "Reinforcement learning by reward-weighted regression".
    """
    weights = (below_highest(rewards) / beta - sampler_log_prob).detach().softmax(-1)
    return -(weights * log_prob).sum(-1)


@dataclass(frozen=True)
class WeightedMLE(Tempered):
    """The objective of `weighted_mle`."""

    name: ClassVar[str] = "weighted_mle"
    off_policy: ClassVar[bool] = True
    least_thoughts: ClassVar[int] = 2

    def at_temperature(
        self, beta: Temperature, reward: Tensor, log_prob: Tensor, trace: Trace, batch: Batch
    ) -> Tensor:
        """Compute `weighted_mle`, (S, B, T)."""
        return weighted_mle(reward, log_prob, beta, sampling_density(log_prob, trace))

    def meters(self, reward: Tensor, trace: Trace, batch: Batch) -> dict[str, Tensor]:
        """Compute the effective number of thoughts by their weights."""
        assert trace.log_prob is not None
        beta, reward = self.scaled(reward, batch)
        density = sampling_density(trace.log_prob.sum(-1), trace)
        weights = (below_highest(reward) / beta - density).softmax(-1)
        return {"effective_samples": effective_samples(weights)}
