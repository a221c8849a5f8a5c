"""One reading of K thoughts: their mean by the weights of an attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from toyqs.model.weighing import expand_last
from toyqs.numerics import softmax


def attention(scores: Tensor) -> Tensor:
    """Compute the weights of K thoughts, a_k = exp(u_k) / Σ_j exp(u_j).

    Args:
        scores: (S, B, T, K) u, or (S, B, T, K, N) where each of N tokens has its own.

    Returns:
        (S, B, T, 1, K) or (S, B, T, 1, N, K), as `attended` takes them.
    """
    return softmax(scores.movedim(3, -1).contiguous()).unsqueeze(3)


def attention_without_each(scores: Tensor) -> Tensor:
    """Compute the weights of the other K − 1 thoughts without each of them, its own 0.

        a_k without i = exp(u_k) / Σ_{j ≠ i} exp(u_j)

    Args:
        scores: as in `attention`; K ≥ 2.

    Returns:
        (S, B, T, K, K) or (S, B, T, K, N, K): the thought that is left out, then whose weight it is.
    """
    count = scores.shape[3]
    others = scores.movedim(3, -1).unsqueeze(3).expand(*scores.shape[:3], count, *scores.shape[4:], count)
    itself = torch.eye(count, dtype=torch.bool, device=scores.device)
    itself = itself.view(count, *(1 for _ in scores.shape[4:]), count)
    return softmax(others.masked_fill(itself, -math.inf))


def attended(reading: Tensor, weights: Tensor) -> Tensor:
    """Compute Σ_k a_k reading_k for each of J rows of weights.

    The sum goes thought by thought, so that a row rounds alike wherever it is.

    Args:
        reading: (S, B, T, K, E), (S, B, T, K, N, E) or (S, B, T, K, 1, E).
        weights: (S, B, T, J, K), or (S, B, T, J, N, K) where readings have the axis N.

    Returns:
        (S, B, T, J, E) or (S, B, T, J, N, E).
    """
    width = reading.shape[-1]
    terms = [
        expand_last(weights[..., k : k + 1], width) * reading[:, :, :, k : k + 1]
        for k in range(reading.shape[3])
    ]
    return sum(terms[1:], terms[0])


def spread_scores(given: Tensor | None, base: Tensor, reading: Tensor) -> Tensor:
    """Return scores of thoughts as `attention` takes them, the same for each of N tokens.

    Args:
        given: (S, B, T, K); None: all 0.
        base: (S, B, T, D) or (S, B, T, N, D).
        reading: as in `attended`.
    """
    given = reading.new_zeros(reading.shape[:4]) if given is None else given
    return given if reading.dim() == 5 else given.unsqueeze(-1).expand(*given.shape, base.shape[3])


def average_of_others(reading: Tensor) -> Tensor:
    """Average the readings of all other positions' thoughts: (S, B, T, K, …, E) -> (S, B, T, 1, …, E)."""
    reading = reading.detach()
    own = reading.sum(3, keepdim=True)
    others = reading.shape[1:4].numel() - reading.shape[3]
    return (own.sum((1, 2), keepdim=True) - own) / max(1, others)
