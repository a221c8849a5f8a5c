"""Trains the same step in children that may have less and less memory; prints a line of JSON for each."""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import resource
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.step import CONFIG
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.training import shortage
from toyqs.training.batches import draw_batches
from toyqs.training.loop import train

SEEDS, SETTINGS = [0, 1], replace(CONFIG, data_loader_batch_size=8, max_steps=1)
LIMITS = (40, 35, 30, 25, 20, 18, 16, 14, 12, 10)  # MB beyond what the process has


def trained(limit: int | None = None) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    """Train a step; return the weights and the shortages."""
    model, params = build_model(SETTINGS, SEEDS), build_training_params(SETTINGS)
    model = model.double()
    data = draw_batches(SETTINGS.task, SEEDS, params, next(model.parameters()))
    batches = list(itertools.islice(data, 1))
    found: list[tuple[int, int]] = []
    if limit is not None:
        ctypes.CDLL(None).malloc_trim(0)
        now = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + limit * 2**20,) * 2)
    train(
        model,
        build_objective(SETTINGS),
        iter(batches),
        params,
        lambda *_: None,
        on_shortage=lambda *where: found.append(where),
    )
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]), found


def main() -> None:
    """Fork a child for each limit, after an undisturbed training."""
    torch.set_num_threads(1)
    undisturbed, _ = trained()
    failed_in: list[str] = []
    told = shortage.is_out_of_memory

    def noted(error: BaseException) -> bool:
        frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        failed_in.append("backward" if "backward" in frames else "forward")
        return told(error)

    shortage.is_out_of_memory = noted
    for limit in LIMITS:
        if not (child := os.fork()):
            weights, found = trained(limit)
            furthest = float((weights - undisturbed).abs().max())
            print(json.dumps({"failed_in": failed_in, "found": found, "furthest": furthest}), flush=True)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit(f"the child with {limit} MB failed")


main()
