"""GPT-2's arithmetic in few operations; the library's code makes many small ones of it.

With kernels=native it runs in place of the library's modules, from the same weights; the results are theirs
but for rounding. The activation is one operation of torch's. Queries, keys and values are computed channels
first, (D, n): then a head's sums over its channels add up whole rows, and nothing is copied to attend.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, addmm
from torch.nn.functional import embedding, gelu, layer_norm, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from toyqs.model.backbones.branch_cache import KeyValue, Step
from toyqs.model.backbones.fused_attention import attend
from toyqs.model.backbones.qk_clip.largest import LargestLogits


def run(
    weights: Mapping[str, Tensor],
    config: Any,
    x: Tensor,
    positions: Tensor,
    step: Step | None,
    *,
    recompute: bool,
    largest: LargestLogits | None = None,
) -> tuple[Tensor, tuple[KeyValue, ...]]:
    """Run a decoder.

    Args:
        weights: under the library's names.
        config: the library's, of a GPT-2.
        x: embeddings (B, n, D).
        positions: (B or 1, n) long.
        step: the branches that are stepped; None: sequences are read.
        recompute: whether layers are run again in the backward pass.
        largest: notes the largest attention logits; None: nobody asks for them.

    Returns:
        Outputs (B, n, D) past the last norm, and every layer's keys and values.
    """
    layers = _Layers(weights, config, x.shape[:2], step, largest)
    rows = (x + embedding(positions, weights["wpe.weight"])).flatten(0, 1)
    keys_values = []
    for index in range(config.num_hidden_layers):
        if recompute:
            rows, of_layer = checkpoint(layers, rows, index, use_reentrant=False, preserve_rng_state=False)
        else:
            rows, of_layer = layers(rows, index)
        keys_values.append(of_layer)
    return layers.norm(rows, "ln_f").view(x.shape), tuple(keys_values)


class _Layers:
    """The layers in one call of a decoder, with the weights that it has then."""

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        config: Any,
        shape: tuple[int, ...],
        step: Step | None,
        largest: LargestLogits | None,
    ) -> None:
        self.weights, self.config, self.largest = weights, config, largest
        self.shape, self.step = shape, step  # B, n

    def __call__(self, rows: Tensor, index: int) -> tuple[Tensor, KeyValue]:
        """Run a layer on rows (B n, D); return its outputs, and keys and values."""
        at = f"h.{index}"
        weight, bias = self._map(f"{at}.attn.c_attn")
        columns = addmm(bias.unsqueeze(1), weight.t(), self.norm(rows, f"{at}.ln_1").t())
        attended, key_value = self._attend(columns, index)
        weight, bias = self._map(f"{at}.attn.c_proj")
        rows = rows + addmm(bias, attended, weight)
        weight, bias = self._map(f"{at}.mlp.c_fc")
        inner = gelu(addmm(bias, self.norm(rows, f"{at}.ln_2"), weight), approximate="tanh")
        weight, bias = self._map(f"{at}.mlp.c_proj")
        return rows + addmm(bias, inner, weight), key_value

    def norm(self, rows: Tensor, name: str) -> Tensor:
        """Normalise rows (B n, D)."""
        return layer_norm(rows, rows.shape[1:], *self._map(name), self.config.layer_norm_epsilon)

    def _map(self, name: str) -> tuple[Tensor, Tensor]:
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]

    def _attend(self, columns: Tensor, layer: int) -> tuple[Tensor, KeyValue]:
        """Attend with queries, keys and values (3 D, B n); return (B n, D), and keys and values."""
        heads, width, num = self.config.num_attention_heads, len(columns) // 3, columns.shape[1]
        scale = (width // heads) ** -0.5
        if self.step is None:
            of_heads = columns.view(3 * heads, -1, *self.shape).permute(2, 0, 3, 1).contiguous()
            query, key, value = of_heads.split(heads, 1)
            if self.largest is not None:
                self.largest.note_reading(layer, query, key, scale)
            out = scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
            return out.transpose(1, 2).reshape(num, width), (key, value)
        state, branches = self.step
        parts = columns.view(3 * heads, -1, 1, *branches).split(heads)
        query, key, value = (x.permute(3, 0, 2, 4, 5, 1) for x in parts)  # (B, H, 1, T, K, d)
        symbols = [*(symbol.layers[layer] for symbol in state.own), (key, value)]
        consumed = [*(symbol.by for symbol in state.own), None]
        if self.largest is not None:
            self.largest.note_step(layer, query, symbols, self.step, scale)
        prefix = None if state.seen is None else (*state.prefix[layer], state.seen)
        out = attend(query, symbols, consumed, prefix, scale)
        return out.permute(2, 0, 3, 4, 1, 5).reshape(num, width), (key, value)
