"""Weights of which each of several processes keeps a part: fully sharded data parallel.

Of a layer of a decoder each process keeps one of N equal parts of every weight, and with it that part's
gradient and moments. The weights are whole only while the layer runs: they are gathered before it, and again
for its backward pass; the gradient that it leaves is added up over all processes and cut into their parts.

torch's own `fully_shard` does this to a module that owns its weights, by hooks before and after it. Here
weights are lent to the library's code, in several calls of one step, and gathering is a function with a
gradient instead, as in Zhang et al. 2024, "SimpleFSDP: Simpler fully sharded data parallel with
torch.compile".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from toyqs.model.layers import Stacked

Gather = Callable[[Tensor], Tensor]  # the processes' equal parts (n,) -> (N n,); its gradient is that of all


class Place(NamedTuple):
    """One process among those that share weights."""

    rank: int
    ranks: int  # N
    gather: Gather


class Owned(NamedTuple):
    """Where a weight stands."""

    owner: nn.Module
    attribute: str


class Last:
    """The weights that were last gathered for a backward pass: most operations of a layer want some."""

    def __init__(self) -> None:
        self.layer: Shards | None = None
        self.weights: dict[str, Tensor] = {}

    def forget(self) -> None:
        """They may have changed since."""
        self.layer, self.weights = None, {}


class _Note(NamedTuple):
    """In place of a weight, or of a view of one, that is kept for the backward pass."""

    name: str
    size: torch.Size
    stride: tuple[Any, ...]
    offset: Any


class Shards:
    """This process's part of the weights of one layer."""

    def __init__(
        self,
        owned: Mapping[str, Owned],
        shapes: Mapping[str, torch.Size],
        gather: Gather,
        last: Last,
        coarse: bool,
    ) -> None:
        """Take the place of a layer's weights.

        Args:
            owned: name in the layer -> where the part of it stands.
            shapes: name -> shape of the whole, without the seed axis.
            gather: of one call for all of them.
            last: one for all layers of a decoder.
            coarse: whether matrices are wanted in bfloat16. Autocast would round them too, but keep what it
                makes for the backward pass.
        """
        self.owned, self.shapes, self.gather, self.last, self.coarse = owned, shapes, gather, last, coarse

    def gathered(self) -> dict[str, Tensor]:
        """The layer's weights by their names, whole."""
        self.last.forget()
        return self._gathered()

    def _gathered(self) -> dict[str, Tensor]:
        parts = [getattr(*owned).flatten() for owned in self.owned.values()]
        rows = self.gather(torch.cat(parts)).view(-1, sum(part.numel() for part in parts))
        columns = rows.split([part.numel() for part in parts], 1)
        wholes = {}
        for (name, shape), column in zip(self.shapes.items(), columns, strict=True):
            whole = from_parts(column.flatten(), shape)
            wholes[name] = whole.bfloat16() if self.coarse and len(shape) > 1 else whole
        return wholes

    @contextmanager
    def let_go(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """What is done within keeps no weight for the backward pass, which gathers them again.

        Args:
            weights: of `gathered`.
        """
        names = {weight.untyped_storage().data_ptr(): name for name, weight in weights.items()}

        def note(tensor: Tensor) -> Tensor | _Note:
            name = names.get(tensor.untyped_storage().data_ptr())
            if name is None:
                return tensor
            return _Note(name, tensor.size(), tensor.stride(), tensor.storage_offset())

        def found(kept: Tensor | _Note) -> Tensor:
            if isinstance(kept, Tensor):
                return kept
            if self.last.layer is not self:
                with torch.no_grad():
                    self.last.layer, self.last.weights = self, self._gathered()
            return self.last.weights[kept.name].as_strided(kept.size, kept.stride, kept.offset)

        with saved_tensors_hooks(note, found):
            yield


def shard(owned: Owned, place: Place) -> None:
    """Keep of a weight (1, ...) or of a frozen one this process's part (1, n) alone.

    Parts are equally long; what the last ones hold beyond the weight is 0 and stays 0.
    """
    weight = getattr(*owned)
    part = part_of(weight.detach(), place.rank, place.ranks).unsqueeze(0)
    if isinstance(weight, nn.Parameter):
        assert isinstance(owned.owner, Stacked)
        owned.owner.wholes[owned.attribute] = weight.shape
        part = nn.Parameter(part)
    setattr(*owned, part)


def sharded(model: nn.Module) -> dict[str, torch.Size]:
    """The parameters of which only a part is here: name -> shape of the whole."""
    return {
        f"{path}.{name}": shape
        for path, module in model.named_modules()
        if isinstance(module, Stacked)
        for name, shape in module.wholes.items()
    }


def whole_parameters(model: nn.Module, gather: Gather) -> Iterator[tuple[str, Tensor]]:
    """All parameters by name, whole, one after another; all processes take them together."""
    shapes = sharded(model)
    for name, parameter in model.named_parameters():
        values = parameter.detach()
        if shape := shapes.get(name):
            values = from_parts(gather(values.flatten()), shape)
        yield name, values


def part_of(whole: Tensor, rank: int, ranks: int) -> Tensor:
    """One of so many equal parts (n,) of a tensor's elements, filled up with zeros; a copy."""
    flat = whole.flatten()
    part = flat.new_zeros(-(-len(flat) // ranks))
    mine = flat[rank * len(part) : (rank + 1) * len(part)]
    part[: len(mine)] = mine
    return part


def from_parts(parts: Tensor, shape: torch.Size) -> Tensor:
    """The tensor of this shape whose parts, each of `part_of`, stand one after another (N n,)."""
    return parts[: shape.numel()].view(shape)
