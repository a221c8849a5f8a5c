"""Numerics shared by models and objectives; a row's result never depends on the other rows.

torch's CPU kernels go through short rows one by one; over the first axis they are vectorised across
rows, which is faster while rows are short. They round the rows after the last whole vector differently:
the rows are padded to whole vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

SMALL_VOCAB = 16
LANES = 64  # elements; a multiple of every vector length of torch's loops


def log_softmax(x: Tensor) -> Tensor:
    """Compute the logarithm of the softmax over the last axis.

    Args:
        x: (..., V).

    Returns:
        (..., V).
    """
    if x.shape[-1] > SMALL_VOCAB or x.is_cuda:
        return x.log_softmax(-1)
    size = x.shape[:-1].numel()
    return _columns(x).log_softmax(0)[:, :size].t().view(x.shape)


def softmax(x: Tensor) -> Tensor:
    """Compute the softmax over the last axis: (..., V) -> (..., V)."""
    if x.shape[-1] > SMALL_VOCAB or x.is_cuda:
        return x.softmax(-1)
    size = x.shape[:-1].numel()
    return _columns(x).softmax(0)[:, :size].t().view(x.shape)


def log_prob_of(x: Tensor, index: Tensor) -> Tensor:
    """Compute one entry of each row of the logarithm of the softmax.

    Args:
        x: (..., V).
        index: (...) long.

    Returns:
        (...).
    """
    if x.shape[-1] > SMALL_VOCAB or x.is_cuda:
        return x.log_softmax(-1).gather(-1, index.unsqueeze(-1)).squeeze(-1)
    return _columns(x).log_softmax(0).gather(0, index.reshape(1, -1)).view(index.shape)


def row_sums(x: Tensor) -> Tensor:
    """Sum over the last axis.

    Args:
        x: (..., V).

    Returns:
        (...).
    """
    if x.shape[-1] > SMALL_VOCAB or x.is_cuda:
        return x.sum(-1)
    return _columns(x).sum(0)[: x.shape[:-1].numel()].view(x.shape[:-1])


def mean_of_steps(values: Sequence[Tensor]) -> Tensor:
    """Compute the mean over several steps.

    Args:
        values: (S,) per step.

    Returns:
        (S,).
    """
    (count,) = values[0].shape
    return nn.functional.pad(torch.stack(list(values)), (0, -count % LANES)).mean(0)[:count]


def _columns(x: Tensor) -> Tensor:
    """Return x as (V, rows), the rows padded with zeros to a multiple of LANES."""
    columns = x.flatten(0, -2).t()
    missing = -columns.shape[1] % LANES
    return nn.functional.pad(columns, (0, missing)) if missing else columns.contiguous()
