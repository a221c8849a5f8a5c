"""Memory that runs out: a step, or an evaluation, is made again with half as many sequences at a time."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch

from toyqs.training.params import TrainingParams

Result = TypeVar("Result")
OnShortage = Callable[[int, int], None]  # called with a step, from 1, and the sequences taken at a time since

# Torch has a class of error for what its own store of a GPU's memory lacks alone.
WORDS = (
    *("can't allocate memory", "cannot allocate memory", "not enough memory", "bad_alloc"),
    *("out of memory", "_alloc_failed"),
)

NOT_ONE = (
    "not with one sequence at a time; give a smaller trice_samples or max_reasoning_len, or fewer seeds side "
    "by side"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory could not be had, a GPU's or the machine's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in WORDS)


def in_fewer(count: int, work: Callable[[int], Result], what: str) -> Result:
    """Do work on at most so many sequences at a time, again with half as many as long as memory runs out.

    Args:
        count: of the sequences.
        work: their number at a time -> the result; it begins anew in every call.
        what: it is, for the message.

    Raises:
        MemoryError: one line, where one sequence is too much.
    """
    while True:
        try:
            return work(count)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Here the error is gone, and with it the tensors that its traceback held.
        if count == 1:
            raise MemoryError(f"{what} does not fit into memory, {NOT_ONE}")
        count = (count + 1) // 2
        _free()


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Fitted:
    """Does the parts of training steps, and finds how many sequences at a time fit into memory.

    A micro-batch is halved as often as needed, and stays so. What is done again must begin at what it began
    with the first time: parameters and optimiser are as they were (`Optimiser.step` changes all or nothing),
    and batch and noise are drawn already.
    """

    def __init__(self, settings: TrainingParams, separable: bool, on_shortage: OnShortage | None) -> None:
        """Begin with whole micro-batches.

        Args:
            settings: of the training; the attribute has them as they are by now.
            separable: whether a part of a micro-batch can be taken alone.
            on_shortage: see `OnShortage`; None: errors are raised as they come.
        """
        self.settings, self.separable, self.on_shortage = settings, separable, on_shortage

    def __call__(self, step: int, work: Callable[[TrainingParams], Result]) -> Result:
        """Do a part of a step, from 1, again as long as memory runs out.

        Raises:
            MemoryError: one line, where no smaller part can be taken.
        """
        while True:
            try:
                return work(self.settings)
            except (RuntimeError, MemoryError) as error:
                if self.on_shortage is None or not is_out_of_memory(error):
                    raise
            # Here the error is gone, and with it the graph that its traceback held.
            self._halve(step)
            _free()
            assert self.on_shortage is not None and self.settings.sequences is not None
            self.on_shortage(step, self.settings.sequences)

    def _halve(self, step: int) -> None:
        size = self.settings.sequences or self.settings.batch_size // self.settings.grad_acc
        if size == 1:
            raise MemoryError(f"step {step} does not fit into memory, {NOT_ONE}")
        if not self.separable:
            why = "and what its positions are compared with is of all of them, so that it cannot be parted"
            raise MemoryError(f"step {step} does not fit into memory, {why}; give a larger grad_acc")
        self.settings = replace(self.settings, sequences=(size + 1) // 2)
