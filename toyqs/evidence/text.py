"""Numbers, settings, lists and tables as people read them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from toyqs.files import IDENTITY, visible

WIDTH = 110  # columns of what is printed
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # begin a cell that a spreadsheet would compute
MANY_DIGITS = 1e4  # a number from here on, such as the loss of a run that blew up, is written in three digits

UNSAID = {"task.reach": 1, "task.curriculum": 0}  # no deeper than trained on, all depths from the start


def spelled(value: Any) -> str:
    """Return a setting's value as it is typed: 1 for 1.0, true, null."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:.12g}" if isinstance(value, int | float) else visible(str(value))


def task_words(settings: Mapping[Any, Any]) -> str:
    """Return a run's task and its knobs, "rev_prog p=6 m=3 k=3 task.seed=0".

    Of a path the file's name alone, and no hash; the task's seed is named in full, for runs have seeds too.
    What changes nothing (UNSAID) is left out.
    """
    if "task" not in settings:
        return "several tasks"
    knobs = []
    for name, value in settings.items():
        if str(name).startswith("task.") and not name.endswith(IDENTITY) and pd.notna(value):
            if UNSAID.get(name) == value:
                continue
            word = name if name == "task.seed" else name.removeprefix("task.")
            knobs.append(f"{word}={spelled(Path(value).name if isinstance(value, str) else value)}")
    return " ".join([str(settings["task"]), *knobs])


def spans(numbers: Iterable[int]) -> str:
    """Return whole numbers in few words: 1, 2, 3, 7 -> "1–3, 7"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def listed(values: Iterable[object]) -> str:
    """Return the values in ascending order, separated by commas."""
    return ", ".join(str(value) for value in sorted(values))  # type: ignore[type-var]


def plus_minus(mean: float, half_width: float, form: str, nothing: str = "–", sign: str = " ± ") -> str:
    """Return mean ± half width in a number format; the mean alone where there is no interval.

    Args:
        mean: over seeds; NaN: `nothing` is returned.
        half_width: of the interval; NaN: there is none.
        form: such as ".3f", or "+.3f" for a mean with its sign.
        nothing: the text for NaN.
        sign: the text between the two numbers.
    """
    if math.isnan(mean):
        return nothing
    half = "" if math.isnan(half_width) else f"{sign}{short(half_width, form.lstrip('+'))}"
    return f"{short(mean, form)}{half}"


def short(number: float, form: str) -> str:
    """Return a number in a format such as ".3f" or "+.3f"; from 10,000 on in three digits: 9.96e+11.

    What is written 0 has a sign only where the format asks for one.
    """
    sign = "+" if form.startswith("+") else ""
    text = f"{number:{sign}.3g}" if abs(number) >= MANY_DIGITS else f"{number:{form}}"
    return text if sign or float(text) else text.removeprefix("-")


def human(number: float) -> str:
    """Return a number in three digits and a unit: 950, 12.3k, 4.10M; "–" for NaN."""
    if math.isnan(number):
        return "–"
    for unit in ("", "k", "M", "G", "T"):
        digits = 0 if not unit and float(number).is_integer() else max(0, 2 - len(f"{abs(number):.0f}") + 1)
        text = f"{number:.{digits}f}"
        if abs(float(text)) < 1000:
            return text + unit
        number /= 1000
    return f"{1000 * number:.3g}T"


def csv_text(table: pd.DataFrame) -> str:
    """Return a table as CSV in which a spreadsheet takes no text for a formula.

    A text, or a column's name, that begins like one and is no number has a ' before it.
    """
    texts = table.select_dtypes(exclude="number")
    safe = table.assign(**{name: texts[name].map(_no_formula, na_action="ignore") for name in texts})
    return safe.rename(columns=_no_formula).to_csv(index=False)


def _no_formula(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def aligned(columns: Sequence[Sequence[str]], left: Collection[int] = (), rule: bool = False) -> list[str]:
    """Return the lines of a text table.

    Args:
        columns: the texts of each, equally many, headings first.
        left: the columns aligned to the left; the others are aligned to the right.
        rule: draw a line below the first two lines, the headings.
    """
    padded = []
    for place, column in enumerate(columns):
        width = max(map(len, column))
        padded.append([text.ljust(width) if place in left else text.rjust(width) for text in column])
    lines = ["  ".join(line).rstrip() for line in zip(*padded, strict=True)]
    return [*lines[:2], "-" * max(map(len, lines)), *lines[2:]] if rule else lines


def wrapped(columns: Sequence[Sequence[str]], room: int) -> list[list[str]]:
    """Return the columns with the last one's texts broken into lines of at most `room` columns.

    Args:
        columns: the texts of each, equally many.
        room: at least 3; the lines after the first of a text are indented by two columns.
    """
    rows: list[tuple[str, ...]] = []
    for *others, last in zip(*columns, strict=True):
        first, *more = textwrap.wrap(last, room, subsequent_indent="  ", break_on_hyphens=False) or [""]
        rows += [(*others, first), *((*[""] * len(others), line) for line in more)]
    return [list(column) for column in zip(*rows, strict=True)]
