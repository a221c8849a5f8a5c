"""Processes that torchrun starts side by side: who leads, what the others are told, sums over all.

The first, of rank 0, is the command: it plans, prints and writes. The others wait to be told of a stack of
runs, train it along with the first, each on its share of every batch, and wait again.
"""

from __future__ import annotations

import atexit
import datetime
import functools
import itertools
import os
import pickle
import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# While rank 0 evaluates the others wait; that one has died is seen at once, by its closed connection.
PATIENCE = datetime.timedelta(days=30)

FAREWELL_SECONDS = 60.0  # the others may still be importing

END = b"end"


def rank() -> int:
    """This process's place among those that torchrun has started, from 0."""
    return int(os.environ["RANK"]) if ranks() > 1 else 0


def ranks() -> int:
    """How many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def lead() -> None:
    """Let the others go when this process ends, however far it comes; without others nothing happens."""
    if ranks() > 1:
        atexit.register(release_ranks)


def release_ranks() -> None:
    """Let the others go, and wait until they have heard it: this process may hold the store."""
    _tell(END)
    end = time.monotonic() + FAREWELL_SECONDS
    while not _store().add("failed", 0) and _store().add("gone", 0) < ranks() - 1 and time.monotonic() < end:
        time.sleep(0.01)


def broadcast_job(device: str, *job: Any) -> None:
    """Tell the others what to train; without others nothing happens.

    Args:
        device: cpu or cuda.
        job: what `jobs` yields to them.
    """
    if ranks() > 1:
        _tell(pickle.dumps((device, *job)))
        _join(device)


def receive_jobs() -> Iterator[tuple[Any, ...]]:
    """What rank 0 announces, until it ends."""
    for number in itertools.count():
        _store().wait([_job(number)], PATIENCE)
        message = _store().get(_job(number))
        if message == END:
            _store().add("gone", 1)
            return
        device, *job = pickle.loads(message)
        _join(device)
        yield tuple(job)


def is_first_to_fail() -> bool:
    """Whether no other process has failed before: one tells why, for its end is the end of all."""
    try:
        return ranks() == 1 or _store().add("failed", 1) == 1
    except RuntimeError:  # who held the store is gone
        return False


def all_reduce_(values: Tensor) -> None:
    """Put the sum over all processes in place of each one's values."""
    dist.all_reduce(values)


def require_same(step: int) -> None:
    """All processes must have found the same checkpoint.

    Raises:
        RuntimeError: they have not.
    """
    if int(all_reduce(torch.tensor(float(step)))) != ranks() * step:
        raise RuntimeError(f"rank {rank()} would go on from step {step}, others from another")


def all_reduce(values: Tensor) -> Tensor:
    """The sum over all processes, without gradient."""
    summed = values.detach().clone()
    dist.all_reduce(summed)
    return summed


def all_gather_batch(part: Tensor) -> Tensor:
    """The processes' equally large parts (S, b, ...) as one (S, B, ...), in the order of their ranks."""
    parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(ranks())]
    dist.all_gather(parts, part.contiguous())
    return torch.cat(parts, 1)


_told = itertools.count()  # number of the next message of rank 0


def _tell(message: bytes) -> None:
    _store().set(_job(next(_told)), message)  # type: ignore[arg-type]  # it takes bytes as well


def _job(number: int) -> str:
    return f"job {number}"


@functools.cache
def _store() -> dist.Store:
    """Where processes leave messages; torchrun holds it, or rank 0."""
    store, _, _ = next(iter(dist.rendezvous("env://", timeout=PATIENCE)))
    return dist.PrefixStore("toyqs", store)


def _join(device: str) -> None:
    if dist.is_initialized():
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"  # also sums of what stays on the CPU
    dist.init_process_group(
        backend, store=dist.PrefixStore("group", _store()), rank=rank(), world_size=ranks(), timeout=PATIENCE
    )
