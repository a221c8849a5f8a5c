"""What a transformer's branches remember: keys and values; for branches see transformer.py."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from toyqs.model.layers import Linear

KeyValue = tuple[Tensor, Tensor]


class ConsumedSymbol(NamedTuple):
    """One symbol that branches have consumed. The axes b, t, k of different symbols broadcast from 1."""

    layers: tuple[KeyValue, ...]  # keys and values (b, H_kv, 1, t, k, d) of every layer
    by: Tensor | None  # (b, t, k) bool, which branches consumed it; None: all


class BranchCache(NamedTuple):
    """The branch state. The axes b, t, k of all its fields but `position` broadcast from 1."""

    prefix: tuple[KeyValue, ...]  # keys and values (b, H_kv, P, d) of every layer; empty: nothing was read
    visible: Tensor  # (b, t) long, how many of the P positions a branch attends to
    own: tuple[ConsumedSymbol, ...]  # its symbols so far
    position: Tensor  # (B, T, K) long, that of its next symbol; its shape is that of the state
    context: Tensor  # (b, t) long, the position of the context's last token
    # What these branches see of the prefix, as their attention asks for it: blocks of positions, `Seen` of
    # fused_attention.py, FlexAttention's BlockMask; None: not computed yet, or nothing was read.
    seen: Any = None


class Step(NamedTuple):
    """What an attention function is told of a branch step."""

    state: BranchCache
    branches: tuple[int, ...]  # B, T, K


class CacheMap(nn.Module):
    """A linear map of every layer's keys, and one of its values, all heads' together, to another width."""

    def __init__(self, num_seeds: int, num_layers: int, width: int, out: int) -> None:
        """Build the maps; width and out are those of all heads' keys together."""
        super().__init__()
        self.maps = nn.ModuleList(Linear(num_seeds, width, out) for _ in range(2 * num_layers))

    def forward(self, state: BranchCache) -> BranchCache:
        """Map the prefix and the branches' own symbols."""
        own = tuple(symbol._replace(layers=self._mapped(symbol.layers)) for symbol in state.own)
        return state._replace(prefix=self._mapped(state.prefix), own=own)

    def _mapped(self, layers: tuple[KeyValue, ...]) -> tuple[KeyValue, ...]:
        pairs = zip(self.maps[::2], self.maps[1::2], layers, strict=False)  # an empty prefix has no layers
        return tuple(
            (_map_heads(of_keys, k), _map_heads(of_values, v)) for of_keys, of_values, (k, v) in pairs
        )


def _map_heads(linear: Any, x: Tensor) -> Tensor:
    """Map (b, H_kv, ..., d) to (b, H_kv, ..., d'), in the precision of x."""
    rows = x.movedim(1, -2).flatten(-2).unsqueeze(0).to(linear.weight.dtype)
    return linear(rows).squeeze(0).unflatten(-1, (x.shape[1], -1)).movedim(-2, 1).to(x.dtype)


def pick(x: Tensor, at: Tensor, axis: int) -> Tensor:
    """Gather positions (B, T') of the axis t; one of size 1 broadcasts and stays."""
    if x.shape[axis] == 1:
        return x
    index = at.view(len(at), *(1,) * (axis - 1), -1, *(1,) * (x.dim() - axis - 1))
    shape = (len(at), *x.shape[1:])
    return x.expand(shape).gather(axis, index.expand(*shape[:axis], -1, *shape[axis + 1 :]))
