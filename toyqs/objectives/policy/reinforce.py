"""REINFORCE and objectives close to it: a thought's advantage times the gradient of its log-probability."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from toyqs.objectives import exchange, losses, prefixes, rewards
from toyqs.objectives.advantages import ADVANTAGE_SCALES, BASELINES, OF_BATCH
from toyqs.objectives.objective import Allowed, ThoughtObjective
from toyqs.types import Batch, Trace


@dataclass(frozen=True)
class Reinforce(ThoughtObjective):
    """Score-function gradient: thoughts of high reward become likelier; the predictor learns from all.

        policy:   −sg(r_i − b) · log π(h_i | x)

    With baseline none, ema or leave_one_out, no advantage scale and both weights 1, the expected
    gradient is that of Σ_h π(h | x) log q(y | h, x), for all parameters.

    With credit=prefix every symbol has an advantage of its own, of what it and the later symbols add to what
    the thought's first symbols earn by themselves:

        policy:   −Σ_l sg(G_il − b_l) · log π(s_il | s_i,<l, x),    G_il = r(h_i) − r(h_i,<l)

    and b_l is the baseline of the K numbers G_l. r(h_i,<l) does not depend on s_il, so the expected
    gradient stays; the noise may fall or rise. It needs a baseline of the thoughts' rewards alone.

    Where all K thoughts of a position give one prediction (mixing=attend), each changes what all are paid,
    and the loss is a sum over them:

        policy:   −Σ_i sg(r_i − b) · log π(h_i | x)

    With reward likelihood or contribution, baseline none, ema or a critic, no advantage scale and both
    weights 1, the expected gradient is that of the expectation of log q(y | h_1 … h_K, x) over K independent
    thoughts, for all parameters. A baseline of the others' rewards would be biased, for h_i is in those too.

    Source: Zelikman et al. 2024, "Quiet-STaR".
    """

    name: ClassVar[str] = "reinforce"
    takes_one_prediction: ClassVar[bool] = True

    baseline: str = "leave_one_out"  # a key of BASELINES
    value_sees: str = "context"  # what the value of baseline=value corrects; see Objective.expected
    advantage_scale: str = "none"  # a key of ADVANTAGE_SCALES
    credit: str = "outcome"  # or prefix: each symbol is paid what it and those after it add

    def policy_loss(self, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
        """Compute the score-function loss; its value means nothing, its gradient is the estimate."""
        assert trace.log_prob is not None
        if self.credit == "prefix":
            return losses.symbol_score_loss(self.symbol_advantages(reward, trace, batch), trace.log_prob)
        advantages = self.advantages(reward, trace, batch)
        if trace.attention is not None:  # all K thoughts change the one prediction: their scores add up
            advantages = advantages * advantages.shape[-1]
        return losses.score_function_loss(advantages, trace.log_prob)

    def advantages(self, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
        """Compute the rewards less the baseline, scaled, (S, B, T, K).

        Raises:
            ValueError: a group baseline meets K = 1, or the trace lacks what the baseline needs.
        """
        return self._scaled(reward - self._baseline(reward, trace, batch), reward, batch)

    def symbol_advantages(self, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
        """Compute the advantage of each symbol, credit=prefix, (S, B, T, K, L); 0 in padding.

        Raises:
            ValueError: a group baseline meets K = 1, the trace lacks the prefixes' predictions, or the
                baseline or the scale is of whole thoughts.
        """
        baseline = BASELINES[self.baseline]
        if baseline.reads is not None or self.advantage_scale == "group_std":
            raise ValueError("credit=prefix needs a baseline and a scale of a symbol's credit alone")
        of_prefixes = prefixes.earned_by_prefixes(self, trace, batch)
        if trace.shuffle is not None:  # to the position to which the rewards of these thoughts went
            flat = of_prefixes.flatten(3)
            flat = batch.over_pieces(exchange.exchanged, flat, trace.shuffle, batch.weights)
            of_prefixes = flat.view_as(of_prefixes)
        ahead = prefixes.reward_to_go(reward, of_prefixes, trace)
        compute = partial(baseline.compute, **self.plugin.get(self.baseline, {}))
        above = torch.stack([each - compute(each) for each in ahead.unbind(-1)], -1)
        above = prefixes.where_drawn(above, trace)
        paid = reward.unsqueeze(-1).expand_as(above)
        return self._scaled(above.flatten(3), paid.flatten(3), batch).view_as(above)

    def _scaled(self, above: Tensor, reward: Tensor, batch: Batch) -> Tensor:
        """Scale advantages, and say of which rewards they are, (S, B, T, K or K L) both."""
        scale = partial(ADVANTAGE_SCALES[self.advantage_scale], total=batch.total or losses.no_reduction)
        if self.advantage_scale in OF_BATCH:
            return batch.over_pieces(scale, above, reward, batch.weights)
        return scale(above, reward, batch.weights)

    def _baseline(self, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
        """Compute the baseline (S, B, T, K)."""
        baseline = BASELINES[self.baseline]
        compute = partial(baseline.compute, reward, **self.plugin.get(self.baseline, {}))
        if baseline.reads is None:
            return compute()
        if self.has_critic:
            return compute(self.expected(self.value_sees, trace, batch))
        read = self._from(trace, baseline.reads)
        return compute(self.earned_by(read, trace, batch) if baseline.is_prediction else read)

    @property
    def has_critic(self) -> bool:
        """Tell whether the baseline is a critic's value."""
        return BASELINES[self.baseline].reads == "correction"

    def critic_loss(self, reward: Tensor, trace: Trace, batch: Batch) -> Tensor | None:
        """Compute the value's squared error, a mean over the thoughts, (S, B, T); None without a critic."""
        if not self.has_critic:
            return None
        value = self.expected(self.value_sees, trace, batch)
        return 0.5 * (value.unsqueeze(-1) - reward).square().mean(-1)


