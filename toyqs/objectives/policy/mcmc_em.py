"""Markov chain Monte Carlo EM (TRICE): thoughts of the posterior, from a chain for each training example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from toyqs.objectives.advantages import leave_one_out
from toyqs.objectives.objective import Allowed, ThoughtObjective
from toyqs.types import Batch, Trace


@dataclass(frozen=True)
class MCMCEM(ThoughtObjective):
    """Climb log q(y | x), the marginal over thoughts, with thoughts of the posterior π q / Σ π q.

    The last of a position's K thoughts is the state h⁰ of a chain, which the loop remembers for each example
    of a finite training set. The others are drawn from the policy, each in turn proposed to the chain, and
    accepted with probability min(1, q(y | proposal) / q(y | state)), which leaves the posterior as it is.
    p_k(i) is the probability that thought i is the state after proposal k, and w_i its mean over them.

        policy:  −Σ_i sg w_i log π(h_i | x) + 1 / (K − 1) Σ_{k<K} sg b_k log π(h_k | x)
        nll:     −Σ_i sg w_i log q(y | h_i, x)
        b_k:     the mean over the other proposals of min(1, q(y | h_j) / q(y | h⁰))

    The second sum is the control variate: 0 in expectation, as b_k does not depend on h_k, and near the first
    where nearly all proposals are accepted. With h⁰ from the posterior the expected gradient is that of
    −log Σ_h π(h | x) q(y | h, x); a younger chain is biased towards the policy.

    Source: Phan et al. 2023, "Training chain-of-thought via latent-variable inference" (TRICE). Weights by
    p_k, in place of the one state that was drawn, are ours: the same expectation with less noise.
    """

    name: ClassVar[str] = "mcmc_em"
    least_thoughts: ClassVar[int] = 3
    changes_prediction_loss: ClassVar[bool] = True
    needs_density: ClassVar[bool] = True
    sees_target: ClassVar[bool] = True
    remembers: ClassVar[bool] = True
    allowed_values: ClassVar[dict[str, Allowed]] = {
        "reward": Allowed(("likelihood",), "weighs thoughts by a likelihood"),
        "learned_reward": Allowed((False,), "weighs thoughts by a likelihood"),
        "ahead_decay": Allowed((1.0,), "weighs thoughts by the likelihood of all tokens"),
    }

    def policy_loss(self, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
        """Compute the weighted NLL of the thoughts with its control variate, (S, B, T)."""
        assert trace.log_prob is not None
        log_prob = trace.log_prob.sum(-1)
        weights = chain_states(reward).mean(-2)
        return -(weights * log_prob).sum(-1) + (acceptance_of_others(reward) * log_prob[..., :-1]).mean(-1)

    def predictor_loss(self, score: Tensor, trace: Trace) -> Tensor:
        """Compute the weighted NLL of the targets, (S, B, T)."""
        return -(chain_states(score.detach()).mean(-2) * score).sum(-1)


def chain_states(log_q: Tensor) -> Tensor:
    """Compute the probability that each thought is the chain's state after each proposal.

    Args:
        log_q: (S, B, T, K) log q(y | h, x), the last that of the state to begin with, the others proposals.

    Returns:
        (S, B, T, K − 1, K).
    """
    state = torch.zeros_like(log_q)
    state[..., -1] = 1.0
    states = []
    for proposal in range(log_q.shape[-1] - 1):
        moved = state * (log_q[..., proposal : proposal + 1] - log_q).clamp(max=0.0).exp()
        state = state - moved
        state[..., proposal] += moved.sum(-1)
        states.append(state)
    return torch.stack(states, -2)


def acceptance_of_others(log_q: Tensor) -> Tensor:
    """Compute b of each proposal, (S, B, T, K) -> (S, B, T, K − 1); see `MCMCEM`."""
    return leave_one_out((log_q[..., :-1] - log_q[..., -1:]).clamp(max=0.0).exp())
