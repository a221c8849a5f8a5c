"""Policy losses with a temperature: the policy is drawn towards π* ∝ exp(r / β), not to one best thought.

Each takes rewards r and the thoughts' log π = Σ_l log π(s_l), and gives a loss per position whose value
matters only where the docstring says so. Shapes are checked by the caller (objective.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from toyqs.objectives.baselines import leave_one_out
from toyqs.objectives.objective import Thinking
from toyqs.objectives.policy import log_mean_exp_of_others, position_mean
from toyqs.types import Batch, Trace

Temperature = float | Tensor  # a number, or one per seed, (S, 1, 1, 1)


def listwise(rewards: Tensor, log_prob: Tensor, beta: Temperature) -> Tensor:
    """The policy's ranking of the K thoughts is fitted to the rewards' (cross entropy of two softmaxes).

        −Σ_i sg softmax(r / β)_i · log softmax(log π)_i

    Zero gradient at π* ∝ exp(r / β), whatever law the thoughts were drawn from. K = 1 trains nothing;
    K = 2 is the soft-label form of DPO with β = 1.

    Args:
        rewards: (S, B, T, K).
        log_prob: (S, B, T, K), differentiable.
        beta: temperature of the rewards, above 0.

    Returns:
        (S, B, T); its gradient descends the Kullback-Leibler divergence of the two rankings.

    Source: Cao et al. 2007, "Learning to rank: from pairwise approach to listwise approach" (ListNet).
    """
    wanted = (rewards.detach() / beta).softmax(-1)
    return -(wanted * log_prob.log_softmax(-1)).sum(-1)


def plackett_luce(rewards: Tensor, log_prob: Tensor) -> Tensor:
    """Minus the log-probability that drawing thoughts by π without replacement ranks them by reward.

        −Σ_i [ log π_(i) − log Σ_{j ≥ i} π_(j) ],    r_(1) ≥ r_(2) ≥ …

    Equal rewards keep the order in which they were drawn. K = 1 trains nothing; K = 2 is DPO on one pair
    with no reference policy.

    Args:
        rewards: (S, B, T, K).
        log_prob: (S, B, T, K), differentiable.

    Returns:
        (S, B, T).

    Source: Plackett 1975, "The analysis of permutations"; Luce 1959.
    """
    order = rewards.detach().argsort(dim=-1, descending=True, stable=True)
    ranked = log_prob.gather(-1, order)
    remaining = ranked.flip(-1).logcumsumexp(-1).flip(-1)
    return -(ranked - remaining).sum(-1)


def weighted_mle(rewards: Tensor, log_prob: Tensor, beta: Temperature, sampler_log_prob: Tensor) -> Tensor:
    """Maximum likelihood on the thoughts drawn, each weighted by what it is worth.

        −Σ_i sg w̄_i · log π(h_i),    w̄ = softmax(r / β − log of the sampling density)

    With the whole thought space as the group the optimum is π* ∝ exp(r / β) exactly; at finite K it is
    biased. Without the density, on-policy, it would collapse: a thought drawn often would count twice.

    Args:
        rewards: (S, B, T, K).
        log_prob: (S, B, T, K), differentiable.
        beta: temperature, above 0.
        sampler_log_prob: (S, B, T, K) log-density that each thought was drawn from.

    Returns:
        (S, B, T).

    Source: Peters and Schaal 2007, "Reinforcement learning by reward-weighted regression".
    """
    weights = (rewards / beta - sampler_log_prob).detach().softmax(-1)
    return -(weights * log_prob).sum(-1)


def maxent(rewards: Tensor, log_prob: Tensor, beta: Temperature) -> Tensor:
    """REINFORCE on the reward and the entropy of whole thoughts together, leave-one-out baseline.

        −(1 / K) Σ_i sg(A_i) · log π(h_i),    A = (r − β log π) − leave-one-out mean of it

    The expected gradient is that of −(E_π r + β H(π)): the score term that a plain sum of per-symbol
    entropies leaves out is in it.

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


