"""Several processes on shares of a batch: the row of one process, and one line where one of them fails."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import killing
from toyqs.config.checks.training.distributed import check_parallel
from toyqs.config.checks.values import check
from toyqs.config.errors import Refusal
from toyqs.config.identity import run_key
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.experiment import stack
from toyqs.experiment.stack import run_stack
from toyqs.objectives import advantages as objectives_advantages
from toyqs.sweep import torchrun as follow
from toyqs.sweep import worker
from toyqs.sweep.plan import Stack
from toyqs.training import distributed
from toyqs.training.batches import prepare, rank_slice
from toyqs.training.flops import Cost
from toyqs.types import Batch

COST = Cost(1, 2, 3.0, 4.0)
SECONDS = 100  # after which processes that wait for each other are ended
SMALL: dict[str, Any] = {
    **{"base_lm_hidden_dim": 3, "reasoner_hidden_dim": 4, "trice_samples": 2, "max_reasoning_len": 2},
    **{"max_steps": 6, "data_loader_batch_size": 8, "eval_sequences": 16, "dtype": "float64"},
}


def configured(folder: Path, **changes: Any) -> RunConfig:
    return resolved(replace(RunConfig(), **SMALL | changes, runs_dir=str(folder / "runs")))


def started(rank: int, port: int, errors: Path, work: Callable[[], int]) -> int:
    """Fork this process as one of two that torchrun would start; return its id."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        sys.stderr = os.fdopen(2, "w", buffering=1)
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        code = work()
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)


def together(config: RunConfig, seeds: list[int], errors: Path) -> list[int | None]:
    """Train with two processes; return their exit codes, None where one had to be ended."""

    def lead() -> int:
        outcome = worker.train_stack(Stack("thinking", "", config, seeds, COST), lambda work, loss: None)
        if outcome.failure:
            print(f"toyqs: {outcome.failure}", file=sys.stderr)
            return 1
        distributed.release_ranks()  # os._exit skips what is done at a process's end
        return 0

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ids = [started(rank, port, errors, work) for rank, work in enumerate((lead, follow.serve_rank))]
    end, codes = time.monotonic() + SECONDS, dict.fromkeys(ids)
    while None in codes.values() and time.monotonic() < end:
        for process in [x for x in ids if codes[x] is None]:
            done, status = os.waitpid(process, os.WNOHANG)
            codes[process] = os.waitstatus_to_exitcode(status) if done else None
        time.sleep(0.02)
    for process in [x for x in ids if codes[x] is None]:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    return list(codes.values())


def stop_at_5(step: int, loss: float | None) -> None:
    if step == 5:
        raise KeyboardInterrupt


def furthest(one: RunConfig, other: RunConfig, seeds: list[int]) -> float:
    """Return the largest difference between the rows and the weights of two trainings."""
    worst = 0.0
    for seed in seeds:
        first, second = (Path(config.runs_dir) / run_key(config, seed) for config in (one, other))
        row, column = (json.loads((folder / "summary.json").read_text()) for folder in (first, second))
        assert row.keys() == column.keys()
        for name in row.keys() - set(killing.TIMES):
            if isinstance(row[name], float):
                worst = max(worst, abs(row[name] - column[name]))
            else:
                assert row[name] == column[name], name
        weights, others = (load_file(folder / "model.safetensors") for folder in (first, second))
        assert weights.keys() == others.keys()
        worst = max([worst, *(float((weights[name] - others[name]).abs().max()) for name in weights)])
    return worst


