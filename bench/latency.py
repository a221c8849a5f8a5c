"""What bounds one prediction of a pretrained model on a CPU: `python bench/latency.py`.

A prediction after thoughts at its position reads all weights once for each symbol, one after another, for
the next symbol depends on the one before. So its products can be no faster than the weights come from memory:
here with few rows and weights of SmolLM2-135M's shapes, in float32, in bfloat16 and in 8-bit integers (a
scale for each row of a matrix; torch's dynamic quantisation, which rounds the inputs as well), in turns.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.step import processor
from toyqs.command_line import Parser, run, whole

WIDTH, INNER, SHARED, LAYERS, VOCABULARY = 576, 1536, 192, 30, 49152  # SmolLM2-135M's
LAYER = (  # outputs and inputs of a layer's affine maps
    *((WIDTH, WIDTH), (SHARED, WIDTH), (SHARED, WIDTH), (WIDTH, WIDTH)),
    *((INNER, WIDTH), (INNER, WIDTH), (WIDTH, INNER)),
)
BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}

Product = Callable[[Tensor], Tensor]  # rows (n, inputs) -> (n, outputs)


def product(weight: Tensor, precision: str) -> Product:
    """Return the product of float32 rows with a weight (outputs, inputs) that is kept in one of BYTES."""
    if precision == "float32":
        return lambda x: x @ weight.t()
    if precision == "bfloat16":
        half = weight.bfloat16()
        return lambda x: (x.bfloat16() @ half.t()).float()
    scale = weight.abs().amax(1).double() / 127
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would have its users take another package
        rounded = torch.quantize_per_channel(weight, scale, torch.zeros_like(scale).long(), 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(rounded, None)
    return lambda x: torch.ops.quantized.linear_dynamic(x, packed)


def rows_of_passes(thoughts: int, length: int) -> list[int]:
    """Return the rows of each pass through the layers: new token, start marker, symbols, end marker."""
    return [1, 1, *[thoughts] * (length + 1)]


def rows_of_heads(thoughts: int, length: int) -> list[int]:
    """Return the rows of each product with the LM head: every symbol's, base state's and readings'."""
    return [1, *[thoughts] * (length - 1), 1, thoughts]


def weights_read(thoughts: int, length: int) -> int:
    """Return how many weights a prediction reads, one after another."""
    layers = LAYERS * sum(outputs * inputs for outputs, inputs in LAYER)
    heads = len(rows_of_heads(thoughts, length)) * VOCABULARY * WIDTH
    return len(rows_of_passes(thoughts, length)) * layers + heads


def prediction(precision: str, thoughts: int, length: int) -> Callable[[], None]:
    """Return what makes all products of one prediction, with random weights."""
    layers = [
        [product(torch.randn(*shape) / shape[1] ** 0.5, precision) for shape in LAYER] for _ in range(LAYERS)
    ]
    head = product(torch.randn(VOCABULARY, WIDTH) / WIDTH**0.5, precision)
    inputs = {(n, width): torch.randn(n, width) for n in (1, thoughts) for width in (WIDTH, INNER)}

    def make() -> None:
        for rows in rows_of_passes(thoughts, length):
            for layer in layers:
                for (_, width), each in zip(LAYER, layer, strict=True):
                    each(inputs[rows, width])
        for rows in rows_of_heads(thoughts, length):
            head(inputs[rows, WIDTH])

    return make


def bandwidth(rounds: int) -> float:
    """Return the bytes per second at which 400 MB are read, at best."""
    numbers = torch.ones(10**8)
    return 4e8 / min(_seconds(numbers.sum)[0] for _ in range(rounds))


def report(rounds: int, thoughts: int, length: int) -> list[str]:
    """Time the precisions in turns; return lines."""
    ways = {name: prediction(name, thoughts, length) for name in BYTES}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(_seconds(way))
    speed, count = bandwidth(rounds), weights_read(thoughts, length)
    lines = [
        f"Memory     read at {speed / 1e9:.1f} GB/s at best",
        f"Prediction {count / 1e9:.2f} billion weights, in {len(rows_of_passes(thoughts, length))} passes "
        f"of {thoughts} rows at most",
        f"{'':10}{'GB':>6}{'ms to read':>12}{'products, ms at best':>22}{'of CPU time':>13}",
    ]
    for name, size in BYTES.items():
        wall, cpu = (1e3 * min(times) for times in zip(*taken[name], strict=True))
        read = count * size
        lines.append(f"{name:10}{read / 1e9:6.2f}{1e3 * read / speed:12.0f}{wall:22.0f}{cpu:13.0f}")
    return lines


def _seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return the wall time and the CPU time of all threads that some work takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main(words: Sequence[str] | None = None) -> int:
    """Print the report."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--thoughts", type=whole, default=4, metavar="K", help="thoughts side by side (4)")
    parser.add_argument("--length", type=whole, default=10, metavar="L", help="symbols of each (10)")
    parser.add_argument("--rounds", type=whole, default=5, metavar="N", help="times each is measured (5)")
    parser.add_argument("--threads", type=whole, default=1, metavar="N", help="CPU threads (1)")
    return run(_print, parser, words)


def _print(given: argparse.Namespace) -> int:
    torch.set_num_threads(given.threads)
    threads = f"{given.threads} thread{'s' * (given.threads > 1)}"
    print(f"Machine    {processor()}, {threads}, torch {torch.__version__}")
    print("\n".join(report(given.rounds, given.thoughts, given.length)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
