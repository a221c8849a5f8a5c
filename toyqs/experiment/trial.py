"""A short trial of a stack: what its training would take, from a few of its steps and small evaluations."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from toyqs.config.builders.training import build_training_params
from toyqs.config.run_config import RunConfig
from toyqs.experiment.checkpointer import ResumeOnly
from toyqs.experiment.learning_curve import CURVE_POSITIONS, NUM_EVALUATIONS
from toyqs.experiment.stack import Training
from toyqs.positions import rows
from toyqs.thought_record import packed
from toyqs.training.evaluation.metrics import THOUGHTS, evaluate
from toyqs.training.evaluation.recording import BYTES, IN_TRAINING, SEQUENCES
from toyqs.training.gradient_snr import measured_at
from toyqs.types import Batch

STEPS = 8  # of a trial at most; the first of several does not count, as it builds what the others use
SIGNAL = 1.5  # steps that a measure of the policy's signal takes


class Trial(NamedTuple):
    """What a trial measured: CPU seconds of all seeds side by side, and bytes of one run."""

    build: float  # of model and data
    step: float  # of a training step
    evaluation: float  # of the smallest evaluation
    curve: float  # of a sequence more in an evaluation of the learning curve
    final: float  # of a sequence more in the last evaluation
    line: int  # bytes of the learning curve at an evaluation
    record: int  # bytes of the record of a run's thoughts

    def scaled(self, factor: float) -> Trial:
        """Return what a stack would measure whose steps and sequences take this factor longer."""
        return self._replace(step=factor * self.step, curve=factor * self.curve, final=factor * self.final)

    def seconds(self, config: RunConfig) -> float:
        """Return the CPU seconds of a whole training, evaluations included.

        Args:
            config: resolved, with max_steps; of the stack that was tried, or one whose steps take as long.
        """
        steps = config.max_steps
        signal = len(measured_at(steps)) if config.has_policy_loss and config.has_thoughts else 0
        training = self.build + self.step * (steps + SIGNAL * signal)
        size = sequences(config)
        at_once = max(2, min(size, CURVE_POSITIONS // max(1, config.num_thinking)))
        curve = evaluations(config) * (self.evaluation + at_once * self.curve)
        along = _recordings(config) * (self.evaluation + IN_TRAINING * self.final)
        return training + curve + along + self.evaluation + size * self.final

    def files(self, config: RunConfig) -> list[int]:
        """Return the bytes of a run's learning curve and, where it thinks, of the record of its thoughts."""
        along = 1 + _recordings(config) * IN_TRAINING / SEQUENCES
        record = min(max(BYTES, self.record), round(along * self.record))
        return [evaluations(config) * self.line, *([record] if record else [])]


def sequences(config: RunConfig) -> int:
    """Return how many held-out sequences the last evaluation has."""
    wanted = config.eval_sequences
    return max(2, min(wanted, config.task.held_out_size(config.seq_len) or wanted))


