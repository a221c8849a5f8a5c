"""Numbers, settings and lists as people read them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any


def spelled(value: Any) -> str:
    """A setting's value as it is typed: 1 for 1.0, true, null."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:.12g}" if isinstance(value, int | float) else str(value)


def spans(numbers: Iterable[int]) -> str:
    """Whole numbers in few words: 1, 2, 3, 7 -> "1–3, 7"."""
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


def plus_minus(mean: float, half_width: float, form: str, nothing: str = "–") -> str:
    """Mean ± half width in a number format; the mean alone where there is no interval."""
    if math.isnan(mean):
        return nothing
    return f"{mean:{form}}" if math.isnan(half_width) else f"{mean:{form}} ± {half_width:{form.lstrip('+')}}"


def human(number: float) -> str:
    """A number in three digits and a unit: 950, 12.3k, 4.10M; "–" where there is none."""
    if math.isnan(number):
        return "–"
    for unit in ("", "k", "M", "G", "T"):
        digits = 0 if not unit and float(number).is_integer() else max(0, 2 - len(f"{abs(number):.0f}") + 1)
        text = f"{number:.{digits}f}"
        if abs(float(text)) < 1000:
            return text + unit
        number /= 1000
    return f"{1000 * number:.3g}T"
