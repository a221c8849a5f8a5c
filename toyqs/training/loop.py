"""The training loop: batch -> trace -> loss -> step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from toyqs.objectives.objective import Loss
from toyqs.objectives.rewards import COSTS, penalty
from toyqs.training import distributed
from toyqs.training.batches import TrainingBatch, chunks, micro_batches, rank_slice, truncate_thoughts
from toyqs.training.gradient_snr import measured_at, policy_snr
from toyqs.training.hard_positions import PositionSelection, combine, select_positions
from toyqs.training.optimizer import Optimiser
from toyqs.training.params import TrainingParams, learning_rate
from toyqs.training.reference_model import ReferenceModel, with_reference
from toyqs.training.state import TrainState
from toyqs.types import Batch, Model, Trace, thinking_positions

LossFn = Callable[[Trace, Batch], Loss]
StepCallback = Callable[[int, dict[str, Tensor]], None]


class Checkpoints(Protocol):
    """Where a training's states are kept."""

    def resume(self, state: TrainState) -> None:
        """Put the state back to where an earlier process left it, if one did."""
        ...

    def keep(self, state: TrainState) -> None:
        """Keep the state after a step, if it is due."""
        ...


def train(
    model: Model,
    objective: LossFn,
    data: Iterator[TrainingBatch],
    settings: TrainingParams,
    report: StepCallback,
    reference_model: ReferenceModel | None = None,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Train in place.

    Args:
        model: its parameters have shape (S, ...).
        objective: trace and batch -> parts of the loss.
        data: from `draws`.
        settings: plain numbers.
        report: called after every step with its number, from 1, and the values (S,) of that step; ten times
            in a training they hold `policy_snr` (signal.py).
        kept: a model beside it that rewards or thoughts are compared with; follows after every step.
        checkpoints: where it may go on from, and what hears of every step.
    """
    assert isinstance(model, nn.Module)
    state = TrainState(model, settings.lr_multipliers, reference_model)
    optimiser = state.optimiser
    if checkpoints is not None:
        checkpoints.resume(state)
        if settings.ranks > 1:
            distributed.require_same(state.step)
        for _ in range(state.step):  # what was drawn before is drawn again: no stream has a place to keep
            next(data)
    measured = measured_at(settings.steps) if settings.batch_size > 1 else set()
    for step in range(state.step, settings.steps):
        drawn, progress = truncate_thoughts(next(data), settings.length_at(step)), step / settings.steps
        weights = {name: w.at(progress) for name, w in settings.weights.items()}
        running = state.running_reward
        if settings.inner_steps:
            drawn = sample_thoughts(model, drawn, settings.rank, settings.ranks)
        for _ in range(max(1, settings.inner_steps)):
            optimiser.zero()
            floor = settings.floor_at(progress)
            values = accumulate(model, objective, drawn, weights, settings, running, floor, reference_model)
            _step(optimiser, settings, step)
        if step + 1 in measured and weights.get("policy") and "policy" in values:
            values["policy_snr"] = _measure_gradient_snr(state, objective, drawn, weights, settings, floor)
        state.advance(values.get("reward"))
        report(step + 1, values)
        if checkpoints is not None:
            checkpoints.keep(state)


def _step(optimiser: Optimiser, settings: TrainingParams, step: int) -> None:
    """A step along the gradient, summed over all processes."""
    if settings.ranks > 1:
        distributed.all_reduce_(optimiser.grads)
    optimiser.clip(settings.max_norm)
    optimiser.step(learning_rate(step, settings))


def _measure_gradient_snr(
    state: TrainState,
    objective: LossFn,
    drawn: TrainingBatch,
    weights: dict[str, float],
    settings: TrainingParams,
    floor: float,
) -> Tensor:
    """The `policy_snr` (S,) of a batch; it overwrites the gradients."""
    alone = {name: 0.0 for name in settings.weights if name not in COSTS} | {"policy": 1.0}
    in_halves = replace(settings, grad_acc=1 if settings.grad_acc % 2 else settings.grad_acc // 2)
    again = partial(
        accumulate,
        cast(Model, state.model),
        objective,
        weights=weights | alone,
        settings=in_halves,
        running_reward=state.running_reward,
        floor=floor,
        reference_model=state.reference_model,
    )

    def of_half(half: TrainingBatch) -> None:
        again(drawn=half)
        if settings.ranks > 1:
            distributed.all_reduce_(state.optimiser.grads)

    return policy_snr(state.optimiser, chunks(drawn, settings.batch_size // 2), of_half)


def accumulate(
    model: Model,
    objective: LossFn,
    drawn: TrainingBatch,
    weights: dict[str, float],
    settings: TrainingParams,
    running_reward: Tensor,
    floor: float = 0.0,
    reference_model: ReferenceModel | None = None,
) -> dict[str, Tensor]:
    """Add the gradients of a batch's loss to the parameters', in `settings.grad_acc` parts along B.

    Of several processes each adds those of its portion of every part; their sum is the whole gradient.

    Each part counts by its share of the counted positions' weights, so that the gradient is the whole
    batch's (batch statistics such as advantage_scale=batch_std, and a learned reward's halves, are then
    each part's own).

    Args:
        model: see `train`.
        objective: see `train`.
        drawn: from `draws` or `prepared`.
        weights: name of a part of the loss, or one of `rewards.COSTS`, -> its weight; parts of weight 0 cost
            no backward pass.
        settings: plain numbers.
        running_reward: (S,) for baseline ema.
        floor: least weight of a thought in the prediction, where the mixer weighs it.
        kept: see `train`.

    Returns:
        Name -> (S,), the loss's parts, meters and the reward over the batch.
    """
    values: dict[str, Tensor] = {}
    total = distributed.all_reduce if settings.ranks > 1 else None
    for part, share in micro_batches(drawn, settings.grad_acc, settings.rank, settings.ranks):
        trace, batch, chosen = _traced(model, part, settings, floor)
        trace = with_reference(trace, batch, settings.reference)
        trace = trace._replace(
            running_reward=running_reward,
            sampler_log_prob=part.sampler_log_prob,
            penalty=penalty(trace, weights),
        )
        if reference_model is not None:
            trace = reference_model.annotate(trace, part.inputs, _thinking(part, chosen))
        loss = objective(trace, batch if total is None else batch._replace(total=total))
        loss = loss if chosen is None else combine(loss, chosen)
        terms = [weights[name] * share * value for name, value in loss.parts.items() if weights[name]]
        sum(terms[1:], terms[0]).sum().backward()
        seen = loss.parts | (loss.meters or {})
        if loss.reward is not None:
            seen["reward"] = loss.reward
        for name, value in seen.items():
            counted = share * value.detach()
            values[name] = values[name] + counted if name in values else counted
    return values if total is None else {name: total(value) for name, value in values.items()}


def sample_thoughts(model: Model, drawn: TrainingBatch, rank: int = 0, ranks: int = 1) -> TrainingBatch:
    """Thoughts drawn now at a batch, by the model's sampler where it has one, and their log-density.

    Of several processes each draws those of its portion, and all get all of them.
    """
    mine = rank_slice(drawn, rank, ranks)
    with torch.no_grad():
        context = model.read(mine.inputs, mine.positions)
        thoughts = model.think(context, mine.noise, None, mine.counted.lengths, off_policy=True)
    assert thoughts is not None and thoughts.log_prob is not None
    symbols, density = thoughts.symbols, thoughts.log_prob.sum(-1)
    if ranks > 1:
        symbols, density = distributed.all_gather_batch(symbols), distributed.all_gather_batch(density)
    return drawn._replace(forced=symbols, sampler_log_prob=density)


def _traced(
    model: Model, part: TrainingBatch, settings: TrainingParams, floor: float
) -> tuple[Trace, Batch, PositionSelection | None]:
    """The trace and the batch at the thinking positions, and how these were chosen, where they were."""
    if settings.thoughts.hard_quantile is None:
        given = (part.noise, part.forced, part.counted.targets, floor, part.counted.lengths)
        return model(part.inputs, part.positions, *given), part.counted, None
    count = settings.thoughts.thinking(part.counted.inputs.shape[2])
    chosen = select_positions(model, model.read(part.inputs, part.positions), part.counted, count)
    thoughts = model.think(chosen.context, part.noise, part.forced, chosen.batch.lengths)
    return model.talk(chosen.context, thoughts, floor), chosen.batch, chosen


def _thinking(part: TrainingBatch, chosen: PositionSelection | None) -> Tensor | None:
    """The positions of the sequences that think, (S, B, T'); None: all."""
    index = None if chosen is None else thinking_positions(part.counted._replace(think=chosen.think))
    if index is None or part.positions is None:
        return part.positions if index is None else index
    return part.positions.gather(2, index)
