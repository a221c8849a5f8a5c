"""The squared error of log π against log π* = r / β − log Z, with log Z estimated or learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from toyqs.objectives.losses import log_mean_exp_of_others
from toyqs.objectives.policy.tempered import Temperature, Tempered, below_highest, sampling_density
from toyqs.types import Batch, Trace

EFFECTIVE_SAMPLES = 2.0  # with fewer, an estimate of log Z depends on one thought: logz_mse masks it


def log_z_of_others(rewards: Tensor, beta: Temperature, sampler_log_prob: Tensor) -> tuple[Tensor, Tensor]:
    """Estimate log Z = log Σ_h exp(r / β) for each thought from the others, and how reliable that is.

        log Ẑ_i = log (1 / (K − 1)) Σ_{j ≠ i} exp(r_j / β) / density_j

    Biased low, by Jensen's inequality, the more so the fewer samples count.

    Args:
        rewards: (S, B, T, K), K ≥ 3.
        beta: temperature, above 0.
        sampler_log_prob: (S, B, T, K) log-density that each thought was drawn from.

    Returns:
        (S, B, T, K) log Ẑ and the effective number of samples of each, (Σ w)² / Σ w²; no gradient.
    """
    if rewards.shape[-1] < 3:
        raise ValueError("log Z from the other thoughts needs at least 3 thoughts per position")
    log_w = (rewards / beta - sampler_log_prob).detach()
    return log_mean_exp_of_others(log_w), effective_others(log_w)


def effective_others(log_w: Tensor) -> Tensor:
    """Compute the effective number of the other thoughts, (Σ w)² / Σ w² over those.

    Args:
        log_w: (S, B, T, K) log-weights, not necessarily normalised.

    Returns:
        (S, B, T, K), computed in float64; 1 where the others are hundreds of nats below the one left out.
    """
    weights = log_w.double().softmax(-1)
    others = 1 - torch.eye(log_w.shape[-1], dtype=weights.dtype, device=weights.device)
    return ((weights @ others).square() / (weights.square() @ others)).nan_to_num(nan=1.0).to(log_w)


def logz(rewards: Tensor, log_prob: Tensor, beta: Temperature, log_z: Tensor) -> Tensor:
    """Compute the squared error of log π against log π* = r / β − log Z, for a given log Z.

        (1 / K) Σ_i (β log π(h_i) + β sg log Z − sg r_i)² / (2 β)

    On-policy the gradient is −∇(E_π r + β H(π)) for any constant log Z; off-policy the right log Z is
    needed for the optimum π*.

    Args:
        rewards: (S, B, T, K).
        log_prob: (S, B, T, K), differentiable.
        beta: temperature, above 0.
        log_z: (S, B, T, K) or (S, B, T, 1); with its gradient where it is learned.

    Returns:
        (S, B, T, K), per thought.

    Source: Malkin et al. 2022, "Trajectory balance: improved credit assignment in GFlowNets".
    """
    return (beta * log_prob + beta * log_z - rewards.detach()).square() / (2 * beta)


@dataclass(frozen=True)
class LogZ(Tempered):
    """`logz` with log Z from the other thoughts, where their effective number is large enough."""

    name: ClassVar[str] = "logz_mse"
    off_policy: ClassVar[bool] = True
    least_thoughts: ClassVar[int] = 3

    def at_temperature(
        self, beta: Temperature, reward: Tensor, log_prob: Tensor, trace: Trace, batch: Batch
    ) -> Tensor:
        """Compute the loss (S, B, T), 0 for thoughts whose estimate of log Z is unreliable."""
        reward = below_highest(reward)
        log_z, samples = log_z_of_others(reward, beta, sampling_density(log_prob, trace))
        error = logz(reward, log_prob, beta, log_z)
        return error.where(_enough(samples), 0.0).mean(-1)

    def meters(self, reward: Tensor, trace: Trace, batch: Batch) -> dict[str, Tensor]:
        """Compute the effective samples per estimate of log Z, and the share of thoughts masked."""
        assert trace.log_prob is not None
        density = sampling_density(trace.log_prob.sum(-1), trace)
        beta, reward = self.scaled(reward, batch)
        samples = effective_others((below_highest(reward) / beta - density).detach())
        return {"effective_samples": samples.mean(-1), "masked": 1.0 - _enough(samples).to(reward).mean(-1)}


def _enough(samples: Tensor) -> Tensor:
    return samples >= EFFECTIVE_SAMPLES * (1 - 1e-6)


@dataclass(frozen=True)
class LearnedLogZ(Tempered):
    """`logz` with β log Z from a critic that learns it by the same loss.

    It learns what β log Σ_h exp(r / β) is beyond the reward of the prediction that `value_sees` names.
    """

    name: ClassVar[str] = "logz_learned"
    off_policy: ClassVar[bool] = True

    value_sees: str = "context"  # what the critic corrects; see Objective.expected

    @property
    def has_critic(self) -> bool:
        """Return True: the critic learns β log Z."""
        return True

    def at_temperature(
        self, beta: Temperature, reward: Tensor, log_prob: Tensor, trace: Trace, batch: Batch
    ) -> Tensor:
        """Compute the loss (S, B, T), whose gradient trains policy and critic."""
        value = self.expected(self.value_sees, trace, batch)
        return logz(reward, log_prob, beta, value.unsqueeze(-1) / beta).mean(-1)
