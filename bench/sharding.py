"""What each of several processes takes in memory, by what they share out.

python bench/sharding.py

Two processes on this machine's CPU (gloo) train a GPT-2 of random weights that thinks. Memory is that of one
process over what it had before its model: between two steps, and the most within steps, as Linux tells it
(its high-water mark, set back after the first step).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.step import processor
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.experiment.stack import Training
from toyqs.training import distributed
from toyqs.training.state import State

WAYS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "shard_optimiser=true": {"shard_optimiser": True},
    "fsdp=true": {"fsdp": True},
    "fsdp=true, layers run again": {"fsdp": True, "gradient_checkpointing": True},
}
STEPS = 4
SHAPE: dict[str, Any] = {
    **{"backbone": "gpt2", "model_n_head": 8, "weight_groups": ["A", "A", "A", "A"], "mixing": "logits"},
    **{"interpreter_start": "onward", "trice_samples": 2, "max_reasoning_len": 2, "max_steps": STEPS},
    **{"data_loader_batch_size": 8, "eval_sequences": 16},
}


class Nothing:
    """No checkpoint is kept."""

    def resume(self, state: State) -> None:
        """Begin anew."""

    def keep(self, state: State) -> None:
        """Keep nothing."""


def configured(way: str, width: int, layers: int) -> RunConfig:
    """A run's settings."""
    given = SHAPE | WAYS[way] | {"model_hidden_dim": width, "model_n_layer": layers}
    return resolved(replace(RunConfig(), **given))


def megabytes(what: str) -> float:
    """Of this process, VmRSS or VmHWM."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = [line for line in status.splitlines() if line.startswith(f"{what}:")]
    return int(line.split()[1]) * 1024 / 1e6


def work(way: str, width: int, layers: int) -> None:
    """One of the processes: train, and let the last of them say what it took."""
    if distributed.rank():
        next(distributed.jobs())
    else:
        distributed.announce("cpu", way)
    distributed.whole(torch.zeros(1))  # loads what shares tensors
    before = megabytes("VmRSS")
    training = Training(configured(way, width, layers), [0])
    begun = 0.0

    def report(step: int, _: dict[str, torch.Tensor]) -> None:
        nonlocal begun
        if step == 1:
            begun = time.perf_counter()
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        if step == STEPS and distributed.rank() == distributed.ranks() - 1:
            seconds = (time.perf_counter() - begun) / (STEPS - 1)
            held, most = megabytes("VmRSS") - before, megabytes("VmHWM") - before
            print(f"{way:<30}{held:>10.0f} MB{most:>10.0f} MB{seconds:>9.2f} s", flush=True)

    training.run(report, Nothing())
    os._exit(0)  # at once: nobody is waited for


def main() -> int:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=512, help="of the model (512)")
    parser.add_argument("--layers", type=int, default=8, help="of the model (8)")
    parser.add_argument("--processes", type=int, default=2, help="how many (2)")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        work(given.way, given.width, given.layers)
    weights = 12 * given.layers * given.width**2 / 1e6
    print(f"Machine    {processor()}, {given.processes} processes of 1 thread, torch {torch.__version__}")
    print(
        f"Model      gpt2, {given.width} wide, {given.layers} layers: {weights:.1f} million weights in layers"
    )
    print(f"{'shared out':<30}{'between steps':>13}{'at most':>13}{'a step':>11}")
    size = [f"--width={given.width}", f"--layers={given.layers}"]
    for way in WAYS:
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        launch += [f"--nproc_per_node={given.processes}", __file__, *size, f"--way={way}"]
        # So that memory which is freed goes back to the system, and is seen to.
        env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
        with tempfile.TemporaryFile() as said:
            if subprocess.run(launch, env=env, stderr=said, check=False).returncode:
                said.seek(0)
                print(said.read().decode(), file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
