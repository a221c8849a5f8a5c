"""Checks of the optimiser, and of the clipping of attention logits after its steps."""

from __future__ import annotations

from toyqs.config.errors import refuse
from toyqs.config.run_config import RunConfig


def check_qk_clip(config: RunConfig) -> None:
    """Refuse to clip attention logits where scaling the weights cannot, or where they are not measured.

    A GRU has none: there the setting is idle, so that one preset serves both backbones.

    Args:
        config: resolved.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    if not config.qk_clip or config.backbone == "gru":
        return
    if config.pretrained is not None and config.lora_rank:
        why = f"scales a decoder's weights, which lora_rank={config.lora_rank} keeps frozen"
        refuse("qk_clip", config.qk_clip, why, "qk_clip=0 or lora_rank=0")
    if config.backbone == "qwen3":
        why = "scales weights of queries and keys, which backbone=qwen3 normalises afterwards"
        refuse("qk_clip", config.qk_clip, why, "qk_clip=0 or another backbone")
    if config.branch_attention == "flex":
        why = "measures the attention's logits, which branch_attention=flex saves the memory of"
        refuse("qk_clip", config.qk_clip, why, "qk_clip=0 or branch_attention=dense")
