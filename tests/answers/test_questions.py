"""Files of questions, and numbers in one spelling."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.answers import asked
from toyqs.answers.questions import (
    ChoiceQuestion,
    NumberQuestion,
    choice_questions,
    number_questions,
    stated_number,
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 3 and then 1,234", "1234"),
        ("$1,234.50", "1234.5"),
        ("-$5.00 or -5", "-5"),
        ("it is 007.", "7"),
        ("0.50", "0.5"),
        (".5", "0.5"),
        ("-0", "0"),
        ("12%", "12"),
        ("none", None),
        ("16-3", "-3"),
    ],
)
def test_a_number_has_one_spelling(text: str, number: str | None) -> None:
    assert stated_number(text) == number


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("5 and 6\n#### 1,1 ", "11"),
        ("48+24=72\n#### 72 apples for 3 people", "72"),
        ("#### 18\nIt was 20.\n#### 20", "18"),
        ("#### 5, which is 1/2 of 10", "5"),
        ("7\n####\n 8\n9", "8"),
        ("#### 7#### 8", "7"),
        ("7\n#### I do not know\n8", None),
        ("7\n####", None),
    ],
)
def test_the_stated_number_comes_right_after_the_first_mark(answer: str, number: str | None) -> None:
    assert stated_number(answer) == number


def test_questions_in_gsm8k_s_format(tmp_path: Path) -> None:
    found = number_questions(asked.lines(tmp_path / "sums.jsonl", asked.SUMS))
    assert found[2] == NumberQuestion("What is 9+9?", "9+9=18\n#### 18", "18") and len(found) == 3


def test_a_line_ends_where_json_lines_do(tmp_path: Path) -> None:
    """A string may contain Unicode's line separator."""
    path = tmp_path / "sums.jsonl"
    path.write_text('{"question": "a\u2028b", "answer": "1"}\r\n', encoding="utf-8")
    assert number_questions(str(path)) == [NumberQuestion("a\u2028b", "1", "1")]


def test_choices_in_both_forms(tmp_path: Path) -> None:
    found = choice_questions(asked.lines(tmp_path / "choices.jsonl", asked.CHOICES))
    assert found == [
        ChoiceQuestion("Which is 3?", ["1+2", "9"], 0),
        ChoiceQuestion("Which is 7?", ["1", "2", "3+4"], 2),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no questions"),
        ('{"question": "a", "answer": "no number"}', "line 1 is not of this format .*no number"),
        ('\n{"question": "a"}', "line 2 is not of this format .*answer"),
        ("not JSON", "line 1 is not of this format"),
        ("[1]", "line 1 is not of this format"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "damaged.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        number_questions(str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.jsonl: cannot be read"):
        choice_questions(str(tmp_path / "nowhere.jsonl"))


def test_an_answer_key_that_is_no_choice(tmp_path: Path) -> None:
    row = {"question": "?", "choices": {"label": ["A"], "text": ["x"]}, "answerKey": "B"}
    with pytest.raises(ValueError, match="line 1"):
        choice_questions(asked.lines(tmp_path / "one.jsonl", [row]))
