"""Weights that are read and never trained.

They are no parameters: optimiser, clipping, weight files and counts know nothing of them. Copies of a model
share them, and so do all cores that are given the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class Frozen(nn.Module):
    """Named tensors without a seed axis."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.sharded = False  # true: this process has only a part of those that layers gather: sharding.py
        for name, tensor in tensors.items():
            self.register_buffer(self.attribute(name), tensor, persistent=False)

    @staticmethod
    def attribute(name: str) -> str:
        """Under which a tensor of this name stands here."""
        return name.replace(".", "/")

    def tensors(self) -> dict[str, Tensor]:
        """Name -> tensor."""
        return {name.replace("/", "."): tensor for name, tensor in self.named_buffers()}

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen:
        return self
