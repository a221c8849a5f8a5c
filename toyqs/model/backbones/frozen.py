"""Weights that are never trained.

They are no parameters: optimiser, clipping, weight files and counts do not include them. Copies of a model
share them, and so do all cores that are built with the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


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
