"""Plan a command: its cells, each a run with its controls, and the stacks still to be trained."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from typing import Any, NamedTuple

from toyqs.config.builders.model import count_parameters
from toyqs.config.controls import matched_controls, unmatched_controls
from toyqs.config.identity import canonical, columns_of, keys_of, named
from toyqs.config.inactive import inactive_keys
from toyqs.config.plain import from_plain, to_plain
from toyqs.config.run_config import RunConfig
from toyqs.experiment.trackers import Place
from toyqs.files import IDENTITY
from toyqs.sweep.step_times import most_seeds, step_seconds
from toyqs.training.flops import Cost

# Settings of the base LM; a run without one gives them to its plain controls alone.
OF_BASE = ("base_lm_hidden_dim", "base_lm_lr")

# How stacks are divided where several train at once.
STACK_SECONDS = 2.0  # what a stack takes beside its steps, about
FINEST = 0.05  # of the time until the end: for less no stack is divided
SHARE = 0.25  # of all work that a stack of several seeds may be in a sweep
GROWTH = 1.3  # of the CPU time, for the sake of SHARE alone
PRICE = 1 / 3  # an end that is earlier by 1 % is worth 3 % more CPU time


class PlannedCell(NamedTuple):
    """A run and its controls."""

    config: RunConfig  # the run itself, max_steps filled in
    seeds: list[int]
    arms: dict[str, RunConfig]  # to be trained, in the order of display; the run itself first
    # arm -> seed -> key; also of controls that are one run with another arm, or are shown only if they exist
    keys: dict[str, dict[int, str]]
    same: dict[str, str]  # a control asked for that is one run with another arm -> that arm, shown for both
    beside: dict[str, Any]  # settings that have an effect in the plain controls, and none in the run
    inactive: set[str]  # the settings that have no effect in the run, nor in its plain controls
    columns: dict[str, Any]  # what `identity.settings` returns of the run's first seed

    @property
    def run_keys(self) -> list[str]:
        """List the keys of the runs to be trained."""
        return [key for arm in self.arms for key in self.keys[arm].values()]

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings that have an effect in the run or its plain controls; no hash of a file."""
        columns = {name: x for name, x in self.columns.items() if not name.endswith(IDENTITY)}
        return {name: x for name, x in (columns | self.beside).items() if name not in self.inactive}


class Stack(NamedTuple):
    """Runs to be trained side by side: one configuration, several seeds."""

    arm: str
    label: str  # the settings that distinguish its cell from the others
    config: RunConfig
    seeds: list[int]
    cost: Cost
    cell: str = ""  # the name of its cell, whatever command it is of

    def to_plain(self) -> list[Any]:
        """Return the stack as a JSON value, for another process."""
        return [self.arm, self.label, to_plain(self.config), self.seeds, list(self.cost), self.cell]

    @classmethod
    def from_plain(cls, plain: Sequence[Any]) -> Stack:
        """Return the stack that `to_plain` has written."""
        arm, label, config, seeds, cost, cell = plain
        return cls(arm, label, from_plain(config), seeds, Cost(*cost), cell)

    @property
    def place(self) -> Place:
        """Return where its runs stand in the command."""
        return Place(self.arm, self.label, self.cell)

    @property
    def name(self) -> str:
        """Name the arm, and the cell where there are several."""
        return f"{self.arm} ({self.label})" if self.label else self.arm

    @property
    def work(self) -> float:
        """Guess the seconds of its training; sweep/estimate.py measures instead."""
        return self.config.max_steps * step_seconds(*self.kind, len(self.seeds))

    @property
    def kind(self) -> tuple[bool, str, int]:
        """Return what the time of a step is looked up by: whether it thinks, its kernels, its FLOPs."""
        return self.config.use_reasoner, self.config.kernels, self.cost.flops_per_step

    @property
    def most_seeds(self) -> int:
        """Return how many of its seeds gain by being trained side by side on one core."""
        return most_seeds(*self.kind) if self.config.backbone == "gru" else 1  # a transformer's go one by one

    @property
    def divides(self) -> bool:
        """Tell whether it may be divided for the sake of more processes; on a GPU they share one device."""
        return self.config.device != "cuda"

    @property
    def symbols(self) -> int:
        """Return the most symbols that a thought of its runs has."""
        return self.config.max_reasoning_len if self.config.has_thoughts else 0

    @property
    def flops(self) -> int:
        """Return the FLOPs of its training, of all seeds."""
        return self.config.max_steps * self.cost.flops_per_step * len(self.seeds)


