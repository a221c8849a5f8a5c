"""Baselines of a thought's reward, and how advantages are scaled.

A baseline maps rewards (S, B, T, K), and a field of the trace where it reads one, to (S, B, T, K). A new
baseline is one function and its line in BASELINES. A scale maps advantages, and the rewards that they are of,
to advantages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from toyqs.objectives.losses import Total, no_reduction
from toyqs.objectives.rewards import differ, rounding

STD_FLOOR = 1e-3  # added to the standard deviation: equal rewards give advantages near 0, not NaN


def none(rewards: Tensor) -> Tensor:
    """Use no baseline, b = 0. Unbiased, with the highest variance.

    Args:
        rewards: (S, B, T, K).

    Returns:
        (S, B, T, K), zeros.
    """
    return torch.zeros_like(rewards)


def group_mean(rewards: Tensor) -> Tensor:
    """Compute the mean reward of all thoughts at the position, the thought itself included.

        b[...,k] = (1 / K) Σ_j r[...,j]

    The expected gradient is (K − 1) / K of the exact one, so a sweep over K also sweeps the
    effective weight of the policy loss.

    Args:
        rewards: (S, B, T, K), K ≥ 2.

    Returns:
        (S, B, T, K).

    Raises:
        ValueError: K = 1, where every advantage would be 0.

    Source: Zelikman et al. 2024, "Quiet-STaR"; there as in TRICE (Phan et al. 2023).
    """
    _require_group(rewards)
    return rewards.mean(-1, keepdim=True).expand_as(rewards)


def leave_one_out(rewards: Tensor) -> Tensor:
    """Compute the baseline of each thought: the mean reward of the other thoughts at its position.

        b[...,k] = (Σ_j r[...,j] − r[...,k]) / (K − 1)

    b[...,k] does not depend on thought k, so subtracting it leaves E[∇] unchanged.

    Args:
        rewards: (S, B, T, K), K ≥ 2.

    Returns:
        (S, B, T, K).

    Raises:
        ValueError: K = 1: there is no other thought.

    Source: Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free".
    """
    _require_group(rewards)
    return (rewards.sum(-1, keepdim=True) - rewards) / (rewards.shape[-1] - 1)


def ema(rewards: Tensor, running_reward: Tensor) -> Tensor:
    """Use a moving mean of past rewards, one number per seed. Unbiased; works with K = 1.

        b = m,    m ← decay · m + (1 − decay) · mean(r)  after each step, in the training loop

    Args:
        rewards: (S, B, T, K).
        running_reward: (S,) m, from earlier steps only.

    Returns:
        (S, B, T, K).

    Source: Williams 1992, "Simple statistical gradient-following algorithms".
    """
    return running_reward.view(-1, 1, 1, 1).expand_as(rewards)


def value(rewards: Tensor, expected: Tensor) -> Tensor:
    """Use the reward that a critic expects at the position. Unbiased; works with K = 1.

    Args:
        rewards: (S, B, T, K).
        expected: (S, B, T), the critic's value, which does not depend on the thought.

    Returns:
        (S, B, T, K), no gradient.
    """
    return expected.detach().unsqueeze(-1).expand_as(rewards)


def of_prediction(rewards: Tensor, earned: Tensor) -> Tensor:
    """Use what another prediction at the position would have earned. Unbiased; works with K = 1.

    Args:
        rewards: (S, B, T, K).
        earned: (S, B, T, 1).

    Returns:
        (S, B, T, K).

    Source: Rennie et al. 2017, "Self-critical sequence training", whose other prediction is the greedy one.
    """
    return earned.expand_as(rewards)


def _require_group(rewards: Tensor) -> None:
    if rewards.shape[-1] < 2:
        raise ValueError("a group baseline needs at least 2 thoughts per position (K = 1 trains nothing)")


class Baseline(NamedTuple):
    """A baseline's function, the field of the trace that it reads, and the thoughts that it needs."""

    compute: Callable[..., Tensor]  # rewards, and what comes of the field where it reads one -> (S, B, T, K)
    reads: str | None = None  # a field of the trace; of `correction` the value that it makes is handed on
    is_prediction: bool = False  # the field holds logits: `compute` takes the reward that they earn
    least_thoughts: int = 1  # K


