"""A finished run's folder, as another run names it: what was run there, and what lies there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from toyqs.config.errors import Refusal
from toyqs.config.run_config import OUTSIDE_KEY, TASKS, RunConfig

SETTINGS, WEIGHTS = "config.json", "model.safetensors"

# Keys that earlier versions had -> the value that says what is always done now.
REMOVED: dict[str, Any] = {"shard_optimiser": False, "fsdp": False}


def settings_of(folder: str) -> RunConfig:
    """The settings of the run, for its one seed.

    Settings that are newer than the run have their defaults, which say what was done before; those that were
    removed since must have theirs.

    Args:
        folder: a run's, named as in reference_run.

    Raises:
        ValueError: one line with reference_run and the remedy: no folder of a finished run, or config.json
            is damaged or not of this version, or has a removed setting at another value.
    """
    try:
        columns = json.loads(_bytes(folder, SETTINGS))
        if gone := _drop_removed(columns):
            raise ValueError(
                f"reference_run={folder}: was trained with {gone}, which this version does not have; "
                "give the folder of another run"
            )
        kind = TASKS[columns["task"]]
        knobs = {name.removeprefix("task."): columns[name] for name in columns if name.startswith("task.")}
        names = {x.name for x in fields(RunConfig)}
        plain = {name: value for name, value in columns.items() if not name.startswith("task")}
        if unknown := set(plain) - names:
            raise KeyError(*sorted(unknown))
        return RunConfig(**_typed(plain) | {"task": kind(**knobs)})
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"reference_run={folder}: its {SETTINGS} is damaged or of another version of toyqs ({said}); "
            "give the folder of another run"
        ) from error


def _drop_removed(columns: dict[str, Any]) -> str:
    """Take the removed keys out, and return those that have another value than the one in the table."""
    found = {name: columns.pop(name) for name in REMOVED if name in columns}
    return ", ".join(f"{name}={json.dumps(value)}" for name, value in found.items() if value != REMOVED[name])


def _typed(columns: dict[str, Any]) -> dict[str, Any]:
    return columns | {"weight_groups": list(columns["weight_groups"])}


def identity(folder: str) -> str:
    """A hash of the run's settings and weights: the same wherever the folder lies.

    Raises:
        ValueError: as in `settings_of`, where a file is missing.
    """
    digests = [hashlib.sha256(_bytes(folder, name)).hexdigest() for name in (SETTINGS, WEIGHTS)]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _bytes(folder: str, name: str) -> bytes:
    if not Path(folder).is_dir():
        raise ValueError(
            f"reference_run={folder}: there is no such folder; give the folder of a finished run, runs/KEY"
        )
    try:
        return (Path(folder) / name).read_bytes()
    except OSError as error:
        raise ValueError(
            f"reference_run={folder}: is not the folder of a finished run: it has no {name} that can be "
            "read; give one that has, runs/KEY"
        ) from error


def config_of(settings: Mapping[str, Any]) -> RunConfig:
    """The run that has these columns; seeds, and what cannot change numbers, at their defaults.

    Raises:
        Refusal: a setting that this version does not have, or a removed one at a value but the table's.
    """
    settings = dict(settings)
    if gone := _drop_removed(settings):
        raise Refusal(f"{gone}: this version does not have that; give runs of this version")
    knobs = {name.partition(".")[2]: value for name, value in settings.items() if name.startswith("task.")}
    values = {name: value for name, value in settings.items() if not name.startswith("task.")}
    known = {x.name for x in fields(RunConfig)} - {*OUTSIDE_KEY, "seed"}
    task = values.pop("task")
    if task not in TASKS:
        raise Refusal(f"task={task}: not a task of this version; give runs of this version")
    unknown = [*(values.keys() - known), *(knobs.keys() - {x.name for x in fields(TASKS[task])})]
    if unknown:
        raise Refusal(
            f"{', '.join(sorted(unknown))}: not a setting of this version; give runs of this version"
        )
    values["weight_groups"] = list(values.get("weight_groups", "ABCD"))
    return RunConfig(**values, task=TASKS[task](**knobs))
