"""Seeds whose loss is no longer a number: the first step at which that is seen, and what is seen there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from toyqs.training.batches import TrainingBatch
from toyqs.types import Trace


class Divergence(NamedTuple):
    """The first step of a seed at which a part of its loss was not finite; its training ends there."""

    step: int  # from 1
    parts: str  # those of the loss that were not finite: "nll, policy"
    largest_logit: float  # of the step's predictions by size; infinite or NaN where one of them is


def lost_parts(values: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[int, str]:
    """Find the seeds whose loss is not finite.

    Args:
        values: of a training step, by name, (S,) each.
        weights: of the parts of the loss; those of weight 0 and the meters move no parameter.

    Returns:
        Index of the seed -> its parts that are not finite, separated by commas.
    """
    parts = [name for name, weight in weights.items() if weight and name in values]
    found = (
        torch.stack([values[name] for name in parts]) if len(parts) != 1 else values[parts[0]].unsqueeze(0)
    )
    if math.isfinite(found.sum()):  # else at least one is not, or their sum overflows
        return {}
    bad = (~found.isfinite()).T.tolist()
    named = (", ".join(name for name, lost in zip(parts, seed, strict=True) if lost) for seed in bad)
    return {index: names for index, names in enumerate(named) if names}


@torch.no_grad()
def largest_logits(
    predict: Callable[[TrainingBatch], Trace], micro_batches: Iterable[TrainingBatch]
) -> list[float]:
    """Compute each seed's largest logit by size in the predictions of a training step.

    Args:
        predict: a micro-batch -> its trace, as the step made it.
        micro_batches: of the step.

    Returns:
        One number per seed, infinite or NaN where a logit is.
    """
    largest = [predict(part).logits.abs().flatten(1).amax(1) for part in micro_batches]
    return torch.stack(largest).amax(0).tolist()
