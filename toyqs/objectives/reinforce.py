"""REINFORCE and its close relatives: a thought's advantage times the gradient of its log-probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from toyqs.objectives import advantages as baselines
from toyqs.objectives import advantages as objectives_advantages
from toyqs.objectives import losses, rewards
from toyqs.objectives.objective import Allowed, ThoughtObjective, rewarded
from toyqs.types import Batch, Trace

GROUP_BASELINES = {
    "group_mean": baselines.group_mean,
    "trice": baselines.group_mean,  # the literature's other name
    "leave_one_out": baselines.leave_one_out,
}
# Baselines that are what another prediction would have earned -> where a trace has it.
OF_PREDICTIONS = {
    "null_thought": "base_logits",
    "average_thought": "average_logits",
    "greedy_thought": "greedy_logits",  # Rennie et al. 2017, "Self-critical sequence training"
}


@dataclass(frozen=True)
class Reinforce(ThoughtObjective):
    """Thoughts that raise the reward are made likelier; the predictor learns from all of them (O2).

        policy:   −sg(r_i − b) · log π(h_i | x)

    With baseline none, ema or leave_one_out, no advantage scale and both weights 1, the expected
    gradient is that of Σ_h π(h | x) log q(y | h, x), for all parameters.

    Source: Zelikman et al. 2024, "Quiet-STaR".
    """

    name: ClassVar[str] = "reinforce"

    baseline: str = "leave_one_out"  # or none, ema, value, group_mean, or one of OF_PREDICTIONS
    advantage_scale: str = "none"  # a key of policy.ADVANTAGE_SCALES

    def policy_loss(self, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
        """The score-function loss; its value means nothing, its gradient is the estimate."""
        assert trace.log_prob is not None
        return losses.score_function_loss(self.advantages(reward, trace, batch), trace.log_prob)

    def advantages(self, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
        """(S, B, T, K) rewards above the baseline, scaled.

        Raises:
            ValueError: a group baseline meets K = 1, or the trace lacks what the baseline needs.
        """
        scale = objectives_advantages.ADVANTAGE_SCALES[self.advantage_scale]
        above = reward - self._baseline(reward, trace, batch)
        return scale(above, batch.weights, batch.total or losses.no_reduction)

    def _baseline(self, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
        match self.baseline:
            case "none":
                return baselines.none(reward)
            case "ema":
                if trace.running_reward is None:
                    raise ValueError("baseline ema needs trace.running_reward")
                return baselines.ema(reward, trace.running_reward)
            case "value":
                return _value(trace).detach().unsqueeze(-1).expand_as(reward)
            case name if name in OF_PREDICTIONS:
                return self._of_prediction(getattr(trace, OF_PREDICTIONS[name]), trace, batch)
            case name:
                return GROUP_BASELINES[name](reward)

    @property
    def has_critic(self) -> bool:
        """Where the baseline is a critic's value."""
        return self.baseline == "value"

    def critic_loss(self, reward: Tensor, trace: Trace) -> Tensor | None:
        """The value's squared error, a mean over the thoughts, (S, B, T)."""
        if not self.has_critic:
            return None
        return 0.5 * (_value(trace).unsqueeze(-1) - reward).square().mean(-1)

    def _of_prediction(self, logits: Tensor | None, trace: Trace, batch: Batch) -> Tensor:
        """What another prediction (S, B, T, N, V) would have earned, (S, B, T, K)."""
        if logits is None or trace.log_prob is None:
            raise ValueError(f"baseline {self.baseline} needs trace.{OF_PREDICTIONS[self.baseline]}")
        silent = trace._replace(logits=logits.detach().unsqueeze(3))
        log_q = rewards.over_tokens(rewards.token_log_prob(silent.logits, rewards.tokens(batch)), batch)
        earned = rewarded(self.reward, self.reward_beta, log_q, silent, batch)
        return earned.expand(trace.log_prob.shape[:-1])


def _value(trace: Trace) -> Tensor:
    if trace.value is None:
        raise ValueError("baseline value needs trace.value")
    return trace.value


@dataclass(frozen=True)
class ClippedReinforce(Reinforce):
    """Several steps on the same thoughts, kept near the policy that drew them (O16).

        −(1 / K) Σ_i min(ρ_i A_i, clip(ρ_i, 1 − ε, 1 + ε) A_i),    ρ = π(h | x) / π_sampled(h | x)

    In the first of the steps ρ = 1 and the gradient is Reinforce's.

    Source: Schulman et al. 2017, "Proximal policy optimization algorithms".
    """

    name: ClassVar[str] = "ppo_clip"
    off_policy: ClassVar[bool] = True
    allows_inner_steps: ClassVar[bool] = True

    clip_ratio: float = 0.2  # ε

    def policy_loss(self, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
        """The clipped surrogate."""
        assert trace.log_prob is not None
        if trace.sampler_log_prob is None:
            raise ValueError("ppo_clip needs trace.sampler_log_prob")
        advantages = self.advantages(reward, trace, batch)
        ratio = (trace.log_prob.sum(-1) - trace.sampler_log_prob).exp()
        clipped = ratio.clamp(1 - self.clip_ratio, 1 + self.clip_ratio)
        return -torch.minimum(ratio * advantages, clipped * advantages).mean(-1)


@dataclass(frozen=True)
class MultiSample(ThoughtObjective):
    """The likelihood of the mixture of K thoughts' predictions, a bound that rises with K (O4).

        nll:     −log (1 / K) Σ_i q(y | h_i, x)
        policy:  −sg(L − b_i) Σ_i log π(h_i | x),    L = log (1 / K) Σ_i q(y | h_i, x)

    Summed over the thoughts, where Reinforce averages: L is earned by all of them together. K = 1 is
    Reinforce without a baseline. With baseline leave_one_out b_i is L without thought i, which leaves the
    expected gradient unchanged.

    Source: Burda et al. 2016, "Importance weighted autoencoders"; Mnih and Rezende 2016, "Variational
    inference for Monte Carlo objectives".
    """

    name: ClassVar[str] = "multi_sample"
    changes_prediction_loss: ClassVar[bool] = True
    allowed_values: ClassVar[dict[str, Allowed]] = {
        "baseline": Allowed(("leave_one_out", "none"), "rewards all thoughts of a position together"),
        "reward": Allowed(("likelihood",), "is a bound on the likelihood"),
        "thought_kl_beta": Allowed((0.0,), "is a bound on the likelihood"),
        "teacher_forcing_weight": Allowed((1.0,), "climbs one bound with both its parts"),
        "length_penalty": Allowed((0.0,), "is a bound on the likelihood"),
        "punish_unfinished": Allowed((0.0,), "is a bound on the likelihood"),
        "learned_reward": Allowed((False,), "rewards all thoughts of a position by one bound"),
    }

    baseline: str = "leave_one_out"  # none or leave_one_out

    def policy_loss(self, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
        """The score part of the bound."""
        assert trace.log_prob is not None
        bound = losses.log_mean_exp(reward).unsqueeze(-1).expand_as(reward)
        if self.baseline == "leave_one_out":
            bound = bound - losses.log_mean_exp_of_others(reward)
        return -(bound.detach() * trace.log_prob.sum(-1)).sum(-1)

    def predictor_loss(self, log_q: Tensor) -> Tensor:
        """Minus the bound."""
        return -losses.log_mean_exp(log_q)
