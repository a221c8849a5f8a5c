"""RunConfig -> the reference model, which no gradient trains."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from toyqs.config.builders.model import assemble
from toyqs.config.finished_run import WEIGHTS, settings_of
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.training.reference_model import ReferenceModel


def build_reference_model(config: RunConfig, model: LatentReasoner) -> ReferenceModel | None:
    """Return the reference model of a run, before its training begins; None where nothing needs one.

    Args:
        config: resolved and checked.
        model: the run's own, S seeds, with its initial weights.
    """
    if not config.has_reference_model:
        return None
    if config.reference == "checkpoint":
        like = next(model.parameters())
        reference = finished_model(str(config.reference_run), like.shape[0]).to(like)
        # It predicts without thoughts, so there is no reading for the interpreter to continue from.
        reference.num_ahead, reference.interpreter_reads_on = model.num_ahead, False
    else:
        reference = copy.deepcopy(model)
    return ReferenceModel(
        reference,
        decay=config.reference_decay if config.reference == "ema" else 1.0,
        predicts=config.uses_reference,
        thought_kl_beta=config.thought_kl_beta if config.penalises_thought_kl else 0.0,
    )


def finished_model(folder: str, num_seeds: int) -> LatentReasoner:
    """Return the model of a finished run, one copy per seed.

    Args:
        folder: the run's.
        num_seeds: S.

    Raises:
        ValueError: one line with reference_run and the remedy: see `finished_run.settings_of`, or the weights
            are damaged or another model's.
    """
    model = assemble(resolved(settings_of(folder)), num_seeds)
    try:
        weights = load((Path(folder) / WEIGHTS).read_bytes())
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"reference_run={folder}: its {WEIGHTS} is damaged or missing; give the folder of a finished run"
        ) from error
    named = dict(model.named_parameters())
    if {n: p.shape[1:] for n, p in named.items()} != {n: w.shape[1:] for n, w in weights.items()}:
        raise ValueError(
            f"reference_run={folder}: its {WEIGHTS} holds another model than its config.json describes; give "
            "the folder of a finished run"
        )
    for name, parameter in named.items():
        repeated = weights[name].expand(num_seeds, *weights[name].shape[1:])
        parameter.data = torch.empty_like(parameter, dtype=repeated.dtype).copy_(repeated)
    assert isinstance(model, nn.Module)
    return model
