"""What plug-ins add to the choices: found in their modules as ours in toyqs's files, checked, with settings.

A class with a name is a task, an objective, a mixer or a head; a line of the module's REWARDS or BASELINES is
one of these. Its own settings, typed plugin.NAME.x, are an objective's fields that are no keys of ours, and
the keyword-only parameters of all others; a task's are task.x.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, fields, make_dataclass
from types import ModuleType
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from toyqs.config.choices import type_text
from toyqs.config.errors import Refusal
from toyqs.config.keys import TASKS, Keys
from toyqs.model.latent_heads import HEADS
from toyqs.model.mixing import MIXERS, Mixer
from toyqs.model.thoughts import ThoughtHead
from toyqs.objectives.advantages import BASELINES, Baseline
from toyqs.objectives.objective import Objective
from toyqs.objectives.registry import registry as objectives
from toyqs.objectives.rewards import OWN_LOSS, READ_REFERENCE, REWARDS
from toyqs.tasks.task import Task


class Kind(NamedTuple):
    """What a setting chooses among."""

    noun: str
    table: dict[str, Any]  # name -> ours and those of plug-ins
    base: type | None = None  # of classes that have a name
    lines: str = ""  # a module's own table: its lines are found, and no classes


# The setting -> what it chooses among.
KINDS = {
    "task": Kind("task", TASKS, Task),
    "objective": Kind("objective", objectives(), Objective),
    "reward": Kind("reward", REWARDS, lines="REWARDS"),
    "baseline": Kind("baseline", BASELINES, lines="BASELINES"),
    "mixing": Kind("mixer", MIXERS, Mixer),
    "thoughts": Kind("head", HEADS, ThoughtHead),
}
TRAITS = {"OWN_LOSS": OWN_LOSS, "READ_REFERENCE": READ_REFERENCE}  # lists of rewards, of a module's too
TYPES = re.compile(r"(int|float|bool|str)( \| None)?")  # of settings
VALUES = {"null", "true", "false", "nan", "inf"}  # words that are read as no name, in any case
# Setting -> the words that it takes besides the names in its table, such as mixing=auto.
OURS = {x.name: getattr(x.metadata.get("choices"), "own", ()) for x in fields(Keys)}


class Added(NamedTuple):
    """A task, an objective, a reward, a baseline, a mixer or a head of a plug-in."""

    key: str  # the setting that it is a choice of
    name: str
    thing: Any
    settings: type[Any]  # a dataclass: its own settings, with their types and defaults
    where: str  # file and line, as its user knows them


Say = Callable[[Any, str], Refusal]  # a thing, what is wrong with it -> the line with its place


def added_by(
    modules: Sequence[ModuleType], before: dict[str, dict[str, Any]], where: Callable[[Any], str]
) -> list[Added]:
    """Return what modules add to the choices; nothing is put into the tables.

    Args:
        modules: of the plug-in.
        before: setting -> its choices before the modules were imported.
        where: returns the file and the line of a thing.

    Raises:
        Refusal: one line with file and line: a name that is taken, or what cannot be what it should.
    """

    def say(thing: Any, why: str) -> Refusal:
        return Refusal(f"{where(thing)}: {why}")

    found: dict[str, Added] = {}
    for key, name, thing in _things(modules, before):
        if name in found and found[name].thing is thing:
            continue
        taken = [kind.noun for other, kind in KINDS.items() if name in (*before[other], *OURS.get(other, ()))]
        taken += [KINDS[found[name].key].noun] if name in found else []
        if taken:
            raise say(
                thing, f"there is a {taken[0]} {name!r} already; give this {KINDS[key].noun} another name"
            )
        word = isinstance(name, str) and name.isidentifier() and name.isascii()
        if not word or name.lower() in VALUES:
            raise say(thing, f"{name!r} is no word that can be typed; give letters, digits and _")
        if fault := _fault(key, thing):
            raise say(thing, fault)
        found[name] = Added(key, name, thing, _own_settings(key, name, thing, say), where(thing))
    return [*found.values()]


def _things(
    modules: Sequence[ModuleType], before: dict[str, dict[str, Any]]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield setting, name and thing of all that modules define, or have put into our tables themselves."""
    for key, (_, table, base, lines) in KINDS.items():
        for name, thing in table.items():
            if before[key].get(name) is not thing:
                yield key, name, thing
        for module in modules:
            own = getattr(module, lines, table) if lines else table
            if own is not table:
                yield from ((key, name, thing) for name, thing in own.items())
            for member in vars(module).values() if base is not None else ():
                named = inspect.isclass(member) and member.__module__ == module.__name__
                if named and base and issubclass(member, base) and vars(member).get("name"):
                    yield key, member.name, member


