"""The training loop: batch -> trace -> loss -> gradients -> step.

`train` is the loop, `accumulate` what one batch adds to the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from toyqs.graphs import Graphs
from toyqs.objectives.rewards import COSTS
from toyqs.training import distributed
from toyqs.training.batches import (
    TrainingBatch,
    at_step,
    chunks,
    micro_batches,
    sequences,
)
from toyqs.training.divergence import Divergence, largest_logits, lost_parts
from toyqs.training.gradient_snr import measured_at, policy_snr
from toyqs.training.params import StepNumbers, TrainingParams, numbers_at
from toyqs.training.pieces import LossFn, MicroBatches, forward
from toyqs.training.reference_model import ReferenceModel
from toyqs.training.sampling.ahead import sample_thoughts
from toyqs.training.sampling.over_sampled import over_sampled
from toyqs.training.shortage import Fitted, OnShortage
from toyqs.training.state import Checkpoints, TrainState
from toyqs.types import Model

StepCallback = Callable[[int, dict[str, Tensor]], None]


def train(
    model: Model,
    objective: LossFn,
    data: Iterator[TrainingBatch],
    settings: TrainingParams,
    on_step: StepCallback,
    reference_model: ReferenceModel | None = None,
    checkpoints: Checkpoints | None = None,
    on_shortage: OnShortage | None = None,
) -> dict[int, Divergence]:
    """Train in place. A seed ends at the first step whose loss is not finite; its weights become NaN.

    Args:
        model: its parameters have shape (S, ...).
        objective: trace and batch -> parts of the loss.
        data: from `draw_batches`.
        settings: plain numbers.
        on_step: called after every step with its number, from 1, and the values (S,) of that step; it logs,
            and evaluates the model when that is due. At most ten times in a training, 30 steps apart or more,
            the values hold `policy_snr`; not while there are gold thoughts.
        reference_model: a model that rewards or thoughts are compared with; a moving average of the trained
            one is updated after every step.
        checkpoints: where the training resumes from, and where it is saved.
        on_shortage: called where a step does not fit into memory, before it is made again with fewer
            sequences at a time (`Fitted`); None: such an error ends the training.

    Returns:
        The seeds that diverged, by index; where that are all, the training ended before its last step.
    """
    assert isinstance(model, nn.Module)
    state = TrainState(
        *(model, settings.lr_multipliers, reference_model, settings.optimizer, settings.native_adam),
        adjust_lr_fn=settings.adjust_lr_fn,
        grokfast=settings.grokfast,
    )
    state.graphs = Graphs() if settings.cuda_graphs else None
    fitted = Fitted(settings, not model.couples_positions, on_shortage)
    if checkpoints is not None:
        _resume(checkpoints, state, data, settings)
    snr_steps = measured_at(settings.steps) if settings.batch_size > 1 else set()
    for step in range(state.step, settings.steps):
        if state.all_diverged:
            break
        numbers = numbers_at(step, settings)
        batch = at_step(next(data), settings, step)
        if settings.inner_steps:
            batch = fitted(step + 1, partial(_sampled, state, batch))
        descend = partial(_descend, state, objective, batch, numbers)
        for _ in range(max(1, settings.inner_steps)):
            values = fitted(step + 1, descend)
        sampled = batch.counted.gold is None  # all thoughts
        if sampled and step + 1 in snr_steps and numbers.weights.get("policy") and "policy" in values:
            measure = partial(_policy_snr, state, objective, batch, numbers)
            values["policy_snr"] = fitted(step + 1, measure)
        state.advance(values.get("reward"))
        on_step(step + 1, values)
        if checkpoints is not None:
            checkpoints.keep(state)
    return state.diverged


def _sampled(state: TrainState, batch: TrainingBatch, settings: TrainingParams) -> TrainingBatch:
    model = cast(Model, state.model)
    return sample_thoughts(model, batch, settings.rank, settings.ranks, settings.sequences)


def _descend(
    state: TrainState,
    objective: LossFn,
    batch: TrainingBatch,
    numbers: StepNumbers,
    settings: TrainingParams,
) -> dict[str, Tensor]:
    """Step the optimiser once on a batch; return the values (S,). Want of memory changes no parameter."""
    if state.graphs is not None:
        found = _replayed(state, state.graphs, objective, batch, numbers, settings)
        if found is not None:
            return found
    model, optimiser = cast(Model, state.model), state.optimiser
    optimiser.zero()
    for clip in state.qk_clips:
        clip.begin()
    beside = (state.running_reward, numbers.gate_floor, state.reference_model)
    values = accumulate(model, objective, batch, numbers.weights, settings, *beside)
    _stop_diverged(state, batch, values, numbers, settings)
    if settings.ranks > 1:
        distributed.all_reduce_(optimiser.grads)
    optimiser.step(numbers.rate, settings.weight_decay, settings.max_norm)
    for clip in state.qk_clips:
        if settings.ranks > 1:
            distributed.largest_(clip.largest.found)
        clip.apply()
    return values


def _replayed(
    state: TrainState,
    graphs: Graphs,
    objective: LossFn,
    batch: TrainingBatch,
    numbers: StepNumbers,
    settings: TrainingParams,
) -> dict[str, Tensor] | None:
    """Do `_descend` as one graph; return None where there is none of this kind of step so far.

    Nothing waits for the device in it. A seed is found to have diverged after its step, which is undone.
    """
    model, optimiser = cast(Model, state.model), state.optimiser
    weights, floor, like = numbers.weights, numbers.gate_floor, batch.counted.weights
    names = [name for name, weight in weights.items() if weight and name not in COSTS]

    def work(inputs: tuple[TrainingBatch, Tensor, Tensor]) -> dict[str, Tensor]:
        batch, running_reward, changing = inputs
        held = weights | dict(zip(names, changing[1:].to(like.dtype).unbind(), strict=True))
        optimiser.zero()
        beside = (running_reward, floor, state.reference_model)
        values = accumulate(model, objective, batch, held, settings, *beside)
        before = optimiser.values.clone()
        optimiser.step(changing[0].float(), settings.weight_decay, settings.max_norm)
        return values | {"": before}

    kind = (*names, *(weights.get(name) for name in COSTS), floor, settings.sequences)
    changing = torch.tensor([numbers.rate, *(weights[name] for name in names)], dtype=torch.float64)
    values = graphs(kind, (batch, state.running_reward, changing.to(like.device)), work)
    if values is None:
        return None
    before = values.pop("")
    for index in lost_parts(values, weights).keys() - state.diverged.keys():
        optimiser.revert(index, before)
    _stop_diverged(state, batch, values, numbers, settings)
    return values


def _stop_diverged(
    state: TrainState,
    batch: TrainingBatch,
    values: dict[str, Tensor],
    numbers: StepNumbers,
    settings: TrainingParams,
) -> None:
    """Stop the seeds whose loss was finite up to this step and is not now."""
    lost = lost_parts(values, numbers.weights)
    if not lost.keys() - state.diverged.keys():
        return
    model = cast(Model, state.model)
    whole = (part for part, _ in micro_batches(batch, settings.grad_acc))
    parts = (part for micro_batch in whole for part in sequences(micro_batch, settings.sequences))
    logits = largest_logits(lambda part: forward(model, part, settings, numbers.gate_floor)[0], parts)
    for index in lost.keys() - state.diverged.keys():
        state.stop(index, Divergence(state.step + 1, lost[index], logits[index]))


def _resume(
    checkpoints: Checkpoints, state: TrainState, data: Iterator[TrainingBatch], settings: TrainingParams
) -> None:
    """Restore the state, and draw the batches of the steps done once more: streams save no position."""
    checkpoints.resume(state)
    if settings.ranks > 1:
        distributed.require_same(state.step)
    for _ in range(state.step):
        next(data)


def accumulate(
    model: Model,
    objective: LossFn,
    batch: TrainingBatch,
    weights: Mapping[str, float | Tensor],
    settings: TrainingParams,
    running_reward: Tensor,
    gate_floor: float = 0.0,
    reference_model: ReferenceModel | None = None,
) -> dict[str, Tensor]:
    """Add the gradients of a batch's loss to the parameters', in `settings.grad_acc` micro-batches along B.

    Each micro-batch counts by its share of the counted positions' weights, so that their sum is the whole
    batch's gradient (but batch statistics, such as advantage_scale=batch_std and the halves of a learned
    reward, are each micro-batch's own). Of several processes each takes its slice of every micro-batch. A
    micro-batch is computed in the pieces that `settings.sequences` and `settings.chunk_positions` say.

    Args:
        model: see `train`.
        objective: see `train`.
        batch: from `draw_batches` or `prepare`.
        weights: name of a part of the loss, or one of `rewards.COSTS`, -> its weight; parts of weight 0 cost
            no backward pass, and one that is a tensor is not 0.
        settings: plain numbers.
        running_reward: (S,) for baseline ema.
        gate_floor: least weight of a thought in the prediction, where the mixer weighs thoughts.
        reference_model: see `train`.

    Returns:
        Name -> (S,), the loss's parts, meters and the reward over the batch.
    """
    step = MicroBatches(model, objective, weights, settings, running_reward, gate_floor, reference_model)
    values: dict[str, Tensor] = {}
    for micro_batch, share in micro_batches(batch, settings.grad_acc, settings.rank, settings.ranks):
        for name, value in step.add(micro_batch, share).items():
            values[name] = values[name] + value if name in values else value
    if settings.ranks > 1:
        values = {name: distributed.all_reduce(value) for name, value in values.items()}
    return over_sampled(values, weights.keys(), batch)


def _policy_snr(
    state: TrainState,
    objective: LossFn,
    batch: TrainingBatch,
    numbers: StepNumbers,
    settings: TrainingParams,
) -> Tensor:
    """Compute `policy_snr` (S,) from the policy's gradients on the two halves of a batch.

    The gradients are overwritten.
    """
    model, reference_model = cast(Model, state.model), state.reference_model
    # Of the loss the policy's part alone; the costs stay, for they are taken from the rewards.
    policy_only = {name: weight if name in COSTS else 0.0 for name, weight in numbers.weights.items()}
    policy_only["policy"] = 1.0
    # A half has half as many micro-batches where that is possible, so that each needs no more memory.
    settings = replace(settings, grad_acc=1 if settings.grad_acc % 2 else settings.grad_acc // 2)

    def accumulate_half(half: TrainingBatch) -> None:
        beside = (state.running_reward, numbers.gate_floor, reference_model)
        accumulate(model, objective, half, policy_only, settings, *beside)
        if settings.ranks > 1:
            distributed.all_reduce_(state.optimiser.grads)

    return policy_snr(state.optimiser, chunks(batch, settings.batch_size // 2), accumulate_half)
