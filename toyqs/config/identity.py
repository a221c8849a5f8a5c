"""A run's identity: one spelling of its settings, and the hash of those that can matter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from functools import cache
from typing import Any, cast

from toyqs.config import key_table
from toyqs.config.choices import type_text
from toyqs.config.contents import identities
from toyqs.config.inactive import inactive_keys
from toyqs.config.key_table import RESULTS_VERSION
from toyqs.config.keys import OUTSIDE_KEY
from toyqs.config.plugins import load
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.model.roles import WeightGroups


def canonical(config: RunConfig) -> RunConfig:
    """Return the settings in the one spelling of this run: inactive ones are back at their defaults.

    Of plug-ins those stay of which the run makes use, and all settings of these. Epochs cannot matter once
    max_steps is given; until then they stay. Where nobody has settled kernels=auto, a model takes torch's.
    """
    config = resolved(replace(config, kernels="torch") if config.kernels == "auto" else config)
    config = replace(
        config,
        weight_groups=list(WeightGroups.parse(config.weight_groups).label),
        mixing=config.mixer,
        meta_token_init=config.marker_start,
        baseline="group_mean" if config.baseline == "trice" else config.baseline,
    )
    config = replace(config, **{name: getattr(_when_inactive(), name) for name in inactive_keys(config)})
    return replace(config, **load.kept(config))


@cache
def _when_inactive() -> RunConfig:
    """Return what settings are back at; those that are resolved are at what they are resolved to."""
    return replace(RunConfig(), chunk_positions=0, kernels="torch")


def changed(config: RunConfig) -> dict[str, Any]:
    """Return the settings that have to be typed for a run, in the order in which they are.

    A setting is left out where the run is the same at its default, as one that follows from others is. The
    default of `kernels` comes to native wherever that can be.

    Returns:
        Key -> value: the task and its knobs `task.x` first.
    """
    default = replace(RunConfig(), kernels="native")
    config = replace(config, kernels="native") if config.kernels == "auto" else config
    typed = {} if config.task.name == default.task.name else {"task": config.task.name}
    knobs = {x.name: x.default for x in fields(config.task)}
    typed |= {f"task.{name}": x for name, x in _plain(config.task).items() if x != knobs[name]}
    whole, reduced = canonical(config), config
    for name, value in _plain(default).items():
        if name in ("task", "plugins") or getattr(config, name) == value:
            continue
        without = replace(reduced, **{name: value})
        if canonical(without) == whole:
            reduced = without
        else:
            typed[name] = getattr(config, name)
    own = _of_plugins(typed.pop("plugin", {}))
    return typed | own | ({"plugins": whole.plugins} if whole.plugins else {})


def settings(config: RunConfig, seed: int) -> dict[str, Any]:
    """Return the columns of a row that say what was run: `named` ones, and hashes of files.

    Returns:
        Key -> number, word, bool or None. X.identity is a hash of the files that X names, absent where it
        names none.

    Raises:
        ValueError: one line, where such a file cannot be read.
    """
    return columns_of(canonical(config), seed)


def columns_of(config: RunConfig, seed: int) -> dict[str, Any]:
    """Return what `settings` does, of settings that are in the spelling of `canonical`."""
    return _columns(config, seed) | identities(config)


def named(config: RunConfig, seed: int) -> dict[str, Any]:
    """Return the settings by their names, in the spelling of `canonical`; no file that they name is read.

    Returns:
        Key -> number, word, bool or None; `task` is the task's name, its knobs are `task.x`.
    """
    return _columns(canonical(config), seed)


def _columns(config: RunConfig, seed: int) -> dict[str, Any]:
    columns = {name: value for name, value in _plain(config).items() if name not in OUTSIDE_KEY}
    columns |= {"seed": seed, "weight_groups": "".join(config.weight_groups), "task": config.task.name}
    columns |= {f"task.{name}": value for name, value in _plain(config.task).items()}
    return columns | _of_plugins(columns.pop("plugin"))


def _of_plugins(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the settings of plug-ins as they are typed."""
    return {f"{load.PREFIX}{name}.{x}": value for name, own in settings.items() for x, value in own.items()}


def _plain(values: Any) -> dict[str, Any]:
    """Return the fields of a dataclass; a float field's 1 and -0.0 are written 1.0 and 0.0."""
    found, kind = {}, cast(type, type(values))
    for name, number in _kinds(kind).items():
        value = getattr(values, name)
        found[name] = float(value) + 0.0 if number and value is not None else value
    return found


@cache
def _kinds(kind: type) -> dict[str, bool]:
    """Return the fields of a dataclass, and which hold floats."""
    return {x.name: type_text(x.type) in ("float", "float | None") for x in fields(kind)}


def run_key(config: RunConfig, seed: int) -> str:
    """Return the run's name: equal for equal results, however the command line was written.

    Returns:
        16 hex digits; see `key_of`. What names files, such as a text's path, is hashed by what they hold.
    """
    return run_keys(config, [seed])[seed]


def run_keys(config: RunConfig, seeds: Iterable[int]) -> dict[int, str]:
    """Return the names of the runs that differ in the seed alone, by seed; see `run_key`."""
    return keys_of(settings(config, 0), seeds)


def keys_of(columns: Mapping[str, Any], seeds: Iterable[int]) -> dict[int, str]:
    """Return the names of the runs that have the columns of `settings`, whatever their seed, by seed."""
    return key_table.keys_of(columns, RESULTS_VERSION, seeds)


def record(config: RunConfig, seed: int) -> dict[str, Any]:
    """Return what a run's config.json holds: its settings, and what a finished run needs to be read again.

    Returns:
        The columns of `settings`; `results_version`; `plugins`, the names of those it makes use of, if any;
        and `task.vocabulary`, what token ids stand for, where the task knows that from a file.
    """
    columns = {"results_version": RESULTS_VERSION} | settings(config, seed)
    if plugins := canonical(config).plugins:
        columns["plugins"] = plugins
    task = resolved(config).task
    return columns if task.vocabulary is None else columns | {"task.vocabulary": task.vocabulary()}
