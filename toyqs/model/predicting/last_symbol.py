"""Interpreters that read the last symbol of each thought alone: [start, s_l, end]."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from toyqs.model.interpreter import Afresh, AfreshEach
from toyqs.types import Thoughts


class LastSymbol(Afresh):
    """`Afresh` of thoughts of equal length: a symbol is read once, however many thoughts end in it."""

    def forward(self, thoughts: Thoughts, **others: Any) -> Tensor:
        """Return readings as `Afresh` does, of whole thoughts alone."""
        return super().forward(last_symbols(thoughts), **others)


class LastSymbolEach(AfreshEach):
    """`AfreshEach` of vectors, or of thoughts that differ in length."""

    def forward(self, thoughts: Thoughts, **others: Any) -> Tensor:
        """Return readings as `Afresh` does, of whole thoughts alone."""
        return super().forward(last_symbols(thoughts), **others)


def last_symbols(thoughts: Thoughts) -> Thoughts:
    """Return thoughts of their last symbol each, none where a thought has none."""
    symbols, length = thoughts.symbols, thoughts.length
    if length is None:
        return thoughts._replace(symbols=symbols[:, :, :, :, -1:])
    last = (length - 1).clamp(min=0).view(*length.shape, 1, *(1 for _ in symbols.shape[5:]))
    last = last.expand(*length.shape, 1, *symbols.shape[5:])
    return thoughts._replace(symbols=symbols.gather(4, last), length=length.clamp(max=1))
