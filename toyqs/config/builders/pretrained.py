"""RunConfig -> what a run takes from a checkpoint: weights to start from, or frozen ones."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from toyqs.assets.pretrained import is_tied, lacks, weights
from toyqs.config.run_config import RunConfig
from toyqs.model.backbones.frozen import Frozen, FrozenTable, TokenTable, mean_rows, with_rows
from toyqs.model.core import Core
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.model.layers import Embedding, TableHead


class FrozenParts(NamedTuple):
    """The frozen weights that all cores of a run with adapters share."""

    decoder: Frozen
    tokens: FrozenTable
    head: FrozenTable | None  # None: the token table, as the checkpoint ties them


def frozen_parts(config: RunConfig) -> FrozenParts | None:
    """Return the checkpoint's weights where a run trains adapters on them; None: all weights learn."""
    if config.pretrained is None or not config.lora_rank:
        return None
    decoder, tokens, head = weights(config.pretrained)
    frozen = Frozen({name: weight.float() for name, weight in decoder.items()})
    return FrozenParts(
        frozen, FrozenTable(tokens.float()), None if head is None else FrozenTable(head.float())
    )


def token_table(config: RunConfig, frozen: FrozenParts) -> TokenTable:
    """Return the token table of a core on frozen weights; rows of tokens that the task adds are its own."""
    return with_rows(frozen.tokens, config.task.added_tokens)


def checkpoint_head(
    config: RunConfig, model_tokens: Embedding | TokenTable, frozen: FrozenParts | None
) -> TableHead:
    """Return the LM head of a pretrained run.

    Args:
        config: resolved, with a checkpoint.
        model_tokens: the token table of the core that predicts.
        frozen: from `frozen_parts`.
    """
    assert config.pretrained is not None
    if frozen is not None and frozen.head is not None:
        return TableHead(with_rows(frozen.head, config.task.added_tokens), autocast=config.autocast)
    if frozen is not None or is_tied(config.pretrained):
        return TableHead(model_tokens, autocast=config.autocast)
    return TableHead(Embedding(1, *model_tokens.weight.shape[1:]), autocast=config.autocast)


def given_weights(config: RunConfig, model: LatentReasoner) -> dict[str, Tensor]:
    """Return the values that a model's parameters start from, by name; those absent are drawn.

    Args:
        config: resolved.
        model: of this configuration.

    Returns:
        Parameter name -> values without the seed axis.

    Raises:
        CheckpointError: the checkpoint lacks a weight of the decoder, or has one of another shape.
    """
    if config.pretrained is None or config.lora_rank:
        return {}
    decoder, tokens, head = weights(config.pretrained)
    given: dict[str, Tensor] = {}
    for letter, core in model.cores.items():
        assert isinstance(core, Core)
        path = f"cores.{letter}.backbone.decoder.weights."
        needed = ((name, x.shape[1:]) for name, x in model.named_parameters() if name.startswith(path))
        for name, shape in needed:
            bare = name.removeprefix(path)
            if bare not in decoder or decoder[bare].shape != shape:
                raise lacks(config.pretrained, bare, shape)
            given[name] = decoder[bare]
        given[f"cores.{letter}.tokens.weight"] = _extended(tokens, config.task.added_tokens)
    if head is not None:
        given["head.table.weight"] = _extended(head, config.task.added_tokens)
    return given


def _extended(rows: Tensor, count: int) -> Tensor:
    """Return rows (n, D), unchanged to the bit, and after them `count` rows that start as `mean_rows`."""
    if not count:
        return rows
    more = mean_rows(rows, count).to(torch.promote_types(rows.dtype, torch.float32))
    return torch.cat([rows.to(more.dtype), more])
