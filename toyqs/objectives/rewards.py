"""Rewards: how good was each thought.

A reward maps log q (S, B, T, K), the trace and the batch to (S, B, T, K). The policy's loss uses it without
its gradient (objective.py detaches); the predictor also maximises those of OWN_LOSS. Where a position
predicts several tokens, a reward is a sum over them by `batch.ahead.weights` (`over_tokens`). A new reward
is one function and its line in REWARDS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from toyqs.numerics import log_prob_of, log_softmax
from toyqs.types import Batch, Trace


def target_log_prob(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probability of the target under each thought's prediction, summed over the N tokens.

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
    """`target_log_prob` before the sum, token by token: (S, B, T, K, N)."""
    require_shape("targets", targets, logits.shape[:3] + logits.shape[4:5])
    return log_prob_of(logits, targets.unsqueeze(3).expand(logits.shape[:-1]))


def tokens(batch: Batch) -> Tensor:
    """What each position predicts, (S, B, T, N) long."""
    return batch.targets.unsqueeze(-1) if batch.ahead is None else batch.ahead.targets


def over_tokens(values: Tensor, batch: Batch) -> Tensor:
    """The sum over a position's N tokens, by their weights; a token of weight 0 adds 0, whatever its value.

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
    """The batch with tokens that weigh the less the further ahead they are.

        1, later · decay, later · decay², … later · decay^{N−1}

    Args:
        batch: unchanged where it has no `ahead`.
        decay: of each token against the one before.
        later: factor of all but the first.
    """
    if batch.ahead is None or decay == later == 1.0:
        return batch
    weights = batch.ahead.weights
    factors = [1.0, *(later * decay**place for place in range(1, weights.shape[-1]))]
    return batch._replace(ahead=batch.ahead._replace(weights=weights * weights.new_tensor(factors)))


def likelihood(log_q: Tensor, trace: Trace, batch: Batch) -> Tensor:
    """The log-likelihood of the targets, r = log q(y | h, x), with no floor, clip or scale.

    Source: Zelikman et al. 2024, "Quiet-STaR".
    """
    return log_q


def accuracy(log_q: Tensor, trace: Trace, batch: Batch) -> Tensor:
    """1 where the likeliest token is the target, else 0; summed over the N tokens.

    All K thoughts right, or all wrong: a group baseline then leaves no gradient.
    """
    return over_tokens(hits(trace.logits, tokens(batch)), batch)


def hits(logits: Tensor, targets: Tensor) -> Tensor:
    """1 where the likeliest prediction is the target, else 0.

    Args:
        logits: (S, B, T, K, N, V).
        targets: (S, B, T, N) long.

    Returns:
        (S, B, T, K, N), no gradient.
    """
    found = logits.detach().argmax(-1) == targets.unsqueeze(3)
    return found.to(logits.dtype)


def log_ratio(log_q: Tensor, trace: Trace, batch: Batch) -> Tensor:
    """How much likelier the thought made the targets than a reference holds them (O5).

        r = log q(y | h, x) − sg log p̄(y | x)

    The reference is the same for all K thoughts: under a group baseline the gradient is the likelihood's.

    Source: Hatamizadeh et al. 2025, "RLP: Reinforcement as a pretraining objective".
    """
    known = _reference(trace).gather(-1, tokens(batch).unsqueeze(-1)).squeeze(-1)
    return log_q - over_tokens(known.unsqueeze(3), batch)


def kl_forward(log_q: Tensor, trace: Trace, batch: Batch) -> Tensor:
    """Minus the divergence of the prediction from a reference, the reference's own mean (O6f).

        r = Σ_y LM(y | x) (log q(y | h, x) − log LM(y | x)) = −KL(LM ‖ q)

    Mean-seeking. What the reference holds impossible adds nothing.
    """
    reference = _reference(trace).unsqueeze(3)
    possible = reference > -torch.inf
    distance = torch.where(possible, log_softmax(trace.logits) - reference, 0.0)
    return over_tokens((reference.exp() * distance).sum(-1), batch)


def kl_reverse(log_q: Tensor, trace: Trace, batch: Batch, beta: float = 1.0) -> Tensor:
    """The reference's opinion of the prediction, and β times the prediction's entropy (O6r).

        r = Σ_y q(y | h, x) (log LM(y | x) − β log q(y | h, x))

    β = 1 is −KL(q ‖ LM), mode-seeking; the optimum is q ∝ LM^{1/β}, at β → 0 the likeliest token alone.
    A reference that holds a token impossible makes every reward −∞.
    """
    log_prob = log_softmax(trace.logits)
    reference = _reference(trace).unsqueeze(3)
    return over_tokens((log_prob.exp() * (reference - beta * log_prob)).sum(-1), batch)


Reward = Callable[[Tensor, Trace, Batch], Tensor]  # log q (S, B, T, K), trace, batch -> (S, B, T, K)
REWARDS: dict[str, Reward] = {
    "likelihood": likelihood,
    "accuracy": accuracy,
    "log_ratio": log_ratio,
    "kl_forward": kl_forward,
    "kl_reverse": kl_reverse,
}
OWN_LOSS = ("kl_forward", "kl_reverse")  # what the predictor maximises too, in place of the likelihood

COSTS = ("length_penalty", "punish_unfinished")  # what a thought's length may cost, by their settings' names


def penalty(trace: Trace, weights: Mapping[str, float]) -> Tensor | None:
    """What is taken from the rewards of thoughts for their length and for not coming to an end.

        length_penalty · (symbols of the thought) + punish_unfinished · [no end drawn within L]

    Args:
        trace: of thoughts of variable length, where anything costs.
        weights: of COSTS; one that is not there is 0.

    Returns:
        (S, B, T, K), no gradient; None where nothing costs.
    """
    per_symbol, at_the_end = (weights.get(name, 0.0) for name in COSTS)
    if not (per_symbol or at_the_end):
        return None
    if trace.length is None or trace.unfinished is None:
        raise ValueError("a penalty needs trace.length and trace.unfinished")
    length, unfinished = (x.to(trace.logits.dtype) for x in (trace.length, trace.unfinished))
    return per_symbol * length + at_the_end * unfinished


def _reference(trace: Trace) -> Tensor:
    """(S, B, T, N, V)."""
    if trace.reference_log_probs is None:
        raise ValueError("this reward needs trace.reference_log_probs")
    return trace.reference_log_probs


def require_shape(name: str, value: Tensor, shape: torch.Size) -> None:
    """Refuse a tensor of another shape: broadcasting (…, K) against (…, 1) is a silent bug.

    Raises:
        ValueError: naming the tensor and both shapes.
    """
    if value.shape != shape:
        raise ValueError(f"{name} has shape {tuple(value.shape)}, needs {tuple(shape)}")
