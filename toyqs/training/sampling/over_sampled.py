"""What a step reports of sampled thoughts, where some sequences have right ones (`warm_start`)."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from toyqs.training.batches import TrainingBatch


def over_sampled(
    values: dict[str, Tensor], parts: Collection[str], batch: TrainingBatch
) -> dict[str, Tensor]:
    """Return a step's rewards and meters as means over the positions whose thoughts were sampled.

    Args:
        values: of the step, (S,) each; a position with a gold thought added 0.
        parts: the names of those that are parts of the loss, which stay means over all positions.
        batch: of the step.
    """
    gold, weights = batch.counted.gold, batch.counted.weights
    if gold is None:
        return values
    share = (weights * (gold[..., 0] < 0)).sum((1, 2)) / weights.sum((1, 2))
    return {name: value if name in parts else value / share for name, value in values.items()}
