"""The folder of files that were downloaded or converted once, and the hashes of large files."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path


def cache_folder() -> Path:
    """Return TOYQS_CACHE, or ~/.cache/toyqs."""
    return Path(os.environ.get("TOYQS_CACHE") or "~/.cache/toyqs").expanduser()


def digest(file: Path) -> bytes:
    """Hash a file's content with SHA-256, once in a process as long as the file stays as it is.

    Raises:
        OSError: it cannot be read.
    """
    status = file.stat()
    return _digest(file.resolve(), (status.st_ino, status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=256)
def _digest(file: Path, version: tuple[int, ...]) -> bytes:
    """Hash a file's content; `version` is a key of the cache, so that a changed file is hashed again."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").digest()
