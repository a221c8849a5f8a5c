"""Memory and time of a thinking step whose positions are taken in chunks, next to the whole step.

`python bench/memory.py`: memory is what all tensors that are alive at once hold at most, counted at every
operation; time is the process's CPU time, in turns, so that other work on the machine meets all alike.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.step import CONFIG, describe, thought_tokens
from toyqs.command_line import Parser, run, whole
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.training.batches import draw_batches
from toyqs.training.loop import train


class Peak(TorchDispatchMode):
    """Counts the bytes of the tensors made within it that are alive at once, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.alive:
            self.alive[key] = storage.nbytes()
            weakref.finalize(storage, self.alive.pop, key, None)
            self.peak = max(self.peak, sum(self.alive.values()))


def training(config: RunConfig) -> Callable[[], None]:
    """Build a function that makes one training step, on the same batch in every call."""
    model, params = build_model(config, [0]), replace(build_training_params(config), steps=1)
    (batch,) = islice(draw_batches(config.task, [0], params, next(model.parameters())), 1)
    objective = build_objective(config)

    def step() -> None:
        train(model, objective, iter([batch]), params, lambda *_: None)

    return step


def bytes_per_token(config: RunConfig) -> float:
    """Measure the peak of a step's memory by its thought tokens."""
    step = training(config)
    step()  # buffers that are reused
    with Peak() as counted:
        step()
    return counted.peak / thought_tokens(config)


def seconds(step: Callable[[], None]) -> float:
    """Time a call, in CPU time."""
    start = time.process_time()
    step()
    return time.process_time() - start


def measure(config: RunConfig, chunks: Sequence[int | None], rounds: int) -> str:
    """Measure the whole step and those in chunks; return the table."""
    settings = [resolved(replace(config, chunk_positions=chunk)) for chunk in chunks]
    memory, steps = [bytes_per_token(each) for each in settings], [training(each) for each in settings]
    for step in steps:
        step()
    times = [[seconds(step) for step in steps] for _ in range(rounds)]
    time_of = f"CPU time, of the whole step's, {rounds} rounds in turns: median (quartiles)"
    lines = [f"chunk_positions   bytes per thought token   {time_of}"]
    for index, (chunk, each, size) in enumerate(zip(chunks, settings, memory, strict=True)):
        ratios = sorted(row[index] / row[0] for row in times)
        shown = "by the sizes" if chunk is None else "all" if chunk == 0 else "given"
        median, low, high = statistics.median(ratios), ratios[rounds // 4], ratios[-1 - rounds // 4]
        least = min(row[index] for row in times) / min(row[0] for row in times)
        name = f"{each.chunk_positions or '0'} ({shown})"
        spread = f"{median:.2f} ({low:.2f} to {high:.2f})"
        lines.append(f"{name:<18}{size:>23,.0f}   {spread}; of the fastest steps {least:.2f}")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=whole, default=25, help="how often each is timed, in turns (25)")
    parser.add_argument("--quick", action="store_true", help="a small step, to see that it works")
    return run(_measure, parser, words)


def _measure(options: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    config, chunks, rounds = CONFIG, (0, 32, None, 16, 13, 8), options.rounds
    if options.quick:
        config, chunks, rounds = replace(CONFIG, data_loader_batch_size=2, max_steps=1), (0, None, 32), 2
    print(describe(config))
    print(measure(config, chunks, rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
