"""The gradient of a micro-batch, whole or in pieces: fewer sequences at a time, or fewer of their positions.

In pieces it is the same gradient, to rounding. Each piece counts by its share of the weights; what depends on
all positions, such as advantage_scale=batch_std, is computed from all pieces (`Batch.over_pieces`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from toyqs.objectives.objective import Loss
from toyqs.objectives.rewards import penalty, tokens
from toyqs.positions import behind
from toyqs.training import distributed
from toyqs.training.batches import TrainingBatch, at_positions, sequences
from toyqs.training.hard_positions import PositionSelection, combine, select_positions
from toyqs.training.params import TrainingParams
from toyqs.training.reference_model import ReferenceModel, with_reference
from toyqs.types import Batch, Context, Model, Trace

LossFn = Callable[[Trace, Batch], Loss]
Values = dict[str, Tensor]  # name -> (S,)
Outputs = tuple[Trace, Batch, PositionSelection | None]
Use = Callable[[TrainingBatch, Callable[..., Loss]], None]  # of a piece, and what computes its loss
Call = tuple[Callable[..., Tensor], tuple[Tensor, ...]]  # a function, and a piece's tensors for it


@dataclass(frozen=True)
class MicroBatches:
    """What all micro-batches of a step have in common; `add` takes one of them."""

    model: Model
    objective: LossFn
    weights: Mapping[str, float | Tensor]  # of the loss's parts, and `rewards.COSTS`; a tensor is not 0
    settings: TrainingParams
    running_reward: Tensor  # (S,)
    gate_floor: float = 0.0
    reference_model: ReferenceModel | None = None

    def add(self, batch: TrainingBatch, share: Tensor | None) -> Values:
        """Add the gradients of a micro-batch to the parameters'.

        Where the loss of a piece depends on the others, the forward pass is made once more for each function
        of all pieces that it needs, in their order, for one may depend on those before.

        Args:
            batch: the micro-batch, or this process's slice of it.
            share: (S,) its share of the whole batch's weights; None: all.

        Returns:
            The loss's parts, meters and the reward, times the share.
        """
        if self.model.plain_step is not None and batch.counted.gold is None:
            return {"nll": self._plain(batch, share)}
        values: Values = {}
        if not self._in_pieces(batch):
            self._each(batch, lambda _, loss: self._descend(loss(), share, values))
            return values
        total = batch.counted.weights.sum((1, 2)).clamp(min=1e-12)
        known: list[list[Tensor]] = []  # by piece, the results of functions of all pieces
        while True:
            asked: list[list[Call]] = []
            factor = 1.0 / total if share is None else share / total
            use = partial(self._descend_or_ask, factor, known, asked, values)
            self._each(batch, use)
            if not asked[0]:
                return values
            results = _joined([calls[0] for calls in asked])
            known = [
                [*before, result] for before, result in zip(known or [[]] * len(asked), results, strict=True)
            ]

    def _descend_or_ask(
        self,
        factor: Tensor,
        known: list[list[Tensor]],
        asked: list[list[Call]],
        values: Values,
        piece: TrainingBatch,
        compute: Callable[..., Loss],
    ) -> None:
        """Descend on a piece if all that its loss needs of the others is known; else append what it asks."""
        results = iter(known[len(asked)] if known else [])
        asked.append([])
        loss = compute(jointly=partial(_joint, results, asked[-1]))
        if not asked[-1]:
            self._descend(loss, factor * piece.counted.weights.sum((1, 2)), values)

    def _in_pieces(self, batch: TrainingBatch) -> bool:
        size, chunk = self.settings.sequences, self.settings.chunk_positions
        fewer = size is not None and size < batch.inputs.shape[1]
        return fewer or len(_spans(batch, chunk)) > 1

    def _each(self, batch: TrainingBatch, use: Use) -> None:
        """Call a function with every piece and its loss, one by one, so that none outlives the next.

        A piece's outputs end with the call that computes the loss: its backward pass needs fewer.
        Where positions are taken in chunks the context is read once, and its gradient is added up.
        """
        for part in sequences(batch, self.settings.sequences):
            spans = _spans(part, self.settings.chunk_positions)
            if len(spans) == 1:
                use(part, partial(self._loss, partial(self._whole, part)))
                continue
            read = (part.inputs, part.positions, part.first)
            leaves: list[tuple[Tensor, Tensor]] = []
            context = _detached(self.model.read(*read), leaves)
            reference = None if self.reference_model is None else self.reference_model.read(*read)
            for span in spans:
                piece = at_positions(part, span)
                use(piece, partial(self._loss, partial(self._chunk, piece, span, context, reference)))
            reached = [(output, leaf.grad) for output, leaf in leaves if leaf.grad is not None]
            if reached:
                outputs, gradients = zip(*reached, strict=True)
                torch.autograd.backward(outputs, gradients)

    def _plain(self, batch: TrainingBatch, share: Tensor | None) -> Tensor:
        """Add the gradients of a model without thoughts, by its own function; return its loss (S,)."""
        assert self.model.plain_step is not None
        counted, size = batch.counted, self.settings.sequences
        if size is None or size >= batch.inputs.shape[1]:
            return self.model.plain_step(
                batch.inputs, batch.positions, counted.targets, counted.weights, share
            )
        total = counted.weights.sum((1, 2)).clamp(min=1e-12)
        losses = [
            self._plain(part, part.counted.weights.sum((1, 2)) / total * (1.0 if share is None else share))
            for part in sequences(batch, size)
        ]
        return sum(losses[1:], losses[0])

    def _whole(self, batch: TrainingBatch) -> Outputs:
        """Return a piece's trace, its batch at the thinking positions; and the selection of these, if any."""
        trace, counted, selection = forward(self.model, batch, self.settings, self.gate_floor)
        context = None
        if self.reference_model is not None:
            inputs, positions = batch.inputs, _selected_positions(batch, selection)
            if batch.reference_hint is not None:
                inputs, positions = behind(batch.reference_hint, inputs, positions)
            context = self.reference_model.read(inputs, positions, batch.first)
        return self._completed(trace, counted, batch, context), counted, selection

    def _chunk(
        self, piece: TrainingBatch, span: slice, context: Context, reference: Context | None
    ) -> Outputs:
        """Return the trace of some positions of a context, and their batch."""
        counted = piece.counted
        index = torch.arange(span.start, span.stop, device=piece.inputs.device)
        index = index.expand(*piece.inputs.shape[:2], -1)
        context = self.model.at(context, index)
        if counted.gold is None:
            args = (piece.noise, piece.forced, tokens(counted), self.gate_floor, counted.lengths)
            trace = self.model.respond(context, *args)
        else:
            trace = self.model.instruct(context, piece.noise, counted.gold, self.gate_floor, counted.lengths)
        if reference is not None:
            assert self.reference_model is not None
            reference = self.reference_model.model.at(reference, index)
        return self._completed(trace, counted, piece, reference), counted, None

    def _completed(
        self, trace: Trace, counted: Batch, batch: TrainingBatch, reference: Context | None
    ) -> Trace:
        """Add to a model's trace what an objective needs beside it."""
        trace = with_reference(trace, counted, self.settings.reference)
        trace = trace._replace(
            running_reward=self.running_reward,
            sampler_log_prob=batch.sampler_log_prob,
            shuffle=batch.shuffle,
            penalty=penalty(trace, self.weights),
        )
        if reference is None:
            return trace
        assert self.reference_model is not None
        return self.reference_model.annotate(trace, reference)

    def _loss(self, compute: Callable[[], Outputs], *, jointly: Callable[..., Tensor] | None = None) -> Loss:
        trace, counted, selection = compute()
        total = distributed.all_reduce if self.settings.ranks > 1 else None
        loss = self.objective(trace, counted._replace(total=total, jointly=jointly))
        return loss if selection is None else combine(loss, selection)

    def _descend(self, loss: Loss, share: Tensor | None, values: Values) -> None:
        """Add the gradients of a loss times its share to the parameters', what it reports to the values."""
        counting = {name: part for name, part in loss.parts.items() if _counts(self.weights[name])}
        terms = [_product(self.weights[name], share, part) for name, part in counting.items()]
        total = sum(terms[1:], terms[0])
        # Torch's backward pass from a vector, with its gradient given, would import the compiler.
        (total if total.numel() == 1 else total.sum()).backward()
        reported = loss.parts | (loss.meters or {})
        if loss.reward is not None:
            reported["reward"] = loss.reward
        for name, value in reported.items():
            weighted = value.detach() if share is None else share * value.detach()
            values[name] = values[name] + weighted if name in values else weighted


