"""Objectives: a trace and its batch -> the parts of the loss, one number per seed each.

The training loop weights the parts and adds them up; nothing else reaches an objective.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from toyqs.objectives import baselines, policy, rewards
from toyqs.types import Batch, Trace


class Loss(NamedTuple):
    """Parts to be weighted and minimised, and what they were made of."""

    parts: dict[str, Tensor]  # name -> (S,), differentiable: "nll", "policy", "entropy"
    reward: Tensor | None = None  # (S,) mean reward, no gradient; None without thoughts


def nll(trace: Trace, batch: Batch) -> Loss:
    """Negative log-likelihood of the targets, in nats per counted position (O1).

        −log q(y | x)

    Args:
        trace: logits (S, B, T, 1, N, V).
        batch: at the thinking positions.

    Returns:
        One part, "nll".
    """
    log_q = rewards.target_log_prob(trace.logits, batch.targets.unsqueeze(-1))
    rewards.require_shape("log q", log_q, batch.weights.unsqueeze(-1).shape)
    return Loss({"nll": policy.position_mean(-log_q.squeeze(-1), batch.weights)})


Reward = Callable[[Tensor, Tensor, Tensor], Tensor]  # log q, logits, targets -> (S, B, T, K)
REWARDS: dict[str, Reward] = {"likelihood": rewards.likelihood, "accuracy": rewards.accuracy}
GROUP_BASELINES = {"group_mean": baselines.group_mean, "leave_one_out": baselines.leave_one_out}


@dataclass(frozen=True)
class Reinforce:
    """Thoughts that raise the reward are made likelier; the predictor learns from all of them (O2).

        policy:   −sg(r_i − b) · log π(h_i | x)
        nll:      −log q(y | h_i, x)
        entropy:  −Σ_l H(π(· | s_<l))  per symbol, on the sampled prefix

    With baseline none, ema or leave_one_out, no advantage scale and both weights 1, the expected
    gradient is that of Σ_h π(h | x) log q(y | h, x), for all parameters. The entropy part is myopic:
    it leaves out that an early symbol changes the entropy of the later ones.

    Source: Zelikman et al. 2024, "Quiet-STaR".
    """

    reward: str = "likelihood"  # a key of REWARDS
    baseline: str = "leave_one_out"  # none, ema, or a key of GROUP_BASELINES
    advantage_scale: str = "none"  # a key of policy.ADVANTAGE_SCALES
    num_nll_thoughts: int | None = None  # the first so many of the K carry the NLL; None: all

    def __call__(self, trace: Trace, batch: Batch) -> Loss:
        """The loss of a batch.

        Args:
            trace: logits (S, B, T, K, N, V), log_prob and entropy (S, B, T, K, L); running_reward
                (S,) for baseline ema.
            batch: at the thinking positions.

        Returns:
            The parts "policy", "nll" and "entropy". The value of "policy" means nothing, its
            gradient is the estimate.

        Raises:
            ValueError: shapes disagree, or a group baseline meets K = 1.
        """
        if trace.log_prob is None or trace.entropy is None:
            raise ValueError("Reinforce needs a trace with sampled thoughts")
        targets = batch.targets.unsqueeze(-1)
        log_q = rewards.target_log_prob(trace.logits, targets)
        reward = REWARDS[self.reward](log_q, trace.logits, targets)
        rewards.require_shape("reward", reward, trace.log_prob.shape[:-1])
        scale = policy.ADVANTAGE_SCALES[self.advantage_scale]
        advantages = scale(reward - self._baseline(reward, trace), batch.weights)
        means = {
            "policy": policy.score_function_loss(advantages, trace.log_prob),
            "nll": -log_q[..., : self.num_nll_thoughts].mean(-1),
            "entropy": -trace.entropy.sum(-1).mean(-1),
        }
        parts = {name: policy.position_mean(value, batch.weights) for name, value in means.items()}
        return Loss(parts, policy.position_mean(reward.mean(-1), batch.weights))

    def _baseline(self, reward: Tensor, trace: Trace) -> Tensor:
        if self.baseline == "none":
            return baselines.none(reward)
        if self.baseline == "ema":
            if trace.running_reward is None:
                raise ValueError("baseline ema needs trace.running_reward")
            return baselines.ema(reward, trace.running_reward)
        return GROUP_BASELINES[self.baseline](reward)
