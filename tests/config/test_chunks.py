"""`chunk_positions` follows from the sizes in the settings, and is no part of the key of a whole step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.step import CONFIG
from tests.config.checks.checking import accepted, refused
from toyqs.config.builders.training import build_training_params
from toyqs.config.finished_run import config_of
from toyqs.config.identity import changed, run_key, settings
from toyqs.config.resolve import CHUNK, resolved
from toyqs.config.run_config import RunConfig
from toyqs.tasks.group import S5
from toyqs.tasks.hidden_markov import HiddenMarkov
from toyqs.tasks.iterate import Iterate
from toyqs.tasks.rev_prog import RevProg
from toyqs.tasks.task import Task
from toyqs.tasks.texts.char_text import CharText

LARGE: dict[str, Any] = {
    **{"task": HiddenMarkov(positions=64), "base_lm_hidden_dim": 32, "reasoner_hidden_dim": 32},
    **{"data_loader_batch_size": 16, "max_reasoning_len": 8, "thought_vocab": 65, "advantage_scale": "none"},
    "kernels": "torch",
}


def chunk(**given: Any) -> int | None:
    return resolved(replace(RunConfig(), **LARGE | given)).chunk_positions


def test_it_follows_from_the_sizes() -> None:
    assert chunk() == 22  # three chunks of 64 positions
    assert chunk(data_loader_batch_size=32) == 13
    assert chunk(data_loader_batch_size=32, grad_acc=2) == chunk()
    assert chunk(trice_samples=8) == chunk(data_loader_batch_size=32)
    assert chunk(max_reasoning_len=7) == 22 and chunk(max_reasoning_len=6) == 0, "twice CHUNK is whole"
    assert chunk(reasoner_hidden_dim=2) == chunk(trice_samples=1) == 0
    assert chunk(data_loader_batch_size=2**20) == 1
    assert chunk(dtype="float64") == chunk(), "the same numbers, whatever their bytes"
    assert CHUNK == 12 * 2**20


def test_native_kernels_keep_less_and_take_more_at_once() -> None:
    assert chunk(kernels="native") == 0 and chunk(kernels="native", data_loader_batch_size=256) == 10
    assert chunk(kernels="native", reasoner_hidden_dim=63) == 0
    assert chunk(kernels="native", reasoner_hidden_dim=100) == 16, "wide: recurrent rows are kept as well"


def test_it_stays_open_while_nobody_has_settled_the_kernels() -> None:
    assert chunk(kernels="auto") is None and chunk(kernels="auto", chunk_positions=7) == 7
    config = replace(RunConfig(), **LARGE | {"kernels": "auto"})
    assert build_training_params(resolved(config)).chunk_positions == 22, "a model takes torch's"
    assert run_key(config, 0) == run_key(replace(config, kernels="torch"), 0)


@pytest.mark.parametrize(
    "whole",
    [
        {"advantage_scale": "batch_std"},
        {"shuffle_rewards": True},
        {"objective": "vargrad", "temperature_scale": "spread"},
        {"learned_reward": True},
        {"baseline": "average_thought"},
        {"think_at": "hard"},
        {"device": "cuda"},
        {"backbone": "gpt2"},
        {"use_reasoner": False},
        {"max_reasoning_len": 0},
    ],
)
def test_all_positions_are_taken_at_once_where_parts_would_cost_time(whole: dict[str, Any]) -> None:
    assert chunk() and chunk(**whole) == 0


def test_what_is_given_holds() -> None:
    assert chunk(chunk_positions=5) == chunk(chunk_positions=5, advantage_scale="batch_std") == 5
    assert build_training_params(resolved(replace(CONFIG, chunk_positions=5))).chunk_positions == 5
    assert chunk(chunk_positions=0) == chunk(chunk_positions=64) == chunk(chunk_positions=99) == 0
    assert chunk(chunk_positions=5, use_reasoner=False) == 0


def test_keys_from_before_are_those_of_whole_steps() -> None:
    large = replace(RunConfig(), **LARGE, max_steps=10)
    whole, small = replace(large, chunk_positions=0), replace(RunConfig(), max_steps=10)
    assert run_key(large, 1) == run_key(replace(large, chunk_positions=22), 1) != run_key(whole, 1)
    assert run_key(small, 1) == run_key(replace(small, chunk_positions=0), 1)
    before = {name: value for name, value in settings(whole, 1).items() if name != "chunk_positions"}
    assert run_key(config_of(before), 1) == run_key(whole, 1)
    assert run_key(config_of(settings(large, 1)), 1) == run_key(large, 1)
    assert "chunk_positions" not in changed(resolved(large))
    assert changed(resolved(whole))["chunk_positions"] == 0


def test_positions_that_cannot_be_parted_are_refused() -> None:
    refused("chunk_positions=2: think_at=hard .* give chunk_positions=0", chunk_positions=2, think_at="hard")
    learned = {"learned_reward": True, "chunk_positions": 2}
    refused("chunk_positions=2: learned_reward=true is of all .* give chunk_positions=0", **learned)
    refused("chunk_positions=2: the average thought", chunk_positions=2, baseline="average_thought")
    refused("chunk_positions=-1", chunk_positions=-1)
    assert accepted(chunk_positions=2) == []


@pytest.mark.parametrize(
    "task",
    [
        *(RevProg(), RevProg(k=2, queries=3), Iterate(), S5(), S5(asked="end"), HiddenMarkov(positions=5)),
        CharText(path="README.md"),
    ],
)
def test_tasks_know_how_many_positions_think(task: Task) -> None:
    batch = task.sample(torch.Generator().manual_seed(0), 2, 8, "train")
    assert int(batch.think[0, 0].sum()) == task.thinking(8)
