"""The state of torch in this process: as a new one has it, with one thread, without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def as_in_a_new_process() -> Iterator[None]:
    """Compute gradients, in float32 and on the CPU unless told otherwise, within a block."""
    dtype = torch.get_default_dtype()
    with ExitStack() as undone, torch.inference_mode(False), torch.enable_grad():
        if torch.get_default_device().type != "cpu":
            undone.enter_context(torch.device("cpu"))
        undone.callback(torch.set_default_dtype, dtype)
        torch.set_default_dtype(torch.float32)
        yield


def compute_with_one_thread() -> None:
    """Let torch compute with one thread from here on: it then starts no others."""
    torch.set_num_threads(1)


def sees_gpu() -> bool:
    """Tell whether torch could compute on a GPU."""
    return torch.cuda.is_available()
