"""The contract of every backbone: read a sequence, step a branch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from toyqs.model.layers import gather_rows
from toyqs.types import BranchState, QKClip

# The transformers (decoder.py) for which the law below is tested.
FAMILIES = ("gpt2", "llama", "mistral", "qwen2", "qwen3")


class Rows(NamedTuple):
    """Rows of a table that each seed has, gathered where they are used: a backbone need not keep them."""

    table: Tensor  # (S, n, I)
    ids: Tensor  # (S, B, T, K) or (S, B, T) long, each in [0, n)


def gathered(x: Tensor | Rows) -> Tensor:
    """Return the rows, (..., I)."""
    return x if isinstance(x, Tensor) else gather_rows(*x)


class Backbone(nn.Module, ABC):
    """A causal memory with a resumable branch point after every position.

    Its law, tested for each: reading a prefix and stepping the thought equals reading prefix and
    thought as one sequence (float64, 1e-12).

    I is the width of what `project_input` makes of an embedding; `read` and `step` consume such rows, so a
    table of symbols is projected once, not once for each use of a symbol.
    """

    width: int
    longest: int | None = None  # the number of its positions; None: any number
    worth_a_step = 0  # numbers of states that a further step has to spare, where equal branches may share it
    as_on_gpu = False  # makes the products that a GPU would: to count them where there is none
    qk_clip: QKClip | None = None  # of a transformer whose attention logits are kept small
    embedding_std = 1.0  # of the initial values of the embeddings that it reads

    @abstractmethod
    def project_input(self, embeddings: Tensor) -> Tensor:
        """Map embeddings (S, n, D) to the rows that `read` and `step` consume (S, n, I)."""

    @abstractmethod
    def read(self, x: Tensor | Rows, first: int = 0) -> tuple[Tensor, BranchState]:
        """Read sequences causally, from an empty memory.

        Args:
            x: (S, B, T, I); of rows in a table the ids are (S, B, T).
            first: the position of each sequence's first row; a backbone without positions ignores it.

        Returns:
            Outputs (S, B, T, D) and a branch point after every position (K = 1).
        """

    @abstractmethod
    def step(self, x: Tensor | Rows, state: BranchState) -> tuple[Tensor, BranchState]:
        """Let every branch consume one symbol.

        Args:
            x: (S, B, T, K, I); every axis but S broadcasts against the state's from 1.
            state: of the branches (s, b, t, k).

        Returns:
            Outputs (S, B, T, K, D) and the new state.
        """

    def follow(self, x: Rows, end: int, state: BranchState) -> tuple[Tensor, BranchState]:
        """Let every branch consume several symbols, and then a row of the table that is the same for all.

        Args:
            x: ids (S, B, T, K, L).
            end: of the last row.
            state: of the branches (s, b, t, k).

        Returns:
            Outputs (S, B, T, K, D) after the last row, and the state there.
        """
        for ids in x.ids.unbind(-1):
            _, state = self.step(Rows(x.table, ids), state)
        return self.step(x.table[:, end, None, None, None], state)

    def step_by_each(self, rows: Tensor, first: int, count: int, state: BranchState) -> BranchState:
        """Let every branch consume each row of a table from one on, in a branch of its own.

        Args:
            rows: (S, n, I).
            first: of the rows that are consumed.
            count: P, how many branches there are.
            state: of the branches (s, 1, p, 1), for one sequence of each seed.

        Returns:
            The state of the branches (s, 1, p · (n − first) + v, 1).
        """
        rows = rows[:, first:]
        parent = torch.arange(count, device=rows.device).repeat_interleave(rows.shape[1])
        state = self.gather(state, parent.expand(len(rows), 1, -1))
        return self.step(rows.repeat(1, count, 1)[:, None, :, None], state)[1]

    def empty(self, first: int = 0) -> BranchState | None:
        """Return a branch point (1, 1, 1, 1) that has read nothing, its next symbol at position `first`.

        None: a start state has to be learned.
        """
        return None

    def back_at_context(self, state: BranchState, later: int) -> BranchState:
        """Return the same state, with the next symbol at the position of the context's last one, or after it.

        A backbone without positions returns the state unchanged.

        Args:
            state: of branches that continue a context.
            later: how many positions after the context's last one, 0 or 1.
        """
        return state

    def as_context(self, state: BranchState) -> BranchState:
        """Return the same state of one branch per position, with its last symbol as the context's last token.

        A backbone without positions returns the state unchanged.
        """
        return state

    @abstractmethod
    def handover(self, num_seeds: int, width: int) -> nn.Module:
        """Return a learned linear map from this backbone's states to those of one of another width.

        Args:
            num_seeds: S.
            width: D of the other, which is equal in all else.
        """

    @abstractmethod
    def gather(self, state: BranchState, index: Tensor) -> BranchState:
        """Gather the branch points at the given positions.

        Args:
            state: of the branches (s, b, t, k).
            index: (S, B, T') long, positions t.
        """

    @abstractmethod
    def keep_ended(self, new: BranchState, old: BranchState, live: Tensor) -> BranchState:
        """Return the new state of live branches, and the old one of those that have ended.

        Args:
            new: of the branches (s, b, t, k).
            old: the same before a step; its axes broadcast from 1.
            live: (S, B, T, K) bool.
        """
