"""Thoughts at every position of a transformer: branches of a shared prefix beside the ways of the library.

`python bench/transformer.py` checks that all give the same outputs, then lets them run in turns. All thoughts
are of given symbols, one at each position. The others are

    diagonal    all thoughts in one call per symbol, T queries against T (1 + l) keys in the library's own
                cache, told apart by a mask; in the library's eager and in its fused attention
    one by one  position after position, symbol after symbol, as `generate` goes; the context is read once,
                and the library's own cache is cropped to each position
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, DynamicCache

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.step import processor
from toyqs.model.layers import initialise
from toyqs.model.transformer import TransformerBackbone

TOLERANCES = {"gpt2": 1e-10, "llama": 1e-5}  # of outputs, in float64; Llama's norms compute in float32


class Size(NamedTuple):
    """Of model and thoughts."""

    width: int = 64
    positions: int = 256  # T
    length: int = 16  # L
    layers: int = 2
    heads: int = 4


def backbone(family: str, size: Size) -> TransformerBackbone:
    """Ours, with initial weights."""
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


def library(of: TransformerBackbone, attention: str) -> Any:
    """The library's model with the same weights."""
    config = copy.deepcopy(of.decoder._code[0].config)
    model = AutoModel.from_config(config, attn_implementation=attention)
    model.set_input_embeddings(None)
    model.load_state_dict({name: p[0] for name, p in of.decoder.weights.named_parameters()})
    return model


def shared(of: TransformerBackbone, context: Tensor, symbols: Tensor) -> Tensor:
    """Outputs at the symbols, (T, L, D), of a context (T, D) and symbols (T, L, D)."""
    _, state = of.read(context[None, None])
    outputs = []
    for symbol in symbols.unbind(1):
        output, state = of.step(symbol[None, None, :, None], state)
        outputs.append(output[0, 0, :, 0])
    return torch.stack(outputs, 1)


def diagonal(model: Any, context: Tensor, symbols: Tensor) -> Tensor:
    """As `shared`: all positions at once under a mask."""
    num = len(context)
    cache, positions = DynamicCache(config=model.config), torch.arange(num)
    model(inputs_embeds=context[None], use_cache=True, past_key_values=cache)
    own = context.new_full((num, num), float("-inf")).fill_diagonal_(0.0)
    mask, outputs = context.new_full((num, num), float("-inf")).triu(1), []
    for place, symbol in enumerate(symbols.unbind(1)):
        mask = torch.cat([mask, own], 1)
        told = {"attention_mask": mask[None, None], "position_ids": (positions + 1 + place)[None]}
        out = model(inputs_embeds=symbol[None], use_cache=True, past_key_values=cache, **told)
        outputs.append(out.last_hidden_state[0])
    return torch.stack(outputs, 1)


def one_by_one(model: Any, context: Tensor, symbols: Tensor) -> Tensor:
    """As `shared`: the last position first, so that one cache serves all."""
    cache = DynamicCache(config=model.config)
    model(inputs_embeds=context[None], use_cache=True, past_key_values=cache)
    outputs = torch.empty_like(symbols)
    beyond = 0  # what the cache holds after the position
    for position in reversed(range(len(context))):
        if beyond:
            cache.crop(-beyond)
        beyond = symbols.shape[1] + 1
        for place in range(symbols.shape[1]):
            embedding = symbols[None, position, place, None]
            out = model(inputs_embeds=embedding, use_cache=True, past_key_values=cache)
            outputs[position, place] = out.last_hidden_state[0, 0]
    return outputs


Way = Callable[[Tensor, Tensor], Tensor]


def ways(family: str, size: Size, dtype: torch.dtype) -> dict[str, Way]:
    """By name, ours first; all with the same weights."""
    ours = backbone(family, size).to(dtype)
    eager, fused = (library(ours, attention).to(dtype) for attention in ("eager", "sdpa"))
    return {
        "shared prefix": lambda context, symbols: shared(ours, context, symbols),
        "diagonal, eager": lambda context, symbols: diagonal(eager, context, symbols),
        "diagonal, fused": lambda context, symbols: diagonal(fused, context, symbols),
        "one by one": lambda context, symbols: one_by_one(fused, context, symbols),
    }


def drawn(size: Size, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A context (T, D) and symbols (T, L, D)."""
    generator = torch.Generator().manual_seed(0)
    shape = (size.positions, 1 + size.length, size.width)
    values = torch.randn(*shape, generator=generator, dtype=dtype)
    return values[:, 0], values[:, 1:]


def difference(family: str, size: Size) -> float:
    """The largest between ours and any other, in float64."""
    given = drawn(size, torch.float64)
    with torch.no_grad():
        first, *others = (way(*given) for way in ways(family, size, torch.float64).values())
    return max(float((first - other).abs().max()) for other in others)


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def measure(family: str, size: Size, rounds: int) -> list[str]:
    """The table: milliseconds of both directions and their ratios to ours, medians of the rounds."""
    found, given = ways(family, size, torch.float32), drawn(size, torch.float32)

    def forward(way: Way) -> Callable[[], object]:
        return torch.no_grad()(lambda: way(*given))

    def both(way: Way) -> Callable[[], object]:
        return lambda: way(*given).square().sum().backward()

    runs = {(name, "forward"): forward(way) for name, way in found.items()}
    trained = [name for name in found if name != "one by one"]
    runs |= {(name, "and backward"): both(found[name]) for name in trained}
    for run in runs.values():
        run()
    times = {key: [] for key in runs}
    for _ in range(rounds):
        for key, run in runs.items():
            times[key].append(seconds(run))
    lines = []
    for (name, what), taken in times.items():
        ratio = [each / ours for each, ours in zip(taken, times["shared prefix", what], strict=True)]
        middle = statistics.median(taken) * 1e3
        spread = f"({min(ratio):.2f} to {max(ratio):.2f})"
        lines.append(f"  {name:<18}{what:<14}{middle:>9.1f} ms{statistics.median(ratio):>9.2f}  {spread}")
    return lines


def main() -> int:
    """Print the comparison; 1 when outputs differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", choices=TOLERANCES, default="gpt2", help="gpt2 if not given")
    parser.add_argument("--positions", type=int, default=Size().positions, help="T (256)")
    parser.add_argument("--length", type=int, default=Size().length, help="L, symbols of a thought (16)")
    parser.add_argument("--rounds", type=int, default=5, help="how often all run in turns (5)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    size = Size(positions=given.positions, length=given.length)
    print(f"Thoughts at every position of {given.family}: branches of a shared prefix beside other ways.")
    print(f"Machine    {processor()}, 1 thread, torch {torch.__version__}, float32")
    print(f"Model      {size.width} wide, {size.layers} layers, {size.heads} heads")
    print(f"Thoughts   {size.length} symbols at each of {size.positions} positions of one sequence")
    found = difference(given.family, size)
    equal = found <= TOLERANCES[given.family]
    print(f"Outputs    {'equal' if equal else 'DIFFERENT'}, in float64: they differ by at most {found:.1e}")
    if not equal:
        return 1
    print(
        f"CPU time   medians of {given.rounds} rounds in turns, ratio to the shared prefix (of single rounds)"
    )
    print("\n".join(measure(given.family, size, given.rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
