"""A checkpoint's tokeniser, with the thinking tokens or without, and a corpus cut by it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from toyqs.assets.documents import hub_documents, read_documents
from toyqs.tasks.reasoning.thinking_tokens import THINKING_TOKENS


class Cutter(NamedTuple):
    """A checkpoint's tokeniser, and where the ids of tokens that it lacks begin.

    They follow the rows of the checkpoint's table, which may be more than its tokeniser has tokens.
    """

    tokenizer: Any  # of the library, which numbers added tokens right after its own
    own: int  # tokens of the checkpoint's tokeniser
    rows: int  # of the checkpoint's table, `own` or more
    added: int  # tokens that were added

    @property
    def size(self) -> int:
        """Return the number of token ids."""
        return self.rows + self.added

    def cut(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Return the ids of each text's tokens, and where in the text each token begins and stops."""
        found = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        if not self.added:
            return [(x.ids, x.offsets) for x in found]
        gap = self.rows - self.own
        return [([i if i < self.own else i + gap for i in x.ids], x.offsets) for x in found]

    def text(self, ids: Iterable[int]) -> str:
        """Return the text of ids; those that stand for no token have none."""
        return str(self.tokenizer.decode([*map(self._known, ids)], skip_special_tokens=False))

    def texts(self) -> list[str]:
        """Return the text of each id alone."""
        each = [[self._known(i)] for i in range(self.size)]
        return list(self.tokenizer.decode_batch(each, skip_special_tokens=False))

    def names(self) -> list[str]:
        """Return the tokeniser's own name of each id, "" where it has none."""
        return [self.tokenizer.id_to_token(self._known(i)) or "" for i in range(self.size)]

    def _known(self, index: int) -> int:
        """Return an id as the library has it: one past all of its tokens where it has none."""
        if index < self.own or not self.added:
            return index
        return self.own + (index - self.rows if index >= self.rows else self.added)


@functools.lru_cache(maxsize=4)
def cutter_of(folder: Path, rows: int, thinking: bool) -> Cutter:
    """Return a checkpoint's tokeniser, read once.

    Args:
        folder: the checkpoint's.
        rows: that its config.json says its table has; the tokeniser may have more tokens.
        thinking: whether the thinking tokens that it lacks are added.

    Raises:
        ValueError: as `tokenizer_of`.
    """
    found = tokenizer_of(folder)
    own = found.get_vocab_size()
    lacking = [x for x in THINKING_TOKENS if found.token_to_id(x) is None] if thinking else []
    if lacking:
        from tokenizers import AddedToken

        found.add_tokens([AddedToken(x, normalized=False) for x in lacking])
    return Cutter(found, own, max(own, rows), len(lacking))


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
    cutter: Cutter,
    version: tuple[int, int] | None,
    end: tuple[int, ...],
) -> Encoded:
    """Cut a corpus into tokens, once.

    Args:
        path: of a file; None: `dataset` names the corpus.
        dataset: of the hub.
        cutter: the checkpoint's tokeniser.
        version: of the file, see `file_version`.
        end: the id after each document, if there is one.
    """
    documents = read_documents(path) if path is not None else hub_documents(str(dataset))
    found = cutter.cut([x.text for x in documents])
    rows = [[*ids, *end] for ids, _ in found]
    lengths = torch.tensor([0, *map(len, rows)])
    ids = torch.tensor([i for row in rows for i in row], dtype=torch.int32)
    # the tokens that reach beyond where the answer begins
    answers = [
        sum(stop > document.answer for _, stop in offsets)
        for document, (_, offsets) in zip(documents, found, strict=True)
        if document.answer is not None
    ]
    known = bool(documents) and len(answers) == len(documents)
    return Encoded(ids, lengths.cumsum(0)[:-1], torch.tensor(answers) if known else None)


def tokenizer_of(folder: Path) -> Any:
    """Read a checkpoint's tokeniser.

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
