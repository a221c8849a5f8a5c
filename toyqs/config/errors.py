"""Refusals: one line with the key, the value, why it cannot be, and what to give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from toyqs.files import Refusal

Result = TypeVar("Result")


def refuse(key: str, value: Any, why: str, give: str) -> NoReturn:
    """Refuse a setting.

    Raises:
        Refusal: «key=value: why; give this».
    """
    raise Refusal(f"{key}={typed(value)}: {why}; give {give}")


def typed(value: Any) -> str:
    """Return a value as it is typed on the command line: true, null, [7,8], '' for an empty word."""
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    return str(value) or "''"


def refusing(work: Callable[[], Result]) -> Result:
    """Return the result of a part that refuses with a ValueError of one line.

    Raises:
        Refusal: with that line.
    """
    try:
        return work()
    except ValueError as error:
        raise Refusal(str(error)) from error