def vargrad(rewards: Tensor, log_prob: Tensor, beta: Temperature) -> Tensor:
    """Within-group variance of β log π − r, zero where the policy is π* ∝ exp(r / β).

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


def log_z_of_others(rewards: Tensor, beta: Temperature, sampler_log_prob: Tensor) -> tuple[Tensor, Tensor]:
    """Estimates of log Z = log Σ_h exp(r / β), for each thought from the others, and how far to trust them.

        log Ẑ_i = log (1 / (K − 1)) Σ_{j ≠ i} exp(r_j / β) / density_j

    Biased low, by Jensen's inequality, the more so the fewer samples count.

    Args:
        rewards: (S, B, T, K), K ≥ 3.
        beta: temperature, above 0.
        sampler_log_prob: (S, B, T, K) log-density that each thought was drawn from.

    Returns:
        (S, B, T, K) log Ẑ and the effective number of samples behind each, (Σ w)² / Σ w²; no gradient.
    """
    if rewards.shape[-1] < 3:
        raise ValueError("log Z from the other thoughts needs at least 3 thoughts per position")
    log_w = (rewards / beta - sampler_log_prob).detach()
    mean, of_squares = log_mean_exp_of_others(log_w), log_mean_exp_of_others(2 * log_w)
    return mean, (rewards.shape[-1] - 1) * (2 * mean - of_squares).exp()


def logz(rewards: Tensor, log_prob: Tensor, beta: Temperature, log_z: Tensor) -> Tensor:
    """The squared fault of log π against log π* = r / β − log Z, for a log Z given.

        (1 / K) Σ_i (β log π(h_i) + β sg log Z − sg r_i)² / (2 β)

    On-policy the gradient is −∇(E_π r + β H(π)) for any constant log Z; off-policy the right log Z is
    needed for the optimum π*.

    Args:
        rewards: (S, B, T, K).
        log_prob: (S, B, T, K), differentiable.
        beta: temperature, above 0.
        log_z: (S, B, T, K) or (S, B, T, 1); its gradient is kept where it is learned.

    Returns:
        (S, B, T, K), per thought.

    Source: Malkin et al. 2022, "Trajectory balance: improved credit assignment in GFlowNets".
    """
    return (beta * log_prob + beta * log_z - rewards.detach()).square() / (2 * beta)


PLAIN = {"listwise": listwise, "maxent": maxent, "vargrad": vargrad}
METHODS = (*PLAIN, "plackett_luce", "weighted_mle", "logz_mse", "logz_learned")
TINY = 1e-12  # of a relative temperature where all rewards are equal
EFFECTIVE_SAMPLES = 2.0  # fewer, and an estimate of log Z rests on one thought: logz_mse leaves it out


@dataclass(frozen=True)
class Tempered(Thinking):
    """One of METHODS in place of REINFORCE; the predictor and the rewards are as in `Thinking`."""

    method: str = "vargrad"
    beta: float = 0.1
    relative: bool = False  # beta counts in standard deviations of the rewards within a group

    def policy_loss(self, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
        """The method's loss, (S, B, T)."""
        assert trace.log_prob is not None
        log_prob = trace.log_prob.sum(-1)
        beta = self._temperature(reward, batch)
        sampler = log_prob.detach() if trace.sampler_log_prob is None else trace.sampler_log_prob
        if self.method in PLAIN:
            return PLAIN[self.method](reward, log_prob, beta)
        if self.method == "plackett_luce":
            return plackett_luce(reward, log_prob)
        if self.method == "weighted_mle":
            return weighted_mle(reward, log_prob, beta, sampler)
        if self.method == "logz_mse":
            log_z, samples = log_z_of_others(reward, beta, sampler)
            fault = logz(reward, log_prob, beta, log_z)
            return fault.where(samples >= EFFECTIVE_SAMPLES * (1 - 1e-6), 0.0).mean(-1)
        if trace.value is None:
            raise ValueError("logz_learned needs trace.value")
        return logz(reward, log_prob, beta, trace.value.unsqueeze(-1) / beta).mean(-1)

    def _temperature(self, reward: Tensor, batch: Batch) -> Temperature:
        if not self.relative:
            return self.beta
        spread = position_mean(reward.std(-1), batch.weights)
        return (self.beta * spread + TINY).view(-1, 1, 1, 1)
