"""The kernels in C++ of this folder as one library: compiled once on a machine, for its processor.

The file lies in the user's cache. Its name has a hash of what it was made of (sources, compiler and its
version, flags, what the processor can do) and one of its own content: so one made for another machine is
never looked at, and one that is damaged is made again. A wheel may bring a library along, for a machine
without a compiler and for all processors that can do what it needs.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from toyqs.assets.cache import cache_folder
from toyqs.files import make_folder, visible, write_bytes

SOURCES = Path(__file__).parent
COMPILERS = ("c++", "g++", "clang++")  # the first that there is, where CXX names none
FLAGS = (
    "-std=c++17",
    "-O3",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wno-psabi",  # vectors are not handed to other libraries
    "-shared",
    "-fPIC",
)
FOR_THIS_PROCESSOR = "-march=native"  # some compilers do not know it
# Of a library that a wheel brings along: an x86-64 processor of 2013 or later, as /proc/cpuinfo describes it.
FOR_MANY_PROCESSORS = ("-march=x86-64-v3", "-static-libstdc++", "-static-libgcc")
MANY_PROCESSORS = {"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe", "abm"}
DIGITS = 16  # of a hash in a file's name


class Unavailable(Exception):
    """There are no native kernels on this machine; the message says in one line why."""


def load() -> ctypes.CDLL:
    """Return the library of native kernels; compile it where that was not done before.

    Raises:
        Unavailable: there is no compiler, it fails, or what it makes cannot be loaded.
    """
    found = _outcome()
    if isinstance(found, str):
        raise Unavailable(found)
    return found


def description() -> str:
    """Say what made the library: the compiler.

    Raises:
        Unavailable: as `load` does.
    """
    about = load().toyqs_about
    about.restype = ctypes.c_char_p
    said = str(about().decode())
    return f"GCC {said}" if said[0].isdigit() else said  # others begin with their names


@functools.cache
def _outcome() -> ctypes.CDLL | str:
    """Return the library, or why there is none: found out once in a process."""
    try:
        return _found_or_built(_compiler())
    except (Unavailable, OSError) as error:
        if (library := _brought_along()) is not None:
            return library
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return visible(lines[0])


def _found_or_built(compiler: Sequence[str]) -> ctypes.CDLL:
    folder, made_of = _folder(), _made_of(compiler)
    for path in sorted(folder.glob(f"{made_of}-*.so")) if folder else []:
        if (library := _opened(path)) is not None:
            return library
    with tempfile.TemporaryDirectory(prefix="toyqs-") as scratch:
        built = Path(scratch) / "kernels.so"
        _compile(compiler, built)
        if folder:
            with suppress(OSError):  # it cannot be written to, or nothing in it can be loaded
                return ctypes.CDLL(str(_kept(built, folder, made_of)))
        return ctypes.CDLL(str(built))  # which stays loaded when its file is gone


def prebuild(folder: Path) -> Path:
    """Compile the library that a wheel brings along into a folder, the place of these sources in it.

    Raises:
        Unavailable: there is no compiler, or it fails.
    """
    path = folder / f"prebuilt-{_hash(_sources())}.so"
    if why := _fault([*_compiler(), *FLAGS, *FOR_MANY_PROCESSORS], path):
        raise Unavailable(why)
    return path


def suits_many_processors() -> bool:
    """Tell whether this machine's processor can do what the library of a wheel needs."""
    return {*_processor().split()} >= MANY_PROCESSORS


def _brought_along() -> ctypes.CDLL | None:
    """Return the library that the wheel brought along; None without one for these sources and processor."""
    path = SOURCES / f"prebuilt-{_hash(_sources())}.so"
    if suits_many_processors() and path.exists():
        with suppress(OSError):
            return ctypes.CDLL(str(path))
    return None


def _folder() -> Path | None:
    """Return the folder of libraries in the user's cache; None without a home folder."""
    try:
        return cache_folder() / "kernels"
    except RuntimeError:
        return None


