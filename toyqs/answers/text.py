"""Text as tokens: what maps one to the other, and a text in two parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor


class Text(Protocol):
    """A task on a text, as far as it maps text to tokens and back."""

    @property
    def ends(self) -> Sequence[int]:
        """Return the ids that each end a document; the first stands between documents in training."""
        ...

    def encode(self, text: str) -> Tensor:
        """Return the token ids of a text, (n,) long."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids."""
        ...


def encode_context(text: Text, before: str) -> Tensor:
    """Return the ids (m,) long of what a text follows, m ≥ 1.

    Where there is nothing, it is the end of the document before, or a line break in a task without one.
    """
    return _never_empty(text, text.encode(before))


def encode_pair(text: Text, before: str, after: str) -> tuple[Tensor, Tensor]:
    """Encode a text and its continuation as one text, as in training, and return the ids of each.

    The first part ends where lm-eval ends it: blanks at its end go to the continuation, with which tokenisers
    begin a word. The continuation begins earlier where a token crosses the border: no character of it goes
    unscored, and the ids of both are those of one text.

    Returns:
        (m,) long, m ≥ 1, and (n,) long.
    """
    whole, alone = text.encode(before + after), text.encode(before.rstrip())
    size = min(len(whole), len(alone))
    shared = int((whole[:size] == alone[:size]).cumprod(0).sum())
    return _never_empty(text, whole[:shared]), whole[shared:]


def _never_empty(text: Text, ids: Tensor) -> Tensor:
    if len(ids):
        return ids
    return torch.tensor(text.ends[:1], dtype=torch.long) if text.ends else text.encode("\n")
