"""Cores that hear continuous and relaxed thought symbols, where `Core` looks up ids."""

from __future__ import annotations

from torch import Tensor

from toyqs.model.core import FIRST_SYMBOL, START, Core, marker
from toyqs.model.layers import Table, mix_rows
from toyqs.types import BranchState


class RelaxedCore(Core):
    """Symbols are weights of the thought symbols (S, B, T, K, V): what is heard is the weighted row."""

    def hear(self, symbols: Tensor, rows: Tensor) -> Tensor:
        """(S, B, T, K, I): Σ_v weight_v · row_v."""
        return mix_rows(rows[:, FIRST_SYMBOL:], symbols)


class LatentCore(Core):
    """Symbols are vectors (S, B, T, K, Z); the thought table has a row for each of their Z numbers.

    embedding = Σ_z s_z · row_z
    """

    def symbol_table(self) -> Table | None:
        """None: no symbol is a row."""
        return None

    def hear(self, symbols: Tensor, rows: Tensor) -> Tensor:
        """(S, B, T, K, I)."""
        assert self.thoughts is not None
        return self._past_inlet(mix_rows(self.thoughts.weight, symbols))

    def _past_inlet(self, embeddings: Tensor) -> Tensor:
        return self.backbone.inlet(embeddings.flatten(1, -2)).view(*embeddings.shape[:-1], -1)


class StateCore(LatentCore):
    """Symbols are states drawn in place of the reasoner's own (S, B, T, K, D).

    The drawn state replaces the state, and the step from it has the start marker, a learned constant, as
    its input; only an interpreter that starts afresh hears the drawn numbers. For backbones whose state
    is their output vector.
    """

    def consume(self, symbols: Tensor, rows: Tensor, state: BranchState) -> tuple[Tensor, BranchState]:
        """A step from the drawn state."""
        return self.backbone.step(marker(rows, START), symbols)


class EchoCore(LatentCore):
    """Symbols are the reasoner's states (S, B, T, K, D), fed back as embeddings as they are."""

    def hear(self, symbols: Tensor, rows: Tensor) -> Tensor:
        """(S, B, T, K, I)."""
        return self._past_inlet(symbols)