def _fault(key: str, thing: Any) -> str | None:
    """Say what a thing lacks to be used; None: nothing."""
    noun, name = KINDS[key].noun, getattr(thing, "__name__", "")
    if missing := sorted(getattr(thing, "__abstractmethods__", ())):
        return f"class {name} lacks {', '.join(missing)}, which every {noun} has; write it"
    if key in ("task", "objective"):
        return _fault_of_dataclass(key, thing)
    if key == "thoughts" and thing.kind not in {head.kind for head in HEADS.values() if head is not thing}:
        return f"class {name} says of no kind what its symbols are; inherit from TokenHead or GaussianHead"
    return _fault_of_call(key, thing) if key in ("reward", "baseline") else None


def _fault_of_dataclass(key: str, thing: Any) -> str | None:
    """Say why the fields of a task or an objective cannot be settings; None: they can."""
    name = thing.__name__
    if "__dataclass_params__" not in vars(thing):
        frozen = "(frozen=True)" if key == "objective" else ""
        return f"class {name} is no dataclass; write @dataclass{frozen} above it"
    if "name" in {x.name for x in fields(thing)}:
        return f"class {name} has its name as a setting; write name: ClassVar[str] = {thing.name!r}"
    return _fault_of_fields(thing) if key == "task" else None  # an objective's are checked as all others


def _fault_of_fields(task: Any) -> str | None:
    """Say why a task's fields cannot be settings, or give no task with their defaults; None: they can."""
    own = {x.name: (x.type, x.default) for x in fields(task)}
    kind = _settings(task.__name__, own)
    if isinstance(kind, str):
        return kind
    try:
        task()
    except Exception as error:
        return f"it cannot be made of its defaults: {type(error).__name__}: {error}; mend it"
    return None


def _fault_of_call(key: str, thing: Any) -> str | None:
    """Say why a reward or a baseline cannot be called as ours are; None: it can."""
    arguments = ["log_q", "trace", "batch"]
    if key == "baseline":
        if not isinstance(thing, Baseline):
            return "a line of BASELINES is no Baseline; write Baseline(function)"
        thing, arguments = thing.compute, ["rewards"] if thing.reads is None else ["rewards", thing.reads]
    try:
        inspect.signature(thing).bind(*arguments)
    except (TypeError, ValueError) as error:
        return f"a {KINDS[key].noun} is called with {', '.join(arguments)}: {error}; write it so"
    return None


def _own_settings(key: str, name: str, thing: Any, say: Say) -> type[Any]:
    """Return a dataclass of a thing's own settings, without any field where it has none."""
    own: dict[str, tuple[Any, Any]] = {}
    if key == "objective":
        ours = {x.name for x in fields(Keys)}
        own = {x.name: (x.type, x.default) for x in fields(thing) if x.name not in ours}
    elif key != "task":
        call = thing.compute if key == "baseline" else thing
        ours = set()
        for base in inspect.getmro(call)[1:] if inspect.isclass(call) else ():
            if base.__module__.startswith("toyqs."):
                ours |= inspect.signature(base).parameters.keys()
        parameters = inspect.signature(call).parameters.values()
        asked = [x for x in parameters if x.kind is x.KEYWORD_ONLY and x.name not in ours]
        own = {x.name: (x.annotation, x.default) for x in asked}
    kind_or_fault = _settings(name, own)
    if isinstance(kind_or_fault, str):
        raise say(thing, kind_or_fault)
    return kind_or_fault


def _settings(name: str, own: Mapping[str, tuple[Any, Any]]) -> type[Any] | str:
    """Return a dataclass of settings, whose defaults are as they would be typed; a word on what is wrong.

    Args:
        name: of the dataclass.
        own: setting -> its annotation and default.
    """
    lines: list[tuple[str, str, Any]] = []
    for setting, (annotation, default) in own.items():
        text = type_text(annotation)
        if not TYPES.fullmatch(text) or not isinstance(default, int | float | str | None):
            return f"its setting {setting} needs a type, int, float, bool or str, and a default"
        try:
            made = OmegaConf.structured(make_dataclass(name, [(setting, text, field(default=default))]))
        except Exception:
            return f"the default of its setting {setting} is not of its type; give one that is"
        if isinstance(default, float) and not math.isfinite(default):
            return f"the default of its setting {setting} is {default}; give a finite number, or None"
        value = made[setting]
        lines.append((setting, text, field(default=value + 0.0 if isinstance(value, float) else value)))
    return make_dataclass(name, lines)
