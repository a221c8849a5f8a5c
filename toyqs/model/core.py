"""The core: backbone and tables that the roles of one weight group share."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from toyqs.model.backbones.backbone import Backbone, Rows
from toyqs.model.backbones.frozen import TokenTable
from toyqs.model.layers import Embedding, mix_rows, nearest_rows
from toyqs.model.markers import Markers
from toyqs.types import BranchState


class Core(nn.Module):
    """A backbone with the embedding tables that its roles need.

    Thinking adds two markers to the inputs, start and end of thought. They are never outputs: the end that a
    reasoner may sample is an output of its head alone, and the interpreter then reads this end marker.
    """

    def __init__(
        self,
        num_seeds: int,
        backbone: Backbone,
        *,
        num_tokens: int,
        num_thought_symbols: int,
        markers: Markers | None,
        frozen_tokens: TokenTable | None = None,
    ) -> None:
        """Build the tables.

        Args:
            num_seeds: S.
            backbone: of any width D.
            num_tokens: rows of the token table; 0: no role reads tokens.
            num_thought_symbols: rows of a thought table of its own; 0: thought symbols, if any, are
                tokens and share their table.
            markers: None: no role thinks or reads thoughts.
            frozen_tokens: a token table that is not trained, but for rows of new tokens, in place of one
                that is.
        """
        super().__init__()
        self.backbone = backbone
        width, std = backbone.width, backbone.embedding_std
        self.tokens: Embedding | TokenTable | None = None
        if num_tokens:
            self.tokens = frozen_tokens or Embedding(num_seeds, num_tokens, width, std)
        self.thoughts = Embedding(num_seeds, num_thought_symbols, width, std) if num_thought_symbols else None
        self.markers = markers
        self.forgets = (
            False  # whether a symbol's step begins from a blank state, in a Markov chain of symbols
        )

    def token_rows(self) -> Tensor:
        """Return the tokens as inputs of the backbone, (S, V, I)."""
        assert self.tokens is not None
        return self.backbone.project_input(self.tokens.weight)

    def thought_rows(self) -> Tensor:
        """Return start marker, end marker, thought symbols as inputs of the backbone, (S, 2 + symbols, I)."""
        assert self.markers is not None
        symbols = self.symbol_table()
        markers = self.markers.rows()
        tables = (markers,) if symbols is None else (markers, symbols.weight)
        return self.backbone.project_input(torch.cat(tables, dim=1))

    def symbol_table(self) -> Embedding | TokenTable | None:
        """Return the table of the thought symbols; None: symbols are vectors, not rows of a table."""
        return self.thoughts or self.tokens

    def embed_symbols(self, symbols: Tensor, rows: Tensor) -> Tensor | Rows:
        """Return thought symbols as inputs of the backbone.

        Args:
            symbols: (S, B, T, K) long.
            rows: from `thought_rows`.

        Returns:
            (S, B, T, K, I).
        """
        return Rows(rows, symbols + FIRST_SYMBOL)

    def nearest_tokens(self, symbols: Tensor) -> Tensor | None:
        """Return the token whose embedding is nearest to each symbol's (largest cosine).

        Args:
            symbols: (S, B, T, K, Z), vectors.

        Returns:
            (S, B, T, K) long; None where symbols are no vectors, or tokens or symbols are not read here.
        """
        return None

    def step_symbols(self, symbols: Tensor, rows: Tensor, state: BranchState) -> tuple[Tensor, BranchState]:
        """Let every branch consume its symbol; return outputs (S, B, T, K, D) and the new state."""
        return self.backbone.step(
            self.embed_symbols(symbols, rows), self._blank(rows) if self.forgets else state
        )

    def _blank(self, rows: Tensor) -> BranchState:
        """Return the state of a branch that has read nothing: an empty one, or zeros."""
        empty = self.backbone.empty()
        return rows.new_zeros(len(rows), 1, 1, 1, self.backbone.width) if empty is None else empty


def step_live(
    core: Core, symbols: Tensor, rows: Tensor, state: BranchState, live: Tensor | None
) -> tuple[Tensor, BranchState]:
    """Step the live branches; those whose thought has ended keep their state.

    Args:
        core: whose `step_symbols` it is.
        symbols: (S, B, T, K, ...); any where a branch has ended.
        rows: from `thought_rows`.
        state: of the branches.
        live: (S, B, T, K) bool; None: all are live.

    Returns:
        Outputs (S, B, T, K, D), without meaning where a branch has ended, and the new state.
    """
    if live is None:
        return core.step_symbols(symbols, rows, state)
    outputs, new = core.step_symbols(where_live(live, symbols, 0), rows, state)
    return outputs, core.backbone.keep_ended(new, state, live)


def where_live(live: Tensor, x: Tensor, otherwise: float) -> Tensor:
    """Return x (S, B, T, K, ...) where live (S, B, T, K), elsewhere a number."""
    return torch.where(live.view(*live.shape, *(1 for _ in x.shape[4:])), x, otherwise)


START, END, FIRST_SYMBOL = 0, 1, 2  # rows of Core.thought_rows


def marker(rows: Tensor, row: int) -> Tensor:
    """Pick one of `thought_rows` as the input of every branch: (S, n, I) -> (S, 1, 1, 1, I)."""
    return rows[:, row, None, None, None]


class RelaxedCore(Core):
    """A core for relaxed symbols, weights (S, B, T, K, V) of the table's rows: their weighted sum is read."""

    def embed_symbols(self, symbols: Tensor, rows: Tensor) -> Tensor:
        """Return Σ_v weight_v · row_v, (S, B, T, K, I)."""
        return mix_rows(rows[:, FIRST_SYMBOL:], symbols)


