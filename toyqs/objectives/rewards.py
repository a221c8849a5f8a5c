"""Rewards: a number per thought that says how good it was.

A reward maps log q (S, B, T, K), the trace and the batch to (S, B, T, K). The policy's loss uses it without
its gradient (objective.py detaches); the predictor also maximises those of OWN_LOSS. Where a position
predicts several tokens, a reward is a sum over them by `batch.ahead.weights` (`over_tokens`). A new reward
is one function and its line in REWARDS.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from toyqs.numerics import log_prob_of, log_softmax
from toyqs.types import Batch, Trace


def target_log_prob(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the log-probability of the targets under each thought's prediction, summed over the N tokens.

        log q(y | h, x) = Σ_n log softmax(logits_n)[y_n]

    Args:
        logits: (S, B, T, K, N, V).
        targets: (S, B, T, N) long.

    Returns:
        (S, B, T, K), differentiable.

    Raises:
        ValueError: the shapes disagree.
    """
    return token_log_prob(logits, targets).sum(-1)


def token_log_prob(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the log-probability of each target under each thought's prediction, (S, B, T, K, N)."""
    require_shape("targets", targets, logits.shape[:3] + logits.shape[4:5])
    return log_prob_of(logits, targets.unsqueeze(3).expand(logits.shape[:-1]))


def tokens(batch: Batch) -> Tensor:
    """Return the targets of each position, (S, B, T, N) long."""
    return batch.targets.unsqueeze(-1) if batch.ahead is None else batch.ahead.targets


def over_tokens(values: Tensor, batch: Batch) -> Tensor:
    """Sum over a position's N tokens by their weights; a token of weight 0 adds 0, whatever its value.

    Args:
        values: (S, B, T, K, N).
        batch: without `ahead` N = 1, and the token's weight is 1.

    Returns:
        (S, B, T, K).
    """
    if batch.ahead is None:
        return values.sum(-1)
    weights = batch.ahead.weights.unsqueeze(3)
    return (values.masked_fill(weights == 0, 0.0) * weights).sum(-1)


def discounted(batch: Batch, decay: float, later: float = 1.0) -> Batch:
    """Return the batch with weights that fall with how far ahead a token is.

        1, later · decay, later · decay², … later · decay^{N−1}

    Args:
        batch: unchanged where it has no `ahead`.
        decay: a token's weight relative to the one before.
        later: factor of all but the first.
    """
    if batch.ahead is None or decay == later == 1.0:
        return batch
    weights = batch.ahead.weights
    factors = _factors(decay, later, weights.shape[-1], weights.dtype, weights.device)
    return batch._replace(ahead=batch.ahead._replace(weights=weights * factors))


@functools.lru_cache(maxsize=16)
def _factors(decay: float, later: float, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the factors of `discounted`, sent to the device once."""
    factors = [1.0, *(later * decay**place for place in range(1, count))]
    return torch.tensor(factors, dtype=dtype, device=device)


def likelihood(log_q: Tensor, trace: Trace, batch: Batch) -> Tensor:
    """Compute the log-likelihood of the targets, r = log q(y | h, x), with no floor, clip or scale.

    Source: Zelikman et al. 2024, "Quiet-STaR".
    """
    return log_q


def accuracy(log_q: Tensor, trace: Trace, batch: Batch) -> Tensor:
    """Return 1 where the most likely token is the target, else 0; summed over the N tokens.

    Where all K thoughts are right, or all wrong, a group baseline leaves no gradient.
    """
    return over_tokens(hits(trace.logits, tokens(batch)), batch)


def hits(logits: Tensor, targets: Tensor) -> Tensor:
    """Return 1 where the most likely token is the target, else 0.

    Args:
        logits: (S, B, T, K, N, V).
        targets: (S, B, T, N) long.

    Returns:
        (S, B, T, K, N), no gradient.
    """
    hit = logits.detach().argmax(-1) == targets.unsqueeze(3)
    return hit.to(logits.dtype)


def log_ratio(log_q: Tensor, trace: Trace, batch: Batch) -> Tensor:
    """Compute the log-likelihood of the targets relative to a reference's.

        r = log q(y | h, x) − sg log p̄(y | x)

    The reference is the same for all K thoughts: under a group baseline the gradient is the likelihood's, and
    whether the rewards are equal is asked of log q, whose rounding may be large against the difference.

    Source: Hatamizadeh et al. 2025, "RLP: Reinforcement as a pretraining objective".
    """
    log_p = reference_of(trace).gather(-1, tokens(batch).unsqueeze(-1)).squeeze(-1)
    return settled(log_q) - over_tokens(log_p.unsqueeze(3), batch)


def kl_forward(log_q: Tensor, trace: Trace, batch: Batch) -> Tensor:
    """Compute minus the forward KL divergence, from a reference to the prediction.

        r = Σ_y LM(y | x) (log q(y | h, x) − log LM(y | x)) = −KL(LM ‖ q)

    Mean-seeking. Tokens that the reference holds impossible add nothing.
    """
    reference = reference_of(trace).unsqueeze(3)
    possible = reference > -torch.inf
    distance = torch.where(possible, log_softmax(trace.logits) - reference, 0.0)
    return over_tokens((reference.exp() * distance).sum(-1), batch)


def kl_reverse(log_q: Tensor, trace: Trace, batch: Batch, beta: float = 1.0) -> Tensor:
    """Compute the prediction's mean log-probability under a reference, plus β times its entropy.

        r = Σ_y q(y | h, x) (log LM(y | x) − β log q(y | h, x))

    β = 1 is −KL(q ‖ LM), mode-seeking; the optimum is q ∝ LM^{1/β}, at β → 0 the most likely token alone.
    A reference that holds a token impossible makes every reward −∞.
    """
    log_prob = log_softmax(trace.logits)
    reference = reference_of(trace).unsqueeze(3)
    return over_tokens((log_prob.exp() * (reference - beta * log_prob)).sum(-1), batch)


def log_q_of_prefixes(trace: Trace, batch: Batch) -> Tensor:
    """Compute the log-likelihood of the targets with each prefix of each thought, (S, B, T, K, L).

    Raises:
        ValueError: the trace has no predictions with prefixes.
    """
    if trace.prefix_logits is None:
        raise ValueError("what prefixes of thoughts are worth needs trace.prefix_logits")
    each = token_log_prob(trace.prefix_logits.flatten(3, 4), tokens(batch))
    return over_tokens(each, batch).unflatten(3, trace.prefix_logits.shape[3:5])


def trajectory(log_q: Tensor, trace: Trace, batch: Batch, alpha: float = 0.0) -> Tensor:
    """Compute a weighted mean of the log-likelihoods after each symbol of a thought.

        r = Σ_l ω_l log q(y | h_≤l, x),    ω_l = l^α / Σ_l' l'^α,    l = 1 … the thought's length

    α = 0 weighs all steps alike. A thought without symbols earns its log-likelihood.

    Source: Williams and Tureci 2026, "Prioritize the process, not just the outcome" (RLTT), with their
    weights, which are there of the log-probability of a sampled answer after each loop of a looped model.
    """
    along = log_q_of_prefixes(trace, batch)
    if along.shape[-1] == 1:  # of one symbol, or another prediction, which is the same at all steps
        return log_q
    after = torch.cat([along[..., 1:], log_q.unsqueeze(-1)], -1)
    steps = torch.arange(1, after.shape[-1] + 1, device=log_q.device)
    weights = (steps.to(log_q) ** alpha).expand_as(after)
    if trace.length is not None:
        weights = weights.where(steps <= trace.length.clamp(min=1).unsqueeze(-1), 0.0)
    return (after * weights).sum(-1) / weights.sum(-1)


def contribution(log_q: Tensor, trace: Trace, batch: Batch) -> Tensor:
    """Compute what each thought adds to the one prediction that all K of a position give (mixing=attend).

        r_i = log q(y | h_1 … h_K, x) − log q(y | h_1 … h_K without h_i, x)

    (S, B, T, K), from log q (S, B, T, 1). The second term does not depend on h_i, so the policy's expected
    gradient is that of the first alone.

    Source: Wolpert and Tumer 2002, "Optimal payoff functions for members of collectives" (difference reward).
    """
    if trace.without_logits is None:
        raise ValueError("reward=contribution needs trace.without_logits")
    return log_q - over_tokens(token_log_prob(trace.without_logits, tokens(batch)), batch)


Reward = Callable[..., Tensor]  # log q (S, B, T, K), trace, batch -> (S, B, T, K)
REWARDS: dict[str, Reward] = {  # the word of reward=… -> function
    "likelihood": likelihood,
    "accuracy": accuracy,
    "log_ratio": log_ratio,
    "kl_forward": kl_forward,
    "kl_reverse": kl_reverse,
    "trajectory": trajectory,
    "contribution": contribution,
}
OWN_LOSS = ["kl_forward", "kl_reverse"]  # what the predictor maximises too, in place of the likelihood
READ_REFERENCE = ["log_ratio", "kl_forward", "kl_reverse"]  # what reads trace.reference_log_probs

COSTS = ("length_penalty", "punish_unfinished")  # settings: what a thought's length may cost


def penalty(trace: Trace, weights: Mapping[str, float | Tensor]) -> Tensor | None:
    """Compute what is subtracted from the rewards of thoughts for their length and for not ending.

        length_penalty · (symbols of the thought) + punish_unfinished · [no end drawn within L]

    Args:
        trace: of thoughts of variable length, unless all weights are 0.
        weights: of COSTS; a missing one is 0.

    Returns:
        (S, B, T, K), no gradient; None where nothing costs.
    """
    per_symbol, if_unfinished = (weights.get(name, 0.0) for name in COSTS)
    if not (per_symbol or if_unfinished):
        return None
    if trace.length is None or trace.unfinished is None:
        raise ValueError("a penalty needs trace.length and trace.unfinished")
    length, unfinished = (x.to(trace.logits.dtype) for x in (trace.length, trace.unfinished))
    return per_symbol * length + if_unfinished * unfinished


def reference_of(trace: Trace) -> Tensor:
    """Return log LM(y | x), (S, B, T, N, V); ValueError where the trace has none."""
    if trace.reference_log_probs is None:
        raise ValueError("what compares predictions with a reference needs trace.reference_log_probs")
    return trace.reference_log_probs


EQUAL = 1e-6  # rewards this close, as a share of the largest or of 1, differ by rounding alone


def rounding(rewards: Tensor) -> Tensor:
    """Return how far apart two rewards may be by rounding alone.

        10⁻⁶ · max(|r|, 1)

    At least 10⁻⁶, for a log-probability near 0 is a difference of numbers that are not.

    Args:
        rewards: of any shape.

    Returns:
        The same shape.
    """
    return EQUAL * rewards.abs().clamp(min=1.0)


def differ(rewards: Tensor) -> Tensor:
    """Tell at which positions the rewards differ by more than rounding: (S, B, T, K) -> (S, B, T, 1) bool.

    Those that are not numbers differ, so that what is divided by their spread is none either.
    """
    lowest, highest = rewards.aminmax(dim=-1, keepdim=True)
    return ~((highest == lowest) | (highest - lowest <= rounding(highest)))  # infinite ones may be equal


def settled(rewards: Tensor) -> Tensor:
    """Replace rewards (S, B, T, K) by their position's mean where they differ by rounding alone."""
    return torch.where(differ(rewards), rewards, rewards.mean(-1, keepdim=True))


def require_shape(name: str, value: Tensor, shape: torch.Size) -> None:
    """Refuse a tensor of another shape: broadcasting (…, K) against (…, 1) is a silent bug.

    Raises:
        ValueError: naming the tensor and both shapes.
    """
    if value.shape != shape:
        raise ValueError(f"{name} has shape {tuple(value.shape)}, needs {tuple(shape)}")
