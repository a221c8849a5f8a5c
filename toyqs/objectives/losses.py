"""Losses per position that objectives are made of, and their mean."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from toyqs.numerics import log_softmax
from toyqs.objectives.rewards import (
    discounted,
    over_tokens,
    reference_of,
    require_shape,
    target_log_prob,
)
from toyqs.types import Batch, Trace

Total = Callable[[Tensor], Tensor]  # sums over the processes that share a batch


def no_reduction(values: Tensor) -> Tensor:
    """Return the values: their sum over a single process."""
    return values


def log_mean_exp(values: Tensor) -> Tensor:
    """Compute log (1 / K) Σ_k exp(v_k): (S, B, T, K) -> (S, B, T)."""
    return values.logsumexp(-1) - math.log(values.shape[-1])


def log_mean_exp_of_others(values: Tensor) -> Tensor:
    """Compute `log_mean_exp` over the other K − 1, for each of the K.

    Args:
        values: (S, B, T, K), K ≥ 2.

    Returns:
        (S, B, T, K).

    Raises:
        ValueError: K = 1: there is no other thought.
    """
    count = values.shape[-1]
    if count < 2:
        raise ValueError("leave_one_out needs at least 2 thoughts per position")
    itself = torch.eye(count, dtype=torch.bool, device=values.device)
    others = values.unsqueeze(-2).expand(*values.shape, count).masked_fill(itself, -math.inf)
    return others.logsumexp(-1) - math.log(count - 1)


def score_function_loss(advantages: Tensor, log_prob: Tensor) -> Tensor:
    """Compute a loss whose gradient is the score-function (REINFORCE) estimate.

        −(1 / K) Σ_k sg(A_k) · log π(h_k | x),    log π(h_k | x) = Σ_l log π(s_kl | ·)

    The gradient descends −E[r]; the value itself means nothing.

    Args:
        advantages: (S, B, T, K).
        log_prob: (S, B, T, K, L) of each symbol.

    Returns:
        (S, B, T), per position.

    Raises:
        ValueError: the shapes disagree.

    Source: Williams 1992, "Simple statistical gradient-following algorithms".
    """
    thought_log_prob = log_prob.sum(-1)
    require_shape("advantages", advantages, thought_log_prob.shape)
    return -(advantages.detach() * thought_log_prob).mean(-1)


def symbol_score_loss(advantages: Tensor, log_prob: Tensor) -> Tensor:
    """Compute a score-function loss in which every symbol has an advantage of its own.

        −(1 / K) Σ_k Σ_l sg(A_kl) · log π(s_kl | s_k1 … s_k,l−1, x)

    Args:
        advantages: (S, B, T, K, L).
        log_prob: (S, B, T, K, L) of each symbol; padding has 0, and no gradient.

    Returns:
        (S, B, T), per position.

    Raises:
        ValueError: the shapes disagree.
    """
    require_shape("advantages", advantages, log_prob.shape)
    return -(advantages.detach() * log_prob).sum(-1).mean(-1)


def regularisers(trace: Trace) -> dict[str, Tensor]:
    """Compute minus the entropy of the thoughts' symbols, and their divergence from a prior if there is one.

    Returns:
        "entropy" and "prior", (S, B, T) each, the mean over the K thoughts.
    """
    parts = {}
    if trace.entropy is not None:
        parts["entropy"] = -trace.entropy.sum(-1).mean(-1)
    if trace.prior_divergence is not None:
        parts["prior"] = trace.prior_divergence.sum(-1).mean(-1)
    return parts


def base_nll(trace: Trace, batch: Batch) -> Tensor:
    """Compute the NLL of the prediction without a thought, of the token right after each position.

        −log q(y | x)

    It has no gradient to the thoughts, and trains base LM and head for what `nll_no_thought` measures.

    Args:
        trace: with base_logits (S, B, T, N, V).
        batch: at the thinking positions.

    Returns:
        (S,), the weighted mean over positions.

    Raises:
        ValueError: the trace has no such prediction.

    Source: Zelikman et al. 2024, "Quiet-STaR": its code trains the prediction without a thought and the mean
    of those with thoughts by half each.
    """
    if trace.base_logits is None:
        raise ValueError("base_nll needs trace.base_logits")
    log_q = target_log_prob(trace.base_logits[..., :1, :].unsqueeze(3), batch.targets.unsqueeze(-1))
    return position_mean(-log_q.squeeze(-1), batch.weights)


def prediction_kl(trace: Trace, batch: Batch, decay: float = 1.0, later: float = 1.0) -> Tensor:
    """Compute the KL divergence from predictions to a reference's, summed over the vocabulary.

        (1 / K) Σ_k Σ_y q(y | h_k, x) (log q(y | h_k, x) − log p̄(y | x))

    It holds the prediction near a reference while the NLL trains it. Its gradient reaches what that of the
    NLL reaches, and not the reference.

    Args:
        trace: with reference_log_probs (S, B, T, N, V), finite wherever q is above 0.
        batch: at the thinking positions.
        decay: a token's weight relative to the one before; see `discounted`.
        later: see there.

    Returns:
        (S,), the weighted mean over positions.

    Raises:
        ValueError: the trace has no reference.
    """
    log_q = log_softmax(trace.logits)
    distance = log_q - reference_of(trace).unsqueeze(3).detach()
    each = over_tokens((log_q.exp() * distance).sum(-1), discounted(batch, decay, later))
    return position_mean(each.mean(-1), batch.weights)


def gold_nll(trace: Trace, batch: Batch) -> Tensor:
    """Compute the loss of right thoughts, once for each position, however many thoughts others have.

        −log π(gold | x),  or of what says them in a control

    Args:
        trace: with gold_log_prob (S, B, T).
        batch: at the thinking positions.

    Returns:
        (S,), the weighted mean over positions.

    Raises:
        ValueError: the trace has none.
    """
    if trace.gold_log_prob is None:
        raise ValueError("gold_nll needs trace.gold_log_prob")
    return position_mean(-trace.gold_log_prob, batch.weights)


def position_mean(values: Tensor, weights: Tensor, total: Total = no_reduction) -> Tensor:
    """Compute the weighted mean over a seed's positions: the one place where losses are normalised.

    Args:
        values: (S, B, T).
        weights: (S, B, T).
        total: as in `batch_std`.

    Returns:
        (S,), 0 where no position counts.

    Raises:
        ValueError: the shapes disagree.
    """
    require_shape("values", values, weights.shape)
    return total((values * weights).sum((1, 2))) / total(weights.sum((1, 2))).clamp(min=1e-12)
