"""What a finished run loses at every token of its text: a difficulty for the curricula of others."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toyqs.answers.command import add_measure
from toyqs.answers.loaded.load import LoadedRun
from toyqs.command_line import path_of, writing
from toyqs.files import Refusal, replacing
from toyqs.objectives.rewards import target_log_prob
from toyqs.tasks.texts.windows import Windows
from toyqs.training.hard_positions import entropy_of

AT_ONCE = 2**15  # positions that are read together


def add_to(measures: Any) -> None:
    """Add the measure to the command line."""
    text = "write the loss at every token of a run's text, predicted without a thought: for task.losses=FILE"
    part = add_measure(measures, "losses", _losses, text)
    part.add_argument("file", metavar="FILE", type=path_of, help="the file to write, of NumPy (.npy)")


def _losses(given: argparse.Namespace, loaded: LoadedRun) -> Any:
    path: Path = given.file
    if path.suffix != ".npy":
        raise Refusal(f"{path}: is a file of NumPy; give a name that ends in .npy")
    loaded.check_data()
    if not loaded.predicts_without_thought:
        raise Refusal(f"{loaded.folder}: predicts nothing without a thought; give another run")
    found = losses_of(loaded)
    with writing(path), replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, found.numpy())
    mean, border = found[0].double(), windows_of(loaded).border
    result = {"training": float(mean[:border].mean()), "held_out": float(mean[border:].mean())}
    print(f"{path}: {found.shape[1]:,} tokens; mean loss {result['training']:.3f} nats in the training text")
    print(f"and {result['held_out']:.3f} in the held-out text")
    return result


def windows_of(loaded: LoadedRun) -> Windows:
    """Return the text of a run.

    Raises:
        Refusal: its task is on no text of one row of tokens.
    """
    task = loaded.config.task
    if not isinstance(task, Windows):
        raise Refusal(
            f"{loaded.folder}: its task is {task.name}, which has no losses of a text; give another"
        )
    return task


@torch.no_grad()
def losses_of(loaded: LoadedRun) -> Tensor:
    """Compute the loss of every token of a run's text, and the loss to expect after it.

    The text is read in windows of the run's seq_len that overlap by half, of which the second half counts: a
    token has half a window before it or more, but for those at the beginning of the text.

    Returns:
        (2, number of tokens) float32, nats: −log q(x_i | before), of the first token that of the second; and
        the entropy of q(· | up to x_i).

    Raises:
        Refusal: they are not finite.
    """
    ids = windows_of(loaded).ids.long()
    length = min(loaded.config.seq_len, len(ids))
    half = max(1, length // 2)
    found = torch.zeros(2, len(ids))
    starts = [*range(0, len(ids) - length, half), len(ids) - length]
    targets = torch.cat([ids[1:], ids[:1]])  # the last has none: its loss is overwritten below
    device = next(loaded.model.parameters()).device
    size = max(1, AT_ONCE // length)
    for first in range(0, len(starts), size):
        places = torch.tensor(starts[first : first + size]).unsqueeze(1) + torch.arange(length)
        inputs = ids[places].unsqueeze(0).to(device)
        logits = loaded.model.talk(loaded.model.read(inputs, None)._replace(ahead=None), None).logits[
            ..., :1, :
        ]
        entropy = entropy_of(logits[0, :, :, 0, 0]).cpu()
        wanted = targets[places].view(1, *places.shape, 1).to(device)
        loss = -target_log_prob(logits, wanted)[0, :, :, 0].cpu()
        for row, start in enumerate(starts[first : first + size]):
            kept = slice(0 if start == 0 else length - half, length)
            found[1, places[row, kept]] = entropy[row, kept].float()
            found[0, (places[row, kept] + 1) % len(ids)] = loss[row, kept].float()
    found[0, 0] = found[0, 1]
    if not bool(found.isfinite().all()):
        raise Refusal(f"{loaded.folder}: its losses are not finite, it may have diverged; give another run")
    return found
