"""Files of questions: one JSON object a line, in the formats of GSM8K and CommonsenseQA."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

Item = TypeVar("Item")

NUMBER = re.compile(r"-?\$?-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")


class NumberQuestion(NamedTuple):
    """A question whose answer is a number (GSM8K: Cobbe et al. 2021)."""

    question: str
    solution: str  # as written, steps and number
    number: str  # in the one spelling of `plain_number`


class Choice(NamedTuple):
    """A question with its choices (CommonsenseQA: Talmor et al. 2019)."""

    question: str
    choices: list[str]
    right: int  # which of them


def sums(path: str) -> list[NumberQuestion]:
    """The questions of a file in GSM8K's format: {"question": …, "answer": "… #### 72"}.

    Raises:
        ValueError: one line with file and line, where it cannot be read or is not of that format.
    """
    return _lines(path, _sum)


def choices(path: str) -> list[Choice]:
    """The questions of a file in CommonsenseQA's format.

    Either as published or as hubs of data sets have it:

        {"question": {"stem": …, "choices": [{"label": "A", "text": …}, …]}, "answerKey": "A"}
        {"question": …, "choices": {"label": ["A", …], "text": […]}, "answerKey": "A"}

    Raises:
        ValueError: as in `sums`.
    """
    return _lines(path, _choice)


def plain_number(text: str) -> str | None:
    """The last number of a text in one spelling, 1,234.50 and $1234.5 alike; None where there is none."""
    found = NUMBER.findall(text)
    if not found:
        return None
    plain = found[-1].replace(",", "").replace("$", "").removeprefix("--")
    whole, _, fraction = plain.partition(".")
    fraction = fraction.rstrip("0")
    negative = whole.startswith("-")
    number = (whole.lstrip("-").lstrip("0") or "0") + (f".{fraction}" if fraction else "")
    return f"-{number}" if negative and number != "0" else number


def stated_number(answer: str) -> str | None:
    """The number that an answer states: after #### where it has them, else the last one."""
    return plain_number(answer.rpartition("####")[2])


def _lines(path: str, parse: Callable[[Any], Item]) -> list[Item]:
    try:
        text = Path(path).expanduser().read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); give a file of JSON lines") from error
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found.append(parse(json.loads(line)))
        except (KeyError, TypeError, ValueError) as error:
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ValueError(f"{path}: line {number} is not of this format ({said})") from error
    if not found:
        raise ValueError(f"{path}: holds no questions; give a file of JSON lines")
    return found


def _sum(row: Any) -> NumberQuestion:
    question, solution = str(row["question"]), str(row["answer"])
    number = stated_number(solution)
    if number is None:
        raise ValueError("the answer has no number")
    return NumberQuestion(question, solution, number)


def _choice(row: Any) -> Choice:
    question, given = row["question"], row.get("choices")
    if isinstance(question, dict):
        question, given = question["stem"], question["choices"]
    if isinstance(given, dict):
        given = [
            {"label": label, "text": text} for label, text in zip(given["label"], given["text"], strict=True)
        ]
    labels = [str(choice["label"]) for choice in given]
    return Choice(str(question), [str(choice["text"]) for choice in given], labels.index(row["answerKey"]))
