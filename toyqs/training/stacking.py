"""One batch per seed -> a batch of all seeds, with what its task says about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from toyqs.tasks.task import Task
from toyqs.types import Batch


def stack(batches: Sequence[Batch], like: Tensor, think_everywhere: bool) -> Batch:
    """Stack one batch per seed to a batch (S, B, T) in the model's dtype, on its device.

    It has the oracle where every batch has one.
    """
    fields = zip(*(batch[:4] for batch in batches), strict=True)
    inputs, targets, weights, think = (torch.cat(field).to(like.device) for field in fields)
    oracles = [batch.oracle for batch in batches if batch.oracle is not None]
    oracle = torch.cat(oracles).to(like) if len(oracles) == len(batches) else None
    return Batch(inputs, targets, weights.to(like.dtype), think | think_everywhere, oracle)


def with_hints(stacked: Batch, task: Task, batches: Sequence[Batch], split: str) -> Batch:
    """Give a batch the hints of the task's batches of a split that it was stacked from."""
    assert task.hint is not None
    hint = torch.cat([task.hint(batch, split) for batch in batches])
    return stacked._replace(hint=hint.to(stacked.inputs.device))


def with_lengths(
    stacked: Batch, task: Task, batches: Sequence[Batch], tokens_per_symbol: int | None = None
) -> Batch:
    """Give a batch the lengths of its thoughts: those of the batches that it was stacked from, or the task's.

    A text's may depend on where in it a sequence stands, which the tokens do not tell.

    Args:
        stacked: of all seeds.
        task: that drew them.
        batches: one per seed.
        tokens_per_symbol: a thought has one symbol for so many tokens of its problem, rounded down; None: as
            many as the task says.
    """
    if tokens_per_symbol is None:
        length = _lengths_of(stacked, task.thought_length, [batch.thought_length for batch in batches])
    else:
        problem = _lengths_of(stacked, task.problem_length, [batch.problem_length for batch in batches])
        length = problem // tokens_per_symbol
    return stacked._replace(thought_length=length)


def _lengths_of(
    stacked: Batch, of_tokens: Callable[[Tensor], Tensor] | None, given: Sequence[Tensor | None]
) -> Tensor:
    """Return the lengths that batches, one per seed, came with; without them those that the tokens tell."""
    own = [length for length in given if length is not None]
    if own:
        return torch.cat(own).to(stacked.inputs.device)
    assert of_tokens is not None
    return of_tokens(stacked.inputs)
