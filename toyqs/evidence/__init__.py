"""Rows and what follows from them: the names that scripts of one's own import."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imported when they are asked for: pandas and scipy take half a second
    from toyqs.evidence.cells import load_cells
    from toyqs.evidence.judging.decision import verdict
    from toyqs.evidence.judging.gain import interval, onset, reasoning_gain
    from toyqs.evidence.rows import load_curve, load_rows

__all__ = ["interval", "load_cells", "load_curve", "load_rows", "onset", "reasoning_gain", "verdict"]

_FILES = {
    **dict.fromkeys(("interval", "onset", "reasoning_gain"), "judging.gain"),
    **{"load_cells": "cells", "load_curve": "rows", "load_rows": "rows", "verdict": "judging.decision"},
}


def __dir__() -> list[str]:
    """List the names that the package has, for those who let them be completed."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Return one of `__all__` from the file that has it."""
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
