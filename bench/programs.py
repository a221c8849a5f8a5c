"""The programs that are compared: each makes the same training step, and is timed in turns with the others.

They are the plain reference (bench/reference.py), toyqs with each kind of kernels, and the JAX form
(bench/jax_step.py) where JAX is installed. Time is the CPU time of this process, with all its threads.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench import reference
from bench.reference import Recipe, Reference
from bench.step import Peak, RandomCharacters
from toyqs.config.builders.kernels import can_be_native
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.training.batches import CHUNK, TrainingBatch, draw_batches
from toyqs.training.loop import accumulate, train

REFERENCE, TORCH, NATIVE, JAX = "reference", "torch", "native", "JAX"
BATCHES = 4  # that a program trains on, again and again
MOST = 28  # steps of a turn: a longer training also measures its gradients


class Program(NamedTuple):
    """A training that can be continued."""

    steps: Callable[[int], float]  # makes so many steps; returns the CPU seconds of one, with its data
    peak: Callable[[], float]  # returns the bytes that one step holds at most


def programs(config: RunConfig) -> list[str]:
    """List the programs that can make a run's training step here, the reference first where it can."""
    found = [TORCH, NATIVE] if can_be_native() else [TORCH]
    found += [JAX] if importlib.util.find_spec("jax") else []
    return [REFERENCE, *found] if isinstance(config.task, RandomCharacters) else found


def program(name: str, config: RunConfig, seeds: Sequence[int] = (0,)) -> Program:
    """Build a program of that name, which trains seeds side by side; the reference takes one alone."""
    if name == REFERENCE:
        return _plain(config)
    return _jax(config, seeds) if name == JAX else _toyqs(resolved(replace(config, kernels=name)), seeds)


def turn_of(one: Program, seconds: float) -> int:
    """Return how many steps of a program take about so many seconds, at least one."""
    one.steps(1)
    return max(1, min(MOST, round(seconds / one.steps(1))))


def in_turns(found: Mapping[str, Program], rounds: int, count: int) -> dict[str, list[float]]:
    """Time programs in turns, each round beginning with another one.

    Args:
        found: by name.
        rounds: how often each takes its turn.
        count: the steps of a turn.

    Returns:
        Name -> CPU seconds of a step in each round.
    """
    names, times = list(found), {name: [] for name in found}
    for one in found.values():
        one.steps(count)  # the first steps also allocate memory and compile
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(found[name].steps(count))
    return times


class Ratio(NamedTuple):
    """A ratio of two programs' times, of the rounds one by one."""

    median: float
    low: float  # the quartiles
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio(slower: Sequence[float], faster: Sequence[float]) -> Ratio:
    """Compute how many times as long one program takes as another, from times of the same rounds."""
    each = [a / b for a, b in zip(slower, faster, strict=True)]
    low, median, high = statistics.quantiles(each * 2 if len(each) == 1 else each, n=4, method="inclusive")
    return Ratio(median, low, high)


class Gradients(NamedTuple):
    """The gradients of a program beside those of toyqs with kernels=torch, parameter by parameter."""

    difference: float  # the largest absolute difference
    largest: float  # the largest absolute value in toyqs's gradients


def compare_gradients(
    config: RunConfig, seeds: Sequence[int] = (0,), names: Sequence[str] = (REFERENCE, NATIVE, JAX)
) -> dict[str, Gradients]:
    """Compare the gradients of one batch with equal weights and equal, forced thoughts, in float64.

    Args:
        config: resolved.
        seeds: trained side by side; the reference is compared where that is one.
        names: of the programs to compare, of those that there are.

    Returns:
        Program -> how far it is from kernels=torch.
    """
    config = replace(config, dtype="float64")
    model = build_model(replace(config, kernels=TORCH), seeds)
    batch = _batches(config, seeds, build_training_params(config), next(model.parameters()))[0][0]
    if config.has_thoughts:
        batch = batch._replace(forced=(batch.noise * model.num_symbols).long())
    expected = _gradients(model, config, batch)
    # torch's max, unlike Python's, returns a NaN if there is one.
    largest = float(torch.stack([gradient.abs().max() for gradient in expected.values()]).max())
    found = {}
    for name in programs(config):
        if name not in names or (name == REFERENCE and len(seeds) > 1):
            continue
        own = expected
        if name == REFERENCE:
            actual, own = _reference_gradients(model, config, batch)
        elif name == JAX:
            actual = _jax_gradients(model, config, batch)
        else:
            twin = build_model(replace(config, kernels=name), seeds)
            twin.load_state_dict(model.state_dict())
            actual = _gradients(twin, replace(config, kernels=name), batch)
        apart = [(actual[each] - own[each]).abs().max() for each in own]
        found[name] = Gradients(float(torch.stack(apart).max()), largest)
    return found