def _opened(path: Path) -> ctypes.CDLL | None:
    """Return the library in a file; None, and the file removed, where it is damaged."""
    with suppress(OSError):
        if path.stem.endswith(f"-{_hash(path.read_bytes())}"):
            return ctypes.CDLL(str(path))
        path.unlink()
    return None


def _kept(built: Path, folder: Path, made_of: str) -> Path:
    """Copy a library to the cache, where others find it whole or not at all; return its path there."""
    make_folder(folder)
    content = built.read_bytes()
    path = folder / f"{made_of}-{_hash(content)}.so"
    write_bytes(path, content)
    return path


def _made_of(compiler: Sequence[str]) -> str:
    """Hash all that decides what a library does."""
    parts = [*compiler, _version(compiler), *FLAGS, FOR_THIS_PROCESSOR, platform.machine(), _processor()]
    return _hash("\0".join(parts).encode() + _sources())


def _sources() -> bytes:
    """Return the names and the contents of all sources."""
    files = [file for kind in ("*.cpp", "*.h") for file in sorted(SOURCES.glob(kind))]
    return b"\0".join(part for file in files for part in (file.name.encode(), file.read_bytes()))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def _compiler() -> list[str]:
    """Return the words that call the machine's compiler: those of CXX, or the first of COMPILERS.

    Raises:
        Unavailable: there is none.
    """
    given = os.environ.get("CXX", "").strip()
    try:
        words = shlex.split(given)
    except ValueError as error:
        raise Unavailable(f"CXX={given} is no command: {error}") from error
    if words:
        if shutil.which(words[0]) is None:
            raise Unavailable(f"CXX={given} names a compiler that is not there")
        return words
    if (found := next(filter(shutil.which, COMPILERS), None)) is None:
        raise Unavailable(f"there is no C++ compiler (none of {', '.join(COMPILERS)})")
    return [found]


@functools.cache
def _version_of(compiler: tuple[str, ...]) -> str:
    done = _called([*compiler, "--version"])
    if done.returncode or not done.stdout.strip():
        raise Unavailable(f"{compiler[0]} --version fails: {_first_error(done)}")
    return done.stdout.strip()


def _version(compiler: Sequence[str]) -> str:
    """Return what a compiler says about itself, the first line its name and version.

    Raises:
        Unavailable: it fails.
    """
    return _version_of(tuple(compiler))


def _processor() -> str:
    """Return what the processor can do, or at least its name."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith(("flags", "Features")):
                return line.strip()
    if sys.platform == "darwin":
        return _called(["sysctl", "-n", "machdep.cpu.brand_string"]).stdout
    return platform.processor()


def _compile(compiler: Sequence[str], library: Path) -> None:
    """Compile the library for this processor.

    Raises:
        Unavailable: the compiler fails, also without FOR_THIS_PROCESSOR.
    """
    if _fault([*compiler, *FLAGS, FOR_THIS_PROCESSOR], library) and (
        why := _fault([*compiler, *FLAGS], library)
    ):
        raise Unavailable(why)


def _fault(compiler: Sequence[str], library: Path) -> str:
    """Compile all sources into one library; return why that fails, "" where it does not."""
    done = _called([*compiler, "-o", str(library), *map(str, sorted(SOURCES.glob("*.cpp")))])
    return f"{compiler[0]} fails: {_first_error(done)}" if done.returncode else ""


def _called(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Call a program, its messages in English.

    Raises:
        Unavailable: it cannot be called.
    """
    environment = os.environ | {"LC_ALL": "C"}
    try:
        return subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            check=False,
        )
    except OSError as error:
        raise Unavailable(f"{words[0]} cannot be called: {error.strerror}") from error


def _first_error(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return next(
        (line for line in lines if "error" in line), lines[0] if lines else f"exit code {done.returncode}"
    )
