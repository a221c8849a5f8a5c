"""Thoughts that become longer or shorter as training goes on."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.config.checks.checking import accepted, refused
from tests.training.test_loop import quick, same, trained
from toyqs.config.builders.cost import count_cost
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.identity import run_key
from toyqs.config.run_config import RunConfig
from toyqs.experiment import learning_curve
from toyqs.experiment.stack import run_stack
from toyqs.training.batches import draw_batches, truncate_thoughts
from toyqs.training.evaluation import recording
from toyqs.training.loop import accumulate, train

UP, DOWN = {"length_schedule": "short_to_long"}, {"length_schedule": "long_to_short"}
KINDS = ("token", "gaussian", "state", "gumbel", "deterministic")


def lengths(**changes: Any) -> list[int]:
    numbers = build_training_params(quick(**changes))
    return [numbers.length_at(step) for step in range(numbers.steps)]


def test_stages_are_equally_long_over_three_quarters_and_the_last_lasts_to_the_end() -> None:
    up = lengths(**UP, max_reasoning_len=3, max_steps=40)
    assert up == [1] * 10 + [2] * 10 + [3] * 20
    assert lengths(**DOWN, max_reasoning_len=3, max_steps=40) == [4 - x for x in up]
    assert lengths(**UP, min_reasoning_len=2, max_reasoning_len=3, max_steps=8) == [2, 2, 2, 3, 3, 3, 3, 3]


def test_without_a_schedule_or_without_thoughts_the_length_stays() -> None:
    assert set(lengths(max_reasoning_len=3)) == {3}
    assert set(lengths(**DOWN, max_reasoning_len=0)) == {0}
    assert set(lengths(**DOWN, use_reasoner=False)) == {0}


def test_few_steps_hold_every_length_they_can() -> None:
    assert lengths(**DOWN, max_reasoning_len=4, max_steps=1) == [4]
    assert lengths(**DOWN, max_reasoning_len=4, max_steps=4) == [4, 3, 2, 1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", tiny.STARTS)
def test_a_shortened_step_is_the_step_of_a_model_with_short_thoughts(start: str, kind: str) -> None:
    """Compare gradients and values bit for bit, with the same parameters and the first symbols' noise."""
    path = {} if kind in ("token", "gaussian") else {"objective": "pathwise"}
    settings = tiny.config(thoughts=kind, interpreter_start=start, max_reasoning_len=3, **path)
    numbers = build_training_params(settings)
    model = tiny.model(settings)
    drawn = next(draw_batches(settings.task, [0], numbers, next(model.parameters())))
    short = build_model(replace(settings, max_reasoning_len=2), [0])
    short.load_state_dict(model.state_dict())
    weights = {name: weight.at(0.0) for name, weight in numbers.weights.items()}
    found = []
    for built, part in (
        (model, truncate_thoughts(drawn, 2)),
        (short, drawn._replace(noise=drawn.noise[:, :, :, :, :2].clone())),
    ):
        values = accumulate(built, build_objective(settings), part, weights, numbers, torch.zeros(1).double())
        found.append((values, {name: p.grad for name, p in built.named_parameters()}))
    (values, grads), (wanted, wanted_grads) = found
    assert all(torch.equal(values[name], wanted[name]) for name in wanted)
    for name, grad in wanted_grads.items():
        assert (grad is None) == (grads[name] is None)
        assert grad is None or torch.equal(grad, grads[name]), name


def test_noise_of_the_whole_length_is_drawn_whatever_the_step_uses() -> None:
    """Check that a stage has the same batches and noise as a run without a schedule."""
    both = [
        draw_batches(s.task, [3], build_training_params(s), torch.zeros(1)) for s in (quick(), quick(**DOWN))
    ]
    for mine, theirs in itertools.islice(zip(*both, strict=True), 40):
        assert torch.equal(mine.noise, theirs.noise) and torch.equal(mine.inputs, theirs.inputs)


