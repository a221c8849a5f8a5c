"""The family of objectives: every class of this folder that has a name."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from dataclasses import fields
from pathlib import Path
from typing import Any

from toyqs.objectives.objective import Objective


@functools.cache
def registry() -> dict[str, type[Objective]]:
    """Name -> class, for every class in a file of this folder that gives itself a name.

    Raises:
        ValueError: two classes have one name.
    """
    found: dict[str, type[Objective]] = {}
    folder = Path(__file__).parent
    for file in sorted(module.name for module in pkgutil.iter_modules([str(folder)])):
        module = importlib.import_module(f"{__package__}.{file}")
        for member in vars(module).values():
            own = inspect.isclass(member) and member.__module__ == module.__name__
            if not own or not issubclass(member, Objective) or not vars(member).get("name"):
                continue
            if member.name in found:
                raise ValueError(f"{file}.py: objective {member.name!r} is already in the family")
            found[member.name] = member
    return found


def objective_class(settings: Any) -> type[Objective]:
    """The class of a run's objective."""
    return registry()[settings.objective]


def fields_of(settings: Any) -> set[str]:
    """The settings that a run's objective reads, by name."""
    return {field.name for field in fields(objective_class(settings))}


def all_fields() -> set[str]:
    """The settings that some objective reads."""
    return {field.name for kind in registry().values() for field in fields(kind)}


def from_config(kind: type[Objective], settings: Any) -> Objective:
    """An objective whose fields have the values of the settings of the same names."""
    return kind(**{field.name: getattr(settings, field.name) for field in fields(kind)})
