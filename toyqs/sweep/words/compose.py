"""Turn a command line into a RunConfig that can run, or into one line that says what is wrong."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args, get_origin, get_type_hints

import hydra
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from toyqs.config.checks.values import check
from toyqs.config.errors import Refusal
from toyqs.config.keys import STARTS, TASKS
from toyqs.config.plugins import load
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.files import visible
from toyqs.installation import folder
from toyqs.sweep import torchrun
from toyqs.sweep.executors.settings import CLUSTERS, Launcher, checked, launcher_of
from toyqs.sweep.words.arguments import options_first, plugins_in
from toyqs.sweep.words.hydra_errors import all_keys, refusal_of, unknown_key, wrong_type
from toyqs.sweep.words.presets import preset_that_sets
from toyqs.sweep.words.spelling import value_text

PATHS = (
    "runs_dir",
    "reference_run",
    *STARTS,
    "pretrained",
    "task.path",
    "task.tokenizer",
)  # ~ is the home folder


class Job(NamedTuple):
    """One combination of a command: the words that make it, and what Hydra made of them."""

    words: Sequence[str]
    config: DictConfig | Exception  # composed, or the error that prevented it


class Sweep(NamedTuple):
    """All jobs of a command, and the launcher that it has chosen."""

    jobs: Sequence[Job]
    launcher: Launcher


class Composed(NamedTuple):
    """What a command can run."""

    configs: list[RunConfig]
    code: int  # of the exit: 2 where a job was refused
    closing: str = ""  # a line for the end of the command: which jobs were refused


def prepared(words: Sequence[str]) -> list[str]:
    """Prepare Hydra and return a command line as it reads it; torchrun's other processes train here and exit.

    Args:
        words: those after the program's name.

    Raises:
        Refusal: a word, or what the environment has of torchrun's, cannot mean what it says.
    """
    torchrun.prepare(plugins_in(words))
    return options_first(words)


def call(job: Callable[[Any], None]) -> None:
    """Let Hydra compose the program's command line, and call a function with what it makes of it.

    Args:
        job: takes what `run_jobs` does; called once, or by a launcher that runs jobs one by one, for each.
    """
    hydra.main(version_base="1.3", config_path=str(folder("conf")), config_name="config")(job)()


def list_no_groups() -> None:
    """Let Hydra's --help list no groups of presets: ours has its own lists, and Hydra's take it a while."""
    Hydra.format_config_groups = lambda *_, **__: ""  # type: ignore[method-assign]


def _say(line: str) -> None:
    print(f"toyqs: {line}", file=sys.stderr)


def run_jobs(
    given: DictConfig | Sweep,
    say: Callable[[str], None] = _say,
    train: Callable[..., int] | None = None,
) -> int:
    """Run one job or, with a launcher of ours, all jobs of a sweep; return the exit code.

    Args:
        given: what Hydra has composed: the one configuration, or all jobs.
        say: prints a line.
        train: takes the place of `toyqs.sweep.main.main`.
    """
    if isinstance(given, Sweep):
        jobs, launcher = given
    else:
        chosen = HydraConfig.get()
        jobs, launcher = [Job(chosen.overrides.task, given)], launcher_of(chosen)
    try:
        settings = checked(launcher)
    except Refusal as refusal:
        say(str(refusal))
        return 2
    cluster = settings if launcher.name in CLUSTERS else None
    composed = compose_jobs(jobs, say, elsewhere=cluster is not None)
    if cluster is None and (partition := getattr(settings, "partition", None)):
        instead = "add hydra/launcher=slurm to submit it"
        say(f"hydra.launcher.partition={partition}: this sweep stays on this machine; {instead}")
    code = composed.code
    if composed.configs:
        from toyqs.sweep.main import main

        sweep = isinstance(given, Sweep)
        code = max(code, (train or main)(composed.configs, sweep=sweep, cluster=cluster))
    if composed.closing:
        say(composed.closing)
    return code


def compose_jobs(
    jobs: Sequence[Job], say: Callable[[str], None] = _say, *, elsewhere: bool = False
) -> Composed:
    """Sort out the jobs that can run; print refusals and notes on stderr, equal lines once.

    A command of which some jobs are refused runs none of them, unless it has keep_going=true.

    Args:
        jobs: of the command.
        say: prints a line.
        elsewhere: they train on other machines, which may have a GPU where this one has none.
    """
    configs: list[RunConfig] = []
    lines: dict[str, None] = {}
    refused: list[str] = []
    for job in jobs:
        try:
            config, notes = compose_checked(job.config, elsewhere=elsewhere)
        except Refusal as refusal:
            refused.append(f"{refusal}{_by_preset(str(refusal), job.words)}")
            lines[refused[-1]] = None
            continue
        configs.append(config)
        lines |= dict.fromkeys(notes)
    share = f"{len(refused)} of {len(jobs)} combinations"
    closing = f"{share} were refused, and so not run: {refused[0]}" if configs and refused else ""
    if closing and not any(config.keep_going for config in configs):
        lines[f"{share} are refused, so none is run; give keep_going=true to run the others"] = None
        configs.clear()
    if len(refused) == len(jobs) > 1:
        lines[f"{share} are refused"] = None
    if len({config.runs_dir for config in configs}) > 1:
        refused.append("runs_dir: one sweep fills one folder; give runs_dir=FOLDER once")
        lines[refused[-1]] = None
        configs.clear()
    for line in lines:
        say(line)
    return Composed(configs, 2 if refused else 0, closing if configs else "")


def _by_preset(refusal: str, words: Sequence[str]) -> str:
    """Say which preset gave a setting that a refusal names its value, where one did."""
    for key in re.findall(r"([\w.]+)=", refusal):
        if key in all_keys() and (preset := preset_that_sets(key, words)):
            return f"; {key} is set by +run_modifier={preset}"
    return ""


def compose_checked(cfg: DictConfig | Exception, *, elsewhere: bool = False) -> tuple[RunConfig, list[str]]:
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
    config = RunConfig()
    try:
        values = cast(dict[Any, Any], OmegaConf.to_container(cfg, resolve=True))
        task, own = values.pop("task"), values.pop("plugin")
        if zipped := values.pop("zip"):  # which a sweep uses up
            why = "says which settings of a sweep change together; give -m as well"
            raise Refusal(f"zip={value_text(zipped)}: {why}")
        config = _typed(RunConfig, values)
        config = replace(config, task=_typed(kind, task, "task."), plugin=_of_plugins(own))
        config = replace(config, plugins=load.as_list(config.plugins))
        notes = check(config, elsewhere=elsewhere)
        load.check(config)
    except OmegaConfBaseException as error:
        raise refusal_of(error) from error
    except Exception as error:
        if isinstance(error, Refusal) or (line := load.described(error, config)) is None:
            raise
        raise Refusal(line) from error
    return resolved(config), notes


def _of_plugins(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the settings plugin.NAME.x by name and setting, of their types."""
    kinds = load.own_settings()
    if unknown := values.keys() - kinds.keys():
        raise unknown_key(f"{load.PREFIX}{min(unknown)}")
    return {name: vars(_typed(kinds[name], own, f"{load.PREFIX}{name}.")) for name, own in values.items()}


