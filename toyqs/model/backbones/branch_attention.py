"""A branch's attention, to the prefix and to its own symbols; for branches see transformer.py.

With s the scores of a query against the keys of the prefix that it sees, o = softmax(s) · v, and s' those
against the branch's own symbols,

    softmax(s, s') · (v, v') = softmax(logsumexp(s), s') · (o, v')

so the whole prefix counts as one more symbol to a branch. Its scores are not kept but computed again for the
gradient. Both gradients are written out: a branch's own keys and values are many small tensors, and recording
each of their products in autograd's graph takes longer than the product. There is no second derivative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

POSITIONS = 128  # of a block; fewer skip more of the keys that are not seen, in more and smaller products

Symbol = tuple[Tensor, Tensor]  # its keys and values (b, H_kv, 1, t, k, d); b, t, k broadcast from 1
Gradients = tuple[Tensor | None, ...]


class Block(NamedTuple):
    """Adjacent positions: all of them see the keys before `first`, none those from `last` on."""

    positions: slice
    first: int
    last: int
    beyond: Tensor  # (b, 1, 1, t, 1, last - first), -inf where a key between them is not seen and else 0

    def queries(self, x: Tensor) -> Tensor:
        """Slice the block's queries from (B, H_kv, G, T, K, n)."""
        return x[..., self.positions, :, :]

    def keys(self, x: Tensor) -> Tensor:
        """Slice the keys that the block sees from (b, H_kv, P, n)."""
        return x[..., : self.last, :]

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """Compute the block's scores (B, H_kv, G t K, last) from all queries and keys."""
        own = self.queries(query)
        scores = own.flatten(2, 4) @ self.keys(keys).mT
        scores.view(*own.shape[:-1], -1)[..., self.first :].add_(self.beyond)
        return scores


def visible_blocks(
    visible: Tensor, num_positions: int, num_keys: int, dtype: torch.dtype, *, whole: bool = False
) -> list[Block]:
    """Divide the positions into blocks by what they see of the prefix.

    Args:
        visible: (b, t) long, how many keys each position sees, one at least; both axes broadcast from 1.
        num_positions: T.
        num_keys: P.
        dtype: of the scores.
        whole: make one block of all positions and keys: on a GPU, reading the numbers would have to wait for
            it.
    """
    blocks, start = [], 0
    for seen in visible.expand(-1, num_positions).split(num_positions if whole else POSITIONS, 1):
        first, last = (0, num_keys) if whole else (int(seen.min()), min(int(seen.max()), num_keys))
        hidden = torch.arange(first, last, device=seen.device) >= seen.unsqueeze(-1)
        beyond = torch.zeros(hidden.shape, dtype=dtype, device=seen.device).masked_fill_(hidden, -math.inf)
        positions = slice(start, start := start + seen.shape[1])
        blocks.append(Block(positions, first, last, beyond[:, None, None, :, None]))
    return blocks


def to_prefix(query: Tensor, keys: Tensor, values: Tensor, blocks: Sequence[Block]) -> tuple[Tensor, Tensor]:
    """Attend to the prefix alone.

    Args:
        query: (B, H_kv, G, T, K, d), scaled; heads that share keys are G.
        keys: (b, H_kv, P, d); b broadcasts from 1.
        values: as the keys.
        blocks: of `visible_blocks`.

    Returns:
        (B, H_kv, G, T, K, d), and the log-sum-exp of the scores (B, H_kv, G, T, K, 1), in float32 or finer.
    """
    out: tuple[Tensor, Tensor] = _Prefix.apply(query, keys, values, blocks)
    return out


def to_all(
    query: Tensor,
    symbols: Sequence[Symbol],
    consumed: Sequence[Tensor | None],
    prefix: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """Attend to a branch's own symbols, and to the prefix as one more symbol.

    Args:
        query: as in `to_prefix`.
        symbols: those that the branches have consumed.
        consumed: for each, which branches did so (b, t, k) bool; None: all.
        prefix: from `to_prefix`; None: nothing was read.

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
            block_out, block_sums = block.queries(out), block.queries(sums)
            block_out.copy_((scores.to(query.dtype) @ block.keys(values) / total).view(block_out.shape))
            block_sums.copy_((top + total.log2()).view(block_sums.shape))
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
            rows, at, at_sums, block_sums = (
                block.queries(x).flatten(2, 4) for x in (query, at_out, at_total, sums)
            )
            weights = block.scores(query2, keys).to(sums.dtype).sub_(block_sums).exp2_().to(query.dtype)
            at_scores = (at @ block.keys(values).mT).add_(at_sums).mul_(weights)
            block.keys(at_values).add_(weights.mT @ at)
            block.keys(at_keys).add_(at_scores.mT @ rows)
            block_at_query = block.queries(at_query)
            block_at_query.copy_((at_scores @ block.keys(keys)).view(block_at_query.shape))
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
    """Return the precision of softmaxes, also under autocast, where scores have less."""
    return torch.promote_types(x.dtype, torch.float32)


def _in_base_2(query: Tensor) -> Tensor:
    """Scale a query so that 2^score is e^score: torch's e^x takes ten times as long at -inf."""
    return query * math.log2(math.e)
