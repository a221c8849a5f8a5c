"""Where files that were downloaded or converted once are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """TOYQS_CACHE, or ~/.cache/toyqs."""
    return Path(os.environ.get("TOYQS_CACHE") or "~/.cache/toyqs").expanduser()
