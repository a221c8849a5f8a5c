"""The words of a command line, looked over before Hydra sees them: options first, each one known."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from toyqs.config.errors import Refusal
from toyqs.files import no_folder
from toyqs.sweep.executors.settings import CLUSTERS
from toyqs.sweep.words.hydra_errors import NO_SETTING, all_keys, nearest
from toyqs.sweep.words.presets import named_presets, swept_keys

# Hydra's options -> an example of the value that each takes; "" for none. Its --info and --experimental-rerun
# read what is not written here, and its --hydra-help composes no setting of ours.
OPTIONS = {
    **dict.fromkeys(("--multirun", "-m", "--run", "-r", "--help", "-h", "--version"), ""),
    **dict.fromkeys(("--resolve", "--shell-completion", "-sc"), ""),
    **dict.fromkeys(("--cfg", "-c"), "job"),
    **dict.fromkeys(("--package", "-p"), "task"),
    **dict.fromkeys(("--config-name", "-cn"), "config"),
    **dict.fromkeys(("--config-path", "-cp", "--config-dir", "-cd"), "/path/to/FOLDER"),
}
PRINTED = ("job", "hydra", "all")  # what --cfg prints
PRINTING = {"--cfg", "-c", "--help", "-h", "--version", "--shell-completion", "-sc"}
# Keys of Hydra's own that change nothing: all of OF_SWEEPS without -m; OF_FOLDERS in a sweep too.
OF_LAUNCHERS = ("hydra.launcher", "hydra/launcher")
OF_SWEEPS = (*OF_LAUNCHERS, "hydra.sweep")
OF_FOLDERS = ("hydra.run.dir", "hydra.output_subdir", "hydra.job.chdir", "hydra.sweep.")


def options_first(words: Sequence[str]) -> list[str]:
    """Return a command line with its options before its settings, the only order that Hydra reads.

    Args:
        words: those after the program's name.

    Raises:
        Refusal: an option that does not exist, lacks its value or changes nothing, or a setting that cannot
            mean what it says.
    """
    options: dict[str, str] = {}
    arranged, settings, remaining = [], [], list(words)
    while remaining:
        word = remaining.pop(0)
        if not word.startswith("-") or word[1:2].isdecimal():
            settings.append(word)
            continue
        name, equals, value = word.partition("=")
        if name not in OPTIONS:
            raise _no_option(word)
        if not OPTIONS[name] and equals:
            raise Refusal(f"{word}: takes no value; give {name}")
        arranged.append(word)
        if OPTIONS[name] and not equals:
            value = remaining.pop(0) if remaining else ""
            arranged.append(value)
        if OPTIONS[name] and (not value or value.startswith("-")):
            raise Refusal(f"{name}: needs a value; give for example {name} {OPTIONS[name]}")
        options[name] = value
    _check_options(options)
    if PRINTING.isdisjoint(options):
        sweep = not {"-m", "--multirun"}.isdisjoint(options) or "hydra.mode=MULTIRUN" in settings
        _check_settings(settings, sweep)
    return arranged + settings


def plugins_in(words: Sequence[str]) -> list[str]:
    """Return the plug-ins that words of a command line name, which are loaded before Hydra composes them.

    Raises:
        Refusal: they are a sweep.
    """
    given: Any = []
    for word in words:
        if not word.startswith("plugins="):
            continue
        with suppress(HydraException):  # which Hydra raises again
            override = OverridesParser.create().parse_override(word)
            if override.is_sweep_override():
                raise Refusal(f"{word}: one command has all of its plug-ins; give plugins=[FILE,FILE]")
            given = override.value()
    given = given if isinstance(given, list) else [given] if given else []
    return [str(one) for one in given]


def _no_option(word: str) -> Refusal:
    """Return the refusal of an option that does not exist."""
    name = word.partition("=")[0]
    setting, after_m = word.lstrip("-"), word.removeprefix("-m")
    if after_m != word and (after_m[:1] in ("+", "~") or after_m.partition("=")[0] in all_keys()):
        return Refusal(f"{word}: a blank is missing; give -m {after_m}")
    key = setting.partition("=")[0]
    if key in all_keys() or key in ("task", *NO_SETTING):
        plus = "+" if key == "run_modifier" else ""
        given = setting if "=" in setting else f"{key}=VALUE"
        return Refusal(f"{word}: settings are written without dashes; give {plus}{given}")
    known = [option for option in OPTIONS if option.startswith("--")]
    return Refusal(
        f"{name}: there is no such option; {nearest(name, known)}settings are KEY=VALUE, see --help"
    )


def _check_options(options: dict[str, str]) -> None:
    """Refuse values that Hydra would answer with a page, or with the whole default job."""
    for name, value in options.items():
        if name in ("--cfg", "-c") and value not in PRINTED:
            raise Refusal(f"{name} {value}: prints one of {', '.join(PRINTED)}; give {name} job")
        if name in ("--package", "-p") and {"--cfg", "-c"}.isdisjoint(options):
            raise Refusal(f"{name} {value}: chooses what --cfg prints; give --cfg job {name} {value}")
        if name in ("--config-dir", "-cd") and not Path(value).is_dir():
            raise Refusal(f"{name} {value}: {no_folder(value)}; give one that holds presets")


def _check_settings(settings: Sequence[str], sweep: bool) -> None:
    """Refuse settings that would be ignored without a word."""
    if len(named := [word for word in settings if word.startswith("+run_modifier=")]) > 1:
        names = ",".join(word.partition("=")[2].strip("[]") for word in named)
        raise Refusal(f"{' '.join(named)}: presets are given once; give +run_modifier=[{names}]")
    own_launcher = "TOYQS_LAUNCHER" in os.environ  # which may keep files of its own there
    on_cluster = _launcher(settings) in CLUSTERS  # where -m is not needed
    for word in settings:
        key = word.partition("=")[0]
        if word.startswith("~"):
            raise Refusal(f"{word}: no setting can be deleted; leave the word out: that gives the default")
        if key.startswith(OF_FOLDERS) and not own_launcher:
            raise Refusal(f"{word}: has no effect here; give runs_dir=FOLDER to choose where results go")
        if key.startswith(OF_SWEEPS) and not sweep and not (on_cluster and key.startswith(OF_LAUNCHERS)):
            instead = ", or processes=N" if key == "hydra.launcher.processes" else ""
            raise Refusal(f"{word}: has no effect without -m; give -m as well{instead}")
    for name in named_presets(settings):
        if not sweep and (keys := swept_keys(name)):
            raise Refusal(f"+run_modifier={name}: is a sweep over {', '.join(keys)}; give -m as well")


def _launcher(settings: Sequence[str]) -> str | None:
    """Return the launcher that the words choose, or the environment."""
    chosen = [word.partition("=")[2] for word in settings if word.startswith("hydra/launcher=")]
    return chosen[-1] if chosen else os.environ.get("TOYQS_LAUNCHER")
