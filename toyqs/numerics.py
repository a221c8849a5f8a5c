"""Numerics shared by models and objectives, the same for a row whatever other rows stand beside it.

torch's CPU kernels walk short rows one by one; over the first axis they are vectorised across rows,
which is faster while rows are short. What their vector loop leaves over they round
differently: rows are filled up so that it leaves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

SMALL_VOCAB = 16
LANES = 64  # elements that every vector loop of torch divides into whole vectors


def log_softmax(x: Tensor) -> Tensor:
    """Logarithm of the softmax over the last axis.

    Args:
        x: (..., V).

    Returns:
        (..., V).
    """
    if x.shape[-1] > SMALL_VOCAB or x.is_cuda:
        return x.log_softmax(-1)
    size = x.shape[:-1].numel()
    return _columns(x).log_softmax(0)[:, :size].t().view(x.shape)


def log_prob_of(x: Tensor, index: Tensor) -> Tensor:
    """One entry of each row of the logarithm of the softmax.

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
    """The mean of what each of several steps gave.

    Args:
        values: (S,) each.

    Returns:
        (S,).
    """
    (count,) = values[0].shape
    return nn.functional.pad(torch.stack(list(values)), (0, -count % LANES)).mean(0)[:count]


def _columns(x: Tensor) -> Tensor:
    """(..., V) -> (V, rows), the rows filled up with zeros to a multiple of LANES."""
    columns = x.flatten(0, -2).t()
    missing = -columns.shape[1] % LANES
    return nn.functional.pad(columns, (0, missing)) if missing else columns.contiguous()
