"""A branch's attention: to the prefix, and to its own symbols beside it; for branches see transformer.py.

With s the scores of a query against the keys of the prefix that it sees, o = softmax(s) · v, and s' those
against the branch's own symbols,

    softmax(s, s') · (v, v') = softmax(logsumexp(s), s') · (o, v')

so the whole prefix is one more symbol to a branch. Its scores are not kept but computed again for the
gradient. Both gradients are written out: a branch's own keys and values are many small tensors, and to note
each of their products for the backward pass takes longer than the product. There is no second derivative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

POSITIONS = 128  # of a block; fewer leave out more keys that are not seen, in more and smaller products

Symbol = tuple[Tensor, Tensor]  # its keys and values (b, H_kv, 1, t, k, d); b, t, k broadcast from 1
Gradients = tuple[Tensor | None, ...]


class Block(NamedTuple):
    """Positions side by side: all of them see the keys before `first`, none those from `last` on."""

    positions: slice
    first: int
    last: int
    beyond: Tensor  # (b, 1, 1, t, 1, last - first), -inf where a key between them is not seen and else 0

    def queries(self, x: Tensor) -> Tensor:
        """Of (B, H_kv, G, T, K, n) those of the block."""
        return x[..., self.positions, :, :]

    def keys(self, x: Tensor) -> Tensor:
        """Of (b, H_kv, P, n) those that are seen."""
        return x[..., : self.last, :]

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """Of all queries and keys, scores (B, H_kv, G t K, last)."""
        mine = self.queries(query)
        found = mine.flatten(2, 4) @ self.keys(keys).mT
        found.view(*mine.shape[:-1], -1)[..., self.first :].add_(self.beyond)
        return found


def visible_blocks(visible: Tensor, num_positions: int, num_keys: int, dtype: torch.dtype) -> list[Block]:
    """What each block of positions sees of the prefix; on a GPU, which would have to wait for it, one block.

    Args:
        visible: (b, t) long, how many keys each position sees, one at least; both axes broadcast from 1.
        num_positions: T.
        num_keys: P.
        dtype: of the scores.
    """
    found, start, known = [], 0, visible.device.type == "cpu"
    for part in visible.expand(-1, num_positions).split(POSITIONS if known else num_positions, 1):
        first, last = (int(part.min()), min(int(part.max()), num_keys)) if known else (0, num_keys)
        hidden = torch.arange(first, last, device=part.device) >= part.unsqueeze(-1)
        beyond = torch.zeros(hidden.shape, dtype=dtype, device=part.device).masked_fill_(hidden, -math.inf)
        positions = slice(start, start := start + part.shape[1])
        found.append(Block(positions, first, last, beyond[:, None, None, :, None]))
    return found


def to_prefix(query: Tensor, keys: Tensor, values: Tensor, blocks: Sequence[Block]) -> tuple[Tensor, Tensor]:
    """Attention to the prefix alone.

    Args:
        query: (B, H_kv, G, T, K, d), scaled; heads that share keys are G.
        keys: (b, H_kv, P, d); b broadcasts from 1.
        values: as the keys.
        blocks: of `visible_blocks`.

    Returns:
        (B, H_kv, G, T, K, d), and the log-sum-exp of the scores (B, H_kv, G, T, K, 1), in float32 or finer.
    """
    found: tuple[Tensor, Tensor] = _Prefix.apply(query, keys, values, blocks)
    return found


def to_all(
    query: Tensor,
    symbols: Sequence[Symbol],
    consumed: Sequence[Tensor | None],
    prefix: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """Attention to the own symbols, and to the prefix as one more symbol.

    Args:
        query: as in `to_prefix`.
        symbols: those that the branches have consumed.
        consumed: for each, which branches did so (b, t, k) bool; None: all.
        prefix: what `to_prefix` returns; None: nothing was read.

    Returns:
        (B, H_kv, G, T, K, d).
    """
    seen, total = prefix or (None, None)
    out: Tensor = _All.apply(query, seen, total, consumed, *(x for symbol in symbols for x in symbol))
    return out


class _Prefix(Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, keys: Tensor, values: Tensor, blocks: Sequence[Block]
    ) -> tuple[Tensor, Tensor]:
        out = torch.empty_like(query)
        sums = query.new_empty(*query.shape[:-1], 1, dtype=_precise(query))  # log2 of the sums of 2^score
        query2 = _in_base_2(query)
        for block in blocks:
            scores = block.scores(query2, keys).to(sums.dtype)
            top = scores.amax(-1, keepdim=True)
            total = scores.sub_(top).exp2_().sum(-1, keepdim=True)
            mine, my_sums = block.queries(out), block.queries(sums)
            mine.copy_((scores.to(query.dtype) @ block.keys(values) / total).view(mine.shape))
            my_sums.copy_((top + total.log2()).view(my_sums.shape))
        ctx.save_for_backward(query, keys, values, out, sums)
        ctx.blocks = blocks
        return out, sums * math.log(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, at_out: Tensor, at_total: Tensor) -> Gradients:
        query, keys, values, out, sums = ctx.saved_tensors
        at_total = at_total - (at_out * out).sum(-1, keepdim=True)
        query2, at_query = _in_base_2(query), torch.empty_like(query)
        at_keys, at_values = (x.new_zeros(len(query), *x.shape[1:]) for x in (keys, values))
        for block in ctx.blocks:
            rows, at, at_sums, my_sums = (
                block.queries(x).flatten(2, 4) for x in (query, at_out, at_total, sums)
            )
            weights = block.scores(query2, keys).to(sums.dtype).sub_(my_sums).exp2_().to(query.dtype)
            at_scores = (at @ block.keys(values).mT).add_(at_sums).mul_(weights)
            block.keys(at_values).add_(weights.mT @ at)
            block.keys(at_keys).add_(at_scores.mT @ rows)
            mine = block.queries(at_query)
            mine.copy_((at_scores @ block.keys(keys)).view(mine.shape))
        return at_query, at_keys.sum_to_size(keys.shape), at_values.sum_to_size(values.shape), None


class _All(Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        seen: Tensor | None,
        total: Tensor | None,
        consumed: Sequence[Tensor | None],
        *symbols: Tensor,
    ) -> Tensor:
        prefix = [] if seen is None else [seen]
        scores = query.new_empty(len(prefix) + len(consumed), *query.shape[:-1], 1, dtype=_precise(query))
        if total is not None:
            scores[0] = total
        own, product = scores[len(prefix) :], torch.empty_like(query)
        for score, key, by in zip(own, symbols[::2], consumed, strict=True):
            torch.sum(torch.mul(query, key, out=product), -1, keepdim=True, out=score)
            if by is not None:
                score.masked_fill_(~by[:, None, None, ..., None], -math.inf)
        weights = scores.softmax(0).to(query.dtype)
        out = torch.zeros_like(query)
        for weight, value in zip(weights, (*prefix, *symbols[1::2]), strict=True):
            out.addcmul_(weight, value)
        ctx.save_for_backward(query, seen, weights, out, *symbols)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, at_out: Tensor) -> Gradients:
        query, seen, weights, out, *symbols = ctx.saved_tensors
        at_out = at_out.contiguous()
        prefix = [] if seen is None else [seen]
        at_scores = torch.empty_like(weights, dtype=_precise(query))
        product, mean = torch.empty_like(query), (at_out * out).sum(-1, keepdim=True)
        for score, value in zip(at_scores, (*prefix, *symbols[1::2]), strict=True):
            torch.sum(torch.mul(at_out, value, out=product), -1, keepdim=True, out=score)
        at_scores.sub_(mean).mul_(weights)
        at_query, at_symbols = torch.zeros_like(query), []
        own, own_weights = at_scores[len(prefix) :], weights[len(prefix) :]
        for score, weight, key, value in zip(own, own_weights, symbols[::2], symbols[1::2], strict=True):
            at_query.addcmul_(score, key)
            at_symbols += [(score * query).sum_to_size(key.shape), (weight * at_out).sum_to_size(value.shape)]
        at_prefix = (weights[0] * at_out, at_scores[0]) if prefix else (None, None)
        return at_query, *at_prefix, None, *at_symbols


def _precise(x: Tensor) -> torch.dtype:
    """That of softmaxes; also under autocast, where scores are coarser."""
    return torch.promote_types(x.dtype, torch.float32)


def _in_base_2(query: Tensor) -> Tensor:
    """2^score of it is e^score of the query; torch's e^x takes ten times as long where it meets -inf."""
    return query * math.log2(math.e)
