"""Thoughts that are drawn before the steps that train on them."""

from __future__ import annotations

import torch
from torch import Tensor

from toyqs.objectives.rewards import tokens
from toyqs.training import distributed
from toyqs.training.batches import TrainingBatch, rank_slice, sequences
from toyqs.types import Model


def sample_thoughts(
    model: Model, batch: TrainingBatch, rank: int = 0, ranks: int = 1, size: int | None = None
) -> TrainingBatch:
    """Sample a batch's thoughts ahead of its steps, by the model's sampler where it has one.

    Of several processes each samples those of its slice, and all get all of them.

    Args:
        model: see `train`.
        batch: without forced symbols.
        rank: see `rank_slice`.
        ranks: see `rank_slice`.
        size: the number of sequences taken at a time; None: all.

    Returns:
        The batch with the thoughts' symbols and their log-density.
    """
    sampled: list[tuple[Tensor, Tensor]] = []
    for part in sequences(rank_slice(batch, rank, ranks), size):
        counted, known = part.counted, tokens(part.counted)
        with torch.no_grad():
            context = model.read(part.inputs, part.positions, part.first)
            args = (context, part.noise, None, counted.lengths)
            thoughts = model.think(*args, off_policy=True, targets=known)
        assert thoughts is not None and thoughts.log_prob is not None
        sampled.append((thoughts.symbols, thoughts.log_prob))
    symbols, density = (torch.cat(parts, 1) for parts in zip(*sampled, strict=True))
    if ranks > 1:
        symbols, density = distributed.all_gather_batch(symbols), distributed.all_gather_batch(density)
    return batch._replace(forced=symbols, sampler_log_prob=density)
