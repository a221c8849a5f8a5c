"""The objectives that objective=NAME may name: every class here or in policy/ that has a name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from toyqs.files import named_classes
from toyqs.objectives.objective import Objective


def registry() -> dict[str, type[Objective]]:
    """Return name -> class, for every objective in a file here or below; see `named_classes`."""
    return named_classes(Objective)


def objective_class(settings: Any) -> type[Objective]:
    """Return the class of a run's objective."""
    return registry()[settings.objective]


def fields_of(settings: Any) -> set[str]:
    """Return the names of the settings that a run's objective reads."""
    return {field.name for field in fields(objective_class(settings))}


def all_fields() -> set[str]:
    """Return the names of the settings that some objective reads."""
    return {field.name for kind in registry().values() for field in fields(kind)}


def from_config(kind: type[Objective], settings: Any) -> Objective:
    """Build an objective whose fields have the values of the settings of the same names.

    Those of a plug-in may have fields of their own, settings plugin.NAME.x.
    """
    values = {field.name: getattr(settings, field.name, field.default) for field in fields(kind)}
    return kind(**values | settings.plugin.get(kind.name, {}))
