"""Turn a command line into a RunConfig that can run, or into one line that says what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from toyqs.config.checks.values import check
from toyqs.config.errors import Refusal
from toyqs.config.resolve import resolved
from toyqs.config.run_config import TASKS, RunConfig
from toyqs.sweep.hydra_errors import refusal_of, unknown_key, wrong_type


def compose_jobs(jobs: Sequence[DictConfig | Exception]) -> tuple[list[RunConfig], int]:
    """Sort out the jobs that can run; print refusals and notes on stderr, equal lines once.

    Args:
        jobs: each composed, or the error that prevented it.

    Returns:
        The configurations that can run, and the exit code: 2 where a job was refused.
    """
    configs, lines = [], {}
    for job in jobs:
        try:
            config, notes = compose_checked(job)
        except Refusal as refusal:
            lines[str(refusal)] = 2
            continue
        configs.append(config)
        lines |= dict.fromkeys(notes, 0)
    if len({config.runs_dir for config in configs}) > 1:
        lines["runs_dir: one sweep fills one folder; give runs_dir=FOLDER once"] = 2
        configs.clear()
    for line in lines:
        print(f"toyqs: {line}", file=sys.stderr)
    return configs, max(lines.values(), default=0)


def compose_checked(cfg: DictConfig | Exception) -> tuple[RunConfig, list[str]]:
    """Turn a composed configuration into a RunConfig that can run, with variants and widths filled in.

    Returns:
        The configuration, and a line for each setting that the checks changed by themselves.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    if isinstance(cfg, Exception):
        raise refusal_of(cfg) from cfg
    kind = OmegaConf.get_type(cfg, "task")
    if kind is None or kind not in TASKS.values():
        raise Refusal(f"task: needs one of {', '.join(TASKS)}; give for example task=rev_prog")
    try:
        values = cast(dict[Any, Any], OmegaConf.to_container(cfg, resolve=True))
        task = values.pop("task")
        config: RunConfig = _typed(RunConfig, values)
        config = replace(config, task=_typed(kind, task, "task."))
    except OmegaConfBaseException as error:
        raise refusal_of(error) from error
    notes = check(config)
    return resolved(config), notes


def _typed(kind: type, values: dict[Any, Any], prefix: str = "") -> Any:
    known = {x.name for x in fields(kind)}
    for key in values:
        if key not in known:
            raise unknown_key(f"{prefix}{key}")
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), values))
    except OmegaConfBaseException as error:
        raise wrong_type(f"{prefix}{error.full_key}", error) from error


def refuse(error: Exception) -> int:
    """Print one line on stderr that says what was wrong, and return the exit code for it."""
    print(f"toyqs: {error if isinstance(error, Refusal) else refusal_of(error)}", file=sys.stderr)
    return 2
