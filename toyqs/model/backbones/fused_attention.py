"""A branch's whole attention as one function, to the prefix and to its own symbols: with kernels=native.

It computes what `to_prefix` and `to_all` (branch_attention.py) do, the part of the prefix by torch's fused
kernel for a CPU. That kernel's backward pass computes a softmax again from its log-sum-exp: given the
log-sum-exp over all that a branch attends to, and the whole output, its gradients are those of the one
softmax over prefix and symbols. Queries, and keys and values of symbols, lie channels first in memory, as
gpt2.py makes them: then sums over a head's channels add up whole rows. There is no second derivative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from toyqs.model.backbones.branch_attention import Gradients, Symbol, visible_blocks

_kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_kernel_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Seen(NamedTuple):
    """What adjacent branches see of the prefix."""

    branches: int  # how many of the T K
    last: int  # none of them sees a key from here on
    mask: Tensor  # (b, 1, branches, last), -inf where a key is not seen and else 0


def seen_by(visible: Tensor, branches: Sequence[int], num_keys: int, dtype: torch.dtype) -> list[Seen]:
    """Divide the T K branches by what they see of the prefix, as `visible_blocks` does.

    Args:
        visible: (b, t) long, how many keys each position sees, one at least; both axes broadcast from 1.
        branches: B, T, K.
        num_keys: P.
        dtype: of the scores.
    """
    found = []
    for block in visible_blocks(visible, branches[1], num_keys, dtype):
        beyond = block.beyond.expand(*block.beyond.shape[:4], branches[2], -1)
        mask = pad(beyond.flatten(1, 4), (block.first, 0)).unsqueeze(1)
        found.append(Seen(mask.shape[2], block.last, mask))
    return found


def attend(
    query: Tensor,
    symbols: Sequence[Symbol],
    consumed: Sequence[Tensor | None],
    prefix: tuple[Tensor, Tensor, Sequence[Seen]] | None,
    scale: float,
) -> Tensor:
    """Attend to a branch's own symbols and to the prefix.

    Args:
        query: (B, H, 1, T, K, d).
        symbols: those that the branches have consumed.
        consumed: for each, which branches did so (b, t, k) bool; None: all.
        prefix: keys and values (b, H, P, d), and what is seen of them; None: nothing was read.
        scale: of the scores.

    Returns:
        (B, H, 1, T, K, d).
    """
    keys, values, seen = prefix or (None, None, ())
    flat = (x for symbol in symbols for x in symbol)
    out: Tensor = _Attention.apply(scale, seen, consumed, query, keys, values, *flat)
    return out


class _Attention(Function):
    @staticmethod
    def forward(
        ctx: Any,
        scale: float,
        seen: Sequence[Seen],
        consumed: Sequence[Tensor | None],
        query: Tensor,
        keys: Tensor | None,
        values: Tensor | None,
        *symbols: Tensor,
    ) -> Tensor:
        ctx.scale, ctx.seen = scale, seen
        scores = query.new_empty(len(consumed) + 1, *query.shape[:-1])  # the last of the prefix
        out, product, totals = torch.empty_like(query), torch.empty_like(query), None
        own = scores[:-1]
        for score, key, by in zip(own, symbols[::2], consumed, strict=True):
            torch.sum(torch.mul(query, key, out=product), -1, out=score)
            if by is not None:
                score.masked_fill_(~by[:, None, None], -math.inf)
        own.mul_(scale)
        if keys is not None and values is not None:
            rows, totals = _to_prefix(query, keys, values, seen, scale)
            out.copy_(rows.view(out.shape))
            scores[-1] = totals.view(scores.shape[1:])
        weights = (own if totals is None else scores).softmax(0).unsqueeze(-1)
        if totals is None:
            out.zero_()
        else:
            of_prefix = weights[-1]
            out.mul_(of_prefix)
            totals = totals - of_prefix.log().view(totals.shape)  # of all that a branch attends to
        for weight, value in zip(weights, symbols[1::2], strict=False):
            out.addcmul_(weight, value)
        ctx.save_for_backward(query, keys, values, totals, out, weights, *symbols)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, at_out: Tensor) -> Gradients:
        query, keys, values, totals, out, weights, *symbols = ctx.saved_tensors
        at_query, product = torch.empty_like(query), torch.empty_like(query)
        at_keys = at_values = None
        if keys is None:
            at_query.zero_()
        else:
            of_rows = (at_out, query, out, totals)
            rows, at_keys, at_values = _from_prefix(of_rows, keys, values, ctx.seen, ctx.scale)
            at_query.copy_(rows.view(at_query.shape))
        own, at_symbols = weights[: len(symbols) // 2], []
        mean, at_scores = torch.mul(at_out, out, out=product).sum(-1, keepdim=True), torch.empty_like(own)
        for score, value in zip(at_scores, symbols[1::2], strict=True):
            torch.sum(torch.mul(at_out, value, out=product), -1, keepdim=True, out=score)
        at_scores.sub_(mean).mul_(own).mul_(ctx.scale)
        for score, weight, key, value in zip(at_scores, own, symbols[::2], symbols[1::2], strict=True):
            at_query.addcmul_(score, key)
            at_symbols += [_summed(score * query, key.shape), _summed(weight * at_out, value.shape)]
        return None, None, None, at_query, at_keys, at_values, *at_symbols


def _to_prefix(
    query: Tensor, keys: Tensor, values: Tensor, seen: Sequence[Seen], scale: float
) -> tuple[Tensor, Tensor]:
    """Attend to the prefix alone; return (B, H, T K, d), and the log-sum-exp of the scores (B, H, T K)."""
    outs, totals = [], []
    for rows, (_, last, mask) in zip(_parts(_rows(query), seen), seen, strict=True):
        near = (_first(x, last, len(query)) for x in (keys, values))
        out, total = _kernel(rows, *near, attn_mask=mask, scale=scale)
        outs.append(out)
        totals.append(total)
    return _joined(outs), _joined(totals)


def _from_prefix(
    of_rows: tuple[Tensor, ...], keys: Tensor, values: Tensor, seen: Sequence[Seen], scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients at queries (B, H, T K, d), keys and values.

    Args:
        of_rows: the gradient at the output, the queries, the output (B, H, 1, T, K, d), and the log-sum-exp
            of all scores (B, H, T K).
        keys: (b, H, P, d).
        values: as keys.
        seen: what is seen of them.
        scale: of the scores.
    """
    *three, totals = of_rows
    batch, found = len(totals), []
    columns = (_parts(x, seen) for x in (*map(_rows, three), totals))
    for at, own, out, total, (_, last, mask) in zip(*columns, seen, strict=True):
        near = (_first(x, last, batch) for x in (keys, values))
        found.append(_kernel_backward(at, own, *near, out, total, 0.0, False, attn_mask=mask, scale=scale))
    at_query, *at_both = zip(*found, strict=True)
    at_keys, at_values = (
        _summed(_added(x, near.shape[2]), near.shape) for x, near in zip(at_both, (keys, values), strict=True)
    )
    return _joined(at_query), at_keys, at_values


