"""Low-rank adapters: the trained parameters of a core whose decoder is frozen."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from toyqs.model.layers import SeedStacked, uniform
from toyqs.types import Maps

SCALE = 2.0  # α / R: peft's lora_alpha is twice the rank
ADAPTED = ("Linear", "Conv1D")  # the library's affine maps; GPT-2's are called Conv1D


class Adapter(SeedStacked):
    """output + α / R · B A input, added to one affine map: A (1, R, in), B (1, out, R) and 0 at first.

    Source: Hu et al. 2021, "LoRA: Low-rank adaptation of large language models".
    """

    matrices: Mapping[str, Maps] = {"A": Maps(outputs=1), "B": Maps(outputs=1)}

    def __init__(self, width: int, out: int, rank: int) -> None:
        super().__init__()
        self.down = self.declare("A", (1, rank, width), uniform(1.0 / math.sqrt(width)))
        self.up = self.declare("B", (1, out, rank), lambda values, _: values.zero_())

    def hook(self, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        """Add the adapter's term to the map's output; registered as the map's forward hook."""
        inner = inputs[0] @ self.down[0].t()
        return output + SCALE * (inner @ self.up[0].t())


def adapted(module: nn.Module, rank: int) -> nn.Module:
    """Add an adapter to every affine map of the library's modules.

    Args:
        module: of the library; hooks are registered in it.
        rank: R.

    Returns:
        The adapters, in a tree of the modules' names.
    """
    if type(module).__name__ in ADAPTED:
        out, width = _sizes(module)
        adapter = Adapter(width, out, rank)
        module.register_forward_hook(adapter.hook)
        return adapter
    tree = nn.Module()
    for name, child in module.named_children():
        inner = adapted(child, rank)
        if next(inner.parameters(), None) is not None:
            tree.add_module(name, inner)
    return tree


def _sizes(module: nn.Module) -> tuple[int, int]:
    """Return the numbers of outputs and inputs of an affine map; a Conv1D's matrix is transposed."""
    first, second = module.weight.shape  # type: ignore[misc]
    return (first, second) if type(module).__name__ == "Linear" else (second, first)
