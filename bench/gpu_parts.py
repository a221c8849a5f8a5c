"""Parts of bench/gpu.sh that need no transformer: the card, the tests, GRUs, the default job.

`python bench/gpu_parts.py PART --rows FILE` does one part; all that it finds is a line of JSON in the file.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.step import CONFIG, now, step_seconds, thought_tokens
from toyqs.command_line import Parser, check_file, path_of, positive, run
from toyqs.config.builders.cost import count_cost
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.experiment.stack import run_stack

ROOT = Path(__file__).resolve().parents[1]
Values = dict[str, float | str]

MANY = 10**6  # steps of a training that is timed: more than its seconds allow
GRUS: dict[str, dict[str, Any]] = {
    "8/8 wide, B16 T64 K4 L8": {"base_lm_hidden_dim": 8, "reasoner_hidden_dim": 8},
    "32/32 wide, B16 T64 K4 L8": {},
    "32/32 wide, B128 T128 K10 L10": {
        **{"data_loader_batch_size": 128, "seq_len": 128, "trice_samples": 10, "max_reasoning_len": 10}
    },
}
TINY_GRUS = {"4/4 wide, tiny": {"base_lm_hidden_dim": 4, "reasoner_hidden_dim": 4, "seq_len": 4}}
JOB = ["max_steps=150"]  # a third of the default's
TINY_JOB = ["max_steps=2", "seed=0", "controls=none", "eval_sequences=32", "processes=1"]


class Asked(NamedTuple):
    """The arguments of a part."""

    device: str  # cuda, or cpu: a trial of small sizes
    rows: Path  # the file that its rows are added to
    seconds: float  # that it may take

    @property
    def tiny(self) -> bool:
        """Tell whether this is a trial."""
        return self.device == "cpu"

    def write(self, what: str, **values: float | str) -> None:
        """Add a row: numbers by their unit; words under `note`."""
        with self.rows.open("a", encoding="utf-8") as file:
            print(json.dumps({"what": what, "values": values}), file=file)

    def measure(self, what: str, run: Callable[[], Values]) -> bool:
        """Add a row of what a call finds, or one that says why it finds nothing.

        Returns:
            Whether it found something.
        """
        try:
            self.write(what, **run())
        except torch.OutOfMemoryError:
            found = "out of memory"
        except Exception as error:  # the others are measured all the same
            traceback.print_exc()
            found = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
        else:
            return True
        self.write(what, note=found)
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
        return False


def training(config: RunConfig, size: int, limit: float) -> Values:
    """Time a training of some seconds.

    Args:
        config: anything but its steps.
        size: seeds side by side.
        limit: seconds.

    Returns:
        Milliseconds of a step, thought symbols a second of all seeds together, the most memory taken.
    """
    if config.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    config = resolved(replace(config, max_steps=MANY))
    step = statistics.median(step_seconds(config, size, limit))
    found: Values = {"ms a step": 1e3 * step, "thought tokens/s": size * thought_tokens(config) / step}
    if config.device == "cuda":
        found["GB at most"] = torch.cuda.max_memory_allocated() / 1e9
    return found


def card(asked: Asked) -> None:
    """Measure how fast the card copies (GB/s) and multiplies (TFLOP/s)."""
    size, count, width = (2**16, 2, 32) if asked.tiny else (2**28, 20, 8192)

    def timed(run: Callable[[], object]) -> float:
        for _ in range(3):
            run()
        begun = now(asked.device)
        for _ in range(count):
            run()
        return (now(asked.device) - begun) / count

    def copied() -> Values:
        here = torch.zeros(size, device=asked.device)
        there = torch.ones_like(here)
        return {"GB/s": 2 * 4 * size / timed(lambda: there.copy_(here)) / 1e9}

    def multiplied(dtype: torch.dtype, precision: str) -> Values:
        torch.set_float32_matmul_precision(precision)
        left, right = torch.randn(2, width, width, device=asked.device).to(dtype)
        return {"TFLOP/s": 2 * width**3 / timed(lambda: left @ right) / 1e12}

    asked.measure(f"copy of {4 * size / 1e9:.2g} GB within the card, read and written", copied)
    for name, dtype, precision in (
        ("float32", torch.float32, "highest"),
        ("float32 as tf32", torch.float32, "high"),
        ("bfloat16", torch.bfloat16, "highest"),
    ):
        run = lambda dtype=dtype, precision=precision: multiplied(dtype, precision)  # noqa: E731
        asked.measure(f"product of two {width} x {width}, {name}", run)


def tests(asked: Asked) -> None:
    """Run the tests that are marked gpu; one row for all, one for each that fails."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = ["-q", "-o", "addopts=", "--import-mode=importlib", "-p", "no:cacheprovider", "-m", "gpu"]
        words += [f"--junitxml={report}", f"--rootdir={ROOT}", str(ROOT / "tests" / "gpu")]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if not report.exists():
            raise RuntimeError(last_line(done))
        cases = list(ElementTree.parse(report).iter("testcase"))
    bad = {
        case.get("name", "?"): found for case in cases for found in case if found.tag in ("failure", "error")
    }
    skipped = sum(case.find("skipped") is not None for case in cases)
    asked.write("all", passed=len(cases) - len(bad) - skipped, failed=len(bad), skipped=skipped)
    for name, found in bad.items():
        asked.write(name, note=" ".join(f"{found.tag}: {found.get('message')}".split())[:200])


