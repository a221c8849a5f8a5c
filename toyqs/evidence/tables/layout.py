"""One layout for tables: headings of two lines above columns of texts, as plain text, Markdown or LaTeX."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Sequence
from typing import NamedTuple

from toyqs.evidence.text import WIDTH, aligned, wrapped
from toyqs.files import visible

GAP = 2  # columns between those of a table
NARROWEST = 30  # columns of a last text, however much stands before it
IN_LATEX = {
    **{x: f"\\{x}" for x in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedblright{}"},
    **{"[": "{[}", "]": "{]}", "*": "{*}"},  # which \\ at a line's end would take for its own
    **{"±": r"$\pm$", "×": r"$\times$", "–": r"\textendash{}", "—": r"\textemdash{}"},
    **{"…": r"\dots{}", "’": "'"},
}
LIGATURE = re.compile(r"([-,'`])(?=\1)|[?!](?=`)")  # of which LaTeX would make one letter with the next
IN_MARKDOWN = {"&": "&amp;", "<": "&lt;", ">": "&gt;", **{x: f"\\{x}" for x in "\\`*[]|~#$"}}
NOTHING = {"", "–"}  # texts of what has no value
NUMBER = re.compile(r"[+-][0-9.]+|[+-]?[0-9.]+ ± [0-9.]+")
BROKEN = textwrap.TextWrapper(WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
LONE_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")  # of which Markdown makes emphasis


class Column(NamedTuple):
    """A column of a table."""

    name: str
    unit: str  # below the name; "" where there is none
    texts: list[str]
    left: bool = False  # aligned to the left, as words are


def width(column: Column) -> int:
    """Return how many letters a column is wide."""
    return max(map(len, (column.name, column.unit, *column.texts)))


def named(name: str, texts: Sequence[str]) -> Column:
    """Return a column of numbers; its long name is broken at the underscore or dot nearest the middle."""
    places = [place for place, letter in enumerate(name) if letter in "_."]
    middle = min(places, key=lambda place: abs(2 * place - len(name)), default=-1)
    return Column(name[: middle + 1], name[middle + 1 :], list(texts))


def plain_text(columns: Sequence[Column]) -> list[str]:
    """Return a table as plain text; a last column of words is broken into lines where it is too wide."""
    texts = [[column.name, column.unit, *column.texts] for column in columns]
    if columns[-1].left:
        room = WIDTH - sum(width(column) + GAP for column in columns[:-1])
        texts = wrapped(texts, max(room, NARROWEST))
    lines = aligned(texts, [place for place, column in enumerate(columns) if column.left], rule=True)
    return lines if lines[0] else lines[1:]


def markdown(columns: Sequence[Column]) -> list[str]:
    """Return a table in Markdown, aligned so that its source can be read too."""
    cells = [[in_markdown(text) for text in (heading(column), *column.texts)] for column in columns]
    lines = [f"| {' | '.join(line)} |" for line in _padded(cells, [column.left for column in columns])]
    widths = [max(map(len, texts)) for texts in cells]
    rules = [
        f":{'-' * (size + 1)}" if column.left else f"{'-' * (size + 1)}:"
        for column, size in zip(columns, widths, strict=True)
    ]
    return [lines[0], f"|{'|'.join(rules)}|", *lines[1:]]


def latex(columns: Sequence[Column], starts: Collection[int] = ()) -> list[str]:
    r"""Return a table as LaTeX's tabular, with the rules of the package booktabs; see `in_latex`.

    Args:
        columns: of the table.
        starts: lines with some space before them, counted from 0.
    """
    cells = [[in_latex(text) for text in (c.name, c.unit, *c.texts)] for c in columns]
    rows = _padded(cells, [column.left for column in columns])
    if sum(map(len, rows[0])) + 3 * len(columns) > WIDTH:
        rows = [list(row) for row in zip(*cells, strict=True)]
    first, second, *lines = [BROKEN.fill(rf"{' & '.join(row)} \\") for row in rows]
    kinds = "".join("l" if column.left else "r" for column in columns)
    spaced = [part for n, x in enumerate(lines) for part in ([r"\addlinespace", x] if n in starts else [x])]
    rules = [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule"]
    whole = [*rules, first, second, r"\midrule", *spaced, r"\bottomrule", r"\end{tabular}"]
    return [line for part in whole for line in part.splitlines()]


def heading(column: Column) -> str:
    """Return the two lines above a column as one."""
    broken = column.name.endswith(("_", "."))  # by `split_name`
    return f"{column.name}{'' if broken or not column.name else ' '}{column.unit}".strip()


def _padded(cells: Sequence[Sequence[str]], left: Sequence[bool]) -> list[list[str]]:
    """Return the rows of columns, each text as wide as its column."""
    padded = []
    for texts, to_left in zip(cells, left, strict=True):
        size = max(map(len, texts))
        padded.append([text.ljust(size) if to_left else text.rjust(size) for text in texts])
    return [list(row) for row in zip(*padded, strict=True)]


def in_latex(text: str) -> str:
    """Return a text as LaTeX shows it: numbers with a sign or an interval as mathematics.

    A letter that its basic fonts lack is named by its number: [U+4E2D].
    """
    if NUMBER.fullmatch(text):
        return f"${text.replace('±', chr(92) + 'pm')}$"
    if text == "–":
        return "--"
    letters = [IN_LATEX.get(x) or (x if x.isascii() else f"{{[}}U+{ord(x):04X}{{]}}") for x in visible(text)]
    return LIGATURE.sub(r"\g<0>{}", "".join(letters))


def in_markdown(text: str) -> str:
    """Return a text as Markdown shows it in a paragraph or a table."""
    escaped = "".join(IN_MARKDOWN.get(x, x) for x in visible(text))
    return LONE_UNDERSCORE.sub(r"\\_", escaped)


def varying(columns: Sequence[Column], kept: Collection[str] = ()) -> tuple[list[Column], list[str]]:
    """Leave out the columns without a value, and those that say the same in every line of several.

    Args:
        columns: of the table.
        kept: headings of columns that may say the same in every line.

    Returns:
        The other columns; for each that is left out and has a value "name text".
    """
    shown, said = [], []
    for column in columns:
        texts = set(column.texts)
        if texts <= NOTHING:
            continue
        if len(texts) > 1 or len(column.texts) < 2 or heading(column) in kept:
            shown.append(column)
        else:
            said.append(f"{heading(column)} {column.texts[0]}")
    return shown, said
