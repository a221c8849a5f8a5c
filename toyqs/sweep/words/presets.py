"""The lists of --help: presets from their files, tasks and other choices from the code that defines them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from toyqs.config.keys import TASKS
from toyqs.config.plugins import load
from toyqs.config.plugins.found import KINDS
from toyqs.config.run_config import RunConfig
from toyqs.evidence.arms import CONTROLS
from toyqs.installation import VERBS, folder, program, scripts, source

FOLDER = folder("conf") / "run_modifier"
WIDTH = 110  # of the help text
# What presets are for -> their names without what all end in, in the order of --help.
PURPOSES = {
    "a sweep to try": ("Quick", "AllWeightGroups", "SameHdim"),
    "a verdict that must be yes, and one that must not": ("PositiveControl", "NegativeControl"),
    "models that do not think": ("GLM", "TLM", "InterpreterGRU"),
    "models that think": (
        *("ReasonerInterpreterGRU", "InterpreterLowVarGRU", "QuietSTaRDiscrete", "QuietSTaRDiscreteT"),
        *("SilentSTaR", "SilentSTaRT", "QuietSTaRPretrained", "SilentSTaRPretrained"),
    ),
    "kinds of thoughts": (
        "Gaussian",
        "PathwiseGaussian",
        "Gumbel",
        "StochasticGRU",
        "Coconut",
        "VariableLength",
    ),
    "what thoughts earn, and how that moves the policy": (
        *("Reinforce", "GRPO", "ValueBaseline", "PPO", "MultiSample", "BestOf", "Listwise", "PlackettLuce"),
        *("WeightedMLE", "MaxEnt", "VarGrad", "LogZ", "LearnedLogZ", "KLReward", "RLP", "RewardModel"),
        "WakeSleep",
    ),
    "how many thoughts are read, and how long they are": ("Attend", "Coherence", "ProblemLength"),
    "what learns faster": ("MetaToken", "TeacherForcing", "BakingOptimizer", "RLOptimizer"),
    "steps to be learnt": ("Iterate", "Reasoning"),
    "a start from another run": ("JumpStart",),
    "the logbook's data": ("Logbook", "LogbookSmall"),
}
OTHERS = "others"  # what a new file is for until it is named above


@dataclass
class SweptConfig(RunConfig):
    """What Hydra composes: the settings of a run, and what a sweep alone has."""

    zip: Any = None  # keys that change together, see toyqs.sweep.words.combinations


def register() -> None:
    """Make a run's settings and the tasks known to Hydra, under the names that conf/config.yaml uses."""
    store = ConfigStore.instance()
    own = {name: kind() for name, kind in load.own_settings().items()}
    store.store(name="run_schema", node=SweptConfig(task=MISSING, plugin=own))
    for name, kind in TASKS.items():
        store.store(group="task", name=name, node=kind)


def register_lists() -> None:
    """Make what stands as ${NAME:} in conf/hydra/help/toyqs.yaml known to Hydra."""
    OmegaConf.register_new_resolver("program", program, replace=True)
    OmegaConf.register_new_resolver("source", source, replace=True)
    OmegaConf.register_new_resolver("commands", commands, replace=True)
    OmegaConf.register_new_resolver("presets", presets, replace=True)
    OmegaConf.register_new_resolver("tasks", tasks, replace=True)
    OmegaConf.register_new_resolver("controls", controls, replace=True)
    OmegaConf.register_new_resolver("choices", choices, replace=True)
    OmegaConf.register_new_resolver("plugins", plugins, replace=True)


def presets() -> str:
    """Return one entry per preset, with the text of its file's second line, under what it is for."""
    lines = []
    for purpose, names in by_purpose().items():
        entries = []
        for name in names:
            _, what, *_ = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
            entries.append((name, what.removeprefix("#").strip()))
        lines += ["", f"  {purpose}:", _entries(entries, indent=37, margin=4)]
    return "\n".join(lines[1:])


