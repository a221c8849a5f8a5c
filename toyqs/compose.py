"""From what was typed to a RunConfig that is known to work, or to one line that says what is wrong."""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any, cast

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from toyqs import parallel
from toyqs.checks.settings import check
from toyqs.config import TASKS, RunConfig, register
from toyqs.config_key import resolved
from toyqs.presets import register_list
from toyqs.refusal import Refusal

TYPE_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a word",
    "list[str]": "a list",
}

# How Hydra begins a message -> what is said instead; {} is the first thing that it quotes.
REWORDED = {
    "Ambiguous value": "{}: several values are a sweep; give -m as well, or a list in brackets",
    "Could not override 'run_modifier'": "{}: a preset is added with a plus; give +run_modifier=NAME",
    "Could not append": "{0}: is there already; give {0}=VALUE without the plus",
    "Config group override": "task and run_modifier take a name; give for example task=rev_prog",
    "Multiple values for task": "task: is there already; give task=NAME without the plus",
}


def prepare(words: list[str]) -> None:
    """Make Hydra ready for a command line. Of torchrun's processes only the first returns from here.

    Args:
        words: what was typed after the program's name.

    Raises:
        Refusal: a setting is written as --key=value, which Hydra would answer with a page of usage.
    """
    if parallel.rank():
        from toyqs.follow import follow

        sys.exit(follow())
    parallel.lead()
    for word in words:
        setting = word.lstrip("-")
        if setting != word and setting.partition("=")[0] in _all_keys():
            raise Refusal(f"{word}: settings are written without dashes; give {setting}")
    register()
    register_list()
    scratch = tempfile.TemporaryDirectory(prefix="toyqs-")
    atexit.register(scratch.cleanup)
    os.environ["TOYQS_SCRATCH"] = scratch.name  # conf/config.yaml sends Hydra's own files there
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises what it would else print over many lines


def compose_jobs(jobs: Sequence[DictConfig | Exception]) -> tuple[list[RunConfig], int]:
    """The jobs that can run; what is refused or settled by itself is said on stderr, once per line.

    Args:
        jobs: each composed, or what kept it from being so.

    Returns:
        The configurations that are known to work, and the exit code: 2 where a job was refused.
    """
    configs, said = [], {}
    for job in jobs:
        try:
            config, notes = compose_checked(job)
        except Refusal as refusal:
            said[str(refusal)] = 2
            continue
        configs.append(config)
        said |= dict.fromkeys(notes, 0)
    if len({config.runs_dir for config in configs}) > 1:
        said["runs_dir: one sweep fills one folder; give runs_dir=FOLDER once"] = 2
        configs.clear()
    for line in said:
        print(f"toyqs: {line}", file=sys.stderr)
    return configs, max(said.values(), default=0)


def compose_checked(cfg: DictConfig | Exception) -> tuple[RunConfig, list[str]]:
    """The composed configuration as a RunConfig that is known to work, variants and widths filled in.

    Returns:
        The configuration, and notes on what the checks settled by themselves, a line each.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    if isinstance(cfg, Exception):
        raise refusal_of(cfg) from cfg
    kind = OmegaConf.get_type(cfg, "task")
    if kind is None or kind not in TASKS.values():
        raise Refusal(f"task: needs one of {', '.join(TASKS)}; give for example task={next(iter(TASKS))}")
    try:
        values = cast(dict[Any, Any], OmegaConf.to_container(cfg, resolve=True))
        knobs = values.pop("task")
        config: RunConfig = _typed(RunConfig, values)
        config = replace(config, task=_typed(kind, knobs, "task."))
    except OmegaConfBaseException as error:
        raise refusal_of(error) from error
    notes = check(config)
    return resolved(config), notes


def _typed(kind: type, values: dict[Any, Any], prefix: str = "") -> Any:
    known = {x.name for x in fields(kind)}
    for key in values:
        if key not in known:
            raise _unknown_key(f"{prefix}{key}")
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), values))
    except OmegaConfBaseException as error:
        raise _wrong_type(f"{prefix}{error.full_key}", error) from error


def refuse(error: Exception) -> int:
    """Say in one line on stderr what was wrong, and return the exit code for it."""
    print(f"toyqs: {error if isinstance(error, Refusal) else refusal_of(error)}", file=sys.stderr)
    return 2


def refusal_of(error: Exception) -> Refusal:
    """What Hydra or OmegaConf could not compose, in one line with the key and the remedy."""
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
        return _unknown_key(quoted)
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return _wrong_type(str(cause.full_key), cause)
    return Refusal(f"{text}; see --help")


def _unknown_choice(wanted: str, known: list[str]) -> Refusal:
    group, _, name = wanted.rpartition("/")
    what = "preset" if group == "run_modifier" else group
    listed = f"give one of {', '.join(known)}" if known else "see --help"
    return Refusal(f"{group}={name}: there is no such {what}; {_nearest(name, known)}{listed}")


def _unknown_key(key: str) -> Refusal:
    owners = [name for name, kind in TASKS.items() if key in _keys_of(kind, "task.")]
    if owners:
        return Refusal(f"{key}: belongs to another task; give task={owners[0]} as well")
    return Refusal(
        f"{key}: there is no such setting; {_nearest(key, [*_all_keys(), 'run_modifier'])}see --help"
    )


def _wrong_type(key: str, error: OmegaConfBaseException) -> Refusal:
    """Says what the key takes; for keys of Hydra's own, what OmegaConf says."""
    name = key.partition("[")[0]
    if name not in _all_keys():
        return Refusal(f"{key}: {str(error.msg or error).splitlines()[0]}; see --help")
    annotation, default = _all_keys()[name]
    needed, _, optional = annotation.partition(" | ")
    takes = TYPE_WORDS.get(needed, "a value") + (" or null" if optional else "")
    given = key if error.value is None else f"{key}={error.value}"
    return Refusal(f"{given}: takes {takes}; give for example {name}={_typeable(default)}")


def _keys_of(kind: type, prefix: str) -> dict[str, tuple[str, Any]]:
    """Name as typed -> annotation and default."""
    default = kind()
    return {f"{prefix}{x.name}": (str(x.type), getattr(default, x.name)) for x in fields(kind)}


def _all_keys() -> dict[str, tuple[str, Any]]:
    keys = _keys_of(RunConfig, "")
    for kind in TASKS.values():
        keys |= _keys_of(kind, "task.")
    return keys


def _typeable(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) or "''"


def _nearest(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]}? " if near else ""
