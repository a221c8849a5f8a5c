"""The folder of files that were downloaded or converted once."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return TOYQS_CACHE, or ~/.cache/toyqs."""
    return Path(os.environ.get("TOYQS_CACHE") or "~/.cache/toyqs").expanduser()
