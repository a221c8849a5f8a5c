"""The prefix part of a branch's attention by torch's FlexAttention; for branches see transformer.py.

With s the scores of a query against the keys 0 … t of the prefix that it sees, o = softmax(s) · v, and s'
those against the branch's own symbols,

    softmax(s, s') · (v, v') = softmax(logsumexp(s), s') · (o, v')

so the whole prefix counts as one more symbol to a branch, and its scores are never kept: FlexAttention takes
128 queries by 128 keys at a time and skips blocks that no branch sees.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, create_block_mask, flex_attention

# Where FlexAttention is used. Its kernels for a CPU have no gradient and no log-sum-exp.
DEVICES = ("cuda",)
# A compiled call serves one gradient mode, and one shape or any; torch's limit of 8 is too low for a sweep.
MOST_COMPILED = 64


def visible_blocks(visible: Tensor, branches: tuple[int, ...], num_keys: int) -> BlockMask:
    """Find the blocks of the prefix's keys that each block of branches sees.

    Args:
        visible: (b, t) long, how many keys a branch sees; both axes broadcast from 1.
        branches: B, T, K.
        num_keys: P.
    """
    batch, time, thoughts = branches
    seen = visible.unsqueeze(-1).expand(batch, time, thoughts).flatten(1)

    def sees(batch: Tensor, head: Tensor, branch: Tensor, key: Tensor) -> Tensor:
        return key < seen[batch, branch]

    return create_block_mask(sees, batch, None, time * thoughts, num_keys, device=visible.device)


def attend(query: Tensor, keys: Tensor, values: Tensor, blocks: BlockMask) -> tuple[Tensor, Tensor]:
    """Attend to the prefix alone.

    Args:
        query: (B, H, T K, d), scaled.
        keys: (b, H_kv, P, d); b broadcasts from 1, and H_kv divides H.
        values: as the keys.
        blocks: of `visible_blocks`.

    Returns:
        (B, H, T K, d) in the values' precision, and the log-sum-exp of the scores (B, H, T K), in float32 or
        finer.
    """
    # Rotary positions leave queries and keys in float32 under autocast; the kernels take one precision.
    query, keys = query.to(values.dtype), keys.to(values.dtype)
    run: Any = _compiled() if query.is_cuda else flex_attention
    kwargs: dict[str, Any] = {"scale": 1.0, "enable_gqa": True, "return_aux": AuxRequest(lse=True)}
    out, aux = run(query, keys, values, block_mask=blocks, **kwargs)
    return out, aux.lse


@cache
def _compiled() -> Callable[..., Any]:
    """Compile FlexAttention, for the first shape alone and then for any; no shape depends on L."""
    torch._dynamo.config.recompile_limit = MOST_COMPILED
    return torch.compile(flex_attention)