@dataclass(frozen=True)
class ClippedReinforce(Reinforce):
    """Several steps on the same thoughts, limited to ratios near 1 to the policy that drew them.

        thought:  −(1 / K) Σ_i min(ρ_i A_i, clip(ρ_i, 1 − ε, 1 + ε) A_i),
                  ρ_i = π(h_i | x) / π_sampled(h_i | x)
        symbol:   −(1 / K) Σ_i Σ_l min(ρ_il A_i, clip(ρ_il, 1 − ε, 1 + ε) A_i),
                  ρ_il the same of the symbol s_il given those before it

    In the first of the steps ρ = 1 and the gradient is Reinforce's, with either. The ratio of each symbol is
    what was published. Once the policy has moved it is biased even unclipped, for it leaves out how much
    likelier the symbols before have become; the ratio of the thought is not. The symbols are summed: divided
    by their number, as in GRPO, those of short thoughts would weigh more. Padding has ratio 1, no gradient.

    Source: Schulman et al. 2017, "Proximal policy optimization algorithms".
    """

    name: ClassVar[str] = "ppo_clip"
    takes_one_prediction: ClassVar[bool] = False
    off_policy: ClassVar[bool] = True
    allows_inner_steps: ClassVar[bool] = True
    needs_density: ClassVar[bool] = True

    clip_ratio: float = 0.2  # ε
    clip_each: str = "thought"  # or symbol: what each ratio is of

    def policy_loss(self, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
        """Compute the clipped surrogate loss, (S, B, T)."""
        assert trace.log_prob is not None
        if trace.sampler_log_prob is None:
            raise ValueError("ppo_clip needs trace.sampler_log_prob")
        if self.credit == "prefix":
            if self.clip_each != "symbol":
                raise ValueError("credit=prefix needs clip_each=symbol: a thought has no one advantage")
            advantages = self.symbol_advantages(reward, trace, batch)
        else:
            advantages = self.advantages(reward, trace, batch).unsqueeze(-1)
        rewards.require_shape("sampler_log_prob", trace.sampler_log_prob, trace.log_prob.shape)
        own, drawn = trace.log_prob, trace.sampler_log_prob
        if self.clip_each == "thought":
            own, drawn = own.sum(-1, keepdim=True), drawn.sum(-1, keepdim=True)
        ratio = (own - drawn).exp()
        clipped = ratio.clamp(1 - self.clip_ratio, 1 + self.clip_ratio)
        return -torch.minimum(ratio * advantages, clipped * advantages).sum(-1).mean(-1)


@dataclass(frozen=True)
class ReinforceInChains(Reinforce):
    """REINFORCE where thoughts are handed on: each is paid for all predictions from its own position on.

        policy:   −(1 / K) Σ_{i,t} sg(R_i,t − b_i,t) · log π(h_i,t | x, h_i,<t) / Σ_t w_t
        R_i,t = Σ_{u ≥ t} w_u r_i,u

    The sum is over all positions that think, those that do not count included, for their thoughts too are
    handed on. Chains are independent, so that the mean R_j,t of the others is a baseline without bias. With
    it, no advantage scale and both weights 1 the expected gradient is that of the expectation of
    Σ_t w_t log q(y_t | h_≤t, x) / Σ_t w_t over the thoughts of a chain, for all parameters.
    """

    name: ClassVar[str] = ""

    def policy_loss(self, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
        """Compute the score-function loss, one number for all positions of a seed, (S, B, T)."""
        everywhere = batch._replace(weights=torch.ones_like(batch.weights))
        each = super().policy_loss(to_go(reward, batch.weights), trace, everywhere)
        total = batch.weights.sum((1, 2), keepdim=True).clamp(min=1e-12)
        return (each.sum((1, 2), keepdim=True) / total).expand_as(each)


@dataclass(frozen=True)
class MultiSample(ThoughtObjective):
    """Likelihood of the mixture of K thoughts' predictions, a bound that rises with K.

        nll:     −log (1 / K) Σ_i q(y | h_i, x)
        policy:  −Σ_i sg(L − b_i) log π(h_i | x),    L = log (1 / K) Σ_i q(y | h_i, x)

    Summed over the thoughts, where Reinforce averages, as L is the reward of all of them together. K = 1 is
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
        "coherence_beta": Allowed((0.0,), "is a bound on the likelihood"),
        "teacher_forcing_weight": Allowed((1.0,), "climbs one bound with both its parts"),
        "length_penalty": Allowed((0.0,), "is a bound on the likelihood"),
        "punish_unfinished": Allowed((0.0,), "is a bound on the likelihood"),
        "learned_reward": Allowed((False,), "rewards all thoughts of a position by one bound"),
    }

    baseline: str = "leave_one_out"  # none or leave_one_out

    def policy_loss(self, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
        """Compute the score-function part of the bound's gradient as a loss, (S, B, T)."""
        assert trace.log_prob is not None
        bound = losses.log_mean_exp(reward).unsqueeze(-1).expand_as(reward)
        if self.baseline == "leave_one_out":
            bound = bound - losses.log_mean_exp_of_others(reward)
        return -(bound.detach() * trace.log_prob.sum(-1)).sum(-1)

    def predictor_loss(self, score: Tensor, trace: Trace) -> Tensor:
        """Return minus the bound, (S, B, T)."""
        return -losses.log_mean_exp(score)


def to_go(rewards: Tensor, weights: Tensor) -> Tensor:
    """Sum the weighted rewards of a chain from each position on, where thoughts are handed on.

        R_t = Σ_{u ≥ t} w_u r_u

    Args:
        rewards: (S, B, T, K).
        weights: (S, B, T); a reward of weight 0 adds 0, whatever its value.

    Returns:
        (S, B, T, K).
    """
    weights = weights.unsqueeze(-1)
    counted = rewards.masked_fill(weights == 0, 0.0) * weights
    return counted.flip(2).cumsum(2).flip(2)
