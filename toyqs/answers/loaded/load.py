"""Load a finished run from its folder, to ask it questions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, cast

import torch

from toyqs.answers.loaded.predictor import Predictor
from toyqs.answers.text import Text
from toyqs.config.builders.kernels import can_be_native
from toyqs.config.builders.reference_model import finished_model
from toyqs.config.builders.training import build_training_params
from toyqs.config.contents import check_unchanged
from toyqs.config.errors import Refusal
from toyqs.config.finished_run import settings_of
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.installation import program
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.rng import ThoughtSizes
from toyqs.training.params import TrainingParams

TRAINS_ON_TEXT = f"{program()} task=char_text task.dataset=shake seq_len=32 max_steps=300 controls=none"


class LoadedRun(NamedTuple):
    """A finished run: its settings, its model and its task, which maps text to tokens."""

    folder: str
    config: RunConfig
    model: LatentReasoner
    seed: int  # of what is sampled when it is asked

    @property
    def text(self) -> Text:
        """Return the task of a run that `load` has loaded, as far as it maps text to tokens and back."""
        return cast(Text, self.config.task)

    @property
    def thinks(self) -> bool:
        """Tell whether the run has thoughts."""
        return self.model.interpreter is not None

    @property
    def predicts_without_thought(self) -> bool:
        """Tell whether the model can predict without a thought."""
        return not self.thinks or self.model.predicts_without_thought

    def predictor(self, *, thinking: bool) -> Predictor:
        """Build a predictor that thinks, or one that does not."""
        return Predictor(self.model, self.sizes, thinking=thinking, seed=self.seed)

    @property
    def params(self) -> TrainingParams:
        """Return the numbers of its training."""
        return build_training_params(self.config)

    @property
    def sizes(self) -> ThoughtSizes:
        """Return the sizes of its thoughts, as long as those that its row measured."""
        return self.params.eval_sizes_at(self.params.steps - 1)

    def check_thoughts(self) -> None:
        """Refuse a run without thoughts.

        Raises:
            Refusal: it has none, or thoughts of no symbols.
        """
        if not self.config.has_thoughts:
            raise Refusal(f"{self.folder}: this run has no thoughts; give one that thinks")

    def check_one_by_one(self) -> None:
        """Refuse a run that cannot be asked for one token at a time.

        Raises:
            Refusal: its task sets the lengths of its thoughts, or they are handed on from token to token.
        """
        if self.config.use_reasoner and self.config.adaptive_len:
            raise Refusal(
                f"{self.folder}: its task sets the lengths of its thoughts; give a run of adaptive_len=false"
            )
        if self.config.hands_on:
            raise Refusal(
                f"{self.folder}: thought_into=state hands its thoughts on from token to token, and here each "
                "token is asked for by itself; give a run of thought_into=prediction"
            )

    def check_data(self) -> None:
        """Refuse data that are not those of the training.

        Raises:
            Refusal: the text is gone, or is not the one that the run was trained on.
        """
        try:
            check_unchanged(self.folder, self.config, "task")
        except ValueError as error:
            why = str(error).partition("; ")[0]
            raise Refusal(
                f"{why}; put back the text of the training, or ask in the folder in which the run was trained"
            ) from error


@contextmanager
def naming(folder: str) -> Iterator[None]:
    """Refuse a run that cannot be read, within a `with` block, in a line that begins with its folder."""
    try:
        yield
    except ValueError as error:
        message = str(error).removeprefix("reference_run=")
        raise Refusal(message if folder in message else f"{folder}: {message}") from error


def load(folder: str, device: str = "cpu", seed: int = 0) -> LoadedRun:
    """Load a finished run on a text, to read and write text with it.

    Args:
        folder: the run's, runs/KEY.
        device: cpu or cuda.
        seed: of thoughts and sampled tokens.

    Raises:
        Refusal: as `load_run` and `check_one_by_one`; its task is not on text.
    """
    loaded = load_run(folder, device, seed)
    if loaded.config.task.encode is None:
        raise Refusal(
            f"{folder}: its task is {loaded.config.task.name}, and only a run on a text can be asked; train "
            f"one: {TRAINS_ON_TEXT}"
        )
    loaded.check_one_by_one()
    return loaded


def load_run(folder: str, device: str = "cpu", seed: int = 0) -> LoadedRun:
    """Load a finished run of any task.

    One that was trained with native kernels is asked with them where this machine has them, else with
    torch's, which round otherwise.

    Args:
        folder: the run's, runs/KEY.
        device: cpu or cuda.
        seed: of what is sampled.

    Raises:
        Refusal: the run is missing or damaged, or there is no such device.
    """
    with naming(folder):
        config = resolved(settings_of(folder))
        native = config.kernels == "native" and device == "cpu" and can_be_native()
        model = finished_model(folder, 1, native=native)
    if device == "cuda" and not torch.cuda.is_available():
        raise Refusal("--device cuda: torch finds no CUDA device here; give --device cpu")
    model = model.to(device=device, dtype=getattr(torch, config.dtype))
    return LoadedRun(folder, config, model.eval(), seed)
