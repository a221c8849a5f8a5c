"""A checkpoint's tokeniser, and a corpus cut by it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from toyqs.assets.documents import hub_documents, read_documents


class Encoded(NamedTuple):
    """A corpus as ids: its documents one after another, each with the end-of-text token after it."""

    ids: Tensor  # (number of tokens,) int32
    starts: Tensor  # (number of documents,) long, where each begins
    answers: Tensor | None  # (number of documents,) long, tokens of each one's answer; None: some have none


def file_version(path: str) -> tuple[int, int] | None:
    """Return the size and time of a file, by which a changed one is noticed; None where there is none."""
    try:
        status = Path(path).expanduser().stat()
    except (OSError, RuntimeError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=4)
def encoded(
    path: str | None,
    dataset: str | None,
    folder: Path,
    version: tuple[int, int] | None,
    end: tuple[int, ...],
) -> Encoded:
    """Cut a corpus into tokens, once.

    Args:
        path: of a file; None: `dataset` names the corpus.
        dataset: of the hub.
        folder: the checkpoint's.
        version: of the file, see `file_version`.
        end: the id after each document, if there is one.
    """
    documents = read_documents(path) if path is not None else hub_documents(str(dataset))
    found = tokenizer_of(folder).encode_batch([x.text for x in documents], add_special_tokens=False)
    rows = [[*x.ids, *end] for x in found]
    lengths = torch.tensor([0, *map(len, rows)])
    ids = torch.tensor([i for row in rows for i in row], dtype=torch.int32)
    # the tokens that reach beyond where the answer begins
    answers = [
        sum(stop > document.answer for _, stop in x.offsets)
        for document, x in zip(documents, found, strict=True)
        if document.answer is not None
    ]
    known = bool(documents) and len(answers) == len(documents)
    return Encoded(ids, lengths.cumsum(0)[:-1], torch.tensor(answers) if known else None)


@functools.lru_cache(maxsize=4)
def tokenizer_of(folder: Path) -> Any:
    """Read a checkpoint's tokeniser, once.

    Raises:
        ValueError: one line, where the package is missing or the file is damaged.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ValueError(
            "task=token_text: the package tokenizers is not installed; pip install -e '.[transformer]'"
        ) from error
    file = tokenizer_file(folder)
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more special
        raise ValueError(
            f"task.tokenizer={folder}: its tokenizer.json is damaged; give another checkpoint"
        ) from error


def tokenizer_file(folder: Path) -> Path:
    """Return the path of a checkpoint's tokenizer.json.

    Raises:
        ValueError: one line, where there is none.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ValueError(f"task.tokenizer={folder}: holds no tokenizer.json; give another checkpoint")
    return file
