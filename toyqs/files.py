"""Text and JSON files, written whole or not at all; classes found by their files; the error of one line."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import math
import os
import pkgutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Refusal(ValueError):
    """A request that cannot be met: one line that names what was given and the remedy.

    `code` is the command's exit code: 2 for what was typed, 1 for what a folder holds.
    """

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


def write_text(path: Path | str, text: str) -> None:
    """Write text so that a reader sees the whole file or none; it replaces an older file of that name."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        if temporary.is_file():
            os.fsync(file.fileno())


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a path to write to; it replaces `path` at the end of the block, unless the block raised.

    A device or a pipe is written to itself: replacing it would take it from everybody.
    """
    if Path(path).exists() and not Path(path).is_file():
        yield Path(path)
        return
    temporary = temporary_of(Path(path))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_of(path: Path) -> Path:
    """Return this process's temporary path for a file; delete those that killed processes left behind."""
    for old in path.parent.glob(f".{path.name}.*"):
        process = old.name.rpartition(".")[2]
        if process.isdecimal() and not Path(f"/proc/{process}").exists():
            old.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}")


def write_json(path: Path | str, value: object) -> None:
    """Write standard JSON as `write_text` does; NaN and infinities, which JSON lacks, become null."""
    write_text(path, json.dumps(_finite(value), allow_nan=False, indent=1, ensure_ascii=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path | str) -> dict[str, Any]:
    """Read the JSON object in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a JSON object.
    """
    return json_object(Path(path).read_text(encoding="utf-8"), f"{path}")


def json_object(text: str, where: str) -> dict[str, Any]:
    """Parse a JSON object; a ValueError that names `where` says that the text is none."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"{where}: not a JSON object; move it away and give the command again")
    return value


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
