"""The parts of the held-out sequences that are evaluated together, read at their thinking positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from toyqs.positions import focus, thinking_positions
from toyqs.rng import ThoughtSizes
from toyqs.training.hard_positions import PositionSelection, select_positions
from toyqs.types import Batch, Context, Model

Forced = tuple[Tensor, Tensor | None]  # symbols, and lengths (S, B, T, K) where the task sets them


def spans(held_out: Batch, sizes: ThoughtSizes, at_once: int) -> Iterator[slice]:
    """Yield the sequences that are evaluated together, of about `at_once` thoughts; two or more each.

    A single last sequence would be shuffled with itself: it joins the sequences before.
    """
    size = max(2, at_once // max(1, sizes.number * int(held_out.think[0, 0].sum())))
    total = held_out.inputs.shape[1]
    starts = list(range(0, total - 1, size))
    yield from map(slice, starts, [*starts[1:], total])


def pieces(size: int, most: int) -> list[slice]:
    """Return spans of so many sequences, at most `most` each."""
    return [slice(start, min(start + most, size)) for start in range(0, size, most)]


def each(change: Callable[..., Tensor], *given: Forced) -> Forced:
    """Apply a change to symbols, and to their lengths where they have such."""
    symbols, lengths = zip(*given, strict=True)
    return change(*symbols), None if lengths[0] is None else change(*lengths)


def read_positions(
    model: Model, batch: Batch, sizes: ThoughtSizes
) -> tuple[Context, Batch, PositionSelection | None]:
    """Return context and batch at the thinking positions; and their selection, where the model makes one."""
    positions = thinking_positions(batch)
    context, batch = model.read(batch.inputs, positions), focus(batch, positions, model.num_ahead)
    if sizes.hard_quantile is None:
        return context, batch, None
    selection = select_positions(model, context, batch, sizes.thinking(batch.inputs.shape[2]))
    return selection.context, selection.batch, selection


def places(whole: Batch, selection: PositionSelection | None) -> Tensor:
    """Return which positions think, (S, B, T) long, ascending: those that are marked, or selected of them."""
    marked = whole.think.nonzero()[:, -1].view(*whole.think.shape[:2], -1)
    if selection is None:
        return marked
    return marked[selection.think].view(*marked.shape[:2], -1)
