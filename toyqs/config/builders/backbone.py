"""RunConfig -> the backbone of a core."""

from __future__ import annotations

from typing import Any

from toyqs.assets.pretrained import CheckpointError, architecture, lacks, located
from toyqs.config.builders.kernels import require_native
from toyqs.config.run_config import RunConfig
from toyqs.model.backbones.backbone import Backbone
from toyqs.model.backbones.frozen import Frozen
from toyqs.model.backbones.gru import GRU


def build_backbone(config: RunConfig, num_seeds: int, width: int, frozen: Frozen | None = None) -> Backbone:
    """Return a backbone of one width, its weights zero.

    Args:
        config: resolved.
        num_seeds: S; 1 for a transformer.
        width: D.
        frozen: a pretrained decoder's weights, to which adapters are added; None: its own weights learn.

    Raises:
        Refusal: with kernels=native this machine cannot build them.
        CheckpointError: the frozen weights lack one that the decoder has, or no decoder can be built.
    """
    if native := config.kernels == "native" and config.takes_native_kernels:
        require_native()
    if config.backbone == "gru":
        return GRU(num_seeds, width, native)
    assert num_seeds == 1, "a transformer takes one seed at a time"
    # Imported only where needed: the library takes seconds to load, and the extra may not be installed.
    from transformers import AutoConfig

    from toyqs.model.backbones.transformer import TransformerBackbone

    how: dict[str, Any] = {
        "autocast": config.autocast,
        "recompute": config.gradient_checkpointing,
        "branch_attention": config.branch_attention,
    }
    if config.pretrained is None:
        sizes = AutoConfig.for_model(config.backbone, **_sizes(config, width))
        return TransformerBackbone(sizes, kernels="native" if native else "torch", **how)
    try:
        found = _without_window(AutoConfig.from_pretrained(located(config.pretrained)))
        backbone = TransformerBackbone(found, frozen, config.lora_rank, **how)
    except Exception as error:  # the library has checks of its own, and errors of many kinds
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(
            f"pretrained={config.pretrained}: its config.json describes no decoder that transformers can "
            f"build ({type(error).__name__}: {reason}); give another checkpoint"
        ) from error
    if backbone.decoder.lacking:
        raise lacks(config.pretrained, *backbone.decoder.lacking[0])
    backbone.longest = architecture(config.pretrained).longest
    return backbone


def _without_window(found: Any) -> Any:
    """Let all layers of a decoder attend to all tokens, as its window does while no sequence is longer."""
    found.sliding_window = None
    if getattr(found, "layer_types", None) is not None:
        found.layer_types = ["full_attention"] * found.num_hidden_layers
    return found


def _sizes(config: RunConfig, width: int) -> dict[str, Any]:
    """Return a decoder's sizes under the names of the library transformers."""
    sizes = {
        "hidden_size": width,
        "num_hidden_layers": config.model_n_layer,
        "num_attention_heads": config.model_n_head,
        "max_position_embeddings": config.num_positions,
    }
    if config.backbone == "gpt2":
        return sizes
    return sizes | {
        # Three matrices here, where GPT-2 has two of four times the width: as many parameters in all.
        "intermediate_size": 8 * width // 3,
        "num_key_value_heads": config.model_n_kv_head or config.model_n_head,
        "head_dim": width // config.model_n_head,
        "sliding_window": None,
    }