@pytest.mark.parametrize(
    "changes",
    [
        {"max_steps": 30, "grad_acc": 2, "baseline": "ema", "length_schedule": "random"},
        {"objective": "ppo_clip", "inner_steps": 2, "checkpoint_every": 2, "variable_len": True},
        {"chunk_positions": 3, "think_at": "all", "credit": "prefix", "prefix_nll_beta": 0.5},
        {"meta_token_mode": "lr_multiplier", "baseline": "ema"},
        {"objective": "maxent", "temperature_scale": "spread", "think_at": "hard"},
        {"objective": "multi_sample", "n_tokens_ahead": 2, "ahead": "joint"},
        {"use_reasoner": False, "data_loader_batch_size": 4},
        {"warm_start": 6, "max_reasoning_len": 3, "baseline": "ema"},  # at last one of eight sequences
        {"thought_into": "state", "weight_groups": list("AABC"), "model_hidden_dim": 4},  # in turn
        {"thought_into": "state", "weight_groups": list("ABCD"), "grad_acc": 2},  # at once
    ],
)
def test_two_processes_give_the_row_of_one(tmp_path: Path, changes: dict[str, Any]) -> None:
    one, two = (configured(tmp_path / name, **changes) for name in ("one", "two"))
    run_stack(one, [1, 2], COST, lambda step, loss: None)
    assert together(two, [1, 2], tmp_path / "err") == [0, 0]
    assert (tmp_path / "err").read_text() == ""
    assert furthest(one, two, [1, 2]) < 1e-10
    names = {str(path.relative_to(tmp_path / "one")) for path in killing.tree(tmp_path / "one")}
    assert names == {str(path.relative_to(tmp_path / "two")) for path in killing.tree(tmp_path / "two")}


@pytest.mark.parametrize(
    "changes",
    [
        {"gradient_checkpointing": True, "positions_up_to": 24},
        {"qk_clip": 1e-3, "interpreter_start": "onward"},
        {"reference": "ema", "thought_kl_beta": 0.1, "checkpoint_every": 2, "grad_acc": 2},
        *(
            pytest.param(changes, marks=pytest.mark.slow)
            for changes in (
                {"gradient_checkpointing": True, "weight_groups": ["A", "B", "C", "D"]},
                {"objective": "ppo_clip", "inner_steps": 2, "max_steps": 30, "baseline": "ema"},
                {"thoughts": "gaussian", "baseline": "value", "value_sees": "context"},
            )
        ),
    ],
)
def test_two_processes_train_a_transformer_as_one(tmp_path: Path, changes: dict[str, Any]) -> None:
    pytest.importorskip("transformers")
    changes = {"backbone": "gpt2", "model_hidden_dim": 4, **changes}
    one, two = (configured(tmp_path / name, **changes) for name in ("one", "two"))
    run_stack(one, [1], COST, lambda step, loss: None)
    assert together(two, [1], tmp_path / "err") == [0, 0]
    assert furthest(one, two, [1]) < 1e-10


def test_statistics_of_a_share_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (configured(tmp_path / name) for name in ("one", "two"))
    run_stack(one, [1], COST, lambda step, loss: None)
    of_share = lambda a, r, w, total: objectives_advantages.batch_std(a, r, w)  # noqa: E731
    monkeypatch.setitem(objectives_advantages.ADVANTAGE_SCALES, "batch_std", of_share)
    assert together(two, [1], tmp_path / "err") == [0, 0]
    assert furthest(one, two, [1]) > 1e-6


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"backbone": "gpt2", "model_hidden_dim": 4, "reference": "ema"}, marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_of_one_process_is_gone_on_from_by_two(tmp_path: Path, changes: dict[str, Any]) -> None:
    if "backbone" in changes:
        pytest.importorskip("transformers")
    changes = {"checkpoint_every": 2, **changes}
    one, two = (configured(tmp_path / name, **changes) for name in ("one", "two"))
    run_stack(one, [1], COST, lambda step, loss: None)
    with pytest.raises(KeyboardInterrupt):
        run_stack(two, [1], COST, stop_at_5)
    assert together(two, [1], tmp_path / "err") == [0, 0]
    assert furthest(one, two, [1]) < 1e-10


def test_two_processes_begin_anew_where_the_checkpoint_is_of_another_model(tmp_path: Path) -> None:
    one, two, other = (configured(tmp_path / name, checkpoint_every=2) for name in ("one", "two", "other"))
    other = resolved(replace(other, base_lm_hidden_dim=5))
    run_stack(one, [1], COST, lambda step, loss: None)
    with pytest.raises(KeyboardInterrupt):
        run_stack(other, [1], COST, stop_at_5)
    Path(two.runs_dir).mkdir(parents=True)
    (Path(other.runs_dir) / run_key(other, 1)).rename(Path(two.runs_dir) / run_key(two, 1))
    assert together(two, [1], tmp_path / "err") == [0, 0]
    (line,) = (tmp_path / "err").read_text().splitlines()
    assert "begins anew: checkpoint.pt is of a model with other parameters" in line
    assert furthest(one, two, [1]) < 1e-10


