"""A stopped training continues from its last checkpoint and ends with the same files."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import killing
from toyqs.config.builders.kernels import can_be_native
from toyqs.config.identity import run_key
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.evidence.rows import is_complete
from toyqs.experiment import checkpoint
from toyqs.experiment.stack import run_stack
from toyqs.sweep import worker
from toyqs.sweep.plan import Stack
from toyqs.training.flops import Cost

COST = Cost(1, 2, 3.0, 4.0)
SMALL: dict[str, Any] = {
    **{"base_lm_hidden_dim": 3, "reasoner_hidden_dim": 4, "trice_samples": 2, "max_reasoning_len": 2},
    **{"max_steps": 40, "eval_every": 8, "data_loader_batch_size": 4, "eval_sequences": 16},
    "checkpoint_every": 10,
}
WORDS = (
    *("base_lm_hidden_dim=4", "reasoner_hidden_dim=4", "seed=[1,2]", "controls=none", "max_steps=400"),
    *("data_loader_batch_size=4", "eval_sequences=16", "trice_samples=2", "max_reasoning_len=1"),
    "eval_every=100",
)


needs_native = pytest.mark.skipif(not can_be_native(), reason="there is no C++ compiler here")


class Stopped(Exception):
    pass


def configured(folder: Path, **changes: Any) -> RunConfig:
    return resolved(replace(RunConfig(), **SMALL | changes, runs_dir=str(folder / "runs")))


def stop_at(last: int) -> Any:
    def progress(step: int, loss: float | None) -> None:
        if step == last:
            raise Stopped

    return progress


def folder_of(config: RunConfig, seed: int) -> Path:
    return Path(config.runs_dir) / run_key(config, seed)


def trained(config: RunConfig, seeds: list[int]) -> worker.StackOutcome:
    return worker.train_stack(Stack("thinking", "", config, seeds, COST), lambda work, loss: None)


def differences(folder: Path) -> list[str]:
    """Compare a folder of runs with that of an undisturbed training, named `whole`, next to it."""
    return killing.differences(killing.found_in(folder), killing.found_in(folder.parent / "whole"))


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "float64", "baseline": "ema", "reference": "ema", "thought_kl_beta": 0.1},
        {"length_schedule": "short_to_long", "reference": "initial", "reward": "log_ratio", "grad_acc": 2},
        {"length_schedule": "random", "max_reasoning_len": 4, "objective": "ppo_clip", "inner_steps": 2},
        {"use_reasoner": False},
        {"warm_start": 37, "max_reasoning_len": 3, "baseline": "ema"},
        {"thought_into": "state", "weight_groups": list("AABC"), "base_lm_hidden_dim": 4},
        {"thought_into": "state", "grad_acc": 2, "mixing": "base"},
        {"objective": "wake_sleep", "sampler": "inference"},
        {"objective": "multi_sample", "n_tokens_ahead": 2, "ahead": "joint"},
        {"optimizer": "sgd", "weight_decay": 0.1, "reasoner_lr": 0.1, "lm_head_layers": 2},
        {"optimizer": "muon_grokfast", "grokfast_lambda": 2.0, "weight_decay": 0.1},
        {"optimizer": "adam", "grokfast_lambda": 2.0, "grokfast_alpha": 0.5},
        {"optimizer": "adam", "weight_decay": 0.1, "interpreter_lr": 0.003},
        pytest.param({"kernels": "native"}, marks=needs_native),
        pytest.param({"kernels": "native", "use_reasoner": False}, marks=needs_native),
    ],
)
def test_a_stopped_training_gives_the_row_and_the_curve_of_one_that_was_not(tmp_path, changes):
    whole, stopped = (configured(tmp_path / name, **changes) for name in ("whole", "stopped"))
    run_stack(whole, [1, 2], COST, lambda step, loss: None)
    for last in (35, 36):  # the second stop comes before a new checkpoint
        with pytest.raises(Stopped):
            run_stack(stopped, [1, 2], COST, stop_at(last))
        saved = checkpoint.read(folder_of(stopped, 2))
        assert saved is not None and saved["step"] == last // 10 * 10
    assert trained(stopped, [1, 2]).done == [1, 2]
    assert differences(tmp_path / "stopped") == []


def test_only_the_remaining_steps_are_done(tmp_path):
    config, steps = configured(tmp_path), []
    with pytest.raises(Stopped):
        run_stack(config, [1], COST, stop_at(39))
    run_stack(replace(config, checkpoint_every=0), [1], COST, lambda step, loss: steps.append(step))
    assert steps == list(range(31, 41))


def test_nothing_is_saved_after_the_last_step(tmp_path, monkeypatch):
    steps: list[int] = []
    monkeypatch.setattr(checkpoint, "write", lambda folder, saved: steps.append(saved["step"]))
    run_stack(configured(tmp_path), [1], COST, lambda step, loss: None)
    assert steps == [10, 20, 30], "the row follows the 40th"


def test_seeds_at_different_steps_continue_apart(tmp_path):
    whole, torn = configured(tmp_path / "whole"), configured(tmp_path / "torn")
    run_stack(whole, [1, 2], COST, lambda step, loss: None)
    for seeds, last in (([1], 35), ([2], 22)):
        with pytest.raises(Stopped):
            run_stack(torn, seeds, COST, stop_at(last))
    assert checkpoint.by_progress(torn, [1, 2]) == [[1], [2]]
    assert trained(torn, [1, 2]).done == [1, 2]
    assert differences(tmp_path / "torn") == []


def test_a_wrong_checkpoint_would_be_noticed(tmp_path):
    whole, stopped = configured(tmp_path / "whole"), configured(tmp_path / "stopped")
    run_stack(whole, [1], COST, lambda step, loss: None)
    with pytest.raises(Stopped):
        run_stack(stopped, [1], COST, stop_at(35))
    folder = folder_of(stopped, 1)
    saved = checkpoint.read(folder)
    assert saved is not None
    saved["training"]["optimiser"]["means"] *= 0.9
    checkpoint.write(folder, saved)
    run_stack(stopped, [1], COST, lambda step, loss: None)
    wrong = differences(tmp_path / "stopped")
    assert any("model.safetensors" in line for line in wrong)


DAMAGE = {
    "torn": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "foreign": lambda path: torch.save([1, 2], path),
    "other keys": lambda path: torch.save({"step": 30, "log_size": 0, "log": "0:00000000"}, path),
    "no curve": lambda path: (path.parent / checkpoint.LOG).unlink(),
    "a short curve": lambda path: (path.parent / checkpoint.LOG).write_text(""),
    "a changed curve": lambda path: flip(path.parent / checkpoint.LOG, 100),
}


def flip(path: Path, bit: int) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_a_curve_of_another_version_is_noticed_before_any_rank_resumes(tmp_path):
    config, said = configured(tmp_path), []
    with pytest.raises(Stopped):
        run_stack(config, [1], COST, stop_at(35))
    state = checkpoint.read(folder_of(config, 1))
    del state["curve"]["snr"]
    checkpoint.write(folder_of(config, 1), state)
    assert checkpoint.read(folder_of(config, 1), said.append) is None
    assert said[0].endswith("begins anew: it lacks the curve's snr")


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_run_without_a_usable_checkpoint_begins_anew_and_says_so(tmp_path, capsys, damage):
    config, steps = configured(tmp_path), []
    with pytest.raises(Stopped):
        run_stack(config, [1], COST, stop_at(35))
    path = folder_of(config, 1) / checkpoint.NAME
    DAMAGE[damage](path)
    run_stack(config, [1], COST, lambda step, loss: steps.append(step))
    assert steps == list(range(1, 41)) and not path.exists()
    assert is_complete(config.runs_dir, run_key(config, 1))
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith(f"toyqs: {path} cannot be used, the run begins anew: ")


def test_a_flipped_bit_is_noticed_or_changes_nothing(tmp_path, capsys):
    """Flip bits all over a checkpoint, one at a time: none may change what is resumed."""
    config = configured(tmp_path)
    with pytest.raises(Stopped):
        run_stack(config, [1], COST, stop_at(35))
    folder, noticed = folder_of(config, 1), 0
    path = folder / checkpoint.NAME
    whole, wanted = path.read_bytes(), checkpoint.read(folder)
    for bit in range(0, 8 * len(whole), 8 * len(whole) // 300):
        path.write_bytes(whole)
        flip(path, bit)
        found = checkpoint.read(folder)
        assert found is None or same(found, wanted), bit
        noticed += found is None
        assert found is None or path.exists()
    assert noticed > 100
    assert capsys.readouterr().err.count("\n") == noticed


def same(one: Any, other: Any) -> bool:
    """Tell whether two states are equal, tensors to the bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def test_a_kill_after_the_row_leaves_a_checkpoint_that_the_next_command_removes(tmp_path):
    config = configured(tmp_path)
    assert trained(config, [1]).done == [1]
    path = folder_of(config, 1) / checkpoint.NAME
    assert not path.exists()
    path.write_bytes(b"x")
    assert trained(config, [1]).complete == [1]
    assert not path.exists()


