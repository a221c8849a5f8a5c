"""Find the classes that the files of a package define, so that a new one is one new file."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Any


@functools.cache
def named_classes(base: type) -> dict[str, type[Any]]:
    """Collect the subclasses of a class that give themselves a name, from all files of its package.

    Args:
        base: has a class variable `name`, "" in classes that are not to be found.

    Returns:
        Name -> class, by the files' names in alphabetical order.

    Raises:
        ValueError: two classes have one name.
    """
    package = base.__module__.rpartition(".")[0]
    folder = Path(inspect.getfile(base)).parent
    classes: dict[str, type[Any]] = {}
    for file in sorted(module.name for module in pkgutil.iter_modules([str(folder)])):
        module = importlib.import_module(f"{package}.{file}")
        for member in vars(module).values():
            own = inspect.isclass(member) and member.__module__ == module.__name__
            if not own or not issubclass(member, base) or not vars(member).get("name"):
                continue
            if member.name in classes:
                raise ValueError(f"{file}.py: the name {member.name!r} is already that of another class")
            classes[member.name] = member
    return classes