class LatentCore(Core):
    """A core for vectors (S, B, T, K, Z); the thought table has a row for each of their Z numbers.

    embedding = Σ_z s_z · row_z
    """

    needs_table: ClassVar[bool] = True  # without one symbols are not read

    def symbol_table(self) -> Embedding | None:
        """Return None: no symbol is a row."""
        return None

    def embed_symbols(self, symbols: Tensor, rows: Tensor) -> Tensor:
        """Return thought symbols as inputs of the backbone, (S, B, T, K, I)."""
        return self._project(self.embedded(symbols))

    def embedded(self, symbols: Tensor) -> Tensor:
        """Return thought symbols as embeddings, (S, B, T, K, D)."""
        assert self.thoughts is not None
        return mix_rows(self.thoughts.weight, symbols)

    def nearest_tokens(self, symbols: Tensor) -> Tensor | None:
        """Return the token whose embedding is nearest to each symbol's; see `Core.nearest_tokens`."""
        if self.tokens is None or (self.needs_table and self.thoughts is None):
            return None
        return nearest_rows(self.tokens.weight, self.embedded(symbols))

    def _project(self, embeddings: Tensor) -> Tensor:
        return self.backbone.project_input(embeddings.flatten(1, -2)).view(*embeddings.shape[:-1], -1)


class StateCore(LatentCore):
    """A core for states (S, B, T, K, D) sampled in place of the reasoner's own.

    The sampled state replaces the state, and the step from it has the start marker, a learned constant, as
    its input; only an interpreter that starts afresh reads the sampled numbers. For backbones whose state
    is their output vector.
    """

    def step_symbols(self, symbols: Tensor, rows: Tensor, state: BranchState) -> tuple[Tensor, BranchState]:
        """Step from the sampled state."""
        return self.backbone.step(marker(rows, START), symbols)


class EchoCore(LatentCore):
    """A core for the reasoner's states (S, B, T, K, D), fed back as embeddings.

    One of another width than the reasoner's has a thought table, which maps the states to its own.
    """

    needs_table: ClassVar[bool] = False

    def embedded(self, symbols: Tensor) -> Tensor:
        """Return the states as embeddings, (S, B, T, K, D)."""
        return symbols if self.thoughts is None else super().embedded(symbols)
