"""Command lines of scripts: numbers within their range, files to write, a refusal in one line."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from toyqs import console
from toyqs.files import Refusal, file_in, visible

INTERRUPTED = 130  # the exit code of a shell's programs after Ctrl-C
DIGITS = 20  # of a whole number; Python would take its time with a million


class Parser(argparse.ArgumentParser):
    """A parser that refuses a wrong command line in one line."""

    def error(self, message: str) -> NoReturn:
        """Raise `Refusal`."""
        raise Refusal(f"{message}; --help says more")


def run(
    work: Callable[[argparse.Namespace], int | None],
    parser: argparse.ArgumentParser,
    words: Sequence[str] | None = None,
) -> int:
    """Do what a command line asks for; a `Refusal` is printed in one line.

    Args:
        work: the parsed command line -> the exit code, None for 0.
        parser: of the command line.
        words: of the command line; None: those that the program was called with.

    Returns:
        The exit code, in a refusal its own.
    """
    return protected(parser.prog, lambda: work(parser.parse_intermixed_args(words)))


def protected(
    program: str, work: Callable[[], int | None], failures: tuple[type[Exception], ...] = (Refusal,)
) -> int:
    """Do some work with printing that cannot fail; a refusal and Ctrl-C are printed in one line.

    Args:
        program: the name that begins the line.
        work: what to do -> the exit code, None for 0.
        failures: errors that are the user's mistakes.

    Returns:
        The exit code; of a `Refusal` its own, of other failures 2, of Ctrl-C 130.
    """
    console.prepare()
    try:
        code = work() or 0
    except failures as error:
        print(f"{program}: {visible(str(error))}", file=sys.stderr)
        code = error.code if isinstance(error, Refusal) else 2
    except SystemExit as end:  # argparse, after --help
        code = int(end.code or 0)
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        code = INTERRUPTED
    return console.finish(code)


def path_of(word: str) -> Path:
    """Parse a path, with ~ at its start as the home folder; a type of argparse."""
    try:
        return Path(word).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{word}: there is no such home folder") from error


def whole(text: str, least: int = 1, most: int = 10**9) -> int:
    """Parse a whole number; a type of argparse."""
    number = int(text) if text.isdecimal() and len(text) < DIGITS else least - 1
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"{text} is out of range; give a whole number, {least} to {most}")
    return number


def positive(text: str) -> float:
    """Parse a number above 0, not infinite; a type of argparse."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is out of range; give a number above 0")
    return number


def check_file(path: Path, option: str = "-o") -> None:
    """Refuse a file to be written, before anything is computed.

    Raises:
        Refusal: its folder does not exist, or the path is that of a folder, a pipe or a device.
    """
    if not path.parent.is_dir():
        if part := file_in(path.parent):
            raise Refusal(f"{option} {path}: {part} is a file, not a folder; give another path")
        raise Refusal(f"{option} {path}: there is no folder {path.parent}; make it first")
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe or a device"
        raise Refusal(f"{option} {path}: is {kind}; give the name of a file")


@contextmanager
def writing(path: Path, option: str = "-o") -> Iterator[None]:
    """Write files within a `with` block.

    Raises:
        Refusal: one of them cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise Refusal(f"{option} {path}: cannot be written: {error.strerror or error}", 1) from error
