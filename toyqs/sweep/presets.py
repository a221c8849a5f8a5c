"""The lists of --help: presets from their files, tasks and other choices from the code that defines them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from omegaconf import OmegaConf

from toyqs.config.run_config import TASKS, RunConfig

FOLDER = Path(__file__).parents[2] / "conf" / "run_modifier"
WIDTH = 110  # of the help text


def register_lists() -> None:
    """Make ${presets:}, ${tasks:} and ${choices:KEY} known to conf/hydra/help/toyqs.yaml."""
    OmegaConf.register_new_resolver("presets", presets, replace=True)
    OmegaConf.register_new_resolver("tasks", tasks, replace=True)
    OmegaConf.register_new_resolver("choices", choices, replace=True)


def presets() -> str:
    """Return one entry per preset, by name, with the text of its file's second line."""
    entries = []
    for file in sorted(FOLDER.glob("*.yaml")):
        _, what, *_ = file.read_text(encoding="utf-8").splitlines()
        entries.append((file.stem, what.removeprefix("#").strip()))
    return _entries(entries, indent=35)


def tasks() -> str:
    """Return one entry per task, with its own summary."""
    return _entries(((name, kind.summary) for name, kind in TASKS.items()), indent=19)


def choices(key: str) -> str:
    """Return the words that a setting takes, in one entry."""
    (found,) = (field for field in fields(RunConfig) if field.name == key)
    return _entries([(f"{key}=", ", ".join(map(str, found.metadata["choices"])))], indent=19)


def _entries(entries: Iterable[tuple[str, str]], indent: int) -> str:
    """Return entries of two columns, the second of which starts after `indent` characters."""
    return "\n".join(
        textwrap.fill(text, WIDTH, initial_indent=f"  {name:{indent - 2}}", subsequent_indent=" " * indent)
        for name, text in entries
    )
