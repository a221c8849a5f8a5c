"""The parts of the held-out sequences that are evaluated together, read at their thinking positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from toyqs.positions import focus, rows, thinking_positions
from toyqs.rng import ThoughtSizes, stream, thought_noise
from toyqs.training.hard_positions import PositionSelection, select_positions
from toyqs.types import Batch, Context, Model

Forced = tuple[Tensor, Tensor | None]  # symbols, and lengths (S, B, T, K) where the task sets them


class Part(NamedTuple):
    """Sequences that are computed at a time."""

    start: int  # the number of the first
    whole: Batch  # at all positions
    noise: Tensor  # (S, B, T, K, L, …) of their thoughts
    before: Batch  # the sequence before each of them, the last before the first, whose thoughts are exchanged
    others: Forced | None  # the thoughts sampled there, where those are not sampled along: in several parts


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


def parts(
    model: Model,
    held_out: Batch,
    seeds: Sequence[int],
    sizes: ThoughtSizes,
    full: bool,
    at_once: int,
    most: int,
) -> Iterator[Part]:
    """Yield the sequences that are computed at a time.

    Args:
        model: samples thoughts.
        held_out: (S, B, T).
        seeds: S of them.
        sizes: of the thoughts.
        full: whether thoughts of other sequences are needed.
        at_once: about how many thoughts are evaluated at once, per seed.
        most: sequences at a time.
    """
    generators = [stream(seed, "evaluation noise") for seed in seeds]
    for span in spans(held_out, sizes, at_once):
        whole = rows(held_out, span)
        noise = thought_noise(generators, whole.think, sizes).to(whole.weights)
        inputs, targets, weights, think = (x.roll(1, 1) for x in whole[:4])
        before = Batch(inputs, targets, weights, think)
        places = pieces(span.stop - span.start, most)
        own = [(rows(whole, place), noise[:, place].contiguous()) for place in places]
        others = None
        if full and len(places) > 1:
            others = _shuffled([_sampled(model, part, its_noise, sizes) for part, its_noise in own])
        for place, (part, its_noise) in zip(places, own, strict=True):
            given = None if others is None else each(lambda x, place=place: x[:, place], others)
            yield Part(span.start + place.start, part, its_noise, rows(before, place), given)


def _sampled(model: Model, part: Batch, noise: Tensor, sizes: ThoughtSizes) -> Forced | None:
    context, batch, _ = read_positions(model, part, sizes)
    thoughts = model.think(context, noise, None, batch.lengths)
    return None if thoughts is None else (thoughts.symbols, thoughts.given_length)


def _shuffled(given: Sequence[Forced | None]) -> Forced | None:
    """Return the thoughts of sequences in several parts, each with those of the sequence before it."""
    found = [one for one in given if one is not None]
    return each(lambda *parts: torch.cat(parts, 1).roll(1, 1), *found) if found else None


def other_thoughts(given: Forced, fixed: Forced, others: Forced | None) -> dict[str, Forced]:
    """Return the thoughts that another sequence had at each position, and one and the same everywhere."""
    return {
        "nll_shuffled": each(lambda x: x.roll(1, 1), given) if others is None else others,
        "nll_constant": each(lambda x, like: x.expand_as(like), fixed, given),
    }
