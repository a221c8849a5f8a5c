"""A run's identity: one spelling of its settings, and the hash of those that can matter."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from typing import Any

from toyqs.assets import pretrained
from toyqs.config import finished_run
from toyqs.config.inactive import inactive_keys
from toyqs.config.key_table import RESULTS_VERSION, SETTINGS, TASK_SETTINGS
from toyqs.config.resolve import resolved
from toyqs.config.run_config import (
    OUTSIDE_KEY,
    RunConfig,
)
from toyqs.model.roles import WeightGroups


def canonical(config: RunConfig) -> RunConfig:
    """Return the settings in the one spelling of this run: inactive ones are back at their defaults.

    Epochs cannot matter once max_steps is given; until then they stay.
    """
    config = resolved(config)
    config = replace(
        config,
        weight_groups=list(WeightGroups.parse(config.weight_groups).label),
        mixing=config.mixer,
        meta_token_init=config.marker_start,
        baseline="group_mean" if config.baseline == "trice" else config.baseline,
    )
    defaults = RunConfig()
    return replace(config, **{name: getattr(defaults, name) for name in inactive_keys(config)})


def settings(config: RunConfig, seed: int) -> dict[str, Any]:
    """Return the columns of a row that say what was run, in the spelling of `canonical`.

    Returns:
        Key -> number, word, bool or None; `task` is the task's name, its knobs are `task.x`.
    """
    config = canonical(config)
    columns = {name: value for name, value in _plain(config).items() if name not in OUTSIDE_KEY}
    columns |= {"seed": seed, "weight_groups": "".join(config.weight_groups), "task": config.task.name}
    return columns | {f"task.{name}": value for name, value in _plain(config.task).items()}


def _plain(values: Any) -> dict[str, Any]:
    """Return the fields of a dataclass; a float field's 1 and -0.0 are written 1.0 and 0.0."""
    plain = {x.name: getattr(values, x.name) for x in fields(values)}
    floats = {x.name for x in fields(values) if x.type == "float"}
    return {name: float(value) + 0.0 if name in floats else value for name, value in plain.items()}


def run_key(config: RunConfig, seed: int) -> str:
    """Return the run's name: equal for equal results, however the command line was written.

    Returns:
        16 hex digits of the hash of RESULTS_VERSION and of all settings that can matter and differ from
        their values in key_table.py. A task with an `identity()`, such as the content of its file, is
        hashed by that instead of by its own settings, and a checkpoint or a run that is referred to by its
        files' content.
    """
    columns = settings(config, seed)
    del columns["info"]
    table = SETTINGS | {
        f"task.{name}": value for name, value in TASK_SETTINGS.get(config.task.name, {}).items()
    }
    columns = {name: value for name, value in columns.items() if name not in table or value != table[name]}
    if config.task.identity is not None:
        columns = {name: value for name, value in columns.items() if not name.startswith("task.")}
        columns["task.identity"] = config.task.identity()
    if name := columns.get("pretrained"):
        columns["pretrained"] = pretrained.identity(name)
    if run := columns.get("reference_run"):
        columns["reference_run"] = finished_run.identity(run)
    text = json.dumps(columns | {"results_version": RESULTS_VERSION}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
