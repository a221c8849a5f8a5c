"""Parts of bench/gpu.sh on a transformer: its training step, its thoughts, the largest that fits."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.gpu_parts import Asked, Values, main, training
from bench.step import CONFIG
from bench.transformer import ONE_BY_ONE, Size, Way, drawn, flex_here, times, ways
from toyqs.config.run_config import RunConfig

# One GPT-2 for all roles, which thinks at every position.
SHAPE: dict[str, Any] = {
    **{"backbone": "gpt2", "weight_groups": ["A", "A", "A", "A"], "mixing": "logits"},
    **{"interpreter_start": "onward", "trice_samples": 2, "base_lr": 1e-4},
}
LARGE = {"model_hidden_dim": 768, "model_n_layer": 12, "model_n_head": 12, "data_loader_batch_size": 8}
LARGE |= {"max_reasoning_len": 4, "seq_len": 128}
TINY = {"model_hidden_dim": 16, "model_n_layer": 1, "model_n_head": 1, "data_loader_batch_size": 2}
TINY |= {"max_reasoning_len": 1, "seq_len": 4}
HEAD = 64  # the width of one
MOST_DOUBLINGS = 12


def configured(asked: Asked, **changes: Any) -> RunConfig:
    """Return the settings of a transformer: GPT-2 small unless others are given; tiny in a trial."""
    sizes = TINY if asked.tiny else LARGE
    return replace(CONFIG, **SHAPE, device=asked.device, **sizes | changes)


def described(config: RunConfig) -> str:
    """Return its sizes in a few words."""
    sizes = f"{config.model_hidden_dim} wide, layers: {config.model_n_layer}"
    batch = f"B{config.data_loader_batch_size} T{config.seq_len}"
    return f"gpt2, {sizes}, {batch} K{config.trice_samples} L{config.max_reasoning_len}"


def transformer(asked: Asked) -> None:
    """Time the training step in float32 and bfloat16, by dense and by flex attention."""
    limit = 0.0 if asked.tiny else asked.seconds / 20
    for attention in ("dense", "flex"):
        for autocast in (False, True):
            config = configured(asked, branch_attention=attention, autocast=autocast)
            name = f"{described(config)}, {attention}, {'bfloat16' if autocast else 'float32'}"

            def run(config: RunConfig = config) -> Values:
                with flex_here(asked.device):
                    return training(config, 1, limit)

            asked.measure(name, run)


def thoughts(asked: Asked) -> None:
    """Time thoughts at every position, and the library's own ways, forward and with the gradient."""
    size, rounds = (Size(16, 4, 2, 1, 1), 1) if asked.tiny else (Size(768, 512, 8, 12, 12), 3)
    sizes = f"gpt2, {size.width} wide, layers: {size.layers}, T{size.positions} L{size.length}"
    for dtype in (torch.float32, torch.bfloat16):
        given, found = drawn(size, asked.device, dtype), ways("gpt2", size, asked.device, dtype)
        del found[ONE_BY_ONE]  # minutes
        for name, way in found.items():

            def run(name: str = name, way: Way = way, given: tuple[Tensor, Tensor] = given) -> Values:
                taken = times({name: way}, given, rounds, asked.device)
                return {f"ms {what}": 1e3 * statistics.median(each) for (_, what), each in taken.items()}

            asked.measure(f"{sizes}, {str(dtype).partition('.')[2]}: {name}", run)


def largest(asked: Asked) -> None:
    """Double the batch, then the width, until memory or time is out."""
    begun = time.monotonic()

    def batch(number: int) -> dict[str, Any]:
        return {"data_loader_batch_size": 8 * 2**number}

    def width(number: int) -> dict[str, Any]:
        wide = 2**number * (16 if asked.tiny else 512)
        return {"model_hidden_dim": wide, "model_n_head": max(1, wide // HEAD)}

    for share, changes in ((0.5, batch), (1.0, width)):
        _doubled(asked, changes, begun + share * asked.seconds)


def _doubled(asked: Asked, changes: Callable[[int], dict[str, Any]], end: float) -> None:
    took = 0.0
    for number in range(2 if asked.tiny else MOST_DOUBLINGS):
        begun = time.monotonic()
        config = configured(asked, autocast=True, **changes(number))
        if begun + 4 * took > end:
            asked.write(described(config), note="not tried: it may take longer than the time that is left")
            return
        if not asked.measure(described(config), lambda config=config: training(config, 1, 0.0)):
            return
        took = time.monotonic() - begun


PARTS = {"transformer": transformer, "thoughts": thoughts, "largest": largest}

if __name__ == "__main__":
    sys.exit(main(PARTS))
