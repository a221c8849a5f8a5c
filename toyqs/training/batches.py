"""The input of a training step: a batch and its thought noise, whole or in parts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from toyqs.positions import behind, focus, thinking_positions
from toyqs.rng import noise_of_steps, stream, thought_noise
from toyqs.tasks.task import Task
from toyqs.training.params import TrainingParams
from toyqs.training.stacking import stack, with_hints, with_lengths
from toyqs.types import Batch

CHUNK = 32  # batches drawn from a task at once: drawing them one by one costs as much as a small step
NOISE_AT_ONCE = 2**16  # numbers of several batches drawn at once: of small ones, whose draws cost by the call


class TrainingBatch(NamedTuple):
    """A batch of sequences with the noise of their thoughts."""

    inputs: Tensor  # (S, B, T) long
    positions: Tensor | None  # (S, B, T') long, those that think, or may be selected to; None: all
    counted: Batch  # at these positions
    noise: Tensor  # (S, B, T', K, L) or (S, B, T', K, L, W) in [0, 1)
    forced: Tensor | None = None  # (S, B, T', K, L, ...) symbols sampled before
    sampler_log_prob: Tensor | None = None  # (S, B, T', K, L) of the forced symbols when they were sampled
    shuffle: Tensor | None = None  # (S, B, T') uniform numbers, one for each position that thinks
    first: int = 0  # the position of each sequence's first token, where positions are learned
    hint: Tensor | None = None  # (S, B, H) long, what the model reads before a sequence; −1: nothing
    reference_hint: Tensor | None = None  # (S, B, H) long, what the reference model alone reads before it


def prepare(batch: Batch, noise: Tensor, num_ahead: int = 1) -> TrainingBatch:
    """Prepare a batch (S, B, T) and its thought noise (S, B, T', K, L, …) for a step of N tokens."""
    positions, hint = thinking_positions(batch), batch.hint
    counted = focus(batch._replace(hint=None, start=None), positions, num_ahead)
    return TrainingBatch(batch.inputs, positions, counted, noise, hint=hint)


def at_step(batch: TrainingBatch, settings: TrainingParams, step: int) -> TrainingBatch:
    """Give a batch the length of thoughts and the first position of a step, from 0."""
    batch = truncate_thoughts(batch, settings.length_at(step))
    return _with_gold(batch._replace(first=settings.first_position_at(step)), settings, step)


def _with_gold(batch: TrainingBatch, settings: TrainingParams, step: int) -> TrainingBatch:
    """Leave the gold thoughts to the first sequences of each micro-batch, as many as have some in a step.

    The sequences are drawn at random, so the first are any; they are the same in every run of these sizes.
    """
    gold, number = batch.counted.gold, settings.gold_at(step)
    if gold is None:
        return batch
    place = torch.arange(gold.shape[1], device=gold.device) % (settings.batch_size // settings.grad_acc)
    gold = gold.masked_fill((place >= number).view(1, -1, 1, 1), -1) if number else None
    return batch._replace(counted=batch.counted._replace(gold=gold))


def _with_hints(batch: TrainingBatch, settings: TrainingParams) -> TrainingBatch:
    """Leave hints to the first sequences of each micro-batch, or to the reference model alone."""
    hint = batch.hint
    if hint is None or settings.reference_reads_hints:
        return batch._replace(hint=None, reference_hint=hint)
    size = settings.batch_size // settings.grad_acc
    place = torch.arange(hint.shape[1], device=hint.device) % size
    without = place >= round(settings.hint_share * size)
    return batch._replace(hint=hint.masked_fill(without.view(1, -1, 1), -1))


def truncate_thoughts(batch: TrainingBatch, length: int) -> TrainingBatch:
    """Keep the noise of each thought's first `length` symbols."""
    if batch.noise.shape[4] == length:
        return batch
    return batch._replace(noise=batch.noise[:, :, :, :, :length].contiguous())


def chunks(batch: TrainingBatch, size: int) -> Iterator[TrainingBatch]:
    """Split a batch into parts of `size` sequences along the axis B; a remainder is dropped."""

    def parts(field: Any) -> Iterator[Any]:
        if field is None or isinstance(field, int):
            return itertools.repeat(field)
        if isinstance(field, tuple):
            return map(type(field), *map(parts, field))
        whole = field[:, : field.shape[1] // size * size]
        # Copied once, so that every part is contiguous.
        return iter(whole.unflatten(1, (-1, size)).transpose(0, 1).contiguous().unbind())

    return parts(batch)


def micro_batches(
    batch: TrainingBatch, count: int, rank: int = 0, ranks: int = 1
) -> Iterator[tuple[TrainingBatch, Tensor | None]]:
    """Split a batch into micro-batches of equally many sequences.

    Args:
        batch: B sequences.
        count: the number of micro-batches.
        rank: of several processes this one's number; it gets its slice of every micro-batch.
        ranks: the number of processes.

    Yields:
        A micro-batch or its slice, and its share (S,) of the whole batch's weights; None: it is the whole.
        Sequences with gold thoughts, or with a hint, are a micro-batch of their own, before the others.
    """
    weights = batch.counted.weights
    if count == ranks == 1 and batch.counted.gold is None and batch.hint is None:
        yield batch, None
        return
    total = weights.sum((1, 2))
    for micro_batch in chunks(batch, weights.shape[1] // count):
        for part in _gold_apart(micro_batch) if batch.hint is None else _hints_apart(micro_batch):
            own_slice = rank_slice(part, rank, ranks)
            if not own_slice.inputs.shape[1]:  # of few sequences; all processes go through the same steps
                own_slice = _uncounted(_cut(part, 1, slice(1)))
            yield own_slice, own_slice.counted.weights.sum((1, 2)) / total


def _gold_apart(batch: TrainingBatch) -> list[TrainingBatch]:
    """Return the sequences that have gold thoughts, which come first, and the others; not what is empty."""
    gold, size = batch.counted.gold, batch.inputs.shape[1]
    if gold is None:
        return [batch]
    number = int((gold[0, :, 0, 0] >= 0).sum())
    others = batch._replace(counted=batch.counted._replace(gold=None))
    parts = ((batch, slice(number)), (others, slice(number, size)))
    return [_cut(part, 1, span) for part, span in parts if span.stop > (span.start or 0)]


def _hints_apart(batch: TrainingBatch) -> list[TrainingBatch]:
    """Return the sequences that have a hint, which come first, with it before them, and the others."""
    assert batch.hint is not None
    number, size = int((batch.hint[0, :, 0] >= 0).sum()), batch.inputs.shape[1]
    hinted, others = _cut(batch, 1, slice(number)), _cut(batch, 1, slice(number, size))
    inputs, positions = behind(hinted.hint, hinted.inputs, hinted.positions)
    parts = (hinted._replace(inputs=inputs, positions=positions, hint=None), others._replace(hint=None))
    return [part for part in parts if part.inputs.shape[1]]


def _uncounted(batch: TrainingBatch) -> TrainingBatch:
    return batch._replace(counted=batch.counted._replace(weights=torch.zeros_like(batch.counted.weights)))


def rank_slice(batch: TrainingBatch, rank: int, ranks: int) -> TrainingBatch:
    """Return the sequences of one of several processes, of about equally many each."""
    if ranks == 1:
        return batch
    size = batch.inputs.shape[1]
    return _cut(batch, 1, slice(size * rank // ranks, size * (rank + 1) // ranks))


def sequences(batch: TrainingBatch, size: int | None) -> Iterator[TrainingBatch]:
    """Split a batch into parts of so many sequences, the last perhaps of fewer; None: into one."""
    count = batch.inputs.shape[1]
    if size is None or size >= count:
        yield batch
        return
    for start in range(0, count, size):
        yield _cut(batch, 1, slice(start, start + size))


def at_positions(batch: TrainingBatch, span: slice) -> TrainingBatch:
    """Return some of a batch's thinking positions; the inputs, of which they are a part, stay whole."""
    whole = {name: getattr(batch, name) for name in ("inputs", "hint", "reference_hint")}
    return _cut(batch, 2, span)._replace(**whole)


def _cut(field: Any, axis: int, span: slice) -> Any:
    """Return the span of an axis of all tensors in a batch."""
    if isinstance(field, tuple):
        return type(field)(*(_cut(part, axis, span) for part in field))
    if not isinstance(field, Tensor):
        return field
    return field[(slice(None),) * axis + (span,)].contiguous()


def stride(held_out: Batch, positions: int) -> int:
    """Return n such that every n-th sequence makes about so many thinking positions, two sequences or more.

    Those of a text come in its order, and its beginning may differ from the rest.
    """
    size, each = held_out.inputs.shape[1], int(held_out.think[0, 0].sum())
    return max(1, min(size // 2, size * each // positions))


def draw_batches(
    task: Task, seeds: Sequence[int], settings: TrainingParams, like: Tensor
) -> Iterator[TrainingBatch]:
    """Draw training batches and thought noise without end, each from its own stream per seed.

    Batches are drawn `CHUNK` at once, all with the progress of the first of them.

    Args:
        task: the source of sequences.
        seeds: S of them.
        settings: sizes.
        like: the model's dtype and device.

    Yields:
        A batch and its noise, drawn in the order [L, position, K, W].
    """
    data = [stream(seed, "training data") for seed in seeds]
    noise = [stream(seed, "thought noise") for seed in seeds]
    shuffles = [stream(seed, "shuffled rewards") for seed in seeds]
    size = settings.batch_size
    for step in itertools.count(0, CHUNK):
        progress = min(1.0, step / settings.steps)
        many = [task.sample(g, CHUNK * size, settings.seq_len, "train", progress) for g in data]
        stacked = stack(many, like, settings.think_everywhere)
        if settings.reference == "oracle" and stacked.oracle is None:
            assert task.oracle is not None
            stacked = stacked._replace(oracle=task.oracle(stacked.inputs).to(like))
        if settings.adaptive_len:
            stacked = with_lengths(stacked, task, many, settings.tokens_per_symbol)
        if step < settings.warm_start:
            assert task.gold is not None
            stacked = stacked._replace(gold=task.gold(stacked.inputs.cpu()).to(like.device))
        if settings.hint_share or settings.reference_reads_hints:
            stacked = with_hints(stacked, task, many, "train")
        silence = thought_noise(noise, stacked.think, settings.thoughts._replace(length=0)).to(like)
        prepared = prepare(stacked, silence, settings.num_ahead)
        parts = [_with_hints(part, settings) for part in chunks(prepared, size)]
        yield from _with_noise(parts, settings, noise, shuffles, like) if settings.thoughts.length else parts


def _with_noise(
    batches: Sequence[TrainingBatch],
    settings: TrainingParams,
    noise: Sequence[torch.Generator],
    shuffles: Sequence[torch.Generator],
    like: Tensor,
) -> Iterator[TrainingBatch]:
    """Add thought noise to batches in turn, drawn for several of them at once where it is little."""
    sizes, think_at = settings.thoughts, batches[0].counted.think
    each = think_at.numel() * sizes.number * sizes.length * max(1, sizes.width)
    at_once = max(1, NOISE_AT_ONCE // each)
    for start in range(0, len(batches), at_once):
        group = batches[start : start + at_once]
        drawn = noise_of_steps(noise, think_at, sizes, len(group)).to(like)
        orders: Iterable[Tensor | None] = itertools.repeat(None, len(group))
        if settings.shuffle_rewards:
            shape = (len(group), *drawn.shape[2:4])
            numbers = [torch.rand(shape, generator=g, dtype=torch.float64) for g in shuffles]
            orders = torch.stack(numbers, 1).to(like.device).unbind()
        for batch, own, order in zip(group, drawn.unbind(), orders, strict=True):
            yield batch._replace(noise=own, shuffle=order)
