"""Objectives that maximise reward and entropy of whole thoughts together, in two forms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from toyqs.objectives.advantages import leave_one_out
from toyqs.objectives.policy.tempered import Temperature, Tempered
from toyqs.types import Batch, Trace


def maxent(rewards: Tensor, log_prob: Tensor, beta: Temperature) -> Tensor:
    """Compute REINFORCE's loss on reward and entropy of whole thoughts, with leave-one-out baseline.

        −(1 / K) Σ_i sg(A_i) · log π(h_i),    A = (r − β log π) − leave-one-out mean of it

    The expected gradient is that of −(E_π r + β H(π)), with the score term that a plain sum of per-symbol
    entropies leaves out.

    Args:
        rewards: (S, B, T, K), K ≥ 2.
        log_prob: (S, B, T, K), differentiable.
        beta: temperature, 0 or above.

    Returns:
        (S, B, T); the value means nothing.

    Source: Williams and Peng 1991, "Function optimization using connectionist reinforcement learning".
    """
    soft = (rewards - beta * log_prob).detach()
    return -((soft - leave_one_out(soft)) * log_prob).mean(-1)


@dataclass(frozen=True)
class MaxEnt(Tempered):
    """The objective of `maxent`."""

    name: ClassVar[str] = "maxent"
    least_thoughts: ClassVar[int] = 2

    def at_temperature(
        self, beta: Temperature, reward: Tensor, log_prob: Tensor, trace: Trace, batch: Batch
    ) -> Tensor:
        """Compute `maxent`, (S, B, T)."""
        return maxent(reward, log_prob, beta)


def vargrad(rewards: Tensor, log_prob: Tensor, beta: Temperature) -> Tensor:
    """Compute the within-group variance of β log π − r, zero where the policy is π* ∝ exp(r / β).

        Σ_i (d_i − mean d)² / (2 β (K − 1)),    d = β log π − sg r

    On-policy its gradient equals `maxent`'s; off-policy the optimum is still π*.

    Args:
        rewards: (S, B, T, K), K ≥ 2.
        log_prob: (S, B, T, K), differentiable.
        beta: temperature, above 0.

    Returns:
        (S, B, T).

    Source: Richter et al. 2020, "VarGrad: a low-variance gradient estimator for variational inference".
    """
    if rewards.shape[-1] < 2:
        raise ValueError("vargrad: a variance needs at least 2 thoughts per position")
    spread = (beta * log_prob - rewards.detach()).var(-1, keepdim=True)
    return (spread / (2 * beta)).squeeze(-1)


@dataclass(frozen=True)
class VarGrad(Tempered):
    """The objective of `vargrad`."""

    name: ClassVar[str] = "vargrad"
    off_policy: ClassVar[bool] = True
    least_thoughts: ClassVar[int] = 2

    def at_temperature(
        self, beta: Temperature, reward: Tensor, log_prob: Tensor, trace: Trace, batch: Batch
    ) -> Tensor:
        """Compute `vargrad`, (S, B, T)."""
        return vargrad(reward, log_prob, beta)
