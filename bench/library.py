"""A difference between versions of transformers: the name of the cache of keys and values."""

from __future__ import annotations

import inspect
from typing import Any


def cache_name(model: Any) -> str:
    """Return the name of the cache in a model's call and in its result: `past_key_values` before 5.24."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
