"""The contract that every memory keeps: read a sequence, step a branch."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from toyqs.types import BranchState

# Of transformers (model/decoder.py): those for which the law below is tested.
FAMILIES = ("gpt2", "llama", "mistral", "qwen2", "qwen3")


class Backbone(nn.Module, ABC):
    """A causal memory with a resumable branch point after every position.

    Its law, tested for each: reading a prefix and stepping the thought equals reading prefix and
    thought as one sequence (float64, 1e-12).

    I is the width of what `inlet` makes of an embedding; `read` and `step` consume such rows, so a
    table of symbols passes the inlet once, not once for each use of a symbol.
    """

    width: int
    longest: int | None = None  # positions that it tells apart; None: any number
    embedding_std = 1.0  # of the initial values of what it reads

    @abstractmethod
    def project_input(self, embeddings: Tensor) -> Tensor:
        """Embeddings (S, n, D) -> the rows that `read` and `step` consume (S, n, I)."""

    @abstractmethod
    def read(self, x: Tensor) -> tuple[Tensor, BranchState]:
        """Read sequences causally, from an empty memory.

        Args:
            x: (S, B, T, I).

        Returns:
            Outputs (S, B, T, D) and a branch point after every position (K = 1).
        """

    @abstractmethod
    def step(self, x: Tensor, state: BranchState) -> tuple[Tensor, BranchState]:
        """Every branch consumes one symbol.

        Args:
            x: (S, B, T, K, I); every axis but S broadcasts against the state's from 1.
            state: of the branches (s, b, t, k).

        Returns:
            Outputs (S, B, T, K, D) and the new state.
        """

    def empty(self) -> BranchState | None:
        """A branch point (1, 1, 1, 1) of a memory that has read nothing; None: such a start is learned."""
        return None

    def back_at_context(self, state: BranchState, later: int) -> BranchState:
        """The same memory, the next symbol's position that of the context's last one.

        Where a memory knows no positions it is as it was.

        Args:
            state: of branches that go on from a context.
            later: how many positions after that one, 0 or 1.
        """
        return state

    def as_context(self, state: BranchState) -> BranchState:
        """The same memory of one branch at each position, its last symbol a token of the context.

        Where a memory knows no positions it is as it was.
        """
        return state

    @abstractmethod
    def gather(self, state: BranchState, index: Tensor) -> BranchState:
        """The branch points at the given positions.

        Args:
            state: of the branches (s, b, t, k).
            index: (S, B, T') long, positions t.
        """

    @abstractmethod
    def keep_ended(self, new: BranchState, old: BranchState, live: Tensor) -> BranchState:
        """The new state of live branches, the old one of those that have ended.

        Args:
            new: of the branches (s, b, t, k).
            old: the same before a step; its axes broadcast from 1.
            live: (S, B, T, K) bool.
        """
