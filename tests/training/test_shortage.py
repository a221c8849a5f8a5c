"""Steps that do not fit into memory are made again in smaller parts, to the same end."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.killing import TIMES
from tests.training.test_loop import quick
from toyqs.config.builders.model import build_model
from toyqs.config.builders.reference_model import build_reference_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.identity import run_key
from toyqs.config.run_config import RunConfig
from toyqs.experiment.stack import run_stack
from toyqs.files import read_json
from toyqs.sweep import worker
from toyqs.sweep.plan import Stack
from toyqs.training import loop, shortage
from toyqs.training.batches import draw_batches
from toyqs.training.flops import Cost
from toyqs.training.loop import train
from toyqs.training.optimizers import optimizer
from toyqs.training.params import TrainingParams
from toyqs.training.shortage import is_out_of_memory

COST = Cost(1, 2, 3.0, 4.0)
SEEDS = [4, 5]
WORDS = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes. Error code 12"
CASES: dict[str, dict[str, Any]] = {
    "a statistic of the batch": {},
    "inner steps": {"objective": "ppo_clip", "inner_steps": 2},
    "thoughts of any length": {"variable_len": True, "length_penalty": 0.1, "interpreter_start": "onward"},
    "a moving average, other rates": {
        **{"reward": "log_ratio", "reference": "ema", "thought_kl_beta": 0.1, "baseline": "ema"},
        **{"optimizer": "adam", "weight_decay": 0.1, "reasoner_lr": 0.003, "base_lm_lr": 0.05},
    },
    "sgd, two micro-batches": {"optimizer": "sgd", "grad_acc": 3, "reasoner_lr": 0.003},
    "muon, a filter": {"optimizer": "muon_grokfast", "grokfast_lambda": 2.0, "weight_decay": 0.1},
    "no thoughts": {"use_reasoner": False},
}


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the collection of garbage, which takes long in a process of many modules."""
    monkeypatch.setattr(shortage.gc, "collect", lambda: None)


