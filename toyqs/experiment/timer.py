"""What a training takes: seconds, tokens per second, memory. Never part of a run's results."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Timer:
    """Runs from its making on.

    Args:
        device: cpu or cuda.
    """

    def __init__(self, device: str) -> None:
        self.on_gpu = device == "cuda"
        self.begun, self.cpu_begun = time.perf_counter(), time.process_time()
        self.wall_before, self.cpu_before = 0.0, 0.0  # of an earlier process at the same training
        self.training_begun, self.aside_seconds = self.begun, 0.0
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()

    def go_on(self, seconds: tuple[float, float]) -> None:
        """Count an earlier process's `seconds` too."""
        self.wall_before, self.cpu_before = seconds

    def start_training(self) -> None:
        """From here on tokens are trained."""
        self.training_begun, self.aside_seconds = self._now(), 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done within a `with` block is no training."""
        begun = self._now()
        yield
        self.aside_seconds += self._now() - begun

    def speed(self, tokens: int) -> float:
        """Tokens per second of training, so many having been trained since it was started."""
        return tokens / max(self._now() - self.training_begun - self.aside_seconds, 1e-9)

    @property
    def seconds(self) -> tuple[float, float]:
        """Wall-clock and processor seconds so far, those of earlier processes with them."""
        wall, cpu = time.perf_counter() - self.begun, time.process_time() - self.cpu_begun
        return self.wall_before + wall, self.cpu_before + cpu

    def peak_memory(self) -> int:
        """Bytes: the most that tensors took on the GPU, or that the process has ever taken."""
        if self.on_gpu:
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB

    def _now(self) -> float:
        if self.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()
