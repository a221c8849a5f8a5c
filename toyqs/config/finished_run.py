"""A finished run's folder, as another run refers to it: its settings, its weights, and their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from toyqs.assets.cache import digest
from toyqs.config.bounds import check_bounds
from toyqs.config.errors import Refusal, typed
from toyqs.config.key_table import KEY, RESULTS_VERSION, key_of
from toyqs.config.key_table import SETTINGS as TABLE
from toyqs.config.keys import TASKS
from toyqs.config.plugins import load
from toyqs.config.run_config import RunConfig
from toyqs.files import IDENTITY, json_object, no_folder

SETTINGS, WEIGHTS = "config.json", "model.safetensors"

# Settings of earlier versions -> the value that says what is always done now.
REMOVED: dict[str, Any] = {"shard_optimiser": False, "fsdp": False, "train_examples": 0}

VERSION, VOCABULARY, PLUGINS = "results_version", "task.vocabulary", "plugins"
BESIDE = (VERSION, VOCABULARY, PLUGINS)  # what config.json holds next to settings


def config_of(columns: Mapping[str, Any]) -> RunConfig:
    """Return the settings that the columns of a row, a cell or a config.json stand for.

    A setting that is absent has its default, which says what was done before it existed. A removed one is
    dropped at the value in REMOVED.

    Args:
        columns: `task` is the task's name, `task.x` a setting of its own, weight_groups a word.

    Raises:
        Refusal: a task or a setting that this version does not have, a removed one at another value, or a
            value that its setting does not take.
    """
    values = {n: x for n, x in columns.items() if n not in (*REMOVED, *BESIDE)}
    values = {name: value for name, value in values.items() if not name.endswith(IDENTITY)}
    for name in REMOVED.keys() & columns.keys():
        if columns[name] != REMOVED[name]:
            raise Refusal(
                f"{name}={typed(columns[name])}: this version does not have that; give runs of this version"
            )
    task = values.pop("task", None)
    if not isinstance(task, str) or task not in TASKS:
        why = "not a task of this version, nor of a plug-in that is given"
        raise Refusal(f"task={task}: {why}; give runs of this version")
    own = {name[len("task.") :]: values.pop(name) for name in list(values) if name.startswith("task.")}
    plugin = {name: values.pop(name) for name in list(values) if name.startswith(load.PREFIX)}
    unknown = values.keys() - {x.name for x in fields(RunConfig)}
    unknown |= plugin.keys() - load.setting_names()
    unknown |= {f"task.{name}" for name in own.keys() - {x.name for x in fields(TASKS[task])}}
    if unknown:
        raise Refusal(
            f"{', '.join(sorted(unknown))}: not a setting of this version; give runs of this version"
        )
    for name in ("chunk_positions", "kernels"):  # whose defaults are not what was done before
        values.setdefault(name, TABLE[name])
    groups = values.pop("weight_groups", "ABCD")
    values["weight_groups"] = list(groups) if isinstance(groups, str) else groups
    config: RunConfig = _typed(RunConfig, values)
    config = replace(config, task=_typed(TASKS[task], own, "task."), plugin=_nested(plugin))
    check_bounds(config)
    return config


def _nested(columns: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the settings of plug-ins, plugin.NAME.x, by name and setting."""
    found = {}
    for name, kind in load.own_settings().items():
        prefix = f"{load.PREFIX}{name}."
        given = {x.removeprefix(prefix): value for x, value in columns.items() if x.startswith(prefix)}
        if given:
            found[name] = vars(_typed(kind, given, prefix))
    return found


def _typed(kind: type, values: Mapping[str, Any], prefix: str = "") -> Any:
    """Return an object of a dataclass whose fields have their types, as those of typed words have."""
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), values))
    except OmegaConfBaseException as error:
        key, why = f"{prefix}{error.full_key}", str(error.msg or error).splitlines()[0]
        raise Refusal(f"{key}={typed(values.get(str(error.full_key)))}: {why}; give runs of toyqs") from error


def settings_of(folder: str, key: str = "reference_run") -> RunConfig:
    """Return the settings of a finished run, for its one seed; its task knows its tokens without its text.

    Args:
        folder: the run's, as given in a setting.
        key: that setting, for messages.

    Raises:
        ValueError: one line with the setting and the remedy: no folder of a finished run, config.json is
            damaged, of another version or another run's, or the run's tokeniser or plug-in has changed.
    """
    columns = columns_of(folder, key)
    try:
        given = columns.get(PLUGINS)
        if given and isinstance(given, list):  # no code is run of another hash than that of the training
            load.load([*map(str, given)], str(columns.get(f"{PLUGINS}{IDENTITY}")))
    except Refusal as refusal:
        why = str(refusal).partition("; ")[0]
        remedy = "put back what the run was trained with, or ask in the folder in which it was"
        raise ValueError(f"{key}={folder}: {why}; {remedy}") from refusal
    try:
        config = config_of(columns)
        version, name = columns.get(VERSION), Path(folder).resolve().name
        if version is not None and not (isinstance(version, int) and version <= RESULTS_VERSION):
            raise Refusal(f"{VERSION}={version}: not a version of results that this version knows")
        if version is not None and KEY.fullmatch(name) and key_of(_settings(columns), version) != name:
            raise Refusal(f"its settings have the key {key_of(_settings(columns), version)}, not {name}")
    except ValueError as error:
        raise _damaged(folder, key, str(error).rpartition("; give")[0] or str(error)) from error
    if VOCABULARY not in columns:
        return config
    try:
        return replace(config, task=config.task.with_vocabulary(columns[VOCABULARY]))
    except ValueError as error:
        raise ValueError(f"{key}={folder}: {error}") from error


def columns_of(folder: str, key: str = "reference_run") -> dict[str, Any]:
    """Return what a finished run's config.json holds; see `settings_of`.

    Raises:
        ValueError: one line with the setting and the remedy: there is none that can be read.
    """
    content = _read(folder, SETTINGS, key, Path.read_bytes)
    try:
        columns = json_object(content, SETTINGS)
    except ValueError as error:
        raise _damaged(folder, key, "not a JSON object in UTF-8") from error
    if missing := [name for name in ("task", "weight_groups", "seed") if name not in columns]:
        raise _damaged(folder, key, f"without {missing[0]}")
    return columns


def _settings(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in columns.items() if name not in (*REMOVED, *BESIDE)}


def _damaged(folder: str, key: str, why: str) -> ValueError:
    return ValueError(
        f"{key}={folder}: its {SETTINGS} is damaged, another run's or of another version of toyqs "
        f"({why}); give the folder of another run"
    )


def identity(folder: str, key: str = "reference_run") -> str:
    """Return a hash of the run's key and weights: the same wherever its folder and its text lie.

    Raises:
        ValueError: as in `settings_of`, where a file is missing.
    """
    columns, weights = columns_of(folder, key), _read(folder, WEIGHTS, key, digest).hex()
    name = key_of(_settings(columns), columns.get(VERSION, 0))
    return hashlib.sha256(f"{name}{weights}".encode()).hexdigest()


def _read(folder: str, name: str, key: str, read: Callable[[Path], bytes]) -> bytes:
    """Read a file of a finished run, or a hash of it.

    Raises:
        ValueError: one line with the setting and the remedy: it is not there.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"{key}={folder}: {no_folder(folder)}; give the folder of a finished run, runs/KEY")
    try:
        return read(Path(folder) / name)
    except OSError as error:
        raise ValueError(
            f"{key}={folder}: is not the folder of a finished run: it has no {name} that can be "
            "read; give one that has, runs/KEY"
        ) from error
