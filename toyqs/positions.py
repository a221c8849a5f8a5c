"""The positions of sequences that think, and the tokens that each predicts."""

from __future__ import annotations

import torch
from torch import Tensor

from toyqs.types import Ahead, Batch


def focus(batch: Batch, positions: Tensor | None, num_ahead: int = 1) -> Batch:
    """Restrict a batch to some of its positions, such as the thinking ones: T shrinks to their number.

    Args:
        batch: with all positions.
        positions: (S, B, T') long, from `thinking_positions`; None: all.
        num_ahead: N, the tokens that each position predicts.

    Returns:
        The same sequences, with the positions in the order given; with `ahead` where N > 1. A position's own
        weight holds for all N of its tokens: where it is 0, none of them counts.
    """
    ahead = _ahead(batch, positions, num_ahead) if num_ahead > 1 else None
    if positions is None:
        return batch if ahead is None else batch._replace(ahead=ahead)
    oracle = None if batch.oracle is None else pick_positions(batch.oracle, positions)
    length = None if batch.thought_length is None else batch.thought_length.gather(2, positions)
    gold = None if batch.gold is None else pick_positions(batch.gold, positions)
    inputs, targets, weights, think = (x.gather(2, positions) for x in batch[:4])
    return Batch(inputs, targets, weights, think, oracle, ahead, length, gold=gold)


def _ahead(batch: Batch, positions: Tensor | None, num_ahead: int) -> Ahead:
    ahead, exists = places_ahead(batch.inputs, positions, num_ahead)
    counts = (pick_positions(batch.weights, ahead) > 0) & exists
    oracle = None if batch.oracle is None else pick_positions(batch.oracle, ahead)
    return Ahead(pick_positions(batch.targets, ahead), counts.to(batch.weights.dtype), oracle)


def behind(hint: Tensor, inputs: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor]:
    """Put hints before sequences.

    Args:
        hint: (S, B, H) long.
        inputs: (S, B, T) long.
        positions: (S, B, T') long, positions of the sequences; None: all.

    Returns:
        (S, B, H + T) long, and where in it these positions are, (S, B, T') long.
    """
    if positions is None:
        positions = torch.arange(inputs.shape[-1], device=inputs.device).expand(inputs.shape)
    return torch.cat([hint, inputs], -1), positions + hint.shape[-1]


def places_ahead(inputs: Tensor, positions: Tensor | None, num_ahead: int) -> tuple[Tensor, Tensor]:
    """Return the positions of the N tokens that each position predicts: t, t + 1, … t + N − 1.

    Args:
        inputs: (S, B, T), the sequences.
        positions: (S, B, T') long, t; None: all.
        num_ahead: N.

    Returns:
        (S, B, T', N) long, clamped to the last position, and bool: False where the position lies beyond the
        sequence, so that no other token is counted in its place.
    """
    if positions is None:
        positions = torch.arange(inputs.shape[-1], device=inputs.device).expand(inputs.shape)
    ahead = positions.unsqueeze(-1) + torch.arange(num_ahead, device=inputs.device)
    last = inputs.shape[-1] - 1
    return ahead.clamp(max=last), ahead <= last


def pick_positions(x: Tensor, positions: Tensor) -> Tensor:
    """Gather entries of the axis T.

    Args:
        x: (S, B, T, ...).
        positions: (S, B, T') or (S, B, T', N) long.

    Returns:
        (S, B, T', ...) or (S, B, T', N, ...).
    """
    flat, rest = positions.flatten(2), x.shape[3:]
    index = flat.view(*flat.shape, *(1 for _ in rest)).expand(*flat.shape, *rest)
    return x.gather(2, index).unflatten(2, positions.shape[2:])


def put_positions(x: Tensor, positions: Tensor, size: int) -> Tensor:
    """Put entries of the axis T at positions of a longer one, which is 0 elsewhere; see `pick_positions`.

    Args:
        x: (S, B, T, ...).
        positions: (S, B, T) long, none of them twice.
        size: T'.

    Returns:
        (S, B, T', ...).
    """
    index = positions.view(*positions.shape, *(1 for _ in x.shape[3:])).expand_as(x)
    return x.new_zeros(*x.shape[:2], size, *x.shape[3:]).scatter(2, index, x)


def rows(batch: Batch, span: slice) -> Batch:
    """Return some of a batch's sequences, before `focus`: a span of the axis B."""
    inputs, targets, weights, think, oracle, _, length, *_ = batch
    oracle, length = (None if x is None else x[:, span] for x in (oracle, length))
    inputs, targets, weights, think = (x[:, span] for x in (inputs, targets, weights, think))
    return Batch(inputs, targets, weights, think, oracle, None, length)


def thinking_positions(batch: Batch) -> Tensor | None:
    """Return the indices of the thinking positions; None when every position thinks.

    Returns:
        (S, B, T') long, T' the number of thinking positions, ascending; or None.

    Raises:
        ValueError: sequences think at different numbers of positions.
    """
    think = batch.think
    first = think[0, 0]
    count = int(first.sum())
    if bool((think == first).all()):  # the same positions in every sequence, which is quick to see
        if count == think.shape[-1]:
            return None
        return first.nonzero().squeeze(1).expand(*think.shape[:-1], count).contiguous()
    if not bool((think.sum(-1) == count).all()):
        raise ValueError("Batch.think: every sequence must think at equally many positions")
    return think.nonzero()[:, -1].view(*think.shape[:-1], count)
