"""Corpora of documents: a text file, JSON lines of texts or of questions, a data set of a hub."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from toyqs.assets.text import read_text

Item = TypeVar("Item")

KINDS = {type(None): "null", bool: "true or false", int: "a number", float: "a number", list: "a list"}


class Document(NamedTuple):
    """A text, and where the answer begins in one that is a question with its answer."""

    text: str
    answer: int | None = None


def read_documents(path: str) -> list[Document]:
    """Read the documents of a file: a UTF-8 text is one, each line of a .jsonl is one.

    A line is {"question": …, "answer": …}, as in GSM8K, or {"text": …}. `put` writes the question.

    Raises:
        ValueError: one line with task.path, the line's number and the remedy.
    """
    if path.endswith(".jsonl"):
        return read_json_lines(path, _document, "task.path=")
    return [Document(read_text(path))]


def read_json_lines(path: str, parse: Callable[[Any], Item], key: str = "") -> list[Item]:
    """Read a file of JSON lines; blank ones count, but are left out.

    Args:
        path: the file; "~" is the home folder.
        parse: makes an item of the JSON value of a line, or raises a ValueError.
        key: what stands before the path where it was typed.

    Raises:
        ValueError: one line that names the file and the line that is no JSON or that `parse` cannot take.
    """
    items = []
    for number, line in enumerate(read_text(path, key).split("\n"), start=1):
        try:
            items += [parse(json.loads(line))] if line.strip() else []
        except (ValueError, RecursionError) as error:
            why = "nested too deep" if isinstance(error, RecursionError) else str(error).splitlines()[0]
            raise ValueError(
                f"{key}{path}: line {number} is not of this format ({why}); mend the line"
            ) from error
    return items


def text_of(row: Any, name: str) -> str:
    """Return a text of a row.

    Raises:
        ValueError: the row is no JSON object, has no such text, or has something else in its place.
    """
    if not isinstance(row, Mapping) or name not in row:
        raise ValueError(f"it has no {name}" if isinstance(row, Mapping) else "it is no JSON object")
    text = row[name]
    if not isinstance(text, str):
        raise ValueError(f"{name} is {KINDS.get(type(text), 'an object')}, not a text")
    text.encode()  # half of a surrogate pair, which JSON can spell, is an error here
    return text


def hub_documents(name: str) -> list[Document]:
    """Load the documents of a data set's train split on the Hugging Face hub, owner/name or owner/name:part.

    Raises:
        ValueError: one line with task.dataset, the row's number and the remedy.
    """
    given = f"task.dataset={name}"
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ValueError(
            f"{given}: the package datasets is not installed; pip install datasets, or give task.path=FILE"
        ) from error
    dataset, _, part = name.partition(":")
    try:
        rows: Iterable[Any] = load_dataset(dataset, part or None, split="train")
        return [_hub_document(number, row) for number, row in enumerate(rows, start=1)]
    except Exception as error:  # the library has errors of its own, and of several others
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(f"{given}: cannot be loaded ({reason}); give task.path=FILE instead") from error


def _hub_document(number: int, row: Any) -> Document:
    try:
        return _document(row)
    except ValueError as error:
        raise ValueError(f"row {number}: {error}") from error


def put(question: str) -> str:
    """Return the prompt of a question, the same in training and afterwards; a space and the answer follow."""
    return f"Question: {question}\nAnswer:"


def _document(row: Any) -> Document:
    if isinstance(row, Mapping) and "question" in row and "text" not in row:
        asked = put(text_of(row, "question"))
        return Document(f"{asked} {text_of(row, 'answer')}", len(asked))
    return Document(text_of(row, "text"))
