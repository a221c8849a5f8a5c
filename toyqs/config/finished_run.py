"""A finished run's folder, as another run refers to it: its settings, its weights, and their hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from toyqs.config.errors import Refusal, typed
from toyqs.config.run_config import TASKS, RunConfig

SETTINGS, WEIGHTS = "config.json", "model.safetensors"

# Settings of earlier versions -> the value that says what is always done now.
REMOVED: dict[str, Any] = {"shard_optimiser": False, "fsdp": False}


def config_of(columns: Mapping[str, Any]) -> RunConfig:
    """Return the settings that the columns of a row, a cell or a config.json stand for.

    A setting that is absent has its default, which says what was done before it existed. A removed one is
    dropped at the value in REMOVED.

    Args:
        columns: `task` is the task's name, `task.x` a setting of its own, weight_groups a word.

    Raises:
        Refusal: a task or a setting that this version does not have, or a removed one at another value.
    """
    values = {name: value for name, value in columns.items() if name not in REMOVED}
    for name in REMOVED.keys() & columns.keys():
        if columns[name] != REMOVED[name]:
            raise Refusal(
                f"{name}={typed(columns[name])}: this version does not have that; give runs of this version"
            )
    task = values.pop("task")
    if task not in TASKS:
        raise Refusal(f"task={task}: not a task of this version; give runs of this version")
    own = {name[len("task.") :]: values.pop(name) for name in list(values) if name.startswith("task.")}
    unknown = values.keys() - {x.name for x in fields(RunConfig)}
    unknown |= {f"task.{name}" for name in own.keys() - {x.name for x in fields(TASKS[task])}}
    if unknown:
        raise Refusal(
            f"{', '.join(sorted(unknown))}: not a setting of this version; give runs of this version"
        )
    values["weight_groups"] = list(values.get("weight_groups", "ABCD"))
    return RunConfig(**values, task=TASKS[task](**own))


def settings_of(folder: str) -> RunConfig:
    """Return the settings of a finished run, for its one seed.

    Args:
        folder: the run's, as given in reference_run.

    Raises:
        ValueError: one line with reference_run and the remedy: no folder of a finished run, or config.json
            is damaged or of another version.
    """
    try:
        columns = json.loads(_bytes(folder, SETTINGS))
        columns["weight_groups"]  # a config.json has every setting of its version
        return config_of(columns)
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError, Refusal) as error:
        why = (
            str(error).partition(";")[0] if isinstance(error, Refusal) else f"{type(error).__name__}: {error}"
        )
        raise ValueError(
            f"reference_run={folder}: its {SETTINGS} is damaged or of another version of toyqs "
            f"({why.splitlines()[0]}); give the folder of another run"
        ) from error


def identity(folder: str) -> str:
    """Return a hash of the run's settings and weights: the same wherever the folder lies.

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