def _typed(kind: type, values: dict[Any, Any], prefix: str = "") -> Any:
    types = _types(kind)
    for key, value in values.items():
        if key not in types:
            raise unknown_key(f"{prefix}{key}")
        if value == "???":
            raise Refusal(f"{prefix}{key}=???: stands for no value; give one, or leave the word out")
        if isinstance(value, str):
            values[key] = _readable(f"{prefix}{key}", value)
    if other := {key: value for key, value in values.items() if not _is_of(types[key], value)}:
        try:
            typed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), other))
        except OmegaConfBaseException as error:
            raise wrong_type(f"{prefix}{error.full_key}", error) from error
        values |= {key: getattr(typed, key) for key in other}
    return kind(**values)


@cache
def _types(kind: type) -> dict[str, Any]:
    """Return the types of a dataclass's fields."""
    types = get_type_hints(kind)
    return {x.name: types[x.name] for x in fields(kind)}


def _is_of(annotation: Any, value: Any) -> bool:
    """Tell whether a value is of a type as it stands; Hydra has mostly seen to it, and to convert is slow."""
    inside = get_args(annotation)
    if get_origin(annotation) is list:
        return type(value) is list and all(type(x) in inside for x in value)
    return annotation is Any or type(value) in (inside or (annotation,))


def _readable(key: str, value: str) -> str:
    """Return a word as it is meant, ~ at the start of a path as the home folder.

    Raises:
        Refusal: it holds characters that a terminal obeys instead of showing, or there is no home folder.
    """
    if visible(value) != value:
        raise Refusal(f"{key}={value}: holds a character that cannot be shown; give it without")
    if key in PATHS and value.startswith("~"):
        try:
            return str(Path(value).expanduser())
        except RuntimeError as error:
            raise Refusal(f"{key}={value}: there is no such home folder; give the whole path") from error
    return value


def refuse(error: Exception) -> int:
    """Print one line on stderr that says what was wrong, and return the exit code for it."""
    print(f"toyqs: {error if isinstance(error, Refusal) else refusal_of(error)}", file=sys.stderr)
    return 2