class Failing(TorchDispatchMode):
    """Lets one operation fail that would allocate memory, the n-th from 0, as torch itself fails."""

    def __init__(self, number: int = -1) -> None:
        super().__init__()
        self.number, self.count = number, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not (func._schema.is_mutable or func.is_view):
            self.count += 1
            if self.count == self.number + 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 bytes")
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def in_step(number: int, mode: Failing) -> Iterator[None]:
    """Let operations fail in the gradient and the optimiser of one step, from 1, alone."""
    descend = loop._descend

    def watched(state: Any, *args: Any) -> dict[str, Tensor]:
        with mode if state.step + 1 == number else contextlib.nullcontext():
            return descend(state, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_descend", watched)
        yield


def trained(settings: RunConfig, seeds: list[int] = SEEDS) -> tuple[Tensor, list[tuple[int, int]]]:
    """Train; return the weights and the losses of all steps, and the shortages."""
    model, params = build_model(settings, seeds), build_training_params(settings)
    data = draw_batches(settings.task, seeds, params, next(model.parameters()))
    found: list[tuple[int, int]] = []
    values: list[Tensor] = []
    train(
        model,
        build_objective(settings),
        data,
        params,
        lambda _, seen: values.append(torch.stack([seen[name] for name in sorted(seen)])),
        build_reference_model(settings, model),
        on_shortage=lambda *where: found.append(where),
    )
    weights = [p.detach().flatten() for p in model.parameters()]
    return torch.cat([*weights, *(value.flatten() for value in values)]), found


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


SLOW = ("no thoughts", "sgd, two micro-batches", "thoughts of any length")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in CASES]
)
def test_wherever_memory_runs_out_the_training_ends_where_it_would_have(name: str) -> None:
    settings = quick(dtype="float64", max_steps=2, trice_samples=2, **CASES[name])
    undisturbed, found = trained(settings)
    assert not found
    counting = Failing()
    with in_step(1, counting):
        trained(settings)
    half = -(-settings.data_loader_batch_size // settings.grad_acc // 2)
    last = counting.count
    tried = [*range(last // 9, last, last // 5), last - 3, last - 1]
    for number in tried:
        with in_step(1, Failing(number)):
            disturbed, found = trained(settings)
        assert found == [(1, half)], number
        same(disturbed, undisturbed)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", ["adamw", "muon_grokfast"])
def test_an_optimiser_step_that_fails_leaves_all_as_it_was(
    name: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = quick(dtype="float64", max_steps=4, optimizer=name)
    undisturbed, _ = trained(settings)
    adam, calls = optimizer.adam, []

    def failing(values: Any, *args: Any, **kwargs: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            if after:  # torch counts the step first
                args[4][0].add_(1)
            raise RuntimeError(WORDS)
        adam(values, *args, **kwargs)

    monkeypatch.setattr(optimizer, "adam", failing)
    disturbed, found = trained(settings)
    assert found == [(2, 5)]
    same(disturbed, undisturbed)


@pytest.mark.slow
def test_sampling_and_the_measure_of_the_signal_are_made_again_too(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = quick(dtype="float64", max_steps=30, objective="ppo_clip", inner_steps=1)
    undisturbed, _ = trained(settings, [4])
    for name in ("_sampled", "_policy_snr"):
        work: Callable[..., Any] = getattr(loop, name)
        sizes: list[int | None] = []

        def failing(*args: Any, work: Any = work, sizes: Any = sizes) -> Any:
            sizes.append(args[-1].sequences)
            if len(sizes) == 1:
                raise MemoryError
            return work(*args)

        with monkeypatch.context() as patch:
            patch.setattr(loop, name, failing)
            disturbed, found = trained(settings, [4])
        assert sizes[:2] == [None, 5] and [size for _, size in found] == [5]
        same(disturbed, undisturbed)


def fitting(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every step fail that takes more sequences at once."""
    accumulate = loop.accumulate

    def limited(*args: Any) -> Any:
        params: TrainingParams = args[4]
        if (params.sequences or params.batch_size) > most:
            raise RuntimeError(WORDS)
        return accumulate(*args)

    monkeypatch.setattr(loop, "accumulate", limited)


def stack_of(folder: Path, **changes: Any) -> Stack:
    config = quick(max_steps=3, data_loader_batch_size=8, eval_sequences=16, **changes)
    return Stack("thinking", "", replace(config, runs_dir=str(folder / "runs")), [1, 2], COST)


def test_a_stack_notes_where_memory_ran_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack, said = stack_of(tmp_path, dtype="float64"), list[str]()
    whole = stack_of(tmp_path / "whole", dtype="float64")
    worker.train_stack(whole, lambda work, loss: None)
    whole_runs = Path(whole.config.runs_dir)
    fitting(2, monkeypatch)
    outcome = worker.train_stack(stack, lambda work, loss: None, said.append)
    assert outcome.done == [1, 2] and outcome.failure is None
    folders = [Path(stack.config.runs_dir) / run_key(stack.config, seed) for seed in (1, 2)]
    for folder in folders:
        noted = json.loads((folder / "env.json").read_text(encoding="utf-8"))["grad_acc_found"]
        assert noted == [{"step": 1, "micro_batch": 4}, {"step": 1, "micro_batch": 2}]
        row, wanted = (read_json(path / "summary.json") for path in (folder, whole_runs / folder.name))
        measured = {name: x for name, x in wanted.items() if isinstance(x, float) and name not in TIMES}
        assert {name: row[name] for name in measured} == pytest.approx(measured, rel=1e-6, abs=1e-6)
    assert said == [
        f"{folders[0]} and 1 beside it: step 1 did not fit into memory, goes on with {size} sequences at once"
        for size in (4, 2)
    ]


@pytest.mark.parametrize(
    ("most", "changes", "why"),
    [
        (0, {}, r"MemoryError: step 1 does not fit into memory, not with one sequence at a time; give .*"),
        (
            2,
            {"learned_reward": True},
            r"MemoryError: step 1 does not fit .* be parted; give a larger grad_acc.*",
        ),
        (2, {"auto_find_grad_acc": False}, r"RuntimeError: DefaultCPUAllocator: can't allocate memory.*"),
    ],
)
def test_where_nothing_smaller_can_be_done_one_line_says_so(
    most: int, changes: dict[str, Any], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitting(most, monkeypatch)
    outcome = worker.train_stack(stack_of(tmp_path, **changes), lambda work, loss: None, lambda line: None)
    assert not outcome.done and outcome.failure is not None
    assert re.fullmatch(why, outcome.failure)


def test_what_was_noted_before_an_interruption_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(stack_of(tmp_path).config, checkpoint_every=1)

    def stop(step: int, loss: float | None) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        fitting(4, patch)
        run_stack(config, [1], COST, stop, lambda line: None)
    run_stack(config, [1], COST, lambda step, loss: None, lambda line: None)
    environment = Path(config.runs_dir) / run_key(config, 1) / "env.json"
    assert json.loads(environment.read_text(encoding="utf-8"))["grad_acc_found"] == [
        {"step": 1, "micro_batch": 4}
    ]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError(WORDS), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (MemoryError(), True),
        (RuntimeError("shapes disagree"), False),
        (ValueError("not enough memory"), False),
    ],
)
def test_errors_of_memory_are_told_from_others(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


@pytest.mark.slow
def test_a_limit_of_the_process_is_such_an_error(tmp_path: Path) -> None:
    """The allocator itself fails, in a forward and in a backward pass, with less memory in each child."""
    script = Path(__file__).with_name("limited_memory.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    children = [json.loads(line) for line in done.stdout.splitlines()]
    assert {passed for child in children for passed in child["failed_in"]} == {"forward", "backward"}
    for child in children:
        assert child["furthest"] < 1e-9 and len(child["found"]) == len(child["failed_in"])
