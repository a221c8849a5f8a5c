"""What a task of a plug-in draws, held against what all that trains relies on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from toyqs.tasks.task import SPLITS, Task
from toyqs.types import Batch

SEQUENCES = 4  # that are drawn to look at


def fault_of_sample(task: Task, seq_len: int) -> str | None:
    """Say what is wrong with the sequences that a task draws; None: nothing."""
    lengths = {"train": task.length(seq_len), "held_out": task.held_out_length(seq_len)}
    for split in SPLITS:
        shape = (1, SEQUENCES, lengths[split])
        draws: list[Any] = [
            task.sample(torch.Generator().manual_seed(0), SEQUENCES, seq_len, split) for _ in range(2)
        ]
        batch, again = draws
        if not isinstance(batch, Batch):
            return f"sample returns a {type(batch).__name__}; return a Batch of toyqs.types"
        if fault := _fault(batch, shape, task.vocab_size):
            return f"sample of the split {split} {fault}"
        if not all(map(torch.equal, batch[:4], again[:4])):
            why = "draws other sequences from a generator in the same state"
            return f"sample of the split {split} {why}; let nothing else decide them"
    return None


def _fault(batch: Batch, shape: tuple[int, ...], vocab_size: int) -> str | None:
    """Say what is wrong with a batch, in words that follow its split; None: nothing."""
    kinds: dict[str, Any] = {
        "inputs": torch.long,
        "targets": torch.long,
        "weights": None,
        "think": torch.bool,
    }
    for name, dtype in kinds.items():
        value = getattr(batch, name)
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        if found != shape:
            return f"returns {name} of shape {found}; make it (1, B, T), here {shape}"
        if dtype is not None and value.dtype != dtype:
            return f"returns {name} of {value.dtype}; make it {dtype}"
    for name in ("inputs", "targets"):
        ids = getattr(batch, name)
        if int(ids.min()) < 0 or int(ids.max()) >= vocab_size:
            span = f"{int(ids.min())} to {int(ids.max())}"
            return f"returns {name} from {span}; vocab_size={vocab_size} allows 0 to {vocab_size - 1}"
    thinking = batch.think.sum(-1)
    if int(thinking.min()) < 1 or int(thinking.min()) != int(thinking.max()):
        return "lets unequally many positions think, or none; let equally many think in every sequence"
    return None if bool(batch.weights.any()) else "counts no position; give weights above 0"
