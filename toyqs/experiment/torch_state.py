"""torch as a new process has it, in one in which its caller may have set it otherwise."""

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
