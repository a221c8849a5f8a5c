"""Corpora of documents: a text file, questions with answers, a data set of a hub."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from toyqs.assets.text import read_text


def read_documents(path: str) -> list[str]:
    """Read the documents of a file: a UTF-8 text is one, each line of a .jsonl is one.

    A line is {"question": …, "answer": …}, as in GSM8K, or {"text": …}. `put` writes the question.

    Raises:
        ValueError: one line with task.path and the remedy.
    """
    text = read_text(path)
    if not path.endswith(".jsonl"):
        return [text]
    try:
        return [_document(json.loads(line)) for line in text.split("\n") if line.strip()]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"task.path={path}: has a line without question and answer, or text ({error}); give JSON lines "
            "as GSM8K has them"
        ) from error


def hub_documents(name: str) -> list[str]:
    """Load the documents of a data set's train split on the Hugging Face hub, owner/name or owner/name:part.

    Raises:
        ValueError: one line with task.dataset and the remedy.
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
        rows: Iterable[Mapping[str, Any]] = load_dataset(dataset, part or None, split="train")
        return [_document(row) for row in rows]
    except Exception as error:  # the library has errors of its own, and of several others
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(f"{given}: cannot be loaded ({reason}); give task.path=FILE instead") from error


def put(question: str) -> str:
    """Return the prompt of a question, the same in training and afterwards; a space and the answer follow."""
    return f"Question: {question}\nAnswer:"


def _document(row: Mapping[str, Any]) -> str:
    return str(row["text"]) if "text" in row else f"{put(row['question'])} {row['answer']}"
