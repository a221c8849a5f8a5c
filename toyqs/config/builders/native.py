"""RunConfig -> the native functions that a model uses beside those of its backbones."""

from __future__ import annotations

from typing import cast

from toyqs.config.run_config import RunConfig
from toyqs.model.backbones.kernels.few_columns import COLUMNS, FewColumns
from toyqs.model.core import Core
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.model.layers import FeatureHead
from toyqs.model.plain import PlainStep
from toyqs.model.thoughts import TokenHead
from toyqs.objectives.rewards import OWN_LOSS


def with_native(config: RunConfig, model: LatentReasoner) -> LatentReasoner:
    """Let native functions draw a model's symbols, and make the whole step of a GRU without thoughts.

    Args:
        config: with kernels=native.
        model: of it.
    """
    head = model.thought_head
    if type(head) is TokenHead:  # others may make their logits or their symbols in a way of their own
        head.native = head.shared is None and head.ending is None
    logits = model.head
    if isinstance(logits, FeatureHead) and not config.autocast and 1 < logits.bias.shape[-1] <= COLUMNS:
        logits.first_layer = FewColumns.apply
    one_layer = config.linear_lm_head and config.lm_head_layers == 1 and not config.autocast
    plain_gru = config.backbone == "gru" and not config.use_reasoner and config.num_ahead == 1
    plain_gru = plain_gru and config.nll_loss_beta == 1.0 and not config.penalises_prediction_kl
    if plain_gru and one_layer and config.reward not in OWN_LOSS:
        (core,) = model.cores.values()
        model.plain_step = PlainStep(cast(Core, core), cast(FeatureHead, model.head))
    return model
