"""RunConfig -> what a run takes from a checkpoint: weights to start from, or frozen ones."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from toyqs.assets.pretrained import is_tied, lacks, weights
from toyqs.config.run_config import RunConfig
from toyqs.model.backbones.frozen import Frozen
from toyqs.model.core import Core
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.model.layers import Embedding, FrozenTable, TableHead


class FrozenParts(NamedTuple):
    """The frozen weights that all cores of a run with adapters share."""

    decoder: Frozen
    tokens: FrozenTable
    head: FrozenTable  # the token table, where the checkpoint ties them


def frozen_parts(config: RunConfig) -> FrozenParts | None:
    """Return the checkpoint's weights where a run trains adapters on them; None: all weights learn."""
    if config.pretrained is None or not config.lora_rank:
        return None
    decoder, tokens, head = weights(config.pretrained)
    table = FrozenTable(tokens.float())
    frozen = Frozen({name: weight.float() for name, weight in decoder.items()})
    return FrozenParts(frozen, table, table if head is None else FrozenTable(head.float()))


def checkpoint_head(
    config: RunConfig, model_tokens: Embedding | FrozenTable, frozen: FrozenParts | None
) -> TableHead:
    """Return the LM head of a pretrained run.

    Args:
        config: resolved, with a checkpoint.
        model_tokens: the token table of the core that predicts.
        frozen: from `frozen_parts`.
    """
    if frozen is not None:
        return TableHead(frozen.head, autocast=config.autocast)
    assert config.pretrained is not None
    if is_tied(config.pretrained):
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
        given[f"cores.{letter}.tokens.weight"] = tokens
    if head is not None:
        given["head.table.weight"] = head
    return given
