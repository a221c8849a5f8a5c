"""Weights that are never trained.

They are no parameters: optimiser, clipping, weight files and counts do not include them. Copies of a model
share them, and so do all cores that are built with the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from toyqs.model.layers import SeedStacked


class Frozen(nn.Module):
    """Named tensors without a seed axis."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name.replace(".", "/"), tensor, persistent=False)

    def tensors(self) -> dict[str, Tensor]:
        """Return name -> tensor."""
        return {name.replace("/", "."): tensor for name, tensor in self.named_buffers()}

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen:
        return self


class FrozenTable(nn.Module):
    """Rows that are not trained, such as token embeddings: (1, n, D), as in an `Embedding` of one seed."""

    weight: Tensor

    def __init__(self, rows: Tensor) -> None:
        """Take rows (n, D)."""
        super().__init__()
        self.register_buffer("weight", rows.unsqueeze(0), persistent=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenTable:
        return self


class ExtendedTable(SeedStacked):
    """Rows that are not trained, and after them learned ones of new tokens: (1, n + m, D)."""

    def __init__(self, rows: FrozenTable, count: int) -> None:
        """Take the rows (1, n, D) that are not trained, and m; the learned ones start as `mean_rows`."""
        super().__init__()
        self.rows = rows
        shape = (1, count, rows.weight.shape[-1])
        self.added = self.declare("added", shape, lambda values, _: mean_rows(rows.weight[0], count))

    @property
    def weight(self) -> Tensor:
        """Return all rows, (1, n + m, D)."""
        rows = self.rows.weight.to(self.added.device)  # meta where only sizes are asked for
        return torch.cat([rows, self.added], dim=1)


TokenTable = FrozenTable | ExtendedTable


def with_rows(table: FrozenTable, count: int) -> TokenTable:
    """Return a table with learned rows for `count` new tokens after its own; without new tokens, itself."""
    return ExtendedTable(table, count) if count else table


def mean_rows(rows: Tensor, count: int) -> Tensor:
    """Return what the rows of new tokens start as: the mean of the others, rows (n, D) -> (count, D) float64.

    The logit of a new token is then the mean of the others', and its probability at most 1 / n: what was
    predicted before the tokens came hardly changes.

    Source: Hewitt 2021, "Initializing new word embeddings for pretrained language models".
    """
    return rows.double().mean(0, keepdim=True).expand(count, -1)