def _product(weight: float | Tensor, share: Tensor | None, part: Tensor) -> Tensor:
    """Return a part of the loss (S,) times its weight and its share; a factor of 1 takes no time."""
    if share is not None:
        return weight * share * part
    return part if not isinstance(weight, Tensor) and weight == 1.0 else weight * part


def _counts(weight: float | Tensor) -> bool:
    return isinstance(weight, Tensor) or weight != 0  # nobody waits for a device to say so


def forward(model: Model, batch: TrainingBatch, settings: TrainingParams, gate_floor: float) -> Outputs:
    """Return trace and batch at the thinking positions; and their selection, where the model makes one."""
    counted = batch.counted
    if counted.gold is not None:
        context = model.read(batch.inputs, batch.positions, batch.first)
        return model.instruct(context, batch.noise, counted.gold, gate_floor, counted.lengths), counted, None
    if settings.thoughts.hard_quantile is None:
        args = (batch.noise, batch.forced, tokens(counted), gate_floor, counted.lengths, batch.first)
        return model(batch.inputs, batch.positions, *args), counted, None
    count = settings.thoughts.thinking(counted.inputs.shape[2])
    context = model.read(batch.inputs, batch.positions, batch.first)
    selection = select_positions(model, context, counted, count)
    thoughts = model.think(selection.context, batch.noise, batch.forced, selection.batch.lengths)
    return model.talk(selection.context, thoughts, gate_floor), selection.batch, selection


