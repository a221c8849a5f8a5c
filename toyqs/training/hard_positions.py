"""Thinking where the model is unsure: the other positions are predicted without a thought.

Of the positions that a task marks, those think where the model's own prediction without a thought has the
highest entropy. Their number is fixed, the share above the quantile, and the same in every sequence, for
tensors are dense. The entropy at t depends on x_≤t and on no target. But the positions of a sequence compete,
so whether t thinks depends a little on the entropies after t, and these on the target of t. A control with
zero-length thoughts selects in the same way; one without thoughts selects nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from toyqs.numerics import log_softmax, row_sums
from toyqs.objectives.objective import Loss
from toyqs.objectives.rewards import hits, target_log_prob
from toyqs.positions import focus
from toyqs.types import Batch, Context, Model


class PositionSelection(NamedTuple):
    """The positions that think, and the predictions at the others."""

    context: Context  # at the thinking positions
    batch: Batch  # at the thinking positions
    think: Tensor  # (S, B, T) bool, which of all positions think
    positions: Tensor  # (S, B, T') long, the same, ascending
    weights: Tensor  # (S, B, T), 0 where a position thinks
    nll: Tensor  # (S, B, T) −log q(y | x) without a thought, differentiable
    accuracy: Tensor  # (S, B, T) 1 where the likeliest token without a thought is the target, else 0


def highest_entropy(entropy: Tensor, count: int) -> Tensor:
    """Return the positions of the highest entropy, of equal ones the earliest.

    Args:
        entropy: (S, B, T).
        count: T', the number for each sequence.

    Returns:
        (S, B, T') long, ascending.
    """
    order = entropy.argsort(dim=-1, descending=True, stable=True)
    return order[..., :count].sort(-1).values


def entropy_of(logits: Tensor) -> Tensor:
    """Compute a prediction's entropy in nats: logits (..., V) -> (...), no gradient."""
    log_prob = log_softmax(logits.detach())
    return -row_sums(log_prob.exp() * log_prob)


def select_positions(model: Model, context: Context, batch: Batch, count: int) -> PositionSelection:
    """Select the hardest positions. The selection has no gradient, as if it did not depend on the parameters.

    Args:
        model: one that predicts without a thought too, and one token.
        context: from `read`, at all positions that may think.
        batch: at the same positions, (S, B, T).
        count: T', the number of each sequence's positions that think.
    """
    logits = model.talk(context, None).logits  # (S, B, T, 1, 1, V)
    index = highest_entropy(entropy_of(logits[:, :, :, 0, 0]), count)
    think = torch.zeros_like(batch.think).scatter_(2, index, True)
    targets = batch.targets.unsqueeze(-1)
    return PositionSelection(
        model.at(context, index),
        focus(batch, index),
        think,
        index,
        batch.weights.masked_fill(think, 0.0),
        -target_log_prob(logits, targets).squeeze(-1),
        hits(logits, targets)[..., 0, 0],
    )


def combine(loss: Loss, selection: PositionSelection) -> Loss:
    """Extend the loss from the thinking positions to all that count.

        Σ_{t thinks} w_t loss_t + Σ_{t does not} w_t (−log q(y_t | x_≤t)),   over Σ_t w_t

    Args:
        loss: an objective's, the mean over the thinking positions.
        selection: from `select_positions`.

    Returns:
        The loss with every part a mean over all counted positions, to which those without a thought add only
        "nll"; the reward stays the mean over the thinking positions.
    """
    thinking, others = selection.batch.weights.sum((1, 2)), selection.weights.sum((1, 2))
    total = (thinking + others).clamp(min=1e-12)
    parts = {name: value * (thinking / total) for name, value in loss.parts.items()}
    parts["nll"] = parts["nll"] + (selection.nll * selection.weights).sum((1, 2)) / total
    return loss._replace(parts=parts)
