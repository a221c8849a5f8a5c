"""Text files: read from disk, or downloaded once into a cache folder."""

from __future__ import annotations

import hashlib
import http.client
import socket
from codecs import BOM_UTF8
from pathlib import Path

import torch

from toyqs.assets.cache import cache_folder

TIMEOUT_SECONDS = 20

# name: (address, sha256)
DATASETS = {
    "shake": (
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    )
}


def read_text(path: str, key: str = "task.path=") -> str:
    """Read a UTF-8 file: without its byte-order mark, line ends unchanged.

    Args:
        path: the file; "~" is the home folder.
        key: what stands before the path where it was typed.

    Raises:
        ValueError: one line, where it is no file, cannot be read or is no UTF-8 text.
    """
    try:
        file = Path(path).expanduser()
        if file.exists() and not (file.is_file() or file.is_dir()):
            raise ValueError("a pipe or a device, which may have no end")
        data = file.read_bytes()
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{key}{path}: cannot be read ({reason}); give {key}FILE, a text file") from error
    try:
        return data.removeprefix(BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{key}{path}: is no UTF-8 text (byte {error.start}); convert the file to UTF-8"
        ) from error


def dataset_text(name: str) -> str:
    """Read the text of a known data set, from the cache folder or downloaded into it.

    A cached copy is used, and a download saved, only if its hash is right.

    Args:
        name: one of DATASETS.

    Raises:
        ValueError: one line, where there is neither a copy nor a download, or it cannot be saved.
    """
    cached = cache_folder() / f"{name}.txt"
    try:
        data = cached.read_bytes()
    except OSError:
        data = b""
    if hashlib.sha256(data).hexdigest() != DATASETS[name][1]:
        _download(name, cached)
        data = cached.read_bytes()
    return data.decode("utf-8")


def _download(name: str, cached: Path) -> None:
    """Download a data set, whole or not at all: another run may read the same folder meanwhile."""
    address, sha256 = DATASETS[name]
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)  # torch.hub gives none
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(address, str(cached), hash_prefix=sha256, progress=False)
    except RuntimeError as error:
        raise ValueError(
            f"task.dataset={name}: {address} sent a damaged or unknown file (wrong sha256), which was not "
            "saved; give task.path=FILE instead"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        raise ValueError(
            f"task.dataset={name}: no copy in {cached.parent}, and {address} cannot be fetched into it "
            f"({reason}); give task.path=FILE instead, or set TOYQS_CACHE to a folder that can be written"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
