"""What a command takes, before it begins: CPU time by short trials, disk, time on the clock."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from tests.sweep.test_main import config
from toyqs.config.identity import run_key
from toyqs.config.run_config import RunConfig
from toyqs.experiment import trial
from toyqs.experiment.stack import run_stack
from toyqs.experiment.trial import Trial, attempt
from toyqs.sweep import estimate, starting, worker
from toyqs.sweep.costs import cached_cost
from toyqs.sweep.estimate import wall_seconds
from toyqs.sweep.plan import Stack, plan_cell, stacks_of
from toyqs.training import gradient_snr


class Clock(TorchDispatchMode):
    """A clock of which every operation takes 10 µs and a product its FLOPs: the same on every machine."""

    seconds = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        flops = count(*args, **(kwargs or {}), out_val=out) if count else 0
        self.seconds += 1e-5 + flops / 1e10
        return out


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """Let trials look at this clock, which the whole test runs by."""
    with Clock() as running:
        monkeypatch.setattr(trial, "_now", lambda: running.seconds)
        yield running


def stacks(*configs: RunConfig) -> list[Stack]:
    cost = cached_cost()
    cells = [plan_cell(config, cost) for config in configs]
    return stacks_of(cells, {key for cell in cells for key in cell.run_keys}, cost)


@pytest.mark.parametrize(
    ("changes", "within"),
    [
        ({"max_steps": 11, "eval_sequences": 96, "eval_every": 4}, 0.1),
        (
            {
                **{"max_steps": 9, "data_loader_batch_size": 8, "grad_acc": 2},
                **{"thoughts_every": 4, "eval_every": 9},
            },
            0.1,
        ),
        ({"max_steps": 40, "use_reasoner": False}, 0.1),
        # evaluated at its last length, and tried at its mean one
        (
            {"max_steps": 8, "eval_every": 3, "length_schedule": "short_to_long", "max_reasoning_len": 5},
            0.25,
        ),
    ],
)
def test_a_trial_tells_what_a_training_takes_and_leaves(
    changes: dict[str, Any], within: float, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Let a trial evaluate 32 sequences, less than the training, which measures the policy's signal once."""
    monkeypatch.setattr(trial, "THOUGHTS", 512)
    monkeypatch.setattr(gradient_snr, "FEWEST_STEPS", trial.STEPS + 1)
    (stack,) = stacks(config(tmp_path, controls="none", seed=[0, 1], **changes))
    tried = attempt(
        stack.config, stack.seeds, stack.config.data_loader_batch_size // stack.config.grad_acc, 9
    )
    before = clock.seconds
    run_stack(stack.config, stack.seeds, stack.cost, lambda *_: None)
    assert tried.seconds(stack.config) == pytest.approx(clock.seconds - before, rel=within)
    sizes = [file.stat().st_size for file in (tmp_path / run_key(stack.config, 0)).iterdir()]
    taken = estimate.BLOCK * (1 + sum(-(-size // estimate.BLOCK) for size in sizes))
    assert 0.5 < estimate._folder(tried, stack) / taken < 2


def test_a_step_too_large_for_a_trial_is_extrapolated(clock: Clock, tmp_path: Path) -> None:
    given = {"controls": "none", "seed": [0], "data_loader_batch_size": 64, "max_steps": 3}
    (stack,) = stacks(config(tmp_path, **given))
    whole, less = (attempt(stack.config, stack.seeds, part, 9).step for part in (64, 8))
    assert less == pytest.approx(whole, rel=0.1)
    chunked = [trial._smaller(replace(stack.config, chunk_positions=1), part) for part in (64, 32, 8)]
    assert [x.chunk_positions for x in chunked] == [1, 2, 4], "pieces as large as they will be, 4 at most"


class Tried:
    """Stands in for a trial: notes what it is given, and returns steps of a second."""

    def __init__(self) -> None:
        self.given: list[tuple[RunConfig, int]] = []

    def __call__(self, config: RunConfig, seeds: list[int], part: int, seconds: float) -> Trial:
        self.given.append((config, part))
        return Trial(0.0, 1.0, 0.0, 0.0, 0.0, 100, 5000)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Tried:
    stand_in = Tried()
    monkeypatch.setattr(estimate, "attempt", stand_in)
    return stand_in


def test_kinds_with_most_work_are_tried_first_and_others_are_like_the_nearest(
    tried: Tried, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    widths = {"controls": "none", "base_lr": 0.02, "data_loader_batch_size": 256, "seed": [1]}
    given = stacks(*(config(tmp_path, base_lm_hidden_dim=width, **widths) for width in (8, 96, 64)))
    twice = stacks(*(config(tmp_path, base_lr=rate, controls="none") for rate in (0.1, 0.2)))
    assert estimate.estimate(given, 9.0).seconds == [3.0] * 3
    assert [config.base_lm_hidden_dim for config, _ in tried.given] == [96, 64, 8]
    assert estimate.estimate(twice, 9.0).trials == 1, "one kind"
    times = iter([0.0, 0.0, 1.0, *[9.0] * 9])
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: next(times))
    found = estimate.estimate(given, 1.0)
    assert found.trials == 1
    works = [stack.work / given[0].work for stack in given]
    assert found.seconds == pytest.approx([3 * work for work in works])


def test_a_trial_is_as_short_as_the_time_that_is_left(tried: Tried, tmp_path: Path) -> None:
    given = stacks(config(tmp_path, controls="none", data_loader_batch_size=64))
    for seconds in (100.0, 0.05, 0.001):
        estimate._trial(given[0], seconds, step=0.1, large=False)
    assert [part for _, part in tried.given] == [64, 8, 4]
    assert estimate.estimate(given, 0.05).trials == 0 and len(tried.given) == 3, "too short for any"


def test_what_needs_much_memory_is_tried_in_a_process_of_its_own(
    tried: Tried, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given, asked = stacks(config(tmp_path, controls="none", processes=None)), []

    def in_own_process(job: str, *values: Any, seconds: float) -> Any:
        """Do a worker's job here, with what JSON makes of it and of the answer."""
        asked.append(job)
        told: list[Any] = []
        worker.JOBS[job](json.loads(json.dumps(values)), lambda kind, value: told.extend([kind, value]))
        assert told[0] == "answer"
        return json.loads(json.dumps(told[1]))

    monkeypatch.setattr(estimate, "LARGE", 0)
    monkeypatch.setattr(estimate, "in_own_process", in_own_process)
    assert estimate.estimate(given, 9.0).trials == 0 and not asked, "a sweep does not wait for it"
    assert estimate.estimate(given, 9.0, large=True).trials == 1 and asked == ["try"] and not tried.given


def test_a_failing_trial_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def failing(*_: object) -> Trial:
        raise ValueError("a fault that the training will show")

    monkeypatch.setattr(estimate, "attempt", failing)
    given = stacks(config(tmp_path))
    assert estimate.estimate(given, 9.0) == estimate.estimate(given, 0.0)


def test_a_trial_changes_nothing_for_others(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        estimate.estimate(stacks(config(tmp_path / "runs", controls="none")), 1.0)
        assert torch.get_num_threads() == 3 and [*tmp_path.iterdir()] == []
    finally:
        torch.set_num_threads(threads)


def test_the_clock_of_several_processes() -> None:
    start = starting.AFRESH_SECONDS
    assert wall_seconds([5, 3, 3, 1], 1) == start + 12
    assert wall_seconds([5, 3, 3, 1], 2) == start + 6
    assert wall_seconds([5, 3, 3, 1], 9) == start + 5


@pytest.mark.slow
def test_the_estimate_holds_by_the_real_clock(tmp_path: Path) -> None:
    sizes = {"max_steps": 60, "data_loader_batch_size": 64, "eval_sequences": 1024}
    given = stacks(config(tmp_path, base_lm_hidden_dim=12, reasoner_hidden_dim=24, **sizes))
    found = estimate.estimate(given, estimate.PLAN_SECONDS)
    assert found.trials and found.seconds
    before = time.process_time()
    for stack in given:
        run_stack(stack.config, stack.seeds, stack.cost, lambda *_: None)
    assert 1 / 1.5 < sum(found.seconds) / (time.process_time() - before) < 1.5
