"""The processes of torchrun: jobs that rank 0 broadcasts, and sums over all ranks.

Rank 0 runs the command: it plans, prints and writes. The others wait for a job, which is a stack of runs,
train it together with rank 0, each on its slice of every batch, and wait again.
"""

from __future__ import annotations

import atexit
import datetime
import functools
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# The others wait while rank 0 evaluates. A process that dies is noticed at once, by its closed connection.
TIMEOUT = datetime.timedelta(days=30)

RELEASE_SECONDS = 60.0  # the others may still be importing

END = b"end"  # the message after the last job


def rank() -> int:
    """Return this process's number among those that torchrun has started, from 0."""
    return int(os.environ["RANK"]) if ranks() > 1 else 0


def ranks() -> int:
    """Return how many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def lead() -> None:
    """Release the others when this process ends, for whatever reason; without others do nothing."""
    if ranks() > 1:
        atexit.register(release_ranks)


def release_ranks() -> None:
    """Let the others end, and wait until they have read that message: this process may hold the store."""
    _send(END)
    end = time.monotonic() + RELEASE_SECONDS
    while not _store().add("failed", 0) and _store().add("gone", 0) < ranks() - 1 and time.monotonic() < end:
        time.sleep(0.01)


def broadcast_job(device: str, job: Any) -> None:
    """Send the others what to train; without others do nothing.

    Args:
        device: cpu or cuda.
        job: what `receive_jobs` yields to them, a JSON value: others on this machine can write to the store,
            so nothing that is read from it may run code.
    """
    if ranks() > 1:
        _send(json.dumps([device, job]).encode())
        _join(device)


def receive_jobs() -> Iterator[Any]:
    """Yield the jobs that rank 0 broadcasts, until it releases the others."""
    for number in itertools.count():
        _store().wait([_job(number)], TIMEOUT)
        message = _store().get(_job(number))
        if message == END:
            _store().add("gone", 1)
            return
        device, job = json.loads(message)
        _join(device)
        yield job


def is_first_to_fail() -> bool:
    """Tell whether no other process has failed before: one of them prints why, and all end with it."""
    try:
        return ranks() == 1 or _store().add("failed", 1) == 1
    except RuntimeError:  # the process that held the store has ended
        return False


def all_reduce_(values: Tensor) -> None:
    """Replace each process's values by their sum over all processes."""
    dist.all_reduce(values)


def require_same(step: int) -> None:
    """Check that all processes resume from the same step.

    Raises:
        RuntimeError: they do not.
    """
    if int(all_reduce(torch.tensor(float(step)))) != ranks() * step:
        raise RuntimeError(f"rank {rank()} would resume from step {step}, others from another")


def all_reduce(values: Tensor) -> Tensor:
    """Return the sum over all processes, without gradient."""
    summed = values.detach().clone()
    dist.all_reduce(summed)
    return summed


def largest_(values: Mapping[Any, Tensor]) -> None:
    """Replace each process's values, under the same keys in all, by the largest over all processes."""
    for _, tensor in sorted(values.items()):
        dist.all_reduce(tensor, dist.ReduceOp.MAX)


def all_gather_batch(part: Tensor) -> Tensor:
    """Join the processes' equally large parts (S, b, ...) to one (S, B, ...), in the order of ranks."""
    parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(ranks())]
    dist.all_gather(parts, part.contiguous())
    return torch.cat(parts, 1)


_numbers = itertools.count()  # of rank 0's messages


def _send(message: bytes) -> None:
    _store().set(_job(next(_numbers)), message)  # type: ignore[arg-type]  # it takes bytes as well


def _job(number: int) -> str:
    return f"job {number}"


@functools.cache
def _store() -> dist.Store:
    """Return the store through which processes exchange messages; torchrun holds it, or rank 0."""
    store, _, _ = next(iter(dist.rendezvous("env://", timeout=TIMEOUT)))
    return dist.PrefixStore("toyqs", store)


def _join(device: str) -> None:
    if dist.is_initialized():
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"  # also sums of what stays on the CPU
    dist.init_process_group(
        backend, store=dist.PrefixStore("group", _store()), rank=rank(), world_size=ranks(), timeout=TIMEOUT
    )
