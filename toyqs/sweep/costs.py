"""The cost of each configuration's training step, counted before any run starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from toyqs.config.builders.cost import count_cost, counts_on_gpu, num_weights, step_bytes
from toyqs.config.identity import run_key
from toyqs.config.plain import to_plain
from toyqs.config.run_config import RunConfig
from toyqs.sweep.starting import stops_delayed
from toyqs.sweep.worker import WorkerProcess
from toyqs.training.flops import Cost

LARGE = 2**28  # bytes: such a step is counted in a process of its own, so that want of memory ends that one
SMALLER = "give a smaller data_loader_batch_size, trice_samples or max_reasoning_len, or a larger grad_acc"


def cached_cost() -> Callable[[RunConfig], Cost]:
    """Return a function that counts a configuration's step, with a cache over the settings that matter to it.

    Raises:
        MemoryError: (the function) the step needs more memory than there is.
    """
    counted: dict[str, Cost] = {}

    def cost(config: RunConfig) -> Cost:
        weight = float(config.policy_loss_beta != 0.0)  # the policy loss costs the same at any other weight
        alike = replace(config, max_steps=1, policy_loss_beta=weight, shuffle_rewards=False, kernels="torch")
        key = run_key(alike, 0)
        if key not in counted:
            _require_memory(config)
            small = step_bytes(config) < LARGE or counts_on_gpu(config)
            try:
                counted[key] = count_cost(config) if small else _count_in_own_process(config)
            except (RuntimeError, MemoryError) as error:
                raise _in_words(error) from error
        return counted[key]

    return cost


def _require_memory(config: RunConfig) -> None:
    """Refuse a model whose weights alone no memory of this machine holds."""
    needed = num_weights(config) * (8 if config.dtype == "float64" else 4)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if not counts_on_gpu(config) and needed > there:
        sizes = (
            f"its weights take {needed / 1e9:,.0f} GB of memory, and this machine has {there / 1e9:,.0f} GB"
        )
        raise MemoryError(f"{sizes}; give smaller widths")


def _in_words(error: Exception) -> Exception:
    """Replace torch's words on memory that it did not get by ours."""
    text = str(error) or type(error).__name__  # Python's own MemoryError says nothing
    if "memory" not in text.lower() or "; give" in text:
        return error
    return MemoryError(f"a training step does not fit into memory; {SMALLER}")


def _count_in_own_process(config: RunConfig) -> Cost:
    try:
        return Cost(*in_own_process("count", to_plain(config)))
    except EOFError:
        why = "a training step was killed while it was counted, for want of memory"
        raise MemoryError(f"{why}; {SMALLER}") from None


def in_own_process(job: str, *given: Any, seconds: float | None = None) -> Any:
    """Let a process of its own do a job of `worker.JOBS`, and return its answer.

    Args:
        job: one that answers.
        given: settings as plain values, and what else the job takes.
        seconds: to wait for the answer; None: as long as it takes.

    Raises:
        EOFError: the process was killed, or took longer.
        RuntimeError: the job failed; one line.
    """
    worker: WorkerProcess | None = None
    try:
        with stops_delayed():
            worker = WorkerProcess()
        worker.send(job, given)
        if not worker.pipe.poll(seconds):
            raise EOFError
        kind, value = worker.receive()
    except OSError as error:
        raise EOFError from error
    finally:
        if worker is not None:
            worker.kill()  # it has nothing left to do, or is not waited for
            worker.end()
    if kind == "failure":
        raise RuntimeError(value)
    return value
