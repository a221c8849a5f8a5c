"""Files written whole or not at all; damage to them; classes found by their files; the error of one line."""

from __future__ import annotations

import errno
import functools
import glob
import importlib
import inspect
import json
import math
import os
import pkgutil
import secrets
import socket
import time
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

DAY = 86400.0  # seconds
BLOCK = 1 << 20  # bytes
ROW = "summary.json"  # the file of a run's row
SEAL = "checksums"  # the row's column with what its files were when it was written
IDENTITY = ".identity"  # ends the name of a column that holds a hash of the files another setting names


class Refusal(ValueError):
    """A request that cannot be met: one line that names what was given and the remedy.

    `code` is the command's exit code: 2 for what was typed, 1 for what a folder holds.
    """

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(visible(message))
        self.code = code


# Categories of characters: controls, formats (directions too), lone surrogates, ends of lines and paragraphs.
OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
JOINERS = "\u200c\u200d"  # formats without which some scripts cannot be written


def visible(text: str) -> str:
    """Spell out what a terminal would obey or hide: escape codes, line ends, directions, no width."""
    return "".join(
        x.encode("unicode_escape").decode("ascii")
        if unicodedata.category(x) in OBEYED and x not in JOINERS
        else x
        for x in text
    )


def no_folder(path: Path | str) -> str:
    """Say why a path is that of no folder: "there is no such folder", or which part of it is a file."""
    part = file_in(path)
    return (
        f"{'' if part == Path(path) else f'{part} '}is a file, not a folder"
        if part
        else "there is no such folder"
    )


def file_in(path: Path | str) -> Path | None:
    """Return the part of a path, or all of it, that is something else than a folder; None where none is."""
    found = next((part for part in (Path(path), *Path(path).parents) if part.exists()), Path(path))
    return found if found.exists() and not found.is_dir() else None


def write_text(path: Path | str, text: str) -> None:
    """Write text in UTF-8 as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write a file so that a reader sees the whole of it or none, also after a power cut."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a path to write to; it replaces `path` at the end of the block, unless the block raised.

    The content is on the disk before the name is, and the name when the block has ended.
    """
    path = Path(path)
    temporary = temporary_of(path)
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_of(path: Path) -> Path:
    """Return a temporary path for a file, this call's own; delete those that killed processes left behind.

    Other hosts and containers may write to the same folder, where process numbers say nothing here. So only
    files of this place are deleted when their process has ended, and files of any other after a day.
    """
    place = _place()
    for old in path.parent.glob(f".{glob.escape(path.name)}.*.*.*"):
        owner, process, _ = old.name.rsplit(".", 3)[1:]
        with suppress(OSError):  # another process may delete it first, or forbid it
            if (owner == place and not _is_running(process)) or time.time() - old.stat().st_mtime > DAY:
                old.unlink()
    return path.with_name(f".{path.name}.{place}.{os.getpid()}.{secrets.token_hex(4)}")


def _place() -> str:
    """Name the host, its boot, and the namespace within which a process's number is its own."""
    words = [socket.gethostname()]
    with suppress(OSError):
        words.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
    with suppress(OSError):
        words.append(os.readlink("/proc/self/ns/pid"))
    return f"{zlib.crc32(' '.join(words).encode()):08x}"


def _is_running(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk.

    Raises:
        OSError: the disk failed; not where a file system cannot do it for folders.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def make_folder(path: Path | str) -> None:
    """Make a folder and those above it where they are missing, so that they outlive a power cut.

    Raises:
        OSError: it cannot be made, or something else has its name.
    """
    path = Path(path)
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def write_json(path: Path | str, value: object) -> None:
    """Write standard JSON as `write_text` does; NaN and infinities, which JSON lacks, become null."""
    write_text(path, json.dumps(finite(value), allow_nan=False, indent=1, ensure_ascii=False) + "\n")


def finite(value: Any) -> Any:
    """Return a value made of dicts and lists with null for NaN and infinities, which JSON lacks."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path | str) -> dict[str, Any]:
    """Read the JSON object in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a JSON object.
    """
    return json_object(Path(path).read_bytes(), f"{path}")


def json_object(text: bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object; a ValueError that names `where` says that the text is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # no JSON, no text, or nested a thousand deep
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"{where}: not a JSON object; move it away and give the command again")
    return value


def fingerprint(path: Path, size: int | None = None) -> str:
    """Return the size of a file, or of its first `size` bytes, and a checksum against damage."""
    left, checksum, seen = size, 0, 0
    with path.open("rb") as file:
        while block := file.read(BLOCK if left is None else min(left, BLOCK)):
            checksum, seen = zlib.crc32(block, checksum), seen + len(block)
            left = None if left is None else left - len(block)
    return f"{seen}:{checksum:08x}"


def sealed(row: Mapping[str, Any], folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """Return a row with the column SEAL, which notes sizes and checksums of its files and of itself."""
    notes = " ".join(f"{name}={fingerprint(folder / name)}" for name in names)
    return {**row, SEAL: f"{notes} {ROW}={_checksum({**row, SEAL: notes})}"}


def damage(row: Mapping[str, Any], folder: Path) -> list[str]:
    """List the files in a folder that are missing or not what the row notes; ROW where the row is not."""
    notes, _, own = str(row.get(SEAL)).rpartition(f" {ROW}=")
    if own != _checksum({**row, SEAL: notes}):
        return [ROW]
    return [
        name for name, noted in (note.split("=") for note in notes.split()) if _now(folder / name) != noted
    ]


def _now(path: Path) -> str | None:
    try:
        return fingerprint(path)
    except OSError:
        return None


def _checksum(row: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(row, sort_keys=True, allow_nan=False)
    except ValueError:  # NaN or an infinity, which is null in the file
        text = json.dumps(finite(row), sort_keys=True)
    return f"{zlib.crc32(text.encode()):08x}"


def by_content(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without the names of files whose content they hold: X.identity stands for X and X.y."""
    owners = {name.removesuffix(IDENTITY) for name in settings if name.endswith(IDENTITY)}
    return {
        name: value
        for name, value in settings.items()
        if name.endswith(IDENTITY) or name.partition(".")[0] not in owners
    }


@functools.cache
def named_classes(base: type) -> dict[str, type[Any]]:
    """Collect the subclasses of a class that give themselves a name, from its package and folders in it.

    Args:
        base: has a class variable `name`, "" in classes that are not to be found.

    Returns:
        Name -> class, by the files' names in alphabetical order, whatever their folders.

    Raises:
        ValueError: two classes have one name.
    """
    package = base.__module__.rpartition(".")[0]
    folder = Path(inspect.getfile(base)).parent
    classes: dict[str, type[Any]] = {}
    modules = [module.name for module in pkgutil.walk_packages([str(folder)], f"{package}.")]
    for place in sorted(modules, key=lambda name: name.rpartition(".")[2]):
        module = importlib.import_module(place)
        for member in vars(module).values():
            own = inspect.isclass(member) and member.__module__ == module.__name__
            if not own or not issubclass(member, base) or not vars(member).get("name"):
                continue
            if member.name in classes:
                file = place.removeprefix(f"{package}.").replace(".", "/")
                raise ValueError(f"{file}.py: the name {member.name!r} is already that of another class")
            classes[member.name] = member
    return classes