def seeds_of(config: RunConfig) -> list[int]:
    """Return a run's seeds as a list."""
    return config.seed if isinstance(config.seed, list) else [config.seed]


def plan_cell(config: RunConfig, cost: Callable[[RunConfig], Cost]) -> PlannedCell:
    """Plan a run and its controls, each run once, with the number of steps filled in.

    All are in the settings' canonical spelling: what a key names is what is trained, whatever was typed.

    Args:
        config: checked and resolved.
        cost: counts a run's training step.

    Raises:
        RuntimeError, MemoryError: the model cannot be built, or a step needs too much memory.
    """
    if config.max_steps < 0:
        steps = config.task.steps(config.data_loader_batch_size, config.seq_len, config.epochs)
        config = replace(config, max_steps=steps)
    typed = {name: getattr(config, name) for name in OF_BASE}
    config = canonical(config)
    with_base = replace(config, **typed)
    known = {"thinking" if config.use_reasoner else "no_reasoner": config}
    asked_for = list(known)
    if config.use_reasoner:
        known |= unmatched_controls(with_base)
    if config.controls != "none":
        known |= matched_controls(with_base, cost, count_parameters)
        asked_for = list(known)
    known = {name: arm if arm is config else canonical(arm) for name, arm in known.items()}
    seeds = seeds_of(config)
    columns = {name: columns_of(arm, seeds[0]) for name, arm in known.items()}
    keys = {name: keys_of(each, seeds) for name, each in columns.items()}
    first: dict[str, str] = {}
    shown = {name: first.setdefault(by_seed[seeds[0]], name) for name, by_seed in keys.items()}
    arms = {name: known[name] for name in asked_for if shown[name] == name}
    same = {name: shown[name] for name in asked_for if shown[name] != name}
    idle = inactive_keys(config)
    active = idle - inactive_keys(known["no_reasoner"])
    beside = {name: columns["no_reasoner"][name] for name in OF_BASE if name in active}
    return PlannedCell(
        config, seeds, arms, keys, same, beside, idle - beside.keys(), columns[next(iter(known))]
    )


def differences(configs: Sequence[RunConfig]) -> list[dict[str, Any]]:
    """Find the settings that are not the same in all configurations in which they have an effect.

    Returns:
        For each configuration, setting -> value, without those that have no effect in it; empty for a single
        one.
    """
    return _differences([_active(config) | {"seed": seeds_of(config)} for config in configs])


