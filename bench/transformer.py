"""Thoughts at every position of a transformer: branches of a shared prefix, and the library's ways.

`python bench/transformer.py` checks that all give the same outputs, then times them in turns. The symbols are
given. The ways are

    shared      branches of a shared prefix, as in a run: with native kernels (a GPT-2 on a CPU), dense, or by
                FlexAttention: compiled on a GPU; on a CPU torch's uncompiled form, which serves to compare
                outputs, not times
    diagonal    all thoughts in one call per symbol, T K queries against T (1 + K l) keys in the library's
                own cache, separated by a mask; with the library's eager and its fused attention
    one by one  position after position, symbol after symbol, like `generate`; the context is read once,
                and the library's own cache is cropped to each position
"""

from __future__ import annotations

import argparse
import copy
import functools
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.nn.attention import flex_attention
from transformers import AutoConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.library_ways import diagonal, library, one_by_one
from bench.step import now, processor
from toyqs.command_line import Parser, run, whole
from toyqs.files import Refusal
from toyqs.model.backbones import flex_attention as flex
from toyqs.model.backbones.transformer import TransformerBackbone
from toyqs.model.layers import initialise

TOLERANCES = {"gpt2": 1e-10, "llama": 1e-5}  # of outputs, in float64; Llama's norms compute in float32
COARSE = 1e-4  # of outputs on a GPU, in float32, the finest in which FlexAttention's kernels sum
MOST = 4096  # of each size
NATIVE, DENSE, FLEX, ONE_BY_ONE = "shared, native", "shared, dense", "shared, flex", "one by one"


class Size(NamedTuple):
    """The size of the model and of its thoughts."""

    width: int = 64
    positions: int = 256  # T
    length: int = 16  # L
    layers: int = 2
    heads: int = 4
    thoughts: int = 1  # K, at each position
    sequences: int = 1  # B


@contextmanager
def flex_on_a_cpu() -> Iterator[None]:
    """Allow FlexAttention on a CPU, in torch's uncompiled form: float64, gradients, all scores in memory.

    Torch refuses gradients of it on a CPU, though they are right (tests/model/test_flex.py).
    """
    with (
        mock.patch.object(flex, "DEVICES", ("cpu", "cuda")),
        mock.patch.object(flex_attention, "_validate_device", lambda *_: None),
        mock.patch.object(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True),
    ):
        yield


def flex_here(device: str) -> AbstractContextManager[None]:
    """Allow FlexAttention on the device: on a GPU without changes, on a CPU by `flex_on_a_cpu`."""
    return flex_on_a_cpu() if device == "cpu" else nullcontext()


