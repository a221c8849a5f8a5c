"""The training loop: batch -> trace -> loss -> gradients -> step.

`train` is the loop, `accumulate` what one batch adds to the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from toyqs.objectives.objective import Loss
from toyqs.objectives.rewards import COSTS, penalty, tokens
from toyqs.training import distributed
from toyqs.training.batches import TrainingBatch, at_step, chunks, micro_batches, rank_slice
from toyqs.training.divergence import Divergence, largest_logits, lost_parts
from toyqs.training.gradient_snr import measured_at, policy_snr
from toyqs.training.hard_positions import PositionSelection, combine, select_positions
from toyqs.training.params import TrainingParams, learning_rate
from toyqs.training.reference_model import ReferenceModel, with_reference
from toyqs.training.state import TrainState
from toyqs.types import Batch, Model, Trace, thinking_positions

LossFn = Callable[[Trace, Batch], Loss]
StepCallback = Callable[[int, dict[str, Tensor]], None]


class Checkpoints(Protocol):
    """The place where the states of a training are saved."""

    def resume(self, state: TrainState) -> None:
        """Put the state back to where an earlier process left it, if one did."""
        ...

    def keep(self, state: TrainState) -> None:
        """Save the state after a step, if that is due."""
        ...


def train(
    model: Model,
    objective: LossFn,
    data: Iterator[TrainingBatch],
    settings: TrainingParams,
    on_step: StepCallback,
    reference_model: ReferenceModel | None = None,
    checkpoints: Checkpoints | None = None,
) -> dict[int, Divergence]:
    """Train in place. A seed ends at the first step whose loss is not finite; its weights become NaN.

    Args:
        model: its parameters have shape (S, ...).
        objective: trace and batch -> parts of the loss.
        data: from `draw_batches`.
        settings: plain numbers.
        on_step: called after every step with its number, from 1, and the values (S,) of that step; it logs,
            and evaluates the model when that is due. At most ten times in a training, 30 steps apart or more,
            the values hold `policy_snr`.
        reference_model: a model that rewards or thoughts are compared with; a moving average of the trained
            one is updated after every step.
        checkpoints: where the training resumes from, and where it is saved.

    Returns:
        The seeds that diverged, by index; where that are all, the training ended before its last step.
    """
    assert isinstance(model, nn.Module)
    state = TrainState(model, settings.lr_multipliers, reference_model, settings.optimizer)
    optimiser = state.optimiser
    if checkpoints is not None:
        _resume(checkpoints, state, data, settings)
    snr_steps = measured_at(settings.steps) if settings.batch_size > 1 else set()
    for step in range(state.step, settings.steps):
        if state.all_diverged:
            break
        progress = step / settings.steps
        rate, gate_floor = learning_rate(step, settings), settings.gate_floor_at(progress)
        weights = {name: weight.at(progress) for name, weight in settings.weights.items()}
        running_reward = state.running_reward
        batch = at_step(next(data), settings, step)
        if settings.inner_steps:
            batch = sample_thoughts(model, batch, settings.rank, settings.ranks)
        for _ in range(max(1, settings.inner_steps)):
            optimiser.zero()
            values = accumulate(
                model, objective, batch, weights, settings, running_reward, gate_floor, reference_model
            )
            _stop_diverged(state, step + 1, batch, values, weights, settings, gate_floor)
            if settings.ranks > 1:
                distributed.all_reduce_(optimiser.grads)
            optimiser.clip(settings.max_norm)
            optimiser.step(rate, settings.weight_decay)
        if step + 1 in snr_steps and weights.get("policy") and "policy" in values:
            values["policy_snr"] = _policy_snr(state, objective, batch, weights, settings, gate_floor)
        state.advance(values.get("reward"))
        on_step(step + 1, values)
        if checkpoints is not None:
            checkpoints.keep(state)
    return state.diverged


def _stop_diverged(
    state: TrainState,
    step: int,
    batch: TrainingBatch,
    values: dict[str, Tensor],
    weights: dict[str, float],
    settings: TrainingParams,
    gate_floor: float,
) -> None:
    """Stop the seeds whose loss was finite up to this step, from 1, and is not now."""
    lost = lost_parts(values, weights)
    if not lost.keys() - state.diverged.keys():
        return
    model = cast(Model, state.model)
    parts = (part for part, _ in micro_batches(batch, settings.grad_acc))
    logits = largest_logits(lambda part: _forward(model, part, settings, gate_floor)[0], parts)
    for index in lost.keys() - state.diverged.keys():
        state.stop(index, Divergence(step, lost[index], logits[index]))


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
    weights: dict[str, float],
    settings: TrainingParams,
    running_reward: Tensor,
    gate_floor: float = 0.0,
    reference_model: ReferenceModel | None = None,
) -> dict[str, Tensor]:
    """Add the gradients of a batch's loss to the parameters', in `settings.grad_acc` micro-batches along B.

    Each micro-batch counts by its share of the counted positions' weights, so that their sum is the whole
    batch's gradient (but batch statistics, such as advantage_scale=batch_std and the halves of a learned
    reward, are each micro-batch's own). Of several processes each takes its slice of every micro-batch.

    Args:
        model: see `train`.
        objective: see `train`.
        batch: from `draw_batches` or `prepare`.
        weights: name of a part of the loss, or one of `rewards.COSTS`, -> its weight; parts of weight 0 cost
            no backward pass.
        settings: plain numbers.
        running_reward: (S,) for baseline ema.
        gate_floor: least weight of a thought in the prediction, where the mixer weighs thoughts.
        reference_model: see `train`.

    Returns:
        Name -> (S,), the loss's parts, meters and the reward over the batch.
    """
    values: dict[str, Tensor] = {}
    total = distributed.all_reduce if settings.ranks > 1 else None
    for micro_batch, share in micro_batches(batch, settings.grad_acc, settings.rank, settings.ranks):
        trace, counted, selection = _forward(model, micro_batch, settings, gate_floor)
        trace = with_reference(trace, counted, settings.reference)
        trace = trace._replace(
            running_reward=running_reward,
            sampler_log_prob=micro_batch.sampler_log_prob,
            shuffle=micro_batch.shuffle,
            penalty=penalty(trace, weights),
        )
        if reference_model is not None:
            positions = _selected_positions(micro_batch, selection)
            trace = reference_model.annotate(trace, micro_batch.inputs, positions, micro_batch.first)
        loss = objective(trace, counted if total is None else counted._replace(total=total))
        loss = loss if selection is None else combine(loss, selection)
        terms = [weights[name] * share * value for name, value in loss.parts.items() if weights[name]]
        sum(terms[1:], terms[0]).sum().backward()
        reported = loss.parts | (loss.meters or {})
        if loss.reward is not None:
            reported["reward"] = loss.reward
        for name, value in reported.items():
            weighted = share * value.detach()
            values[name] = values[name] + weighted if name in values else weighted
    return values if total is None else {name: total(value) for name, value in values.items()}


def _forward(
    model: Model, batch: TrainingBatch, settings: TrainingParams, gate_floor: float
) -> tuple[Trace, Batch, PositionSelection | None]:
    """Return trace and batch at the thinking positions; and their selection, where the model makes one."""
    counted = batch.counted
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
    index = None if selection is None else thinking_positions(batch.counted._replace(think=selection.think))
    if index is None or batch.positions is None:
        return batch.positions if index is None else index
    return batch.positions.gather(2, index)


def sample_thoughts(model: Model, batch: TrainingBatch, rank: int = 0, ranks: int = 1) -> TrainingBatch:
    """Sample a batch's thoughts ahead of its steps, by the model's sampler where it has one.

    Of several processes each samples those of its slice, and all get all of them.

    Returns:
        The batch with the thoughts' symbols and their log-density.
    """
    own_slice = rank_slice(batch, rank, ranks)
    with torch.no_grad():
        context = model.read(own_slice.inputs, own_slice.positions, own_slice.first)
        thoughts = model.think(context, own_slice.noise, None, own_slice.counted.lengths, off_policy=True)
    assert thoughts is not None and thoughts.log_prob is not None
    symbols, density = thoughts.symbols, thoughts.log_prob
    if ranks > 1:
        symbols, density = distributed.all_gather_batch(symbols), distributed.all_gather_batch(density)
    return batch._replace(forced=symbols, sampler_log_prob=density)


def _policy_snr(
    state: TrainState,
    objective: LossFn,
    batch: TrainingBatch,
    weights: dict[str, float],
    settings: TrainingParams,
    gate_floor: float,
) -> Tensor:
    """Compute `policy_snr` (S,) from the policy's gradients on the two halves of a batch.

    The gradients are overwritten.
    """
    model, reference_model = cast(Model, state.model), state.reference_model
    # Of the loss the policy's part alone; the costs stay, for they are taken from the rewards.
    policy_only = {name: weight if name in COSTS else 0.0 for name, weight in weights.items()}
    policy_only["policy"] = 1.0
    # A half has half as many micro-batches where that is possible, so that each needs no more memory.
    settings = replace(settings, grad_acc=1 if settings.grad_acc % 2 else settings.grad_acc // 2)

    def accumulate_half(half: TrainingBatch) -> None:
        accumulate(
            model, objective, half, policy_only, settings, state.running_reward, gate_floor, reference_model
        )
        if settings.ranks > 1:
            distributed.all_reduce_(state.optimiser.grads)

    return policy_snr(state.optimiser, chunks(batch, settings.batch_size // 2), accumulate_half)
