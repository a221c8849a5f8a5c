"""Measure the cost of a training: seconds, tokens per second, memory. Never part of a run's results."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Timer:
    """A clock that runs from its construction on.

    Args:
        device: cpu or cuda.
    """

    def __init__(self, device: str) -> None:
        self.on_gpu = device == "cuda"
        self.start, self.cpu_start = time.perf_counter(), time.process_time()
        self.earlier_wall, self.earlier_cpu = 0.0, 0.0  # of earlier processes at the same training
        self.training_start, self.paused_seconds = self.start, 0.0
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()

    def add_earlier(self, seconds: tuple[float, float]) -> None:
        """Add the `seconds` of earlier processes at the same training."""
        self.earlier_wall, self.earlier_cpu = seconds

    def start_training(self) -> None:
        """Start the time over which `speed` is a mean."""
        self.training_start, self.paused_seconds = self._now(), 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of a `with` block out of `speed`."""
        start = self._now()
        yield
        self.paused_seconds += self._now() - start

    def speed(self, tokens: int) -> float:
        """Return tokens per second, from the number of tokens trained since `start_training`."""
        return tokens / max(self._now() - self.training_start - self.paused_seconds, 1e-9)

    @property
    def seconds(self) -> tuple[float, float]:
        """Return wall-clock and processor seconds so far, those of earlier processes included."""
        wall, cpu = time.perf_counter() - self.start, time.process_time() - self.cpu_start
        return self.earlier_wall + wall, self.earlier_cpu + cpu

    def peak_memory(self) -> int:
        """Return peak memory in bytes: that of tensors on a GPU, otherwise that of the process."""
        if self.on_gpu:
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB

    def _now(self) -> float:
        if self.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()
