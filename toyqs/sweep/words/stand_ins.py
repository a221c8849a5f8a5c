"""Stand-ins for torch and scipy in a command that only prints what the code says of itself.

To import these takes longer than all else that such a command does. Until something is computed, their
classes are but bases of ours and their functions decorators: any class can take their place.
"""

from __future__ import annotations

import sys
from abc import ABCMeta
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGES = ("torch", "scipy")


def stand_in() -> None:
    """Let modules be imported from here on as if the packages were; they themselves no longer can be."""
    if sys.modules.keys().isdisjoint(PACKAGES):
        sys.meta_path.insert(0, _Finder())


class _Name(ABCMeta):
    """A class in the place of a name that a package has."""

    def __getattr__(cls, name: str) -> Any:
        return _named(name, cls.__module__ == __name__)

    def __call__(cls, *_: Any, **__: Any) -> Any:
        return cls


class _Module(ModuleType):
    """A module in the place of one that a package has."""

    def __getattr__(self, name: str) -> Any:
        return _named(name)


def _named(name: str, is_ours: bool = True) -> Any:
    if not is_ours or name.startswith("__"):
        raise AttributeError(name)
    return _Name(name, (), {"__module__": __name__})


class _Finder(MetaPathFinder, Loader):
    """Finds the packages and all modules in them."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return the spec of a stand-in; None for modules of others."""
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in PACKAGES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the stand-in."""
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the module has every name."""
