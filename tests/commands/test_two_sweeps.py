"""Two commands with one folder of runs: nothing is trained twice, no file is torn, no dead owner blocks."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests import faulty, killing, warm
from toyqs.config.identity import run_key
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.evidence.rows import is_complete
from toyqs.sweep.executors.executor import Executor

ROOT = Path(__file__).resolve().parents[2]
WIDTHS, SEEDS = (3, 4, 5), (1, 2)
HOLD = """
import pathlib, sys
from toyqs.sweep.locks import acquire
held = acquire(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def keys() -> list[str]:
    """List the keys of the sweep's runs."""
    configs = [resolved(replace(RunConfig(), **killing.SMALL, base_lm_hidden_dim=width)) for width in WIDTHS]
    return [run_key(config, seed) for config in configs for seed in SEEDS]


def given(folder: Path, name: str, **environment: str) -> warm.Started:
    """Start the sweep's command, which writes the keys that it trains to a file of the folder."""
    words = [f"{key}={value}" for key, value in killing.SMALL.items()]
    words += ["base_lm_hidden_dim=3,4,5", "seed=1,2", "hydra.launcher.processes=1"]
    return warm.started([faulty.__file__, "-m", *words], folder, TRAINED=str(folder / name), **environment)


def trained(folder: Path, *names: str) -> Counter[str]:
    """Count how often each run was trained, by its key."""
    files = [folder / name for name in names]
    return Counter(key for file in files if file.exists() for key in file.read_text().split())


def test_both_end_and_share_the_work(tmp_path: Path) -> None:
    one = given(tmp_path, "one", WAIT_FOR=str(tmp_path / "two"))
    two = given(tmp_path, "two", WAIT_FOR=str(tmp_path / "one"))
    for command in (one, two):
        assert command.wait() == 0, (tmp_path / "err").read_text()
    assert "not finished" not in (tmp_path / "out").read_text().lower()
    assert "Traceback" not in (tmp_path / "err").read_text()
    assert trained(tmp_path, "one", "two") == Counter(keys())
    assert all(is_complete(tmp_path / "runs", key) for key in keys())
    left = {path.name for path in killing.tree(tmp_path) if path.parent.name in keys()}
    files = {"config.json", "env.json", "metrics.jsonl", "model.safetensors", "summary.json"}
    assert left == files | {"thoughts.json.gz"}


@pytest.mark.slow  # test_scheduler.py has a test of this by default
def test_what_another_holds_is_waited_for_until_its_owner_dies(tmp_path: Path) -> None:
    key, *others = keys()
    words = [sys.executable, "-c", HOLD, str(tmp_path / "runs" / key)]
    with subprocess.Popen(
        words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        command = given(tmp_path, "counts")
        assert killing.until(lambda: killing.num_rows(tmp_path) == len(others), 120)
        time.sleep(Executor.retry_seconds + 0.5)
        waits = command.poll() is None and trained(tmp_path, "counts") == Counter(others)
        holder.kill()
        start = time.monotonic()
        code = command.wait()
    assert waits and time.monotonic() - start < Executor.retry_seconds + 20
    assert code == 0, (tmp_path / "err").read_text()
    assert trained(tmp_path, "counts") == Counter(keys())
    assert is_complete(tmp_path / "runs", key)
