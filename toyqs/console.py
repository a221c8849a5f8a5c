"""Printing that cannot fail: whatever the terminal, the pipe or the disk behind it takes, work goes on."""

from __future__ import annotations

import codecs
import os
import sys
import unicodedata
from typing import Any

PLAIN = {"±": "+-", "–": "-", "—": "-", "×": "x", "·": "*", "…": "...", "’": "'"}
ERRORS = "toyqs.plain"  # the name of `_plain` among Python's ways to answer what an encoding lacks


class Stream:
    """A text stream whose writing never raises; what first failed is kept in `error`.

    Args:
        stream: the stream itself, which answers all else.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write as much as can be written; return the length of the text."""
        try:
            self._stream.write(text)
        except OSError as error:
            self.error = self.error or error
        return len(text)

    def flush(self) -> None:
        """Hand on what was written, as far as can be."""
        try:
            self._stream.flush()
        except OSError as error:
            self.error = self.error or error

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the stream itself."""
        return getattr(self._stream, name)


def prepare() -> None:
    """Make standard output and standard error take whatever is printed from now on.

    What their encoding lacks is written in plain letters. A stream that was closed becomes one that forgets.
    """
    for number in range(3):  # else the next file that is opened would be taken for the closed stream
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    codecs.register_error(ERRORS, _plain)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, to the end
        if isinstance(stream, Stream):
            continue
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ERRORS)
        setattr(sys, name, Stream(stream))


def finish(code: int) -> int:
    """Say in one line what standard output could not take; return the exit code, 1 or more in that case.

    A reader that has gone, as of `| head`, has read all that it wanted: nothing is said, and the code stays.
    """
    sys.stdout.flush()
    error = getattr(sys.stdout, "error", None)
    if error is None or isinstance(error, BrokenPipeError):
        return code
    print(f"toyqs: what was printed is not complete: {error.strerror}; the files are", file=sys.stderr)
    return max(code, 1)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that an encoding lacks by plain letters, or by question marks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    letters = (
        PLAIN.get(x) or unicodedata.normalize("NFKD", x).encode("ascii", "ignore").decode() for x in text
    )
    return "".join(each or "?" for each in letters), error.end
