"""Hydra's errors in one line: what was wrong, where, what to type instead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from toyqs.config.choices import type_text
from toyqs.config.errors import Refusal, typed
from toyqs.config.keys import TASKS
from toyqs.config.plugins import load
from toyqs.config.run_config import RunConfig
from toyqs.installation import VERBS, program, scripts
from toyqs.sweep.executors.settings import PREFIX, unknown_launcher_key

TYPE_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a word",
    "list[str]": "a list",
}

NO_SETTING = ("run_modifier", "zip")  # typed like a setting, and none

# Start of a message of Hydra -> the line in its place; {} is the first thing that the message quotes.
REWORDED = {
    "Ambiguous value": "{}: several values are a sweep; give -m as well, or a list in brackets",
    "Could not override 'run_modifier'": "{}: a preset is added with a plus; give +run_modifier=NAME",
    "Could not append": "{0}: is given already; give {0}=VALUE without the plus",
    "Config group override": "task and run_modifier take a name; give for example task=rev_prog",
    "Multiple values for task": "task: is given already; give task=NAME without the plus",
    "Multiple values for run_modifier": "run_modifier: is given already; give +run_modifier=[NAME,NAME]",
    "Sweep parameters": "{}: is a sweep; give -m as well",
    "Cannot find primary config": "{}: there is no such configuration; leave --config-name out",
    "Primary config": "--config-path: {} is no folder of configurations; leave it out",
}


def refusal_of(error: Exception) -> Refusal:
    """Return what Hydra or OmegaConf could not compose, as one line with the key and the remedy."""
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    text = " ".join(str(error).split())
    quoted = text.split("'")[1] if text.count("'") > 1 else ""
    if isinstance(error, MissingConfigException) and not text.startswith(("Cannot find primary", "Primary")):
        return _unknown_choice(error.missing_cfg_file or quoted, sorted(error.options or ()))
    if isinstance(error, OverrideParseException):
        return _unreadable(str(error.override))
    for start, line in REWORDED.items():
        if text.startswith(start):
            return Refusal(line.format(quoted))
    if text.startswith("Could not override"):
        return unknown_key(quoted)
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return wrong_type(str(cause.full_key), cause)
    return Refusal(f"{text}; see --help")


def _unreadable(word: str) -> Refusal:
    """Return the refusal of a word that Hydra cannot read, quoted for it where that is all it needs."""
    key, _, value = word.partition("=")
    quoted = f"{key}='{value}'"
    if value and not set(value) & set("[]{}()'\""):
        with suppress(HydraException):
            OverridesParser.create().parse_override(quoted)
            return Refusal(f'{word}: holds a character that must be quoted twice; give "{quoted}"')
    verb = Path(word).name.removesuffix(".py")
    if verb in VERBS or verb in scripts():
        command = f"{program(VERBS[verb])} {verb}" if verb in VERBS else program(verb)
        return Refusal(f"{word}: is a command, whose name comes first; give {command} ...")
    if word in all_keys():
        return Refusal(f"{word}: is not KEY=VALUE; give for example {word}={typed(all_keys()[word][1])}")
    near = nearest(key, [*VERBS, *scripts()]) if key.isidentifier() else ""
    return Refusal(f"{word}: is not KEY=VALUE; {near or 'check brackets and quotes, or '}see --help")


def refuse_empty_sweeps(overrides: Sequence[Override]) -> None:
    """Refuse a sweep over no value at all, which Hydra answers with an empty message.

    Raises:
        Refusal: it names the word.
    """
    for override in overrides:
        why = "is a sweep over nothing"
        try:
            if not override.is_sweep_override() or next(override.sweep_string_iterator(), None) is not None:
                continue
        except (AssertionError, HydraException, ValueError) as error:  # such as range(0,1,0), interval(0,1)
            why = " ".join(str(error).split()) or why
        raise Refusal(f"{override.input_line}: {why}; give values, {override.key_or_group}=VALUE,VALUE")


def _unknown_choice(wanted: str, known: list[str]) -> Refusal:
    group, _, name = wanted.rpartition("/")
    if group == "run_modifier":
        hint = f"{nearest(name, known, most=3)}{program()} --help lists all of them"
        return Refusal(f"{group}={name}: there is no such preset; {hint}")
    listed = f"give one of {', '.join(known)}" if known else "see --help"
    return Refusal(f"{group}={name}: there is no such {group}; {nearest(name, known)}{listed}")


def unknown_key(key: str) -> Refusal:
    """Return the refusal of a key that no setting has, with the nearest one that there is."""
    if key.startswith(PREFIX):
        return unknown_launcher_key(key)
    owners = [name for name, kind in TASKS.items() if key in _keys_of(kind, "task.")]
    if owners:
        return Refusal(f"{key}: belongs to another task; give task={owners[0]} as well")
    if key.startswith(load.PREFIX):
        known = sorted(load.setting_names())
        listed = f"give one of {', '.join(known)}" if known else "give the one that has it, plugins=FILE"
        return Refusal(f"{key}: no plug-in has this setting; {nearest(key, known)}{listed}")
    return Refusal(f"{key}: there is no such setting; {nearest(key, [*all_keys(), *NO_SETTING])}see --help")


def wrong_type(key: str, error: OmegaConfBaseException) -> Refusal:
    """Return the refusal of a value: what the key takes; for keys of Hydra's own, what OmegaConf says."""
    name = key.partition("[")[0]
    if name not in all_keys():
        return Refusal(f"{key}: {str(error.msg or error).splitlines()[0]}; see --help")
    if name == load.PREFIX.rstrip("."):
        give = f"give plugins=FILE, or {load.PREFIX}NAME.SETTING=VALUE"
        return Refusal(f"{name}: is no setting by itself; {give}")
    annotation, default = all_keys()[name]
    needed, _, optional = annotation.partition(" | ")
    takes = TYPE_WORDS.get(needed, "a value") + (" or null" if optional else "")
    given = key if error.value is None else f"{key}={error.value}"
    return Refusal(f"{given}: takes {takes}; give for example {name}={typed(default)}")


def _keys_of(kind: type, prefix: str) -> dict[str, tuple[str, Any]]:
    """Return the annotation and the default of each key, by its name as typed."""
    default = kind()
    return {f"{prefix}{x.name}": (type_text(x.type), getattr(default, x.name)) for x in fields(kind)}


def all_keys() -> dict[str, tuple[str, Any]]:
    """Return every setting as typed, those of the tasks too, with its annotation and default."""
    keys = _keys_of(RunConfig, "")
    for kind in TASKS.values():
        keys |= _keys_of(kind, "task.")
    for name, kind in load.own_settings().items():
        keys |= _keys_of(kind, f"{load.PREFIX}{name}.")
    return keys


def nearest(word: str, known: Iterable[str], most: int = 1) -> str:
    """Ask which known name was meant, one like a word or one that begins or ends with it; "" for none.

    Args:
        word: as typed, of whatever case.
        known: the names.
        most: names like it that are asked for.
    """
    lower = {name.lower(): name for name in known}
    near = [lower[x] for x in get_close_matches(word.lower(), lower, n=most)]
    near = near or [x for x in lower.values() if x.endswith(f"_{word}") or x.startswith(word)]
    return f"did you mean {' or '.join(near[:3])}? " if near else ""