def _rows(x: Tensor) -> Tensor:
    """Return (B, H, 1, T, K, d) as (B, H, T K, d), each row's numbers side by side in memory."""
    return x.contiguous().flatten(2, 4)


def _first(x: Tensor, last: int, batch: int) -> Tensor:
    """Return the first keys or values (b, H, P, d), for every sequence of the batch."""
    near = x if last == x.shape[2] else x[:, :, :last]
    return near if len(x) == batch else near.expand(batch, -1, -1, -1)


def _parts(x: Tensor, seen: Sequence[Seen]) -> Sequence[Tensor]:
    return (x,) if len(seen) == 1 else x.split([part.branches for part in seen], 2)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat([*parts], 2)


def _added(parts: Sequence[Tensor], num: int) -> Tensor:
    """Add up gradients at the first keys or values; return one at all of them, (B, H, num, d)."""
    *shorter, longest = sorted(parts, key=lambda part: part.shape[2])
    missing = num - longest.shape[2]
    total = pad(longest, (0, 0, 0, missing)) if missing else longest
    for part in shorter:
        total[:, :, : part.shape[2]].add_(part)
    return total


def _summed(x: Tensor, shape: torch.Size) -> Tensor:
    """Return a gradient in the shape of what was broadcast."""
    return x if x.shape == shape else x.sum_to_size(shape)