def _selected_positions(batch: TrainingBatch, selection: PositionSelection | None) -> Tensor | None:
    """Return which positions of the sequences think, (S, B, T'); None: all."""
    if selection is None:
        return batch.positions
    return selection.positions if batch.positions is None else batch.positions.gather(2, selection.positions)


def _spans(batch: TrainingBatch, size: int) -> list[slice]:
    """Return spans of so many thinking positions, 0: all of them; the last may be shorter."""
    count = batch.counted.inputs.shape[2]
    return [slice(start, min(start + size, count)) for start in range(0, count, size)] if size else [slice(0)]


def _detached(value: Any, leaves: list[tuple[Tensor, Tensor]]) -> Any:
    """Return a context whose tensors are leaves of a graph of their own; append each with its original."""
    if isinstance(value, tuple):
        parts = [_detached(part, leaves) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if not isinstance(value, Tensor) or not value.requires_grad:
        return value
    leaf = value.detach().requires_grad_()
    leaves.append((value, leaf))
    return leaf


def _joint(
    known: Iterator[Tensor], asked: list[Call], function: Callable[..., Tensor], *tensors: Tensor
) -> Tensor:
    """Return a function's result of all pieces if it is known; else ask for it, return that of this one."""
    for result in known:
        return result
    asked.append((function, tuple(tensor.detach() for tensor in tensors)))
    return function(*tensors)


def _joined(calls: list[Call]) -> list[Tensor]:
    """Call a function once, with all pieces' positions side by side; return its result piece by piece."""
    places = [tensors[0].shape[1:3] for _, tensors in calls]
    columns = zip(*(tensors for _, tensors in calls), strict=True)
    result = calls[0][0](
        *(torch.cat([x.flatten(1, 2) for x in column], 1).unsqueeze(2) for column in columns)
    )
    if result.dim() < 3:
        return [result] * len(calls)
    parts = result.squeeze(2).split([place.numel() for place in places], 1)
    return [part.unflatten(1, place) for part, place in zip(parts, places, strict=True)]
