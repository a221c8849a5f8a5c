"""Baselines: what a thought's reward is compared with. None depends on a gradient."""

from __future__ import annotations

import torch
from torch import Tensor


def none(rewards: Tensor) -> Tensor:
    """No baseline: b = 0. Unbiased, with the highest variance.

    Args:
        rewards: (S, B, T, K).

    Returns:
        (S, B, T, K), zeros.
    """
    return torch.zeros_like(rewards)


def group_mean(rewards: Tensor) -> Tensor:
    """The mean reward of all thoughts at the position, the thought itself included.

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
    """Baseline of each thought: the mean reward of the other thoughts at its position.

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
    """A moving mean of past rewards, one number per seed. Unbiased; works with K = 1.

        b = m,    m ← decay · m + (1 − decay) · mean(r)  after each step, in the training loop

    Args:
        rewards: (S, B, T, K).
        running_reward: (S,) m, from earlier steps only.

    Returns:
        (S, B, T, K).

    Source: Williams 1992, "Simple statistical gradient-following algorithms".
    """
    return running_reward.view(-1, 1, 1, 1).expand_as(rewards)


def _require_group(rewards: Tensor) -> None:
    if rewards.shape[-1] < 2:
        raise ValueError("a group baseline needs at least 2 thoughts per position (K = 1 trains nothing)")
