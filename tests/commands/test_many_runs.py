"""Hundreds of finished runs: the time to load their rows, and their command's to find all complete."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import warm
from toyqs.config.identity import record, run_key, settings
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.evidence.rows import load_rows
from toyqs.files import ROW, sealed
from toyqs.sweep import main
from toyqs.sweep.costs import cached_cost
from toyqs.sweep.plan import plan_cell

ROOT = Path(__file__).resolve().parents[2]
SEEDS = [1, 2, 3, 4, 5]
SMALL: dict[str, Any] = {
    "kernels": "torch",
    "reasoner_hidden_dim": 4,
    "seed": SEEDS,
    "max_steps": 20,
    "data_loader_batch_size": 2,
    "eval_sequences": 4,
    "trice_samples": 2,
    "max_reasoning_len": 1,
}
LOAD_SECONDS, AGAIN_SECONDS = 0.002, 0.02  # for each run


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Train one real run; return its files by name."""
    folder = tmp_path_factory.mktemp("example")
    config = configured(4, controls="none", seed=7, runs_dir=str(folder), processes=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toyqs.evidence.figures.comparison.comparison_figure", lambda *_: None)
        assert main.main([config]) == 0
    names = ("config.json", "env.json", "metrics.jsonl", "summary.json")
    return {name: (folder / run_key(config, 7) / name).read_text(encoding="utf-8") for name in names}


def configured(width: int, **changes: object) -> RunConfig:
    values: dict[str, Any] = {**SMALL, "base_lm_hidden_dim": width, **changes}
    return resolved(replace(RunConfig(), **values))


def finish(arms: Iterable[RunConfig], folder: Path, example: dict[str, str]) -> int:
    """Write the folders of runs as if they had been trained; return how many."""
    row = json.loads(example["summary.json"])
    count = 0
    for config in arms:
        for seed in SEEDS:
            columns, key = settings(config, seed), run_key(config, seed)
            run = folder / key
            run.mkdir(parents=True)
            files = {name: text for name, text in example.items() if name != ROW}
            for name, text in {**files, "config.json": json.dumps(record(config, seed))}.items():
                (run / name).write_text(text, encoding="utf-8")
            summary = sealed({**row, **columns, "key": key}, run, files)
            (run / ROW).write_text(json.dumps(summary), encoding="utf-8")
            count += 1
    return count


def seconds_to_load(folder: Path) -> float:
    """Return the shortest of three times, as the machine may be busy."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        load_rows(folder)
        times.append(time.perf_counter() - start)
    return min(times)


def given_again(widths: list[int], controls: str, folder: Path) -> tuple[str, float]:
    """Run the command; return what it prints to stderr, and its CPU seconds without imports."""
    words = [f"{name}={','.join(map(str, x)) if name == 'seed' else x}" for name, x in SMALL.items()]
    words += [f"base_lm_hidden_dim={','.join(map(str, widths))}", f"controls={controls}"]
    command = warm.started([str(ROOT / "run.py"), "-m", *words], folder)
    assert command.wait() == 0, (folder / "err").read_text()
    return (folder / "err").read_text(), command.cpu_seconds


@pytest.mark.slow
def test_a_hundred_widths(example: dict[str, str], tmp_path: Path) -> None:
    widths = list(range(1, 101))
    arms = [configured(width, controls="none") for width in widths]
    assert finish(arms, tmp_path / "runs", example) == 500
    assert len(load_rows(tmp_path / "runs")) == 500
    assert seconds_to_load(tmp_path / "runs") < 500 * LOAD_SECONDS
    printed, seconds = given_again(widths, "none", tmp_path)
    assert "500 of 500 runs are finished already" in printed
    assert seconds < 500 * AGAIN_SECONDS


def test_cells_beside_their_controls(example: dict[str, str], tmp_path: Path) -> None:
    widths, cost = list(range(6, 66, 6)), cached_cost()
    arms = {
        run_key(arm, 1): arm
        for width in widths
        for arm in plan_cell(configured(width, controls="fair"), cost).arms.values()
    }
    count = finish(arms.values(), tmp_path / "runs", example)
    assert 340 <= count < 400  # some widths share a control
    assert seconds_to_load(tmp_path / "runs") < count * LOAD_SECONDS
    printed, seconds = given_again(widths, "fair", tmp_path)
    assert f"{count} of {count} runs are finished already" in printed
    assert seconds < count * AGAIN_SECONDS
