"""Read files of questions: one JSON object a line, in the formats of GSM8K and CommonsenseQA."""

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
    number: str  # as `stated_number` spells it


class ChoiceQuestion(NamedTuple):
    """A question with its choices (CommonsenseQA: Talmor et al. 2019)."""

    question: str
    choices: list[str]
    right: int  # index of the right choice


def number_questions(path: str) -> list[NumberQuestion]:
    """Read questions in GSM8K's format: {"question": …, "answer": "… #### 72"}.

    Raises:
        ValueError: names the file, and the line that is not of this format.
    """
    return _lines(path, _number_question)


def choice_questions(path: str) -> list[ChoiceQuestion]:
    """Read questions in CommonsenseQA's format, as published or as data-set hubs have it.

        {"question": {"stem": …, "choices": [{"label": "A", "text": …}, …]}, "answerKey": "A"}
        {"question": …, "choices": {"label": ["A", …], "text": […]}, "answerKey": "A"}

    Raises:
        ValueError: as in `number_questions`.
    """
    return _lines(path, _choice_question)


def stated_number(answer: str) -> str | None:
    """Return the number that an answer states: the one right after its first ####, else its last.

    After the mark it is the first number on that line, or on the next that is not blank.

    Returns:
        The number in one spelling, 1,234.50 and $1234.5 alike; None where there is none.
    """
    before, mark, after = answer.partition("####")
    numbers = NUMBER.findall(after.lstrip().partition("\n")[0] if mark else before)
    return _spelled(numbers[0 if mark else -1]) if numbers else None


def _spelled(number: str) -> str:
    plain = number.replace(",", "").replace("$", "").removeprefix("--")
    whole, _, fraction = plain.partition(".")
    fraction = fraction.rstrip("0")
    negative = whole.startswith("-")
    number = (whole.lstrip("-").lstrip("0") or "0") + (f".{fraction}" if fraction else "")
    return f"-{number}" if negative and number != "0" else number


def _lines(path: str, parse: Callable[[Any], Item]) -> list[Item]:
    try:
        text = Path(path).expanduser().read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); give a file of JSON lines") from error
    items = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            items.append(parse(json.loads(line)))
        except (KeyError, TypeError, ValueError) as error:
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ValueError(f"{path}: line {number} is not of this format ({why})") from error
    if not items:
        raise ValueError(f"{path}: holds no questions; give a file of JSON lines")
    return items


def _number_question(row: Any) -> NumberQuestion:
    question, solution = str(row["question"]), str(row["answer"])
    number = stated_number(solution)
    if number is None:
        raise ValueError("the answer has no number")
    return NumberQuestion(question, solution, number)


def _choice_question(row: Any) -> ChoiceQuestion:
    question, choices = row["question"], row.get("choices")
    if isinstance(question, dict):
        question, choices = question["stem"], question["choices"]
    if isinstance(choices, dict):
        pairs = list(zip(choices["label"], choices["text"], strict=True))
    else:
        pairs = [(choice["label"], choice["text"]) for choice in choices]
    labels, texts = ([str(x) for x in column] for column in zip(*pairs, strict=True))
    return ChoiceQuestion(str(question), texts, labels.index(row["answerKey"]))
