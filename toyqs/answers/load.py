"""A finished run's folder -> a model that answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from toyqs.answers.metrics import Text
from toyqs.answers.predictor import Predictor
from toyqs.config.builders.reference_model import finished_model
from toyqs.config.builders.training import build_training_params
from toyqs.config.errors import Refusal
from toyqs.config.finished_run import settings_of
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_reasoner import LatentReasoner


class LoadedRun(NamedTuple):
    """A run and what its tokens are."""

    config: RunConfig
    model: LatentReasoner
    text: Text
    seed: int

    @property
    def thinks(self) -> bool:
        """Whether it has thoughts."""
        return self.model.interpreter is not None

    @property
    def predicts_without_thought(self) -> bool:
        """Whether it predicts without a thought."""
        return not self.thinks or self.model.predicts_without_thought

    def predictor(self, *, thinking: bool) -> Predictor:
        """With thoughts or without."""
        settings = build_training_params(self.config)
        sizes = settings.sizes_at(settings.steps - 1)  # as long as the last thoughts of its training
        return Predictor(self.model, sizes, thinking=thinking, seed=self.seed)

    def held_out(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Held-out windows, the first token and those after it, `count` of the latter or a few more."""
        task, length = self.config.task, self.config.task.length(self.config.seq_len)
        windows = min(max(1, -(-count // (length - 1))), task.held_out_size(self.config.seq_len))
        batch = task.sample(torch.Generator(), windows, self.config.seq_len, "held_out")
        for tokens in batch.inputs[0]:
            yield tokens[:1], tokens[1:]


def load(folder: str, device: str = "cpu", seed: int = 0) -> LoadedRun:
    """The model of a finished run.

    Args:
        folder: the run's, runs/KEY.
        device: cpu or cuda.
        seed: of thoughts and sampled tokens.

    Raises:
        Refusal: one line: no such run, damaged, its task is no text, its thoughts' lengths are the task's.
    """
    try:
        config = resolved(settings_of(folder))
        model = finished_model(folder, 1)
    except ValueError as error:
        raise Refusal(str(error).removeprefix("reference_run=")) from error
    if config.task.encode is None:
        raise Refusal(
            f"{folder}: its task is {config.task.name}, and only a run on a text can be asked; give one of "
            "task=char_text or token_text"
        )
    if config.use_reasoner and config.adaptive_len:
        raise Refusal(f"{folder}: the lengths of its thoughts are its task's (adaptive_len=true)")
    if device == "cuda" and not torch.cuda.is_available():
        raise Refusal("--device cuda: torch finds no CUDA device here; give --device cpu")
    model = model.to(device=device, dtype=getattr(torch, config.dtype))
    return LoadedRun(config, model, config.task, seed)
