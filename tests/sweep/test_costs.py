"""Costs are counted once, where want of memory ends nothing but the count; what cannot be is named."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import torch

from tests.sweep.test_main import config as small
from tests.sweep.test_plan import CHEAP, config
from toyqs.config.builders.cost import count_cost, step_bytes
from toyqs.config.run_config import RunConfig
from toyqs.evidence.rows import load_rows
from toyqs.sweep import costs, main


class Killed(costs.WorkerProcess):
    """A process that the system kills for want of memory."""

    def send(self, job: str, value: Any) -> None:
        super().send(job, value)
        os.kill(self.process.pid, signal.SIGKILL)


def test_costs_are_counted_once_for_equal_settings(monkeypatch):
    counted = []
    monkeypatch.setattr(costs, "count_cost", lambda config: counted.append(config) or CHEAP)
    cost = costs.cached_cost()
    assert cost(config()) == cost(config(max_steps=20)) == CHEAP
    cost(config(policy_loss_beta=-0.1))
    cost(config(base_lm_hidden_dim=3))
    cost(config(policy_loss_beta=0.0))
    assert len(counted) == 3


@pytest.mark.parametrize("width", [100_000_000, 99999999999999999999])
@pytest.mark.parametrize("controls", ["none", "fair"])
def test_a_width_that_no_memory_holds_is_one_line_and_nothing_is_written(tmp_path, capsys, width, controls):
    settings = small(tmp_path / "runs", base_lm_hidden_dim=width, controls=controls)
    assert main.main([settings]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("toyqs: this run cannot be trained: its weights ") and err.count("\n") == 1
    assert out == "" and not (tmp_path / "runs").exists()


def test_a_combination_that_cannot_be_is_named_and_stops_no_other(tmp_path, capsys):
    few = {"controls": "none", "seed": [0]}
    both = [small(tmp_path, base_lm_hidden_dim=width, **few) for width in (10**8, 6)]
    assert main.main(both) == 1
    line = "toyqs: base_lm_hidden_dim=100000000 cannot be trained: its weights take"
    err = capsys.readouterr().err.splitlines()
    assert err[0].startswith(line) and err[-1] == err[0], "said at once, and again at the end"
    assert len(load_rows(tmp_path)) == 1 and len(list((tmp_path / "cells").iterdir())) == 1


def test_a_large_step_is_counted_in_a_process_of_its_own(monkeypatch):
    settings = config(max_steps=3, data_loader_batch_size=4)
    monkeypatch.setattr(costs, "LARGE", 0)
    assert costs.cached_cost()(settings) == count_cost(settings)
    monkeypatch.setattr(costs, "WorkerProcess", Killed)
    with pytest.raises(MemoryError, match="killed while it was counted, for want of memory; give"):
        costs.cached_cost()(settings)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "a training step does not fit into memory; give a smaller"),
        (RuntimeError("[enforce fail] can't allocate memory: 5 bytes"), "does not fit into memory; give"),
        (RuntimeError("another fault"), "another fault"),
    ],
)
def test_memory_that_torch_did_not_get_is_said_in_our_words(monkeypatch, error, says):
    def failing(config):
        raise error

    monkeypatch.setattr(costs, "count_cost", failing)
    with pytest.raises((MemoryError, RuntimeError), match=says):
        costs.cached_cost()(config(max_steps=3, data_loader_batch_size=4))


def saved_bytes(settings: RunConfig) -> int:
    """Return the bytes that autograd keeps for the backward pass of a step."""
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        count_cost(settings)
    return sum(seen.values())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_reasoner": False},
        {"trice_samples": 16, "max_reasoning_len": 8},
        {"think_at": "all", "data_loader_batch_size": 256},
        {"thoughts": "gaussian", "objective": "pathwise"},
        {"weight_groups": list("AAAA"), "base_lm_hidden_dim": 32, "reasoner_hidden_dim": 32},
        {"backbone": "gpt2", "base_lm_hidden_dim": 16, "reasoner_hidden_dim": 16},
    ],
)
def test_the_estimate_of_a_step_is_above_what_it_keeps(changes: dict[str, Any]) -> None:
    settings = config(**changes)
    kept = saved_bytes(settings)
    assert kept <= step_bytes(settings) <= 30 * kept
