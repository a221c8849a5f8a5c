"""What a training step consumes: a batch and its thought noise, whole or in parts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from toyqs.rng import stream, thought_noise
from toyqs.tasks.task import Task
from toyqs.training.params import TrainingParams
from toyqs.types import Batch, focus, thinking_positions

CHUNK = 32  # batches drawn from a task at once: drawing them one by one costs as much as a small step


class TrainingBatch(NamedTuple):
    """What a training step consumes."""

    inputs: Tensor  # (S, B, T) long
    positions: Tensor | None  # (S, B, T') long, those that think, or might; None: all
    counted: Batch  # at these positions
    noise: Tensor  # (S, B, T', K, L) or (S, B, T', K, L, W) in [0, 1)
    forced: Tensor | None = None  # (S, B, T', K, L, ...) symbols sampled before
    sampler_log_prob: Tensor | None = None  # (S, B, T', K) of the forced thoughts when they were sampled


def prepare(batch: Batch, noise: Tensor, num_ahead: int = 1) -> TrainingBatch:
    """A batch (S, B, T) and its thought noise (S, B, T', K, L, …), ready for a step of N tokens."""
    positions = thinking_positions(batch)
    return TrainingBatch(batch.inputs, positions, focus(batch, positions, num_ahead), noise)


def truncate_thoughts(drawn: TrainingBatch, length: int) -> TrainingBatch:
    """The batch with the noise of each thought's first symbols alone, `length` of them."""
    if drawn.noise.shape[4] == length:
        return drawn
    return drawn._replace(noise=drawn.noise[:, :, :, :, :length].contiguous())


def chunks(drawn: TrainingBatch, size: int) -> Iterator[TrainingBatch]:
    """Parts of `size` sequences each, along the axis B; what is left over is left out."""

    def parts(field: Any) -> Iterator[Any]:
        if field is None:
            return itertools.repeat(None)
        if isinstance(field, tuple):
            return map(type(field), *map(parts, field))
        whole = field[:, : field.shape[1] // size * size]
        # Copied once, so that no step meets a tensor with gaps.
        return iter(whole.unflatten(1, (-1, size)).transpose(0, 1).contiguous().unbind())

    return parts(drawn)


def stack(batches: Sequence[Batch], like: Tensor, think_everywhere: bool) -> Batch:
    """One batch per seed -> a batch (S, B, T) in the model's dtype, on its device.

    The oracle comes along where every batch has one.
    """
    fields = zip(*(batch[:4] for batch in batches), strict=True)
    inputs, targets, weights, think = (torch.cat(field).to(like.device) for field in fields)
    oracles = [batch.oracle for batch in batches if batch.oracle is not None]
    oracle = torch.cat(oracles).to(like) if len(oracles) == len(batches) else None
    return Batch(inputs, targets, weights.to(like.dtype), think | think_everywhere, oracle)


def micro_batches(
    drawn: TrainingBatch, count: int, rank: int = 0, ranks: int = 1
) -> Iterator[tuple[TrainingBatch, Tensor | float]]:
    """Parts of equally many sequences, and the share (S,) of the whole's weights that each has.

    Args:
        drawn: B sequences.
        count: of the parts.
        rank: which portion of each part is wanted,
        ranks: of so many.
    """
    weights = drawn.counted.weights
    if count == ranks == 1:
        yield drawn, 1.0
        return
    total = weights.sum((1, 2))
    for part in chunks(drawn, weights.shape[1] // count):
        mine = rank_slice(part, rank, ranks)
        yield mine, mine.counted.weights.sum((1, 2)) / total


def rank_slice(drawn: TrainingBatch, rank: int, ranks: int) -> TrainingBatch:
    """One of so many portions of the sequences, of about equally many each."""
    if ranks == 1:
        return drawn
    size = drawn.inputs.shape[1]
    span = slice(size * rank // ranks, size * (rank + 1) // ranks)

    def cut(field: Any) -> Any:
        if isinstance(field, tuple):
            return type(field)(*map(cut, field))
        return None if field is None else field[:, span].contiguous()

    return cut(drawn)


def draw_batches(
    task: Task, seeds: Sequence[int], settings: TrainingParams, like: Tensor
) -> Iterator[TrainingBatch]:
    """Training batches and thought noise, each from a stream of its own per seed, without end.

    Batches are drawn `CHUNK` at once, when the share of the steps done is that of the first of them.

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
    size = settings.batch_size
    for step in itertools.count(0, CHUNK):
        progress = min(1.0, step / settings.steps)
        many = [task.sample(g, CHUNK * size, settings.seq_len, "train", progress) for g in data]
        stacked = stack(many, like, settings.think_everywhere)
        if settings.reference == "oracle" and stacked.oracle is None and task.oracle is not None:
            stacked = stacked._replace(oracle=task.oracle(stacked.inputs).to(like))
        if settings.adaptive_len and task.thought_length is not None:
            stacked = stacked._replace(thought_length=task.thought_length(stacked.inputs))
        silence = thought_noise(noise, stacked.think, settings.thoughts._replace(length=0)).to(like)
        for part in chunks(prepare(stacked, silence, settings.num_ahead), size):
            if not settings.thoughts.length:
                yield part
                continue
            drawn = thought_noise(noise, part.counted.think, settings.thoughts)
            yield part._replace(noise=drawn.to(like))
