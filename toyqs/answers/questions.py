"""Read files of questions: one JSON object a line, in the formats of GSM8K and CommonsenseQA."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from toyqs.assets.documents import read_json_lines, text_of

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
    """Return the number that an answer states: right after its first ####; of an answer without, its last.

    After the mark it is the first number on that line, or on the next that is not blank; where that has none,
    the answer states none.

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
    items = read_json_lines(path, parse)
    if not items:
        raise ValueError(f"{path}: holds no questions; give a file of JSON lines")
    return items


def _number_question(row: Any) -> NumberQuestion:
    question, solution = text_of(row, "question"), text_of(row, "answer")
    number = stated_number(solution)
    if number is None:
        raise ValueError("the answer has no number")
    return NumberQuestion(question, solution, number)


def _choice_question(row: Any) -> ChoiceQuestion:
    key, question, holder = text_of(row, "answerKey"), row.get("question"), row
    if isinstance(question, dict):
        question, holder = text_of(question, "stem"), question
    else:
        question = text_of(row, "question")
    choices = holder.get("choices")
    if isinstance(choices, dict):
        pairs = zip(_list(choices, "label"), _list(choices, "text"), strict=True)
        choices = [{"label": label, "text": text} for label, text in pairs]
    else:
        choices = _list(holder, "choices")
    labels, texts = ([text_of(choice, name) for choice in choices] for name in ("label", "text"))
    if key not in labels:
        raise ValueError(f"answerKey {key} is none of the labels")
    return ChoiceQuestion(question, texts, labels.index(key))


def _list(row: dict[str, Any], name: str) -> list[Any]:
    if not isinstance(row.get(name), list):
        raise ValueError(f"{name} is no list")
    return list(row[name])