BASELINES: dict[str, Baseline] = {  # the word of baseline=… -> function
    "none": Baseline(none),
    "group_mean": Baseline(group_mean, least_thoughts=2),
    "trice": Baseline(group_mean, least_thoughts=2),  # the literature's other name
    "leave_one_out": Baseline(leave_one_out, least_thoughts=2),
    "ema": Baseline(ema, reads="running_reward"),
    "value": Baseline(value, reads="correction"),
    "null_thought": Baseline(of_prediction, reads="base_logits", is_prediction=True),
    "average_thought": Baseline(of_prediction, reads="average_logits", is_prediction=True),
    "greedy_thought": Baseline(of_prediction, reads="greedy_logits", is_prediction=True),
}


def batch_std(advantages: Tensor, rewards: Tensor, weights: Tensor, total: Total = no_reduction) -> Tensor:
    """Divide advantages by their standard deviation over the thoughts that count, seed by seed.

        A ← A / (std(A) + 10⁻³),    0 where std(A) is no more than the rounding of the rewards

    One factor per seed: the gradient's direction is unchanged.

    Args:
        advantages: (S, B, T, K).
        rewards: (S, B, T, K), what the advantages are of.
        weights: (S, B, T), 0 where a position does not count.
        total: sums over the processes that share the batch.

    Returns:
        (S, B, T, K).
    """
    share = weights / total(weights.sum((1, 2), keepdim=True)).clamp(min=1e-12)
    share = share.unsqueeze(-1) / advantages.shape[-1]
    mean = total((advantages * share).sum((1, 2, 3), keepdim=True))
    variance = total(((advantages - mean).square() * share).sum((1, 2, 3), keepdim=True))
    size = total((rewards.square() * share).sum((1, 2, 3), keepdim=True)).sqrt()
    deviation = variance.sqrt()
    # so that a deviation that is NaN stays one
    return torch.where(deviation <= rounding(size), 0.0, advantages / (deviation + STD_FLOOR))


def group_std(advantages: Tensor, rewards: Tensor, weights: Tensor, total: Total = no_reduction) -> Tensor:
    """Divide advantages by their standard deviation over the K thoughts of a position.

        A ← A / std_k(A),    0 where the K rewards differ by rounding alone

    Every position counts alike, however little its thoughts differ: the expected gradient points
    elsewhere than the exact one.

    Args:
        advantages: (S, B, T, K), K ≥ 2.
        rewards: (S, B, T, K), what the advantages are of: these alone tell rounding from spread.
        weights: ignored.
        total: ignored.

    Returns:
        (S, B, T, K).

    Source: Shao et al. 2024, "DeepSeekMath" (GRPO).
    """
    different = differ(rewards)
    spread = advantages.std(-1, keepdim=True)
    return torch.where(different, advantages / spread.where(different, 1.0), 0.0)


def positive_only(
    advantages: Tensor, rewards: Tensor, weights: Tensor, total: Total = no_reduction
) -> Tensor:
    """Drop negative advantages, so that no thought is discouraged: A ← max(A, 0). Biased.

    Args:
        advantages: (S, B, T, K).
        rewards: ignored.
        weights: ignored.
        total: ignored.

    Returns:
        (S, B, T, K).
    """
    return advantages.clamp(min=0)


def no_scale(advantages: Tensor, rewards: Tensor, weights: Tensor, total: Total = no_reduction) -> Tensor:
    """Return the advantages (S, B, T, K) unchanged."""
    return advantages


ADVANTAGE_SCALES = {
    "none": no_scale,
    "batch_std": batch_std,
    "group_std": group_std,
    "positive_only": positive_only,
}

OF_BATCH = ("batch_std",)  # those whose factor depends on all positions of the batch
