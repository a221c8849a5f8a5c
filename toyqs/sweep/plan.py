"""What a command comes to: cells, each a run beside its controls, and the stacks still to be done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from toyqs.config.builders.cost import count_cost
from toyqs.config.builders.model import count_parameters
from toyqs.config.controls import matched_controls, unmatched_controls
from toyqs.config.identity import run_key, settings
from toyqs.config.run_config import RunConfig
from toyqs.training.flops import Cost

# FLOPs of one seed's training step, up to which so many seeds are trained side by side on one core: beyond
# them a stack gains nothing and keeps the other cores waiting. Measured by bench/stacks.py.
STACK_SIZES = ((5e6, 16), (1e8, 8), (float("inf"), 2))

STEP_SECONDS = 2e-3  # what a step takes beside its arithmetic
FLOPS_PER_SECOND = 1e10


class PlannedCell(NamedTuple):
    """A run beside its controls."""

    config: RunConfig  # the run itself, max_steps filled in
    seeds: list[int]
    arms: dict[str, RunConfig]  # asked for, in the order of display; the run itself first
    keys: dict[str, dict[int, str]]  # arm -> seed -> key; also of controls that count only if they are there


class Stack(NamedTuple):
    """Runs to be trained side by side: one configuration, several seeds."""

    arm: str
    label: str  # what tells its cell from the others
    config: RunConfig
    seeds: list[int]
    cost: Cost

    @property
    def name(self) -> str:
        """Arm and cell."""
        return f"{self.arm} ({self.label})" if self.label else self.arm

    @property
    def work(self) -> float:
        """Rough seconds: they only order the stacks and weigh the progress."""
        flops = self.cost.flops_per_step * len(self.seeds)
        return self.config.max_steps * (STEP_SECONDS + flops / FLOPS_PER_SECOND)


def seeds_of(config: RunConfig) -> list[int]:
    """A run's seeds, one or several."""
    return config.seed if isinstance(config.seed, list) else [config.seed]


def cached_cost() -> Callable[[RunConfig], Cost]:
    """`count_cost`, which runs a training step, at most once for each set of settings."""
    known: dict[str, Cost] = {}

    def cost(config: RunConfig) -> Cost:
        weight = float(config.policy_loss_beta != 0.0)  # the policy loss costs the same at any other weight
        key = run_key(replace(config, max_steps=1, policy_loss_beta=weight), 0)
        if key not in known:
            known[key] = count_cost(config)
        return known[key]

    return cost


def plan_cell(config: RunConfig, cost: Callable[[RunConfig], Cost] = count_cost) -> PlannedCell:
    """A run and its controls, with the number of steps filled in.

    Args:
        config: checked and resolved.
        cost: counts a run's training step.

    Raises:
        RuntimeError, MemoryError: the model cannot be built.
    """
    if config.max_steps < 0:
        steps = config.task.steps(config.data_loader_batch_size, config.seq_len, config.epochs)
        config = replace(config, max_steps=steps)
    arms = {"thinking" if config.use_reasoner else "no_reasoner": config}
    known = arms | (unmatched_controls(config) if config.use_reasoner else {})
    if config.controls == "fair":
        known |= matched_controls(config, cost, count_parameters)
        arms = known
    seeds = seeds_of(config)
    keys = {name: {seed: run_key(arm, seed) for seed in seeds} for name, arm in known.items()}
    return PlannedCell(config, seeds, arms, keys)


def differences(cells: Sequence[PlannedCell]) -> list[dict[str, Any]]:
    """What tells each cell from the others: those of its settings that are not the same in all of them.

    Returns:
        Per cell, setting -> value; empty for a single cell.
    """
    columns = [settings(cell.config, 0) | {"seed": cell.seeds} for cell in cells]
    names = list(dict.fromkeys(name for each in columns for name in each))
    differing = [name for name in names if len({repr(each.get(name)) for each in columns}) > 1]
    return [{name: each[name] for name in differing if name in each} for each in columns]


def label(difference: Mapping[str, Any]) -> str:
    """Such as "base_lm_hidden_dim=4 policy_loss_beta=0.1"."""
    return " ".join(f"{name}={value}" for name, value in difference.items())


def stacks_of(
    cells: Sequence[PlannedCell], undone: set[str], cost: Callable[[RunConfig], Cost]
) -> list[Stack]:
    """The stacks that do what is undone, the longest first; a run that several cells share is in one.

    Args:
        cells: of the command.
        undone: keys of the runs to do.
        cost: counts a run's training step.
    """
    left, stacks = set(undone), []
    for cell, difference in zip(cells, differences(cells), strict=True):
        for arm, config in cell.arms.items():
            seeds = [seed for seed in cell.seeds if cell.keys[arm][seed] in left]
            left.difference_update(cell.keys[arm].values())
            if not seeds:
                continue
            counted = cost(config)
            size = next(size for flops, size in STACK_SIZES if counted.flops_per_step <= flops)
            size = size if config.backbone == "gru" else 1  # a transformer's seeds are trained one by one
            spans = [seeds[start : start + size] for start in range(0, len(seeds), size)]
            stacks += [Stack(arm, label(difference), config, span, counted) for span in spans]
    return sorted(stacks, key=lambda stack: -stack.work)
