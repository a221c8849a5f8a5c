"""Text and JSON files, written whole or not at all; and the error that a command answers in one line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
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
    """Write text so that a reader sees the whole file or none; an older file there is replaced."""
    path = Path(path)
    temporary = temporary_of(path)
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_of(path: Path) -> Path:
    """Where this process may write a file before it takes its place; what a killed one left there goes."""
    for left in path.parent.glob(f".{path.name}.*"):
        number = left.name.rpartition(".")[2]
        if number.isdecimal() and not Path(f"/proc/{number}").exists():
            left.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}")


def write_json(path: Path | str, value: object) -> None:
    """Write standard JSON as `write_text` does; a number that is not finite becomes null: JSON has none."""
    write_text(path, json.dumps(_finite(value), allow_nan=False, indent=1, ensure_ascii=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path | str) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a JSON object.
    """
    return json_object(Path(path).read_text(encoding="utf-8"), f"{path}")


def json_object(text: str, where: str) -> dict[str, Any]:
    """Return the JSON object that a text is; ValueError, naming where it stands, if it is none."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"{where}: not a JSON object; move it away and give the command again")
    return value
