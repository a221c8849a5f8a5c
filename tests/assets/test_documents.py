"""Texts and JSON lines: the byte-order mark, what is no text, what has no end."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.answers import asked
from toyqs.answers.questions import choice_questions, number_questions
from toyqs.assets.documents import hub_documents, read_documents
from toyqs.assets.text import read_text
from toyqs.config.identity import run_key
from toyqs.config.run_config import RunConfig
from toyqs.tasks.texts.char_text import CharText

BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"
DEEP = "[" * 100_000

# What stands in the place of a text, as JSON -> what is said of it.
NO_TEXT = {
    "null": "is null",
    "[1, 2]": "is a list",
    "{}": "is an object",
    "7": "is a number",
    "true": "is true or false",
    '"\\ud800"': "surrogates not allowed",
}


def test_a_text_is_the_same_with_and_without_a_byte_order_mark(tmp_path: Path) -> None:
    text = f"hello\r\nworld {BOM} 1234567890 " * 20
    plain, marked = tmp_path / "plain.txt", tmp_path / "marked.txt"
    plain.write_bytes(text.encode())
    marked.write_bytes((BOM + text).encode())
    assert read_text(str(marked)) == read_text(str(plain)) == text, "only the mark at the start is none of it"
    keys = {run_key(RunConfig(task=CharText(path=str(path)), seq_len=4), 0) for path in (plain, marked)}
    assert len(keys) == 1


def test_json_lines_are_the_same_with_and_without_a_byte_order_mark(tmp_path: Path) -> None:
    for read, rows in (
        (number_questions, asked.SUMS),
        (choice_questions, asked.CHOICES),
        (read_documents, asked.SUMS),
    ):
        path = Path(asked.lines(tmp_path / "rows.jsonl", rows))
        plain = read(str(path))
        path.write_text(BOM + path.read_text(encoding="utf-8"), encoding="utf-8")
        assert read(str(path)) == plain and len(plain) == len(rows)


@pytest.mark.parametrize(("value", "says"), NO_TEXT.items())
@pytest.mark.parametrize(
    ("read", "row", "name"),
    [
        (read_documents, '{"text": VALUE}', "text"),
        (read_documents, '{"question": VALUE, "answer": "1"}', "question"),
        (read_documents, '{"question": "a", "answer": VALUE}', "answer"),
        (number_questions, '{"question": VALUE, "answer": "1"}', "question"),
        (number_questions, '{"question": "a", "answer": VALUE}', "answer"),
        (choice_questions, '{"question": VALUE, "choices": [], "answerKey": "A"}', ""),
        (
            choice_questions,
            '{"question": {"stem": VALUE, "choices": [{"label": "A", "text": "b"}]}, "answerKey": "A"}',
            "stem",
        ),
        (
            choice_questions,
            '{"question": "a", "choices": [{"label": "A", "text": VALUE}], "answerKey": "A"}',
            "text",
        ),
        (
            choice_questions,
            '{"question": "a", "choices": {"label": [VALUE], "text": ["b"]}, "answerKey": "A"}',
            "label",
        ),
        (
            choice_questions,
            '{"question": "a", "choices": {"label": ["A"], "text": ["b"]}, "answerKey": VALUE}',
            "answerKey",
        ),
    ],
)
def test_only_a_text_is_a_text(
    value: str, says: str, read: Callable[[str], Any], row: str, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n" + row.replace("VALUE", value) + "\n", encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        read(str(path))
    said = str(caught.value)
    assert f"{path}: line 2 is not of this format (" in said and "\n" not in said
    assert value == '"\\ud800"' or not name or f"{name} {says}" in said, said


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (DEEP, "nested too deep"),
        (f'{{"text": "a", "more": {DEEP}', "nested too deep"),
        ("[1]", "it is no JSON object"),
        ("null", "it is no JSON object"),
        ('{"answer": "a"}', "it has no text"),
    ],
)
def test_what_is_no_document_is_named_with_its_line(row: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"text": "a"}}\n{row}\n', encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        read_documents(str(path))
    assert str(caught.value) == f"task.path={path}: line 2 is not of this format ({says}); mend the line"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"question": "a", "answerKey": "A"}', "choices is no list"),
        ('{"question": "a", "choices": {"label": "A", "text": ["b"]}, "answerKey": "A"}', "label is no list"),
        ('{"question": "a", "choices": [null], "answerKey": "A"}', "it is no JSON object"),
        ('{"question": "a", "choices": [], "answerKey": "A"}', "answerKey A is none of the labels"),
        (DEEP, "nested too deep"),
    ],
)
def test_what_is_no_question_is_named_with_its_line(row: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(row, encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        choice_questions(str(path))
    assert str(caught.value) == f"{path}: line 1 is not of this format ({says}); mend the line"


def test_a_row_of_a_hub_that_has_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": "a"}, {"text": None}]
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=lambda *_, split: rows))
    with pytest.raises(ValueError, match=r"task\.dataset=x/y: .*\(row 2: text is null, not a text\)"):
        hub_documents("x/y")


@pytest.mark.parametrize("kind", ["pipe", "/dev/zero"])
@pytest.mark.parametrize(
    ("read", "key"),
    [
        (lambda path: CharText(path=path).check(4), "task.path="),
        (read_documents, "task.path="),
        (number_questions, ""),
    ],
)
def test_what_may_have_no_end_is_not_read(
    kind: str, read: Callable[[str], object], key: str, tmp_path: Path
) -> None:
    path = kind
    if kind == "pipe":
        path = str(tmp_path / "pipe.jsonl")
        os.mkfifo(path)
    with pytest.raises(ValueError) as caught:
        read(path)
    reason = "cannot be read (a pipe or a device, which may have no end)"
    assert str(caught.value) == f"{key}{path}: {reason}; give {key}FILE, a text file"


def test_rows_that_are_right_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "a\u2028b"}) + "\n\n" + json.dumps({"text": ""}), encoding="utf-8")
    assert [x.text for x in read_documents(str(path))] == ["a\u2028b", ""]


def test_windows_of_a_text_are_no_longer_than_other_sequences(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("ab" * 200_000)
    CharText(path=str(path)).check(10_000)
    with pytest.raises(ValueError, match=r"^seq_len=10001: makes sequences of 10001 positions"):
        CharText(path=str(path)).check(10_001)