def evaluations(config: RunConfig) -> int:
    """Return how many evaluations the learning curve has."""
    steps, every = config.max_steps, config.eval_every
    return -(-steps // every) if every else min(NUM_EVALUATIONS, steps)


def _recordings(config: RunConfig) -> int:
    """Return how many evaluations in training are recorded with their thoughts."""
    every = config.thoughts_every if config.has_thoughts else 0
    return (config.max_steps - 1) // every if every else 0


def attempt(config: RunConfig, seeds: Sequence[int], part: int, seconds: float) -> Trial:
    """Train a stack for a few steps, evaluate it on a few sequences, and forget it; nothing is written.

    Args:
        config: resolved, with max_steps; trained on this machine's CPU by one thread.
        seeds: trained side by side.
        part: sequences of a training step here. Where they are fewer than those of a micro-batch, the time
            of a step is extrapolated along a line from these and half as many.
        seconds: after so many no further step is made.

    Raises:
        Exception: whatever the training raises.
    """
    threads = torch.get_num_threads()
    try:
        return _attempt(config, seeds, part, seconds)
    finally:
        torch.set_num_threads(threads)


def _attempt(config: RunConfig, seeds: Sequence[int], part: int, seconds: float) -> Trial:
    start = _now()
    training = Training(_smaller(config, part), seeds)
    build = _now() - start
    step, values = _step(training, seconds)
    whole, half = config.data_loader_batch_size // config.grad_acc, part // 2
    if part < whole:
        less, _ = _step(Training(_smaller(config, half), seeds), seconds)
        step += (whole - part) * max(0.0, step - less) / (part - half)
    evaluation, curve, final, measured = _evaluations(training)
    line = _line("train", values) + _line("held_out", measured)
    return Trial(build, step * config.grad_acc, evaluation, curve, final, line, _record(training, config))


def _smaller(config: RunConfig, part: int) -> RunConfig:
    """Return the settings of a trial: so many sequences a step, few held-out ones, one length of thoughts."""
    whole = config.data_loader_batch_size // config.grad_acc
    thoughts = config.trice_samples * max(1, config.num_thinking)
    held_out = max(4, min(config.eval_sequences, THOUGHTS // thoughts, 2 * part))
    small = replace(config, data_loader_batch_size=part, grad_acc=1, eval_sequences=held_out)
    if config.chunk_positions:  # then a piece of a step is as large as it will be
        small = replace(
            small, chunk_positions=min(config.num_thinking, config.chunk_positions * whole // part)
        )
    if config.length_schedule != "constant":
        params = build_training_params(config)
        mean = round(fmean(map(params.length_at, range(params.steps))))
        small = replace(small, length_schedule="constant", max_reasoning_len=mean)
    return small


class _Enough(Exception):
    """Raised to end a training that has been timed."""


def _step(training: Training, seconds: float) -> tuple[float, dict[str, Tensor]]:
    """Return the mean CPU seconds of a training step, and the values of the last one."""
    times, seen = [_now()], {}

    def report(step: int, values: dict[str, Tensor]) -> None:
        times.append(_now())
        seen.update(values)
        if step == STEPS or times[-1] - times[0] > seconds:
            raise _Enough

    with suppress(_Enough):
        training.run(report, ResumeOnly([]))
    steps = [after - before for before, after in pairwise(times)]
    return fmean(steps[1:] or steps), seen


def _evaluations(training: Training) -> tuple[float, float, float, dict[str, Tensor]]:
    """Return the CPU seconds of a small evaluation and of a sequence more, for the curve and at the end."""
    params, held_out = training.params, training.held_out
    sizes, more = params.eval_sizes_at(params.steps - 1), max(1, held_out.inputs.shape[1] - 2)

    def evaluated(some: Batch, full: bool) -> dict[str, Tensor]:
        return evaluate(training.model, some, training.seeds, sizes, full=full, at_once=params.eval_chunk)

    _ = training.recording  # built before anything is timed
    least, _ = _timed(lambda: evaluated(rows(held_out, slice(0, 2)), full=True))
    curve, measured = _timed(lambda: evaluated(held_out, full=False))
    final, _ = _timed(training.evaluate)
    return least, max(0.0, curve - least) / more, max(0.0, final - least) / more, measured


def _record(training: Training, config: RunConfig) -> int:
    """Return the bytes of the run's record of thoughts, after `evaluate`; 0 without thoughts."""
    record = training.record(0, ())
    if record is None:
        return 0
    seen, held_out, size = len(record.sequences), training.held_out.inputs.shape[1], len(packed(record))
    return size if seen < held_out else min(BYTES, size * min(SEQUENCES, sequences(config)) // seen)


def _line(kind: str, values: dict[str, Tensor]) -> int:
    """Return the bytes of a line of metrics.jsonl."""
    numbers = {name: float(value[0]) for name, value in values.items()}
    return len(json.dumps({"step": 0, "kind": kind, **numbers})) + 1


def _timed(work: Callable[[], dict[str, Tensor]]) -> tuple[float, dict[str, Tensor]]:
    start = _now()
    found = work()
    return _now() - start, found


def _now() -> float:
    return time.thread_time()
