"""Plan a command: its cells, each a run with its controls, and the stacks still to be trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from toyqs.config.builders.model import count_parameters
from toyqs.config.controls import matched_controls, unmatched_controls
from toyqs.config.identity import canonical, named, run_key, run_keys
from toyqs.config.inactive import inactive_keys
from toyqs.config.plain import from_plain, to_plain
from toyqs.config.run_config import RunConfig
from toyqs.experiment.trackers import Place
from toyqs.training.flops import Cost

# (FLOPs, seeds): up to so many FLOPs for one seed's training step, so many seeds are trained side by side on
# one core. A larger stack would gain nothing and leave other cores idle. Measured by bench/speed.py stacks.
STACK_SIZES = ((5e6, 16), (1e8, 8), (float("inf"), 2))

# Settings of the base LM; a run without one gives them to its plain controls alone.
OF_BASE = ("base_lm_hidden_dim", "base_lm_lr")

# Seconds of a step that go into anything but arithmetic, and what each symbol of a thought adds; one core.
STEP_SECONDS, SYMBOL_SECONDS = 2.5e-3, 4e-3
FLOPS_PER_SECOND = 2.5e10


class PlannedCell(NamedTuple):
    """A run and its controls."""

    config: RunConfig  # the run itself, max_steps filled in
    seeds: list[int]
    arms: dict[str, RunConfig]  # to be trained, in the order of display; the run itself first
    # arm -> seed -> key; also of controls that are one run with another arm, or are shown only if they exist
    keys: dict[str, dict[int, str]]
    same: dict[str, str]  # a control asked for that is one run with another arm -> that arm, shown for both
    beside: dict[str, Any]  # settings that have an effect in the plain controls, and none in the run

    @property
    def run_keys(self) -> list[str]:
        """List the keys of the runs to be trained."""
        return [key for arm in self.arms for key in self.keys[arm].values()]

    @property
    def inactive(self) -> set[str]:
        """Return the settings that have no effect in the run, nor in its plain controls."""
        return inactive_keys(self.config) - self.beside.keys()


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
        return self.config.max_steps * step_work(self.cost, len(self.seeds), self.symbols)

    @property
    def symbols(self) -> int:
        """Return the most symbols that a thought of its runs has."""
        return self.config.max_reasoning_len if self.config.has_thoughts else 0

    @property
    def flops(self) -> int:
        """Return the FLOPs of its training, of all seeds."""
        return self.config.max_steps * self.cost.flops_per_step * len(self.seeds)


def step_work(cost: Cost, num_seeds: int, symbols: int) -> float:
    """Guess the seconds of a training step of so many seeds side by side, thoughts of so many symbols."""
    flops = cost.flops_per_step * num_seeds
    return STEP_SECONDS + symbols * SYMBOL_SECONDS + flops / FLOPS_PER_SECOND


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
    known = {name: canonical(arm) for name, arm in known.items()}
    seeds = seeds_of(config)
    keys = {name: run_keys(arm, seeds) for name, arm in known.items()}
    first: dict[str, str] = {}
    shown = {name: first.setdefault(by_seed[seeds[0]], name) for name, by_seed in keys.items()}
    arms = {name: known[name] for name in asked_for if shown[name] == name}
    same = {name: shown[name] for name in asked_for if shown[name] != name}
    active = _active(known["no_reasoner"])
    beside = {name: active[name] for name in OF_BASE if name in active.keys() & inactive_keys(config)}
    return PlannedCell(config, seeds, arms, keys, same, beside)


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


def stacks_of(
    cells: Sequence[PlannedCell], undone: set[str], cost: Callable[[RunConfig], Cost]
) -> list[Stack]:
    """Stack the runs that are to be trained, the longest stack first; a run that cells share is in one stack.

    Args:
        cells: of the command.
        undone: keys of the runs to be trained.
        cost: counts a run's training step.
    """
    remaining: set[str] = set(undone)
    stacks: list[Stack] = []
    columns = [_active(cell.config) | cell.beside | {"seed": cell.seeds} for cell in cells]
    for cell, difference in zip(cells, _differences(columns), strict=True):
        which = f"{label(difference) or cell.config.task.name} ({run_key(cell.config, 0)[:6]})"
        for arm, config in cell.arms.items():
            seeds = [seed for seed in cell.seeds if cell.keys[arm][seed] in remaining]
            remaining.difference_update(cell.keys[arm].values())
            if not seeds:
                continue
            step_cost = cost(config)
            size = next(size for flops, size in STACK_SIZES if step_cost.flops_per_step <= flops)
            size = size if config.backbone == "gru" else 1  # a transformer's seeds are trained one by one
            spans = [seeds[start : start + size] for start in range(0, len(seeds), size)]
            stacks += [Stack(arm, label(difference), config, span, step_cost, which) for span in spans]
    return sorted(stacks, key=lambda stack: -stack.work)
