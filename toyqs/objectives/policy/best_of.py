"""Imitation of the best thought of each position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from toyqs.objectives.objective import ThoughtObjective
from toyqs.objectives.rewards import rounding
from toyqs.types import Batch, Trace


@dataclass(frozen=True)
class BestOf(ThoughtObjective):
    """Maximum likelihood on the thought with the highest reward, the first one of several.

        policy:   −log π(h_b | x),    b = argmax_i r_i

    Biased: the policy moves to the distribution of the best of K of its own thoughts, and from there to a
    single thought, however little it is better. Rewards that differ by rounding alone count as equal, and the
    first thought drawn is then as good as any: on average nothing moves.

    Source: Dong et al. 2023, "RAFT: reward ranked finetuning for generative foundation model alignment".
    """

    name: ClassVar[str] = "best_of"
    least_thoughts: ClassVar[int] = 2

    def policy_loss(self, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
        """Compute minus the log-probability of the best thought, (S, B, T)."""
        assert trace.log_prob is not None
        highest = reward.amax(-1, keepdim=True)
        best = (reward >= highest - rounding(highest)).long().argmax(-1, keepdim=True)
        return -trace.log_prob.sum(-1).gather(-1, best).squeeze(-1)