def _differences(columns: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    names = dict.fromkeys(name for each in columns for name in each)
    differing = [name for name in names if len({repr(each[name]) for each in columns if name in each}) > 1]
    return [{name: each[name] for name in differing if name in each} for each in columns]


def _active(config: RunConfig) -> dict[str, Any]:
    idle = inactive_keys(config)
    return {name: value for name, value in named(config, 0).items() if name not in idle}


def label(difference: Mapping[str, Any]) -> str:
    """Write settings as they are typed, such as "base_lm_hidden_dim=4 policy_loss_beta=0.1"."""
    return " ".join(f"{name}={value}" for name, value in difference.items())


def end_of(seconds: Sequence[float], processes: int) -> float:
    """Return when so many processes have trained stacks of so many seconds, started in their order."""
    free = [0.0] * processes
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def divided(stacks: Sequence[Stack], processes: int) -> list[Stack]:
    """Divide stacks by their seeds, as far as it pays, and return them, the longest first.

    One process trains the fewest stacks, of as many seeds as gain by it. With several, smaller stacks may
    end earlier, and take more CPU time, which PRICE weighs against each other. The end is never
    later than with every run for itself. In a sweep of several cells no stack of several seeds is more than
    SHARE of the work where that takes no more than GROWTH times the CPU time.
    """
    numbers = [math.ceil(len(stack.seeds) / stack.most_seeds) for stack in stacks]
    if processes > 1:
        numbers = _numbers(stacks, numbers, processes)
    parts = [part for stack, number in zip(stacks, numbers, strict=True) for part in _parts(stack, number)]
    return sorted(parts, key=lambda stack: -stack.work)


class _Way(NamedTuple):
    """A way to divide stacks."""

    numbers: list[int]  # of parts of each
    end: float  # of all, in seconds
    total: float  # CPU seconds
    even: bool  # whether no part that could be divided is more than SHARE


def _numbers(stacks: Sequence[Stack], fewest: Sequence[int], processes: int) -> list[int]:
    """Choose into how many parts each stack is divided; at least into the fewest."""
    alone = [
        len(stack.seeds) if stack.divides else least for stack, least in zip(stacks, fewest, strict=True)
    ]
    last = _end(map(_seconds, stacks, alone), processes) + STACK_SECONDS
    ways = list(_ways(stacks, fewest, processes))
    in_time = [way for way in ways if way.end <= last]
    if not in_time:
        return alone
    best = min(in_time, key=lambda way: way.end * way.total**PRICE)
    even = [way for way in in_time if way.even and best.total <= way.total <= GROWTH * ways[0].total]
    return (even or [best])[0].numbers


def _ways(stacks: Sequence[Stack], fewest: Sequence[int], processes: int) -> Iterator[_Way]:
    """Divide the longest stack, again and again, until no division can pay."""
    numbers, seconds = [*fewest], [*map(_seconds, stacks, fewest)]
    several = len({stack.cell for stack in stacks}) > 1
    while True:
        end, total = _end(seconds, processes), sum(map(sum, seconds))
        longest = {
            i: max(seconds[i])
            for i, stack in enumerate(stacks)
            if stack.divides and numbers[i] < len(stack.seeds)
        }
        place = max(longest, key=longest.__getitem__, default=None)
        steps = total - STACK_SECONDS * sum(numbers)
        even = not several or place is None or longest[place] - STACK_SECONDS <= SHARE * steps
        yield _Way([*numbers], end, total, even)
        if place is None or longest[place] < FINEST * end:
            return
        if even and end <= (1 + FINEST) * total / processes:
            return
        numbers[place] += 1
        seconds[place] = _seconds(stacks[place], numbers[place])


def _end(seconds: Iterable[Sequence[float]], processes: int) -> float:
    return end_of(sorted(chain.from_iterable(seconds), reverse=True), processes)


def _seconds(stack: Stack, number: int) -> list[float]:
    return [STACK_SECONDS + part.work for part in _parts(stack, number)]


def _parts(stack: Stack, number: int) -> list[Stack]:
    """Divide a stack into so many of nearly equal size."""
    ends = [len(stack.seeds) * place // number for place in range(number + 1)]
    return [stack._replace(seeds=stack.seeds[begin:end]) for begin, end in pairwise(ends)]


def stacks_of(
    cells: Sequence[PlannedCell], undone: set[str], cost: Callable[[RunConfig], Cost], processes: int = 1
) -> list[Stack]:
    """Stack the runs that are to be trained, the longest stack first; a run that cells share is in one stack.

    Args:
        cells: of the command.
        undone: keys of the runs to be trained.
        cost: counts a run's training step.
        processes: how many stacks may train at once.
    """
    remaining: set[str] = set(undone)
    stacks: list[Stack] = []
    columns = [cell.settings | {"seed": cell.seeds} for cell in cells]
    for cell, difference in zip(cells, _differences(columns), strict=True):
        which = f"{label(difference) or cell.config.task.name} ({keys_of(cell.columns, [0])[0][:6]})"
        for arm, config in cell.arms.items():
            seeds = [seed for seed in cell.seeds if cell.keys[arm][seed] in remaining]
            remaining.difference_update(cell.keys[arm].values())
            if seeds:
                stacks.append(Stack(arm, label(difference), config, seeds, cost(config), which))
    return divided(stacks, processes)