def test_a_rank_that_waits_ends_at_sigterm(tmp_path: Path) -> None:
    def wait() -> int:
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # as run.py does
        return follow.serve_rank()

    process = started(1, 1, tmp_path / "err", wait)  # on port 1 no rank 0 will ever answer
    time.sleep(1)
    os.kill(process, signal.SIGTERM)
    time.sleep(1)
    os.kill(process, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGTERM


@pytest.mark.parametrize("failing", [0, 1])
def test_a_failing_process_ends_both_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    train = stack.train

    def failing_train(*args: Any) -> None:
        if int(os.environ["RANK"]) != failing:
            train(*args)
        raise ValueError("no\nmore")

    monkeypatch.setattr(stack, "train", failing_train)
    assert together(configured(tmp_path), [1], tmp_path / "err") == [1, 1]
    (line,) = [x for x in (tmp_path / "err").read_text().splitlines() if x.startswith("toyqs: ")]
    assert "ValueError: no more (test_distributed.py:" in line
    assert ("rank 1 failed" in line) == (failing == 1)


def test_portions_make_up_the_whole() -> None:
    ids = torch.arange(35).view(1, 7, 5)
    whole = prepare(Batch(ids, ids, ids.float(), ids >= 0), torch.rand(1, 7, 5, 2, 3))
    for ranks in (1, 2, 3, 7):
        parts = [rank_slice(whole, rank, ranks) for rank in range(ranks)]
        assert torch.equal(torch.cat([part.inputs for part in parts], 1), whole.inputs)
        assert torch.equal(torch.cat([part.noise for part in parts], 1), whole.noise)
        assert torch.equal(torch.cat([part.counted.weights for part in parts], 1), whole.counted.weights)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"data_loader_batch_size": 9}, "batch_size=9: does not go evenly.*give a multiple of 2, 4 or more"),
        ({"data_loader_batch_size": 2}, "data_loader_batch_size=2: .* give a multiple of 2, 4 or more"),
        ({"grad_acc": 3, "data_loader_batch_size": 9}, "with grad_acc=3; give a multiple of 6, 6 or more"),
        ({"learned_reward": True}, "learned_reward=true: .* give learned_reward=false or one process"),
        ({"qk_clip": 1.0, "backbone": "gpt2"}, "qk_clip=1.0: follows .* give interpreter_start=onward"),
        ({"baseline": "average_thought"}, "baseline=average_thought: .* give another baseline"),
        ({"baseline": "value"}, "value_sees=average_thought: .* give another value_sees"),
    ],
)
def test_what_would_give_other_numbers_is_refused(
    changes: dict[str, Any], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(RunConfig(), **changes)
    check(config)
    check_parallel(config, 1)
    with pytest.raises(Refusal, match=line):
        check_parallel(resolved(config), 2)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(Refusal, match=line):
        check(config)


def torchrun(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    given = [*command, str(killing.ROOT / "run.py"), *words]
    return subprocess.run(given, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_torchrun_prints_and_writes_once(tmp_path: Path) -> None:
    words = ["base_lm_hidden_dim=4", "reasoner_hidden_dim=4", "seed=1", "max_steps=5", "eval_sequences=16"]
    words += ["data_loader_batch_size=4", "dtype=float64", "runs_dir=runs"]
    done = torchrun(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Started to think") == 1
    assert len([*(tmp_path / "runs").glob("*/summary.json")]) == 8
    again = torchrun(tmp_path, *words)
    assert again.returncode == 0 and "8 of 8 runs are finished already" in again.stdout
    helped = torchrun(tmp_path, "--help")
    assert helped.returncode == 0 and helped.stdout.count("python run.py") >= 1
    refused = torchrun(tmp_path, "data_loader_batch_size=3")
    assert refused.returncode != 0 and refused.stderr.count("toyqs: data_loader_batch_size=3") == 1
