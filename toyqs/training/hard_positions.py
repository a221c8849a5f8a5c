"""Thinking where the model is unsure: the other positions are predicted without a thought.

Of the positions that a task marks, those think at which the model's own prediction without a thought has
the highest entropy. How many is fixed: the share above the quantile, in every sequence alike, for tensors
are dense. The entropy at t has read x_≤t and no target. But the positions of a sequence compete, and so
whether t thinks depends a little on the entropies after t, which have read the target of t. A control with
zero-length thoughts chooses in the same way; one without thoughts does not choose.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from toyqs.numerics import log_softmax, row_sums
from toyqs.objectives.objective import Loss
from toyqs.objectives.rewards import hits, target_log_prob
from toyqs.types import Batch, Context, Model, focus


class PositionSelection(NamedTuple):
    """The positions that think, and what is predicted at the others."""

    context: Context  # at the thinking positions
    batch: Batch  # likewise
    think: Tensor  # (S, B, T) bool, which of all positions they are
    weights: Tensor  # (S, B, T), 0 where a position thinks
    nll: Tensor  # (S, B, T) −log q(y | x) without a thought, differentiable
    accuracy: Tensor  # (S, B, T) 1 where the likeliest token without a thought is the target, else 0


def highest_entropy(entropy: Tensor, count: int) -> Tensor:
    """The positions of the highest entropy, of equal ones the earliest.

    Args:
        entropy: (S, B, T).
        count: T', how many of each sequence.

    Returns:
        (S, B, T') long, ascending.
    """
    order = entropy.argsort(dim=-1, descending=True, stable=True)
    return order[..., :count].sort(-1).values


def entropy_of(logits: Tensor) -> Tensor:
    """Entropy of a prediction in nats: logits (..., V) -> (...), no gradient."""
    log_prob = log_softmax(logits.detach())
    return -row_sums(log_prob.exp() * log_prob)


def select_positions(model: Model, context: Context, batch: Batch, count: int) -> PositionSelection:
    """Let the hardest positions think. The choice has no gradient: it is a constant of the parameters.

    Args:
        model: one that predicts without a thought too, and one token.
        context: from `read`, at all positions that might think.
        batch: at the same positions, (S, B, T).
        count: T', how many of each sequence think.
    """
    logits = model.talk(context, None).logits  # (S, B, T, 1, 1, V)
    index = highest_entropy(entropy_of(logits[:, :, :, 0, 0]), count)
    think = torch.zeros_like(batch.think).scatter_(2, index, True)
    targets = batch.targets.unsqueeze(-1)
    return PositionSelection(
        model.at(context, index),
        focus(batch, index),
        think,
        batch.weights.masked_fill(think, 0.0),
        -target_log_prob(logits, targets).squeeze(-1),
        hits(logits, targets)[..., 0, 0],
    )


def combine(loss: Loss, chosen: PositionSelection) -> Loss:
    """The loss over all counted positions, of which only some think.

        Σ_{t thinks} w_t loss_t + Σ_{t does not} w_t (−log q(y_t | x_≤t)),   over Σ_t w_t

    Args:
        loss: an objective's, the mean over the thinking positions.
        chosen: from `choose`.

    Returns:
        Every part a sum over all counted positions by their share, "nll" with that of the others; the reward
        stays the mean over the thinking positions.
    """
    thinking, others = chosen.batch.weights.sum((1, 2)), chosen.weights.sum((1, 2))
    total = (thinking + others).clamp(min=1e-12)
    parts = {name: value * (thinking / total) for name, value in loss.parts.items()}
    parts["nll"] = parts["nll"] + (chosen.nll * chosen.weights).sum((1, 2)) / total
    return loss._replace(parts=parts)
