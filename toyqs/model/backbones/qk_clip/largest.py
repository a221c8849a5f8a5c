"""The largest attention logits of a training step, from the queries and keys that its attention gets.

Attention functions keep no logits: so queries and keys are multiplied once more, without a gradient, a block
of positions at a time. Logits are those that a softmax is taken of; what a query does not see does not count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from toyqs.model.backbones.branch_attention import POSITIONS, visible_blocks
from toyqs.model.backbones.branch_cache import Step


class LargestLogits:
    """The largest logit of each head, by layer, of all that was noted since `forget`."""

    def __init__(self) -> None:
        self.found: dict[int, Tensor] = {}  # layer -> (H,), in float32 or finer

    def forget(self) -> None:
        """Begin anew."""
        self.found = {}

    @torch.no_grad()
    def note_reading(self, layer: int, query: Tensor, key: Tensor, scale: float) -> None:
        """Note the causal attention of sequences.

        Args:
            layer: its number.
            query: (B, H, T, d).
            key: (B, H_kv, T, d), H a multiple of H_kv.
            scale: of the logits.
        """
        batch, num_kv, time, width = key.shape
        with torch.autocast(query.device.type, enabled=False):
            rows, keys = (_precise(x) for x in (query, key))
            rows = rows.reshape(batch, num_kv, -1, time, width)
            for start in range(0, time, POSITIONS):
                own = rows[:, :, :, start : start + POSITIONS]
                count = own.shape[3]
                logits = own @ keys[:, :, : start + count].unsqueeze(2).mT
                later = torch.ones(count, count, dtype=torch.bool, device=logits.device).triu_(1)
                logits[..., start:].masked_fill_(later, -math.inf)
                self._note(layer, logits.amax((0, 3, 4)), scale)

    @torch.no_grad()
    def note_step(
        self,
        layer: int,
        query: Tensor,
        symbols: Sequence[tuple[Tensor, Tensor]],
        step: Step,
        scale: float,
    ) -> None:
        """Note the attention of branches, to the prefix and to their own symbols.

        Args:
            layer: its number.
            query: (B, H_kv, G, T, K, d) of the newest symbol.
            symbols: keys and values (b, H_kv, 1, t, k, d) of those consumed, the newest last.
            step: the branches.
            scale: of the logits.
        """
        with torch.autocast(query.device.type, enabled=False):
            rows = _precise(query)
            for (key, _), by in zip(symbols, [*(x.by for x in step.state.own), None], strict=True):
                logits = (rows * _precise(key)).sum(-1)
                if by is not None:
                    logits = logits.masked_fill(~by[:, None, None], -math.inf)
                self._note(layer, logits.amax((0, 3, 4)), scale)
            if not step.state.prefix:
                return
            keys = _precise(step.state.prefix[layer][0])
            whole = keys.device.type != "cpu"  # reading numbers would wait for it
            visible, (_, time, thoughts) = step.state.visible, step.branches
            for block in visible_blocks(visible, time, keys.shape[2], rows.dtype, whole=whole):
                logits = block.scores(rows, keys).unflatten(2, (rows.shape[2], -1, thoughts))
                self._note(layer, logits.amax((0, 3, 4, 5)), scale)

    def _note(self, layer: int, logits: Tensor, scale: float) -> None:
        """Note the largest logits (H_kv, G) of a part, before they are scaled."""
        largest = logits.flatten() * scale
        before = self.found.get(layer)
        self.found[layer] = largest if before is None else torch.maximum(before, largest)


def _precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