def test_a_checkpoint_of_other_parameters_is_not_used(tmp_path):
    config, wider = configured(tmp_path), configured(tmp_path, base_lm_hidden_dim=5)
    with pytest.raises(Stopped):
        run_stack(config, [1], COST, stop_at(35))
    folder_of(wider, 1).mkdir()
    for name in (checkpoint.NAME, "metrics.jsonl"):
        (folder_of(config, 1) / name).rename(folder_of(wider, 1) / name)
    said: list[str] = []
    steps: list[int] = []
    run_stack(wider, [1], COST, lambda step, loss: steps.append(step), said.append)
    assert steps == list(range(1, 41)) and is_complete(wider.runs_dir, run_key(wider, 1))
    assert len(said) == 1 and "begins anew: checkpoint.pt is of a model with other parameters" in said[0]


def test_a_killed_process_leaves_checkpoints_for_the_next(tmp_path):
    whole, killed = configured(tmp_path / "whole"), configured(tmp_path / "killed")
    run_stack(whole, [1, 2], COST, lambda step, loss: None)

    def die(step: int, loss: float | None) -> None:
        if step == 35:
            os.kill(os.getpid(), signal.SIGKILL)

    process = os.fork()
    if not process:
        with suppress(BaseException):
            run_stack(killed, [1, 2], COST, die)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    assert not (folder_of(killed, 1) / "summary.json").exists()
    assert checkpoint.by_progress(killed, [1, 2, 3]) == [[1, 2], [3]]
    assert trained(killed, [1, 2]).done == [1, 2]
    assert differences(tmp_path / "killed") == []


@pytest.mark.slow
def test_a_killed_command_continues_from_its_checkpoints(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    words = killing.command(*WORDS, "checkpoint_every=20")
    assert killing.started(killing.command(*WORDS), whole).wait() == 0
    process = killing.started(words, killed)
    assert killing.until(lambda: [*(killed / "runs").glob(f"*/{checkpoint.NAME}")], 120)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not [*(killed / "runs").glob("*/summary.json")]
    assert killing.started(words, killed).wait() == 0
    assert differences(killed) == []


def test_checkpoints_are_not_part_of_the_key(tmp_path):
    assert run_key(configured(tmp_path), 1) == run_key(configured(tmp_path, checkpoint_every=0), 1)
