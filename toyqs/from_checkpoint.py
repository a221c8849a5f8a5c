"""What a checkpoint decides of a configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from toyqs.config import RunConfig
from toyqs.pretrained import Architecture, architecture
from toyqs.traits import WIDTHS


def with_checkpoint(config: RunConfig, name: str) -> RunConfig:
    """The settings with the backbone, layers, heads and widths of a checkpoint, and its tokeniser.

    Args:
        config: its widths may be anything.
        name: of the checkpoint.

    Raises:
        ValueError: one line; see `pretrained.architecture`.
    """
    if getattr(config.task, "tokenizer", name) is None:
        config = replace(config, task=replace(config.task, tokenizer=name))
    sizes: dict[str, Any] = sizes_of(architecture(name))
    return replace(config, **sizes, model_hidden_dim=None)


def sizes_of(found: Architecture) -> dict[str, str | int | None]:
    """Key -> what a checkpoint says."""
    return {
        "backbone": found.family,
        "model_n_layer": found.layers,
        "model_n_head": found.heads,
        "model_n_kv_head": found.kv_heads,
        **dict.fromkeys(WIDTHS, found.width),
    }
