"""Estimate what a command takes: CPU time by short trials on this machine, disk, time on the clock."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from toyqs.config.builders.cost import step_bytes
from toyqs.config.identity import record
from toyqs.config.plain import to_plain
from toyqs.experiment.trial import Trial, attempt
from toyqs.sweep.costs import LARGE, in_own_process
from toyqs.sweep.plan import Stack, end_of
from toyqs.sweep.starting import AFRESH_SECONDS, start_seconds
from toyqs.sweep.step_times import step_seconds
from toyqs.training import distributed
from toyqs.training.flops import Cost

PLAN_SECONDS = 8.0  # of trials for plan=true, about
LINE_SECONDS, LINE_SHARE = 1.0, 0.01  # for a sweep's line at most so many, and at most this share of its work
FEWEST_SECONDS = 0.1  # a trial takes about so long: with less to spend there is none
TRIALS = 8  # a trial may take this part of what there is, or more where few are left
STEPS = 4  # a step may take this part of its trial
FEWEST_SEQUENCES = 4  # of a step in a trial, where the run has as many
BLOCK = 4096  # bytes of a file system, of which a file takes whole ones
RESULTS, ENVIRONMENT = 2000, 1000  # bytes of a row beside its settings, and of env.json
HEADER = 2000  # bytes of the weights' names and shapes in model.safetensors
STATES = 3  # of a weight in a checkpoint: itself and two moments; one more with a filter of gradients
LINES, RECORD = 600, 30_000  # bytes of an evaluation and of a record of thoughts, where nothing was tried


class Estimate(NamedTuple):
    """What the stacks of a command take, in their order."""

    seconds: list[float] | None  # of CPU time on this machine; None where it says nothing about the training
    bytes: list[int]  # of a stack's runs on disk
    checkpoints: list[int]  # bytes of their checkpoints, while they train
    trials: int  # behind the seconds; 0: they are a guess


class Kind(NamedTuple):
    """What stacks have in common whose steps and evaluations take equally long."""

    cost: Cost
    looked_up: tuple[bool, str, int]  # by which the table has its time: see Stack.kind
    seeds: int
    symbols: int  # of a thought
    grad_acc: int
    dtype: str


def estimate(stacks: Sequence[Stack], seconds: float, *, large: bool = False) -> Estimate:
    """Estimate what stacks take.

    The CPU time is that of short trials of the kinds of stacks that have most work, scaled by their work for
    the others. On a GPU and under torchrun nothing is tried.

    Args:
        stacks: of a command.
        seconds: that trials may take, about; with too few for one there is none.
        large: also try, each in a process of its own, what needs much memory.
    """
    here = distributed.ranks() == 1 and not any(stack.config.device == "cuda" for stack in stacks)
    trials = _tried(stacks, seconds, large) if here and seconds >= FEWEST_SECONDS else {}
    like = [_like(trials, stack) for stack in stacks]
    spent = [trial.seconds(stack.config) for trial, stack in zip(like, stacks, strict=True)]
    runs = [len(stack.seeds) * _folder(trial, stack) for trial, stack in zip(like, stacks, strict=True)]
    return Estimate(spent if here else None, runs, [_checkpoints(stack) for stack in stacks], len(trials))


def estimate_in_passing(stacks: Sequence[Stack]) -> Estimate:
    """Estimate what stacks take in a time that their training does not notice."""
    guessed = sum(_guess(stack).seconds(stack.config) for stack in stacks)
    return estimate(stacks, min(LINE_SECONDS, LINE_SHARE * guessed))


def wall_seconds(seconds: Sequence[float], processes: int) -> float:
    """Return how long stacks take, started in their order, in so many worker processes."""
    return start_seconds() + end_of(seconds, processes)


def _tried(stacks: Sequence[Stack], seconds: float, large: bool) -> dict[Kind, Trial]:
    """Try one stack of each kind, those with most work first, for so many seconds in all."""
    kinds: dict[Kind, list[Stack]] = {}
    for stack in stacks:
        kinds.setdefault(_kind(stack), []).append(stack)
    trials: dict[Kind, Trial] = {}
    end, left = time.perf_counter() + seconds, len(kinds)
    for kind, (stack, *_) in sorted(kinds.items(), key=lambda x: -sum(stack.work for stack in x[1])):
        if (remaining := end - time.perf_counter()) <= 0:
            break
        limit = max(seconds / TRIALS, remaining / left)
        try:
            trials[kind] = _trial(stack, limit, _like(trials, stack).step, large)
        except Exception:  # the training itself will say what is wrong
            continue
        finally:
            left -= 1
    return trials


def _trial(stack: Stack, seconds: float, step: float, large: bool) -> Trial:
    """Try a stack for so many seconds.

    Args:
        stack: to be tried.
        seconds: that the trial may take, about.
        step: seconds that a step may be expected to take.
        large: see `estimate`.

    Raises:
        Exception: it failed, or needs too much memory.
    """
    config = stack.config
    part = config.data_loader_batch_size // config.grad_acc
    step /= config.grad_acc
    while part > FEWEST_SEQUENCES and (step > seconds / STEPS or _bytes(stack, part) > LARGE):
        part, step = max(FEWEST_SEQUENCES, part // 2), step / 2
    if _bytes(stack, part) <= LARGE:
        return attempt(config, stack.seeds, part, seconds)
    if not large:
        raise MemoryError
    given = (to_plain(config), stack.seeds, part, seconds)
    return Trial(*in_own_process("try", *given, seconds=AFRESH_SECONDS + STEPS * seconds))


def _bytes(stack: Stack, part: int) -> int:
    """Estimate the memory of a step with so many sequences."""
    config = stack.config
    whole, thinking = config.data_loader_batch_size // config.grad_acc, max(1, config.num_thinking)
    if config.chunk_positions:
        part = min(part, math.ceil(whole * config.chunk_positions / thinking))
    return len(stack.seeds) * step_bytes(replace(config, data_loader_batch_size=part, grad_acc=1))


def _kind(stack: Stack) -> Kind:
    config = stack.config
    return Kind(stack.cost, stack.kind, len(stack.seeds), stack.symbols, config.grad_acc, config.dtype)


def _like(trials: Mapping[Kind, Trial], stack: Stack) -> Trial:
    """Return the trial of a stack's kind, or that of the nearest one, scaled by a step's work."""
    kind = _kind(stack)
    if kind in trials:
        return trials[kind]
    guess = _guess(stack)
    if not trials:
        return guess
    thinks, work = bool(kind.symbols), _work(kind)
    nearest = min(trials, key=lambda x: (bool(x.symbols) != thinks, abs(math.log(_work(x) / work))))
    like = trials[nearest].scaled(work / _work(nearest))
    if bool(nearest.symbols) == thinks:
        return like
    return guess.scaled(like.step / guess.step)


def _work(kind: Kind) -> float:
    return step_seconds(*kind.looked_up, kind.seeds)


def _guess(stack: Stack) -> Trial:
    """Return what a trial may measure."""
    step = _work(_kind(stack))
    one = step / stack.config.data_loader_batch_size  # a sequence forward and backward: three times forward
    return Trial(2 * step, step, step, one / 3, one, LINES, RECORD if stack.symbols else 0)


def _folder(trial: Trial, stack: Stack) -> int:
    """Return the bytes of a run's folder on a disk."""
    config = stack.config
    settings = len(json.dumps(record(config, stack.seeds[0]), indent=1))
    files = [settings, settings + RESULTS, ENVIRONMENT, HEADER + _weights(stack), *trial.files(config)]
    return BLOCK + sum(-(-size // BLOCK) * BLOCK for size in files)


def _weights(stack: Stack) -> int:
    return stack.cost.parameters * (8 if stack.config.dtype == "float64" else 4)


def _checkpoints(stack: Stack) -> int:
    states = STATES + bool(stack.config.grokfast_lambda)
    return states * len(stack.seeds) * _weights(stack) if stack.config.checkpoint_every else 0
