"""What the files that a run is made of hold: its text, its checkpoint, the run that it refers to."""

from __future__ import annotations

import hashlib
import json

from toyqs.assets import pretrained
from toyqs.config import finished_run
from toyqs.config.keys import STARTS
from toyqs.config.plugins import load
from toyqs.config.run_config import RunConfig
from toyqs.files import IDENTITY

OWNERS = ("task", "pretrained", "reference_run", "plugins", *STARTS)  # settings that may name files


def identities(config: RunConfig) -> dict[str, str]:
    """Return the columns X.identity of a run: for each setting X that names files, a hash of what they hold.

    Args:
        config: resolved.

    Returns:
        16 hex digits each; a setting that names none is absent.

    Raises:
        ValueError: one line, where a file cannot be read.
    """
    found = {f"{owner}{IDENTITY}": _identity(config, owner) for owner in OWNERS}
    return {column: value for column, value in found.items() if value is not None}


def check_unchanged(folder: str, config: RunConfig, owner: str) -> None:
    """Refuse files that no longer hold what a finished run was trained with.

    A run of an earlier version, which noted nothing, is let through.

    Args:
        folder: the run's.
        config: its settings, resolved.
        owner: the setting that names the files, "task" or "pretrained".

    Raises:
        ValueError: one line with both hashes.
    """
    then = finished_run.columns_of(folder).get(f"{owner}{IDENTITY}")
    if then is None or then == (now := _identity(config, owner)):
        return
    given = config.task.given if owner == "task" else f"{owner}={getattr(config, owner)}"
    raise ValueError(
        f"{given}: has changed since {folder} was trained with it: its hash was {then} and is {now}; put "
        "back what was there, or train again"
    )


def _identity(config: RunConfig, owner: str) -> str | None:
    content: str | None = None
    if owner == "plugins":
        return load.identity_of(config.plugins)
    if owner == "task" and config.task.identity is not None:
        content = json.dumps({"task": config.task.name} | config.task.identity(), sort_keys=True)
    elif owner == "pretrained" and config.pretrained is not None:
        content = pretrained.identity(config.pretrained)
    elif owner == "reference_run" and config.reference_run is not None:
        content = finished_run.identity(config.reference_run)
    elif owner in STARTS and getattr(config, owner) is not None:
        content = finished_run.identity(getattr(config, owner), owner)
    return None if content is None else hashlib.sha256(content.encode()).hexdigest()[:16]
