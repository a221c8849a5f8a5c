"""Where the time of thoughts on a transformer goes: `python bench/transformer_parts.py --thoughts 2`.

Thoughts at every position, forward and with their gradient, as bench/transformer.py times them: the share of
each kind of operation, with native kernels and without, and what the products alone would take at the speed
of a large product. Shares are of the time on the clock under torch's profiler, whose own time falls on what
makes many calls.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.step import processor
from bench.transformer import DENSE, NATIVE, Size, checked, drawn, parser, seconds, ways
from toyqs.command_line import run
from toyqs.training.flops import measure

# Part of the time -> how the names of its operations begin; the first that fits.
PARTS = {
    "products of matrices": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "torch's kernel of attention": ("aten::_scaled_dot_product",),
    "the activation": ("aten::gelu", "aten::tanh", "aten::pow"),
    "norms": ("aten::native_layer_norm",),
    "other functions of numbers": (
        *("aten::mul", "aten::sum", "aten::add", "aten::sub", "aten::div", "aten::copy_", "aten::cat"),
        *("aten::fill_", "aten::exp2", "aten::_softmax", "aten::amax", "aten::log", "aten::masked_fill"),
    ),
}
REST = "calls: Python, views, the gradient's graph"
LARGE = 1024  # the width of a product that is as fast as products are here


def shares(step: Callable[[], object]) -> dict[str, float]:
    """Profile a step; return each part's share of its time, the largest first."""
    step()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        step()
    taken: Counter[str] = Counter()
    for event in profiled.key_averages():
        parts = (part for part, names in PARTS.items() if event.key.startswith(names))
        taken[next(parts, REST)] += event.self_cpu_time_total
    return {part: time / taken.total() for part, time in taken.most_common()}


def floor(step: Callable[[], object]) -> tuple[float, float]:
    """Return the FLOPs of a step's products, and the seconds that these take at a large product's speed."""
    counted = nn.Module()
    counted.cores = {}  # type: ignore[assignment]  # no backbone's updates are counted
    flops = measure([counted], step, 1).flops_per_step
    square = torch.rand(LARGE, LARGE)
    fastest = min(seconds(lambda: square @ square, "cpu") for _ in range(20))
    return flops, flops * fastest / (2 * LARGE**3)


def report(size: Size, rounds: int) -> list[str]:
    """Measure both ways in turns; return lines."""
    given = drawn(size, "cpu", torch.float32)
    found = ways("gpt2", size, "cpu", torch.float32)
    steps = {name: lambda way=found[name]: way(*given).square().sum().backward() for name in (DENSE, NATIVE)}
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            step()
            taken[name].append(seconds(step, "cpu"))
    lines = []
    for name, step in steps.items():
        flops, least = floor(step)
        whole = min(taken[name])
        lines.append(f"{name}: {whole * 1e3:.0f} ms at least, forward and backward")
        lines += [f"  {part:<46}{share:>7.1%}" for part, share in shares(step).items()]
        lines.append(
            f"  its products, {flops / 1e9:.2f} GFLOPs, at a large product's speed: {least * 1e3:.0f} ms, "
            f"{least / whole:.0%} of it"
        )
    return lines


def main(words: Sequence[str] | None = None) -> int:
    """Print the report of a GPT-2 on a CPU."""
    return run(_print, parser(), words)


def _print(given: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    size = checked(given)
    print(f"Machine    {processor()}, 1 thread, torch {torch.__version__}, float32")
    print(f"Model      gpt2, {size}")
    print("\n".join(report(size, given.rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