def _gradients(model: nn.Module, config: RunConfig, batch: TrainingBatch) -> dict[str, Tensor]:
    settings = build_training_params(config)
    weights = {name: weight.at(0.0) for name, weight in settings.weights.items()}
    running = torch.zeros(batch.inputs.shape[0])
    accumulate(model, build_objective(config), batch, weights, settings, running)
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def _reference_gradients(
    model: nn.Module, config: RunConfig, batch: TrainingBatch
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the reference's gradients, and a model's own by the reference's names."""
    plain = _reference(model, config).double()
    assert batch.forced is not None
    prediction = plain(batch.inputs[0], _recipe(config), batch.forced[0].transpose(1, 2))
    beta = config.entropy_encouragement_coef
    reference.thinking_loss(prediction, batch.counted.targets[0], beta).backward()
    named = {name: parameter.grad for name, parameter in plain.named_parameters()}
    return named, reference.translated(model, lambda parameter: parameter.grad)


def _reference(model: nn.Module, config: RunConfig) -> Reference:
    plain = Reference(model.letters, config.widths, config.task.vocab_size)
    plain.load_state_dict(reference.translated(model, lambda parameter: parameter.detach()))
    return plain


def _recipe(config: RunConfig) -> Recipe:
    sizes = (config.trice_samples, config.max_reasoning_len)
    return Recipe(*sizes, config.base_lr, config.entropy_encouragement_coef, config.clip_gradients)


def _jax_model(config: RunConfig, batch: TrainingBatch) -> Any:
    """Return the JAX form of a run; which positions think is constant there, as it is in every sequence."""
    from bench.jax_step import Model

    positions = None
    if batch.positions is not None:
        positions = tuple(batch.positions[0, 0].tolist())
        assert (batch.positions == batch.positions[0, 0]).all()
    assert (batch.counted.weights == 1).all()
    length = config.max_reasoning_len if config.has_thoughts else 0
    numbers = (config.entropy_encouragement_coef, config.base_lr, config.clip_gradients)
    return Model(config.trice_samples, length, positions, config.advantage_scale == "batch_std", *numbers)


def _jax_gradients(model: nn.Module, config: RunConfig, batch: TrainingBatch) -> dict[str, Tensor]:
    symbols = batch.noise if batch.forced is None else batch.forced  # (S, B, T, K, L) -> (S, L, B · T, K)
    given = symbols.movedim(-1, 1).flatten(2, 3).int().numpy()
    texts = (batch.inputs.numpy(), batch.counted.targets.numpy())
    values = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    found = _jax_model(config, batch).gradients(values, *texts, given)
    return {name: torch.from_numpy(gradient) for name, gradient in found.items()}


def _batches(
    config: RunConfig, seeds: Sequence[int], settings: Any, like: Tensor
) -> tuple[list[TrainingBatch], float]:
    """Return batches, and the CPU seconds that drawing one takes."""
    begun = time.process_time()
    drawn = list(islice(draw_batches(config.task, seeds, settings, like), CHUNK))
    return drawn[:BATCHES], (time.process_time() - begun) / CHUNK


def _timed(run: Callable[[Iterator[Any], int], object], batches: Sequence[Any], count: int) -> float:
    """Time steps, one before them if they are several: another program was in the caches before.

    Args:
        run: makes so many steps, each with the next batch.
        batches: used again and again.
        count: the steps that are timed.

    Returns:
        CPU seconds of a step.
    """
    before = int(count > 1)
    begun: list[float] = []

    def stamped() -> Iterator[Any]:
        for batch in cycle(batches):
            begun.append(time.process_time())
            yield batch

    run(stamped(), count + before)
    return (time.process_time() - begun[before]) / count


def _toyqs(config: RunConfig, seeds: Sequence[int]) -> Program:
    model, settings = build_model(config, seeds), build_training_params(config)
    objective = build_objective(config)
    batches, drawing = _batches(config, seeds, settings, next(model.parameters()))

    def run(data: Iterator[TrainingBatch], count: int) -> None:
        train(model, objective, data, replace(settings, steps=count), lambda *_: None)

    return Program(lambda count: _timed(run, batches, count) + drawing, partial(_peak, run, batches))


def _peak(run: Callable[[Iterator[Any], int], object], batches: Sequence[Any]) -> float:
    run(iter(batches), 1)  # buffers that are reused
    with Peak() as counted:
        run(iter(batches), 1)
    return counted.peak


def _texts(config: RunConfig, seeds: Sequence[int]) -> tuple[nn.Module, list[TrainingBatch], float]:
    """Return a model of toyqs, and batches without noise for programs that draw their own."""
    model, settings = build_model(config, seeds), build_training_params(config)
    silent = replace(settings, thoughts=settings.thoughts._replace(length=0))
    return model, *_batches(config, seeds, silent, next(model.parameters()))


def _plain(config: RunConfig) -> Program:
    model, texts, drawing = _texts(config, [0])
    plain, recipe = _reference(model, config), _recipe(config)
    batches = [(text.inputs[0], text.counted.targets[0]) for text in texts]

    def run(data: Iterator[tuple[Tensor, Tensor]], count: int) -> None:
        reference.train(plain, islice(data, count), recipe)

    return Program(lambda count: _timed(run, batches, count) + drawing, partial(_peak, run, batches))


def _jax(config: RunConfig, seeds: Sequence[int]) -> Program:
    from bench.jax_step import Training

    model, texts, drawing = _texts(config, seeds)
    values = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    batches = [(text.inputs.numpy(), text.counted.targets.numpy()) for text in texts]
    training = Training(_jax_model(config, texts[0]), values, batches)

    def steps(count: int) -> float:
        training.prepare(count)
        begun = time.process_time()
        training.steps(count)
        return (time.process_time() - begun) / count + drawing

    return Program(steps, training.peak)
