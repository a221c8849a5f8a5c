"""Settings as JSON values and back: the form in which they go to another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from toyqs.config.keys import TASKS
from toyqs.config.plugins import load
from toyqs.config.run_config import RunConfig


def to_plain(config: RunConfig) -> dict[str, Any]:
    """Return every setting by its name.

    The task is a pair of its name and its own settings, plugins one of their names and of their hash.
    """
    plain = {x.name: getattr(config, x.name) for x in fields(config)}
    return plain | {
        "task": [config.task.name, {x.name: getattr(config.task, x.name) for x in fields(config.task)}],
        "plugins": [config.plugins, load.identity_of(config.plugins)],
    }


def from_plain(plain: Mapping[str, Any]) -> RunConfig:
    """Return the settings that `to_plain` returned as such, or what JSON has made of that; load plug-ins.

    Raises:
        KeyError, TypeError, ValueError: they are none.
        Refusal: a plug-in is not there, or not what it was.
    """
    plugins, identity = plain["plugins"]
    load.load(plugins, identity)
    name, own = plain["task"]
    return RunConfig(**{**plain, "task": TASKS[name](**own), "plugins": plugins})
