"""Chains as sequences of their own: the axis K of thoughts, folded into the batch and out of it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from toyqs.types import Thoughts


def fold(x: Tensor) -> Tensor:
    """Return (S, B, T, K, ...) as (S, B K, T, ...)."""
    return x.transpose(2, 3).flatten(1, 2)


def unfold(x: Tensor, count: int) -> Tensor:
    """Return (S, B K, T, ...) as (S, B, T, K, ...), K = count."""
    return x.unflatten(1, (-1, count)).transpose(2, 3)


def changed(thoughts: Thoughts, change: Callable[[Tensor], Tensor]) -> Thoughts:
    """Return thoughts without their branches, each other field changed."""
    fields = thoughts._replace(branches=None)
    return Thoughts._make(change(x) if isinstance(x, Tensor) else None for x in fields)


def joined(parts: Sequence[Thoughts]) -> Thoughts:
    """Return thoughts at positions one after another, each (S, B, 1, K, ...), as (S, B, T, K, ...)."""
    columns = zip(*(part._replace(branches=None) for part in parts), strict=True)
    return Thoughts._make(torch.cat(x, 2) if isinstance(x[0], Tensor) else None for x in columns)
