"""The base of objectives with a temperature: their optimum is π* ∝ exp(r / β), not one best thought.

Each computes, from rewards r and the thoughts' log π = Σ_l log π(s_l), a loss per position whose value
matters only where the docstring says so. Shapes are checked by the caller (objective.py).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from toyqs.objectives.losses import no_reduction, position_mean
from toyqs.objectives.objective import ThoughtObjective
from toyqs.objectives.rewards import EQUAL, settled
from toyqs.types import Batch, Trace

Temperature = float | Tensor  # a number, or one per seed, (S, 1, 1, 1)


@dataclass(frozen=True)
class Tempered(ThoughtObjective):
    """The base class of objectives with a temperature."""

    temperature: float = 0.1  # β
    temperature_scale: str = "absolute"  # spread: β counts in standard deviations within a group

    def policy_loss(self, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
        """Compute the loss at the temperature of this batch, (S, B, T)."""
        assert trace.log_prob is not None
        beta, reward = self.scaled(reward, batch)
        return self.at_temperature(beta, reward, trace.log_prob.sum(-1), trace, batch)

    def scaled(self, reward: Tensor, batch: Batch) -> tuple[Temperature, Tensor]:
        """Return the temperature of a batch, and the rewards that it divides.

        Where it is relative, rewards that differ by rounding alone are made equal: where all do, the
        temperature is next to 0, and would make rounding a preference.

        Args:
            reward: (S, B, T, K).
            batch: at the same positions.

        Returns:
            β, and rewards (S, B, T, K).
        """
        if self.temperature_scale == "absolute":
            return self.temperature, reward
        reward = settled(reward)
        mean = partial(position_mean, total=batch.total or no_reduction)
        spread = batch.over_pieces(mean, reward.std(-1), batch.weights)
        return (self.temperature * spread.clamp(min=EQUAL)).view(-1, 1, 1, 1), reward

    @abstractmethod
    def at_temperature(
        self, beta: Temperature, reward: Tensor, log_prob: Tensor, trace: Trace, batch: Batch
    ) -> Tensor:
        """Compute the loss per position (S, B, T), from rewards and log π (S, B, T, K)."""


def effective_samples(weights: Tensor) -> Tensor:
    """Compute how many thoughts count, 1 / Σ w̄², from weights (S, B, T, K) that sum to 1: (S, B, T)."""
    return weights.square().sum(-1).reciprocal()


def below_highest(rewards: Tensor) -> Tensor:
    """Subtract the position's highest reward from each, (S, B, T, K), for objectives of differences alone.

    Divided by a low β, rewards would leave no digits for what is added to them.
    """
    return rewards - rewards.amax(-1, keepdim=True)


def sampling_density(log_prob: Tensor, trace: Trace) -> Tensor:
    """Return the log-density (S, B, T, K) that each thought was drawn from, by default the policy's."""
    return log_prob.detach() if trace.sampler_log_prob is None else trace.sampler_log_prob.sum(-1)
