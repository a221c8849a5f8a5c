"""Refusal: how a configuration that cannot run is turned down."""

from __future__ import annotations

from collections.abc import Callable


class Refusal(ValueError):
    """A configuration that cannot run: one line with the key, the value and the remedy."""


def refusing(work: Callable[[], object]) -> None:
    """Call a part that refuses with a ValueError of one line.

    Raises:
        Refusal: with that line.
    """
    try:
        work()
    except ValueError as error:
        raise Refusal(str(error)) from error
