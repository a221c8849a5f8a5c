"""Checks of single settings: the words and the bounds that each has in its line of RunConfig."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from toyqs.config.errors import refuse, refusing, typed
from toyqs.config.keys import WIDTHS
from toyqs.config.plugins.load import PREFIX
from toyqs.config.run_config import RunConfig
from toyqs.model.roles import WeightGroups

LARGEST = 2**63 - 1


def check_bounds(config: RunConfig) -> None:
    """Refuse a value that its key never takes, whatever the other settings are.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    _check_choices(config)
    _check_numbers(config)
    _check_own_numbers(config)
    _check_seed(config.seed)
    _check_one_width(config)
    _check_groups(config)


def _check_choices(config: RunConfig) -> None:
    for key in fields(config):
        choices, value = key.metadata.get("choices"), getattr(config, key.name)
        if choices and value not in choices:
            refuse(key.name, value, "is not a choice", f"one of {', '.join(map(typed, choices))}")


def _check_numbers(config: RunConfig) -> None:
    for key in fields(config):
        value, least, bound = (
            getattr(config, key.name),
            key.metadata.get("at_least"),
            key.metadata.get("above"),
        )
        if value is None:
            continue
        _check_number(key.name, value)
        if least is not None and value < least:
            refuse(key.name, value, "is too small", f"{key.name}={least} or more")
        if bound is not None and value <= bound:
            refuse(key.name, value, f"is not above {bound}", f"for example {key.name}={key.default}")
    if not 0 < config.hard_quantile < 1:
        refuse(
            "hard_quantile",
            config.hard_quantile,
            "is a share of the positions",
            "more than 0 and less than 1",
        )
    if config.reference_decay >= 1:
        refuse(
            "reference_decay",
            config.reference_decay,
            "is not less than 1",
            "for example 0.99, or reference=initial for a reference that does not move",
        )
    if config.grokfast_alpha >= 1:
        refuse("grokfast_alpha", config.grokfast_alpha, "is not less than 1", "for example 0.98")
    if config.max_steps < 1 and config.max_steps != -1:
        refuse("max_steps", config.max_steps, "trains nothing", "1 or more, or -1 for the task's own number")


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        refuse(name, value, "is not finite", "a finite number")
    if isinstance(value, int) and value > LARGEST:
        refuse(name, value, "is larger than any number that torch counts with", "a smaller number")


def _check_own_numbers(config: RunConfig) -> None:
    """Refuse numbers of a task or of a plug-in that no row could hold."""
    for x in fields(config.task):
        _check_number(f"task.{x.name}", getattr(config.task, x.name))
    for name, own in config.plugin.items():
        for setting, value in own.items():
            _check_number(f"{PREFIX}{name}.{setting}", value)


def _check_seed(seed: Any) -> None:
    seeds = seed if isinstance(seed, list) else [seed]
    if not seeds or any(type(x) is not int or x < 0 for x in seeds):
        refuse("seed", seed, "takes whole numbers from 0", "for example seed=7 or seed=[0,1,2,3]")
    if len(set(seeds)) < len(seeds):
        refuse("seed", seed, "a seed is given twice and would be the same run", "each seed once")


def _check_one_width(config: RunConfig) -> None:
    if config.model_hidden_dim is None:
        return
    for x in fields(config):
        width = getattr(config, x.name)
        if x.name in WIDTHS and width not in (x.default, config.model_hidden_dim):
            refuse(
                x.name,
                width,
                f"model_hidden_dim={config.model_hidden_dim} sets every width",
                "only one of them (model_hidden_dim=null for a width per role)",
            )


def _check_groups(config: RunConfig) -> None:
    letters = config.weight_groups
    if not all(isinstance(x, str) for x in letters):
        refuse("weight_groups", letters, "takes letters", "for example weight_groups=[A,B,C,D]")
    refusing(lambda: WeightGroups.parse(letters))
