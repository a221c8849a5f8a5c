"""The transformer backbone: a Hugging Face causal language model, branchable at every position.

A sequence is read once; the keys and values of all its positions are kept, per layer, and every branch
attends to those up to its own position. Each branch adds the keys and values of its own symbols.
With q the query of the l-th symbol (from 0) of a branch at position t,

    softmax over (q·k_0 … q·k_t, q·k'_0 … q·k'_l)        position of the symbol: t + 1 + l

is one softmax over both parts: neither a T × T(1 + L) mask nor a copy of the prefix is made. The model's own
code runs; only its attention is this file's, registered with the library by name. The products are in
branch_attention.py; with branch_attention=flex those with the prefix are FlexAttention's on a GPU
(flex_attention.py). With kernels=native a GPT-2 runs in gpt2.py, from the same weights.

Needs the package transformers. Only S = 1: one seed at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PretrainedConfig

from toyqs.model.backbones import flex_attention, fused_attention, gpt2
from toyqs.model.backbones.backbone import Backbone, Rows, gathered
from toyqs.model.backbones.branch_attention import Block, to_all, to_prefix, visible_blocks
from toyqs.model.backbones.branch_cache import BranchCache, CacheMap, ConsumedSymbol, KeyValue, Step, pick
from toyqs.model.backbones.decoder import Decoder
from toyqs.model.backbones.frozen import Frozen
from toyqs.model.backbones.fused_attention import Seen
from toyqs.model.backbones.qk_clip.largest import LargestLogits

ATTENTION = "toyqs_branches"  # the name under which the library finds `_attend`


class TransformerBackbone(Backbone):
    """A decoder of the library's; `project_input` is the identity, I = D."""

    def __init__(
        self,
        config: PretrainedConfig,
        frozen: Frozen | None = None,
        rank: int = 0,
        *,
        autocast: bool = False,
        recompute: bool = False,
        branch_attention: str = "dense",
        kernels: str = "torch",
    ) -> None:
        """Build the decoder; see `Decoder` for the other arguments.

        Args:
            branch_attention: how branches attend to the prefix on a GPU, dense or flex.
            kernels: torch; or native, for a GPT-2 without adapters on a CPU: gpt2.py in place of the
                library's code.
        """
        super().__init__()
        self.decoder = Decoder(config, ATTENTION, frozen, rank, autocast=autocast, recompute=recompute)
        self.width, self.num_layers = config.hidden_size, config.num_hidden_layers
        self.heads = config.num_attention_heads
        self.num_kv = getattr(config, "num_key_value_heads", None) or self.heads
        self.flex = branch_attention == "flex"
        self.native = kernels == "native"
        self.longest = config.max_position_embeddings
        # As in the library's own table: rows of 1 would drown GPT-2's positions, which are of 0.02.
        self.embedding_std = config.initializer_range

    def project_input(self, embeddings: Tensor) -> Tensor:
        """Return the embeddings (1, n, D) unchanged."""
        return embeddings

    def read(self, x: Tensor | Rows, first: int = 0) -> tuple[Tensor, BranchCache]:
        """Read (1, B, T, D); return outputs (1, B, T, D) past the last norm, and branch points (B, T, 1)."""
        x = gathered(x)
        positions = torch.arange(x.shape[2], device=x.device).unsqueeze(0)
        outputs, layers = self._run(x.squeeze(0), positions + first, None)
        visible = (positions + 1).expand(outputs.shape[:2])
        after = visible + first
        return outputs.unsqueeze(0), BranchCache(layers, visible, (), after.unsqueeze(-1), after - 1)

    def empty(self, first: int = 0) -> BranchCache:
        """Return one branch point (1, 1, 1) that has read nothing, so that a branch sees only its symbols."""
        nothing = torch.zeros(1, 1, 1, dtype=torch.long, device=next(self.parameters()).device)
        return BranchCache((), nothing.squeeze(-1), (), nothing + first, nothing.squeeze(-1) + first)

    def step(self, x: Tensor | Rows, state: BranchCache) -> tuple[Tensor, BranchCache]:
        """Consume x (1, B, T, K, D); return the branches' outputs past the last norm, and their state."""
        x = gathered(x)
        branches = torch.broadcast_shapes(x.shape[1:4], state.position.shape)
        rows = x.squeeze(0).expand(*branches, -1).flatten(1, 2)
        position = state.position.expand(-1, *branches[1:])
        if state.prefix and (state.seen is None or state.position.shape != branches):
            state = state._replace(seen=self._seen(state, branches))
        outputs, layers = self._run(rows, position.flatten(1), Step(state, branches))
        own = (*state.own, ConsumedSymbol(layers, None))
        new = state._replace(own=own, position=(position + 1).expand(branches))
        return outputs.view(1, *branches, -1), new

    def back_at_context(self, state: BranchCache, later: int) -> BranchCache:
        """Set the next symbol's position to that of the context's last token, or so many after it."""
        last = (state.context + later).unsqueeze(-1)
        return state._replace(position=last.expand_as(state.position))

    def as_context(self, state: BranchCache) -> BranchCache:
        """Take the symbol that was consumed last as the context's last token."""
        return state._replace(context=state.position[..., 0] - 1)

    def handover(self, num_seeds: int, width: int) -> CacheMap:
        """Return a map of every layer's keys, and of its values."""
        return CacheMap(
            num_seeds,
            self.num_layers,
            self.num_kv * self.width // self.heads,
            self.num_kv * width // self.heads,
        )

    def gather(self, state: BranchCache, index: Tensor) -> BranchCache:
        """Gather the branch points at positions (1, B, T'); the prefix stays whole."""
        (at,) = index
        own = tuple(
            ConsumedSymbol(
                tuple((pick(k, at, 3), pick(v, at, 3)) for k, v in symbol.layers),
                None if symbol.by is None else pick(symbol.by, at, 1),
            )
            for symbol in state.own
        )
        visible, position, context = (pick(x, at, 1) for x in (state.visible, state.position, state.context))
        return BranchCache(state.prefix, visible, own, position.expand(*at.shape, -1), context)

    def keep_ended(self, new: BranchCache, old: BranchCache, live: Tensor) -> BranchCache:
        """Let only the live branches (1, B, T, K) have consumed the symbol of the step from old to new."""
        last = new.own[-1]._replace(by=live.squeeze(0))
        position = torch.where(live.squeeze(0), new.position, old.position)
        return new._replace(own=(*new.own[:-1], last), position=position)

    def _seen(
        self, state: BranchCache, branches: tuple[int, ...]
    ) -> Sequence[Block] | Sequence[Seen] | BlockMask:
        """Compute `BranchCache.seen` for branches of the shape B, T, K."""
        keys = state.prefix[0][0]
        if self.flex and keys.device.type in flex_attention.DEVICES:
            return flex_attention.visible_blocks(state.visible, branches, keys.shape[2])
        if self.native:
            return fused_attention.seen_by(state.visible, branches, keys.shape[2], keys.dtype)
        whole = self.as_on_gpu or keys.device.type != "cpu"
        return visible_blocks(state.visible, branches[1], keys.shape[2], keys.dtype, whole=whole)

    def _run(self, rows: Tensor, positions: Tensor, step: Step | None) -> tuple[Tensor, tuple[KeyValue, ...]]:
        """Run rows (B, n, D) at positions (B or 1, n); return outputs, and every layer's keys and values."""
        # In evaluations, and where a reference computes, there is no gradient, and nothing is measured.
        largest = self.qk_clip.largest if self.qk_clip is not None and torch.is_grad_enabled() else None
        if self.native:
            decoder = self.decoder
            how: dict[str, Any] = {"recompute": decoder.recompute, "largest": largest}
            return gpt2.run(decoder.tensors(), decoder.config, rows, positions, step, **how)
        layers: dict[int, KeyValue] = {}
        own = {"toyqs_step": step, "toyqs_keys_values": layers, "toyqs_largest": largest}
        outputs = self.decoder(rows, positions, **own)
        if len(layers) < self.num_layers:
            raise RuntimeError(f"the decoder's attention is no longer {ATTENTION}: was its config shared?")
        return outputs, tuple(layers[layer] for layer in range(self.num_layers))


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *_mask: None,
    toyqs_step: Step | None,
    toyqs_keys_values: dict[int, KeyValue],
    toyqs_largest: LargestLogits | None,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend in place of the library's attention: queries (B, H, n, d), keys and values (B, H_kv, n, d).

    Args:
        toyqs_step: the branches that are stepped; None: sequences are read.
        toyqs_keys_values: gets this layer's keys and values.
        toyqs_largest: notes this layer's largest logits; None: nobody asks for them.

    Returns:
        (B, n, H, d), and None in place of the attention's weights.
    """
    if toyqs_step is None:
        toyqs_keys_values[module.layer_idx] = key, value
        if toyqs_largest is not None:
            toyqs_largest.note_reading(module.layer_idx, query, key, scaling)
        grouped = query.shape[1] != key.shape[1]
        out = scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped
        )
    else:
        branches = toyqs_step.branches[1:]
        # Rotary positions leave queries and keys in float32 under autocast.
        query, key = (query * scaling).to(value.dtype), key.to(value.dtype)
        key, value = (x.contiguous().unflatten(2, branches).unsqueeze(2) for x in (key, value))
        toyqs_keys_values[module.layer_idx] = key, value
        own = query.contiguous(), (key, value), toyqs_step, module.layer_idx
        out = _attend_in_branches(*own, toyqs_largest)
    return out.transpose(1, 2), None


def _attend_in_branches(
    rows: Tensor, last: KeyValue, step: Step, layer: int, largest: LargestLogits | None
) -> Tensor:
    """Attend with scaled queries (B, H, T K, d) of the newest symbol, its key and value last."""
    (batch, time, thoughts), num_kv = step.branches, last[0].shape[1]
    query = rows.view(batch, num_kv, -1, time, thoughts, rows.shape[-1])  # heads that share keys are G
    symbols = [*(symbol.layers[layer] for symbol in step.state.own), last]
    consumed = [*(symbol.by for symbol in step.state.own), None]
    if largest is not None:
        largest.note_step(layer, query, symbols, step, 1.0)
    prefix = None
    if isinstance(step.state.seen, BlockMask):
        seen, total = flex_attention.attend(rows, *step.state.prefix[layer], step.state.seen)
        prefix = seen.view(query.shape), total.view(*query.shape[:-1], 1)
    elif step.state.seen is not None:
        keys, values = step.state.prefix[layer]
        prefix = to_prefix(query, keys.to(values.dtype), values, step.state.seen)
    out = to_all(query, symbols, consumed, prefix)
    return out.flatten(1, 2).flatten(2, 3)


AttentionInterface.register(ATTENTION, _attend)
