"""Folders of finished runs, written without training."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from toyqs.config.builders.model import build_model
from toyqs.config.identity import record
from toyqs.config.run_config import RunConfig
from toyqs.files import write_json


def written(folder: Path, config: RunConfig, model: nn.Module | None = None) -> str:
    """Write a finished run's folder, with the first seed of a model or with an untrained one."""
    folder.mkdir(parents=True)
    model = build_model(config, [3]) if model is None else model
    write_json(folder / "config.json", record(config, 3))
    weights = {name: p.detach()[:1].contiguous() for name, p in model.named_parameters()}
    save_file(weights, folder / "model.safetensors")
    return str(folder)
