"""Hydra's errors in one line: what was wrong, where, what to type instead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from toyqs.config.errors import Refusal, typed
from toyqs.config.run_config import TASKS, RunConfig

TYPE_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a word",
    "list[str]": "a list",
}

# Start of a message of Hydra -> the line in its place; {} is the first thing that the message quotes.
REWORDED = {
    "Ambiguous value": "{}: several values are a sweep; give -m as well, or a list in brackets",
    "Could not override 'run_modifier'": "{}: a preset is added with a plus; give +run_modifier=NAME",
    "Could not append": "{0}: is given already; give {0}=VALUE without the plus",
    "Config group override": "task and run_modifier take a name; give for example task=rev_prog",
    "Multiple values for task": "task: is given already; give task=NAME without the plus",
}


def refusal_of(error: Exception) -> Refusal:
    """Return what Hydra or OmegaConf could not compose, as one line with the key and the remedy."""
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    text = " ".join(str(error).split())
    quoted = text.split("'")[1] if text.count("'") > 1 else ""
    if isinstance(error, MissingConfigException):
        return _unknown_choice(error.missing_cfg_file or quoted, sorted(error.options or ()))
    if isinstance(error, OverrideParseException):
        return Refusal(f"{error.override}: is not KEY=VALUE; check brackets and quotes, or see --help")
    for start, line in REWORDED.items():
        if text.startswith(start):
            return Refusal(line.format(quoted))
    if text.startswith("Could not override"):
        return unknown_key(quoted)
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return wrong_type(str(cause.full_key), cause)
    return Refusal(f"{text}; see --help")


def _unknown_choice(wanted: str, known: list[str]) -> Refusal:
    group, _, name = wanted.rpartition("/")
    what = "preset" if group == "run_modifier" else group
    listed = f"give one of {', '.join(known)}" if known else "see --help"
    return Refusal(f"{group}={name}: there is no such {what}; {_nearest(name, known)}{listed}")


def unknown_key(key: str) -> Refusal:
    """Return the refusal of a key that no setting has, with the nearest one that there is."""
    owners = [name for name, kind in TASKS.items() if key in _keys_of(kind, "task.")]
    if owners:
        return Refusal(f"{key}: belongs to another task; give task={owners[0]} as well")
    return Refusal(
        f"{key}: there is no such setting; {_nearest(key, [*all_keys(), 'run_modifier'])}see --help"
    )


def wrong_type(key: str, error: OmegaConfBaseException) -> Refusal:
    """Return the refusal of a value: what the key takes; for keys of Hydra's own, what OmegaConf says."""
    name = key.partition("[")[0]
    if name not in all_keys():
        return Refusal(f"{key}: {str(error.msg or error).splitlines()[0]}; see --help")
    annotation, default = all_keys()[name]
    needed, _, optional = annotation.partition(" | ")
    takes = TYPE_WORDS.get(needed, "a value") + (" or null" if optional else "")
    given = key if error.value is None else f"{key}={error.value}"
    return Refusal(f"{given}: takes {takes}; give for example {name}={typed(default)}")


def _keys_of(kind: type, prefix: str) -> dict[str, tuple[str, Any]]:
    """Return the annotation and the default of each key, by its name as typed."""
    default = kind()
    return {f"{prefix}{x.name}": (str(x.type), getattr(default, x.name)) for x in fields(kind)}


def all_keys() -> dict[str, tuple[str, Any]]:
    """Return every setting as typed, those of the tasks too, with its annotation and default."""
    keys = _keys_of(RunConfig, "")
    for kind in TASKS.values():
        keys |= _keys_of(kind, "task.")
    return keys


def _nearest(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]}? " if near else ""
