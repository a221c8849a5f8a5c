"""RunConfig -> the reference model, which no gradient trains."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from toyqs.config.builders.model import assemble
from toyqs.config.contents import check_unchanged
from toyqs.config.finished_run import WEIGHTS, settings_of
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.files import ROW, damage, read_json
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
        folder, native = str(config.reference_run), config.kernels == "native"
        reference = finished_model(folder, like.shape[0], native=native).to(like)
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


def finished_model(folder: str, num_seeds: int, *, native: bool = False) -> LatentReasoner:
    """Return the model of a finished run, one copy per seed.

    Args:
        folder: the run's.
        num_seeds: S.
        native: take native kernels where it can, whichever it was trained with.

    Raises:
        ValueError: one line with the remedy: see `finished_run.settings_of`; the checkpoint that it was
            trained on has changed; or the weights are damaged, another model's or not finite.
    """
    config = replace(resolved(settings_of(folder)), kernels="torch")
    check_unchanged(folder, config, "pretrained")
    weights = finished_weights(folder, config)
    model = assemble(replace(config, kernels="native") if native else config, num_seeds)
    for name, parameter in model.named_parameters():
        repeated = weights[name].expand(num_seeds, *weights[name].shape[1:])
        parameter.data = torch.empty_like(parameter, dtype=repeated.dtype).copy_(repeated)
    assert isinstance(model, nn.Module)
    return model


def finished_weights(folder: str, config: RunConfig, key: str = "reference_run") -> dict[str, Tensor]:
    """Read a finished run's weights (1, ...) by name; a model that they do not fit is not allocated.

    Args:
        folder: the run's, as given in a setting.
        config: its settings, resolved.
        key: that setting, for messages.

    Raises:
        ValueError: one line with the setting and the remedy: they are damaged, another model's or not finite.
    """
    given = f"{key}={folder}: its {WEIGHTS}"
    try:
        weights = load((Path(folder) / WEIGHTS).read_bytes())
    except (OSError, SafetensorError, KeyError) as error:  # KeyError: a type that torch does not have
        raise ValueError(f"{given} is damaged or missing; give the folder of a finished run") from error
    try:
        with torch.device("meta"):
            needed = {name: p.shape for name, p in assemble(config, 1).named_parameters()}
    except (RuntimeError, OverflowError, TypeError) as error:  # torch's, for sizes that no tensor has
        raise ValueError(
            f"{key}={folder}: its config.json describes no model that can be built "
            f"({str(error).splitlines()[0]}); give the folder of a finished run"
        ) from error
    if _are_damaged(Path(folder)):
        raise ValueError(f"{given} is not as its row notes it: it is damaged; give the folder of another run")
    if needed != {name: weight.shape for name, weight in weights.items()}:
        raise ValueError(
            f"{given} holds another model than its config.json describes; give the folder of a finished run"
        )
    for name, weight in weights.items():
        if weight.dtype != getattr(torch, config.dtype):
            why = f"has {name} in {weight.dtype}, and its config.json says {config.dtype}"
            raise ValueError(f"{given} {why}; give the folder of a finished run")
        if not weight.isfinite().all():
            raise ValueError(f"{given} is not finite in {name}: it diverged; give the folder of another run")
    return weights


def _are_damaged(folder: Path) -> bool:
    """Tell whether a run's weights are not those that its row notes, if it has one that does."""
    try:
        row = read_json(folder / ROW)
    except (OSError, ValueError):
        return False
    return WEIGHTS in damage(row, folder)