def gru(asked: Asked) -> None:
    """Time the training step of GRUs, one seed alone and many side by side."""
    limit = 0.0 if asked.tiny else asked.seconds / 20
    for name, sizes in (TINY_GRUS if asked.tiny else GRUS).items():
        for size in (1, 2) if asked.tiny else (1, 16, 64):
            config = replace(CONFIG, device=asked.device, **sizes)
            run = lambda config=config, size=size: training(config, size, limit)  # noqa: E731
            asked.measure(f"{name}, {size} seed{'s' * (size > 1)}", run)


def graphs(asked: Asked) -> None:
    """Time the training step of GRUs as CUDA graphs and without; a trial does without twice."""
    limit = 0.0 if asked.tiny else asked.seconds / 20
    for name, sizes in (TINY_GRUS if asked.tiny else GRUS).items():
        for on in (False, True):
            config = replace(CONFIG, device=asked.device, cuda_graphs=on and not asked.tiny, **sizes)
            run = lambda config=config: training(config, 1, limit)  # noqa: E731
            asked.measure(f"{name}, 1 seed, cuda_graphs={str(on).lower()}", run)


def optimisers(asked: Asked) -> None:
    """Time the training step of GRUs with each optimiser; Muon multiplies matrices of all seeds at once."""
    limit = 0.0 if asked.tiny else asked.seconds / 20
    for name, sizes in (TINY_GRUS if asked.tiny else GRUS).items():
        for optimizer in ("adamw", "muon", "muon_grokfast"):
            config = replace(CONFIG, device=asked.device, optimizer=optimizer, **sizes)
            run = lambda config=config: training(config, 2, limit)  # noqa: E731
            asked.measure(f"{name}, 2 seeds, {optimizer}", run)


def job(asked: Asked) -> None:
    """Run the default job on the device and on the CPU: seconds and verdict."""
    for device in dict.fromkeys((asked.device, "cpu")):
        words = TINY_JOB if asked.tiny else JOB
        if importlib.util.find_spec("scipy"):
            name = " ".join(["python run.py", f"device={device}", *words])
            asked.measure(
                name, lambda device=device, words=words: command(device, words, 0.7 * asked.seconds)
            )
        else:
            name = f"the thinking arm of the default job, device={device}, {words[0]}"
            asked.measure(name, lambda device=device, words=words: alone(device, words))


def command(device: str, words: list[str], limit: float) -> Values:
    """Run the command, for so many seconds at most: wall and CPU seconds, of its start and workers too."""
    with tempfile.TemporaryDirectory() as folder:
        begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        typed = [sys.executable, str(ROOT / "run.py"), f"device={device}", *words]
        done = subprocess.run(typed, cwd=folder, capture_output=True, text=True, check=False, timeout=limit)
        wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(last_line(done))
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall s": wall, "CPU s": cpu, "note": verdict(done.stdout)}


def verdict(printed: str) -> str:
    """Return the verdict that a job printed, and the loss of its thinking arm."""
    word = re.search(r"^Verdict: .*?\.$", printed, re.MULTILINE | re.DOTALL)
    loss = re.search(r"^thinking +(\S+(?: ± \S+)?)", printed, re.MULTILINE)
    said = " ".join(word[0].split()) if word else "No verdict."
    return f"{said} NLL of thinking: {loss[1] if loss else 'not printed'}"


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last line that a failed program printed."""
    output = done.stderr.strip() or done.stdout.strip()
    return output.rpartition("\n")[2] or f"it ended with {done.returncode}"


def alone(device: str, words: list[str]) -> Values:
    """Train the default job's thinking arm: the verdict's intervals need scipy, the training does not."""
    config = resolved(RunConfig(device=device, max_steps=int(words[0].partition("=")[2])))
    with tempfile.TemporaryDirectory() as folder:
        begun, before = time.perf_counter(), time.process_time()
        config = replace(config, runs_dir=folder)
        run_stack(config, config.seed, count_cost(config), lambda step, loss: None)
        wall, cpu = time.perf_counter() - begun, time.process_time() - before
        rows = [json.loads(file.read_text(encoding="utf-8")) for file in Path(folder).glob("*/summary.json")]
    loss = statistics.mean(row["nll"] for row in rows)
    return {"wall s": wall, "CPU s": cpu, "note": f"NLL {loss:.3f}; no verdict, for scipy is not installed"}


PARTS: dict[str, Callable[[Asked], None]] = {
    "card": card,
    "tests": tests,
    "gru": gru,
    "graphs": graphs,
    "optimisers": optimisers,
    "job": job,
}


def main(parts: dict[str, Callable[[Asked], None]]) -> int:
    """Do the part that the command line names; return the exit code."""
    parser = Parser(description="One part of bench/gpu.sh, which calls it.")
    parser.add_argument("part", choices=parts)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: tiny sizes (cuda)")
    parser.add_argument("--rows", type=path_of, required=True, help="the file that rows are added to")
    parser.add_argument("--seconds", type=positive, default=60.0, help="that it may take (60)")

    def work(given: argparse.Namespace) -> None:
        check_file(given.rows, "--rows")
        torch.set_num_threads(1)
        parts[given.part](Asked(given.device, given.rows, given.seconds))

    return run(work, parser)


if __name__ == "__main__":
    sys.exit(main(PARTS))