def test_the_loop_trains_each_stage_at_its_length() -> None:
    settings = quick(**DOWN, max_reasoning_len=3, max_steps=8)
    numbers = build_training_params(settings)
    model, objective, seen = build_model(settings, [0]), build_objective(settings), []

    def watching(trace: Any, batch: Any) -> Any:
        seen.append(trace.log_prob.shape[4])
        return objective(trace, batch)

    data = draw_batches(settings.task, [0], numbers, next(model.parameters()))
    train(model, watching, data, numbers, lambda step, values: None)
    assert seen == [3, 3, 2, 2, 1, 1, 1, 1]


def test_the_first_stage_is_the_run_of_its_length_and_later_ones_are_not() -> None:
    """Check long_to_short before any thought is shortened."""
    plain, falling = (
        trained(quick(max_reasoning_len=3, max_steps=40, use_scheduler=False, **x), [5])[1]
        for x in ({}, DOWN)
    )
    for step in range(10):
        assert all(torch.equal(plain[step][n], falling[step][n]) for n in plain[step]), step
    assert not torch.equal(plain[10]["nll"], falling[10]["nll"])


@pytest.mark.parametrize("kind", ["token", "gaussian"])
def test_a_seed_alone_and_in_company_is_the_same_run(kind: str) -> None:
    settings = quick(**UP, thoughts=kind, max_reasoning_len=3)
    same(trained(settings, [5]), trained(settings, [4, 5, 6]), (0, 1))


def test_the_cost_is_the_mean_over_the_steps() -> None:
    fixed = [count_cost(tiny.config(max_reasoning_len=length, max_steps=40)) for length in (2, 3, 4)]
    cost = count_cost(tiny.config(**DOWN, min_reasoning_len=2, max_reasoning_len=4, max_steps=40))
    shares = (0.5, 0.25, 0.25)  # of the lengths 2, 3 and 4
    for name in ("flops_per_step", "flops_per_token", "recurrent_steps_per_token"):
        wanted = sum(share * getattr(x, name) for share, x in zip(shares, fixed, strict=True))
        assert getattr(cost, name) == pytest.approx(wanted, rel=1e-3), name
    assert cost.parameters == fixed[2].parameters
    assert fixed[0].flops_per_step < cost.flops_per_step < fixed[2].flops_per_step


def test_a_run_is_measured_at_the_length_it_has_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, seen = recording.evaluate, []

    def watching(
        model: Any, held_out: Any, seeds: Any, sizes: Any, *, full: bool, **more: Any
    ) -> dict[str, Tensor]:
        seen.append((sizes.length, full))
        return right(model, held_out, seeds, sizes, full=full, **more)

    for module in (learning_curve, recording):
        monkeypatch.setattr(module, "evaluate", watching)
    small = {"eval_every": 2, "eval_sequences": 8, "runs_dir": str(tmp_path), "wandb_mode": "disabled"}
    settings = quick(**DOWN, **small, max_reasoning_len=3, max_steps=8)
    run_stack(settings, [7], count_cost(settings), lambda step, nll: None)
    assert seen.pop(0) == (1, True), "sizes the record of thoughts"
    assert seen == [(3, False), (2, False), (1, False), (1, False), (1, True)]
    row = json.loads((tmp_path / run_key(settings, 7) / "summary.json").read_text())
    assert row["final_reasoning_len"] == 1 and row["max_reasoning_len"] == 3
    assert row["length_schedule"] == "long_to_short"


def test_refusals() -> None:
    refused(
        "length_schedule=long_to_short: with max_reasoning_len=0 there are no", **DOWN, max_reasoning_len=0
    )
    refused("min_reasoning_len=3: ", **UP, min_reasoning_len=3)
    refused("min_reasoning_len=1: ", **UP, max_reasoning_len=1)
    assert accepted(**UP) == [] and accepted(min_reasoning_len=7) == []
    assert accepted(**DOWN, use_reasoner=False, controls="none") == []


def test_the_zero_length_control_is_the_one_of_every_length() -> None:
    zero = RunConfig(max_reasoning_len=0, max_steps=10)
    assert run_key(zero, 0) == run_key(replace(zero, **DOWN), 0)
