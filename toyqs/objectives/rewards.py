"""Rewards: how good was each thought. All are detached: a reward is a number, not a path."""

from __future__ import annotations

import torch
from torch import Tensor

from toyqs.numerics import log_prob_of


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
    require_shape("targets", targets, logits.shape[:3] + logits.shape[4:5])
    return log_prob_of(logits, targets.unsqueeze(3).expand(logits.shape[:-1])).sum(-1)


def likelihood(log_q: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """The log-likelihood of the targets, r = log q(y | h, x), with no floor, clip or scale.

    Args:
        log_q: (S, B, T, K) from `target_log_prob`.
        logits: (S, B, T, K, N, V), not read.
        targets: (S, B, T, N), not read.

    Returns:
        (S, B, T, K), no gradient.

    Source: Zelikman et al. 2024, "Quiet-STaR".
    """
    return log_q.detach()


def accuracy(log_q: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """1 where the likeliest token is the target, else 0; a mean over the N tokens.

    All K thoughts right, or all wrong: a group baseline then leaves no gradient.

    Args:
        log_q: (S, B, T, K), not read.
        logits: (S, B, T, K, N, V).
        targets: (S, B, T, N) long.

    Returns:
        (S, B, T, K), no gradient.
    """
    hits = logits.detach().argmax(-1) == targets.unsqueeze(3)
    return hits.to(logits.dtype).mean(-1)


def require_shape(name: str, value: Tensor, shape: torch.Size) -> None:
    """Refuse a tensor of another shape: broadcasting (…, K) against (…, 1) is a silent bug.

    Raises:
        ValueError: naming the tensor and both shapes.
    """
    if value.shape != shape:
        raise ValueError(f"{name} has shape {tuple(value.shape)}, needs {tuple(shape)}")