def by_purpose() -> dict[str, list[str]]:
    """Return the presets' names by what they are for; those that no purpose names come last."""
    left = {file.stem.removesuffix("RunConfig"): file.stem for file in sorted(FOLDER.glob("*.yaml"))}
    found = {purpose: [left.pop(name) for name in names] for purpose, names in PURPOSES.items()}
    return found | ({OTHERS: [*left.values()]} if left else {})


def named_presets(words: Sequence[str]) -> list[str]:
    """Return the presets of ours that words of a command line name, +run_modifier=A or =[A,B] or =A,B."""
    named = [word.partition("=")[2] for word in words if word.startswith("+run_modifier=")]
    names = [name for value in named for name in re.findall(r"\w+", value)]
    return [name for name in names if (FOLDER / f"{name}.yaml").is_file()]


def swept_keys(name: str) -> list[str]:
    """Return the settings over which a preset is a sweep of its own."""
    params = OmegaConf.select(OmegaConf.load(FOLDER / f"{name}.yaml"), "hydra.sweeper.params")
    return [str(key) for key in params or ()]


def preset_that_sets(key: str, words: Sequence[str]) -> str | None:
    """Return which of the presets named in a command line gives a setting its value.

    Args:
        key: of the setting, such as base_lm_hidden_dim or task.k.
        words: of the command line; a setting typed there takes precedence over any preset's.
    """
    if any(word.lstrip("+").partition("=")[0] == key for word in words):
        return None
    for name in reversed(named_presets(words)):
        given = OmegaConf.load(FOLDER / f"{name}.yaml")
        if (
            key in swept_keys(name)
            or OmegaConf.select(given, key, throw_on_resolution_failure=False) is not None
        ):
            return name
    return None


def commands() -> str:
    """Return one entry per kind of command, as this program's user types it."""
    train = program()
    entries = {
        train: "the main job: a thinking GRU and its controls, four seeds",
        f"{train} max_steps=200 task.k=2": "the same with other settings",
        f"{train} -m base_lm_hidden_dim=8,16": "a sweep: every combination of the values, on all cores",
    }
    rooms = {"toyqs.evidence": "look at runs", "toyqs.answers": "ask a finished run"}
    for room, what in rooms.items():
        first, *others = [verb for verb, its_room in VERBS.items() if its_room == room]
        entries[f"{program(room)} {first} --help"] = f"{what}; so do {', '.join(others)}"
    first, *others = scripts()
    entries[f"{program(first)} --help"] = f"draw a sweep; so do {', '.join(others)}"
    return _entries(entries.items(), indent=48, margin=4)


def tasks() -> str:
    """Return one entry per task, with its own summary."""
    return _entries(((name, kind.summary) for name, kind in TASKS.items()), indent=19)


def controls() -> str:
    """Return one entry per control, with what it is."""
    return _entries(CONTROLS.items(), indent=19)


def choices(key: str) -> str:
    """Return the words that a setting takes, in one entry."""
    (found,) = (field for field in fields(RunConfig) if field.name == key)
    return _entries([(f"{key}=", ", ".join(map(str, found.metadata["choices"])))], indent=19)


def plugins() -> str:
    """Return one entry for each thing that plug-ins have added, with its own settings and their defaults."""
    entries = []
    for x in load.added():
        own = [f"{load.PREFIX}{x.name}.{name}={value}" for name, value in vars(x.settings()).items()]
        entries.append((f"{x.key}={x.name}", " ".join([KINDS[x.key].noun, *own])))
    return _entries(entries or [("none", "is given in this command")], indent=37)


def _entries(entries: Iterable[tuple[str, str]], indent: int, margin: int = 2) -> str:
    """Return entries of two columns after a margin, the second of which starts after `indent` characters."""
    lines = []
    for name, text in entries:
        first = " " * margin + f"{name:{indent - margin}}"
        lines.append(textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=" " * indent))
    return "\n".join(lines)