def backbone(family: str, size: Size) -> TransformerBackbone:
    """Build toyqs's backbone with initial weights."""
    sizes: dict[str, Any] = {
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "max_position_embeddings": size.positions + size.length,
    }
    if family != "gpt2":
        sizes |= {"intermediate_size": 8 * size.width // 3, "num_key_value_heads": size.heads}
    found = TransformerBackbone(AutoConfig.for_model(family, **sizes))
    initialise(found, [0])
    return found


def shared(ours: TransformerBackbone, context: Tensor, symbols: Tensor) -> Tensor:
    """Compute outputs (B, T, K, L, D) at symbols (B, T, K, L, D) after a context (B, T, D)."""
    _, state = ours.read(context[None])
    outputs = []
    for symbol in symbols.unbind(3):
        output, state = ours.step(symbol[None], state)
        outputs.append(output[0])
    return torch.stack(outputs, 3)


Way = Callable[[Tensor, Tensor], Tensor]


def ways(family: str, size: Size, device: str, dtype: torch.dtype) -> dict[str, Way]:
    """Build the ways by name, toyqs's first; all with the same weights."""
    ours = backbone(family, size).to(device, dtype)
    by_blocks = copy.deepcopy(ours)
    by_blocks.flex = True
    few = copy.deepcopy(ours)
    few.native = True
    native = {NATIVE: few} if family == "gpt2" and device == "cpu" else {}
    eager, fused = (library(ours, attention).to(device, dtype) for attention in ("eager", "sdpa"))
    branches = native | {DENSE: ours, FLEX: by_blocks}
    return {
        **{name: functools.partial(shared, model) for name, model in branches.items()},
        "diagonal, eager": lambda context, symbols: diagonal(eager, context, symbols),
        "diagonal, fused": lambda context, symbols: diagonal(fused, context, symbols),
        ONE_BY_ONE: lambda context, symbols: one_by_one(fused, context, symbols),
    }


def drawn(size: Size, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Draw a context (B, T, D) and symbols (B, T, K, L, D)."""
    generator = torch.Generator().manual_seed(0)
    shape = (size.sequences, size.positions, 1 + size.thoughts * size.length, size.width)
    values = torch.randn(*shape, generator=generator, dtype=dtype).to(device)
    return values[:, :, 0], values[:, :, 1:].unflatten(2, (size.thoughts, size.length))


def difference(family: str, size: Size, device: str = "cpu") -> float:
    """Find the largest difference of toyqs's outputs from any other's, in float64, on a GPU in float32."""
    dtype = torch.float64 if device == "cpu" else torch.float32
    given = drawn(size, device, dtype)
    with torch.no_grad(), flex_here(device):
        first, *others = (way(*given) for way in ways(family, size, device, dtype).values())
    return max(float((first - other).abs().max()) for other in others)


def seconds(run: Callable[[], object], device: str) -> float:
    """Time a call: in CPU seconds, on a GPU in seconds until it is done."""
    if device == "cpu":
        start = time.process_time()
        run()
        return time.process_time() - start
    start = now(device)
    run()
    return now(device) - start


def times(
    found: Mapping[str, Way], given: tuple[Tensor, Tensor], rounds: int, device: str
) -> dict[tuple[str, str], list[float]]:
    """Time ways in turns.

    Args:
        found: from `ways`.
        given: from `drawn`.
        rounds: turns of each way.
        device: cpu or cuda, where models and inputs are.

    Returns:
        Way and direction -> the seconds of each round.
    """

    def forward(way: Way) -> Callable[[], object]:
        return torch.no_grad()(lambda: way(*given))

    def both(way: Way) -> Callable[[], object]:
        return lambda: way(*given).square().sum().backward()

    runs = {(name, "forward"): forward(way) for name, way in found.items()}
    trained = [name for name in found if name != ONE_BY_ONE]
    runs |= {(name, "and backward"): both(found[name]) for name in trained}
    taken = {key: [] for key in runs}
    with flex_here(device):
        for _ in range(rounds):
            for key, run in runs.items():
                run()  # untimed: in a training too a step follows another of the same way
                taken[key].append(seconds(run, device))
    return taken


def measure(family: str, size: Size, rounds: int, device: str = "cpu") -> list[str]:
    """Time all ways in turns; return a table of median milliseconds and of ratios to the first way's."""
    given = drawn(size, device, torch.float32)
    found = times(ways(family, size, device, torch.float32), given, rounds, device)
    (first, _), *_ = found
    lines = []
    for (name, what), taken in found.items():
        ratio = [each / ours for each, ours in zip(taken, found[first, what], strict=True)]
        middle = statistics.median(taken) * 1e3
        spread = f"({min(ratio):.2f} to {max(ratio):.2f})"
        lines.append(f"  {name:<18}{what:<14}{middle:>9.1f} ms{statistics.median(ratio):>9.2f}  {spread}")
    return lines


def main(words: Sequence[str] | None = None) -> int:
    """Print the comparison; return 1 where outputs differ."""
    return run(_compare, parser(), words)


def _compare(given: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    size = checked(given)
    gpu, clock, precision = None, "CPU time ", "float64"
    if given.device == "cuda":
        gpu, clock, precision = torch.cuda.get_device_name(), "GPU time ", "float32"
    print(f"Thoughts at every position of {given.family}: branches of a shared prefix and other ways.")
    print(f"Machine    {gpu or processor()}, 1 thread, torch {torch.__version__}, float32")
    print(f"Model      {size.width} wide, {size.layers} layers, {size.heads} heads")
    print(
        f"Thoughts   {size.thoughts} of {size.length} symbols at each of {size.positions} positions of "
        f"{size.sequences} sequences"
    )
    try:
        found = difference(given.family, size, given.device)
    except RuntimeError as error:
        if "memory" not in str(error):
            raise
        raise Refusal("these sizes do not fit into memory; give smaller ones") from error
    equal = found <= (TOLERANCES[given.family] if precision == "float64" else COARSE)
    print(
        f"Outputs    {'equal' if equal else 'DIFFERENT'}, in {precision}: they differ by at most {found:.1e}"
    )
    if not equal:
        return 1
    print(f"{clock}  medians of {given.rounds} rounds in turns, ratio to the first (of single rounds)")
    print("\n".join(measure(given.family, size, given.rounds, given.device)))
    return 0


def parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=TOLERANCES, default="gpt2", help="gpt2 if not given")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cpu if not given")
    small = functools.partial(whole, most=MOST)
    for name in ("width", "layers", "heads"):
        default = getattr(Size(), name)
        parser.add_argument(f"--{name}", type=small, default=default, help=f"of the model ({default})")
    parser.add_argument("--positions", type=small, default=Size().positions, help="T (256)")
    parser.add_argument("--length", type=small, default=Size().length, help="L, symbols of a thought (16)")
    parser.add_argument("--thoughts", type=small, default=1, help="K, at each position (1)")
    parser.add_argument("--sequences", type=small, default=1, help="B (1)")
    parser.add_argument("--rounds", type=whole, default=5, help="how often all run, in turns (5)")
    return parser


def checked(given: argparse.Namespace) -> Size:
    """Return the size asked for; refuse heads that do not divide the width, and a device not there."""
    unit = given.heads * (1 if given.family == "gpt2" else 2)  # rotary heads need an even width each
    if given.width % unit:
        raise Refusal(f"--width {given.width}: --heads {given.heads} need a multiple of {unit}; give one")
    if given.device == "cuda" and not torch.cuda.is_available():
        raise Refusal("--device cuda: torch finds no CUDA device here; give --device cpu")
    return Size(*(getattr(given, name) for name in Size._fields))


if __name__ == "__main__":
    sys.exit(main())
