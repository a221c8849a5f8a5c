"""QK-clip: heads whose attention logits have grown too large get smaller queries and keys after a step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from toyqs.model.backbones.qk_clip.largest import LargestLogits


class QKClip:
    """QK-clip on the decoder of one transformer.

    With S the largest logit of a head in the step's batch and τ the threshold, and only where S > τ,

        γ = τ / S        W_q ← √γ W_q        W_k ← √γ W_k        (biases likewise)

    after the optimiser's step: its logits on the same inputs of the layer are then γ times as large, τ at
    most. Nothing else is changed, and heads under the threshold not by a bit. Keys that other queries read
    too would change those heads' logits as well: then W_q ← γ W_q, and the keys stay. This is so where
    several heads have a key in common (grouped queries), and where one core's thoughts continue what another
    core has read.

    Source: Kimi team 2025, "Kimi K2" (2507.20534), algorithm 1, which treats a shared rotary key so.
    """

    def __init__(self, decoder: Any, threshold: float, *, keys_are_read: bool) -> None:
        """Clip a decoder.

        Args:
            decoder: a `Decoder` that trains its weights.
            threshold: τ.
            keys_are_read: whether another core's queries read its keys, or its queries those of another core.
        """
        self.decoder, self.threshold, self.largest = decoder, threshold, LargestLogits()
        config = decoder.config
        self.heads = config.num_attention_heads
        self.num_kv = getattr(config, "num_key_value_heads", None) or self.heads
        self.shared = keys_are_read or self.num_kv < self.heads
        self.joined = config.model_type == "gpt2"  # queries, keys and values come from one matrix

    def begin(self) -> None:
        """Forget what earlier steps have measured."""
        self.largest.forget()

    @torch.no_grad()
    def apply(self) -> None:
        """Scale queries and keys by what was measured since `begin`."""
        for layer, largest in self.largest.found.items():
            gamma = torch.where(largest > self.threshold, self.threshold / largest, 1.0)
            factors = gamma if self.shared else gamma.sqrt()
            for part in self._of_heads(layer, "q", self.heads):
                part.mul_(factors.view(-1, *(1 for _ in part.shape[1:])))
            for part in () if self.shared else self._of_heads(layer, "k", self.num_kv):
                part.mul_(factors.view(-1, *(1 for _ in part.shape[1:])))

    def _of_heads(self, layer: int, kind: str, heads: int) -> Iterator[Tensor]:
        """Yield a layer's weight and bias of queries (q) or keys (k) as views, (heads, ...)."""
        named = dict(self.decoder.weights.named_parameters())
        name = f"h.{layer}.attn.c_attn" if self.joined else f"layers.{layer}.self_attn.{kind}_proj"
        for parameter in (named.get(f"{name}.weight"), named.get(f"{name}.bias")):
            if parameter is None:
                continue
            tensor = parameter[0]
            if self.joined:
                tensor = tensor.unflatten(-1, (3, heads, -1))[..., "qk".index(kind), :, :]
                yield tensor.movedim(-2, 0)
            else:
                yield tensor.unflatten(0, (heads, -1))
