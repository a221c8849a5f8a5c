"""From the settings as typed to all the settings of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from toyqs.assets.pretrained import Architecture, architecture
from toyqs.config.run_config import WIDTHS, RunConfig

# Named variants: what each sets.
DEBUG_VARIANTS: dict[str, dict[str, Any]] = {
    "seperateInterpreter": {"weight_groups": ["A", "A", "A", "B"], "interpreter_start": "afresh"},
}


def resolved(config: RunConfig) -> RunConfig:
    """The settings with everything filled in that follows from others: variants, widths, forced choices."""
    config = replace(config, **DEBUG_VARIANTS.get(config.debug_cfg or "", {}), debug_cfg=None)
    if config.pretrained is not None:
        config = with_checkpoint(config, config.pretrained)
    if config.model_hidden_dim is not None:
        widths: dict[str, Any] = dict.fromkeys(WIDTHS, config.model_hidden_dim)
        config = replace(config, **widths, model_hidden_dim=None)
    if config.interpreter_hidden_dim is None:
        config = replace(config, interpreter_hidden_dim=config.reasoner_hidden_dim)
    if config.symbol_kind == "deterministic":  # all thoughts of a position would be the same
        config = replace(config, trice_samples=1, train_nll_num=1)
    if config.train_nll_num is None:
        config = replace(config, train_nll_num=config.trice_samples)
    if not config.has_policy_loss:  # a group baseline would refuse K = 1 for nothing
        config = replace(config, baseline="none", advantage_scale="none")
    if not config.policy_loss_beta:  # nobody is paid
        config = replace(config, learned_reward=False)
    if not config.use_base_lm:
        config = replace(config, interpreter_start="afresh")
    if not config.use_reasoner:
        config = replace(config, controls="none")
    return config


def with_checkpoint(config: RunConfig, name: str) -> RunConfig:
    """The settings with the backbone, layers, heads and widths of a checkpoint, and its tokeniser.

    Args:
        config: its widths may be anything.
        name: of the checkpoint.

    Raises:
        ValueError: one line; see `pretrained.architecture`.
    """
    sizes: dict[str, Any] = sizes_of(architecture(name))
    return replace(config, **sizes, model_hidden_dim=None, task=config.task.with_tokenizer(name))


def sizes_of(found: Architecture) -> dict[str, str | int | None]:
    """Key -> what a checkpoint says."""
    return {
        "backbone": found.family,
        "model_n_layer": found.layers,
        "model_n_head": found.heads,
        "model_n_kv_head": found.kv_heads,
        **dict.fromkeys(WIDTHS, found.width),
    }
