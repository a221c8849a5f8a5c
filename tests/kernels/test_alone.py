"""With native kernels a seed computes the same bits alone and in company, whatever becomes of the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.comparing import TOLERANCES, integers, random
from tests.kernels.test_steps import weights
from tests.training.test_loop import RUNS, quick, same, trained
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.model.backbones.kernels.draw import Draw
from toyqs.model.backbones.kernels.gru import BranchStep, LastState, Scan
from toyqs.model.backbones.kernels.think import Think
from toyqs.training.batches import draw_batches
from toyqs.training.loop import accumulate

SEEDS, ROWS = 4, 6
WIDTHS = (1, 3, 8, 17, 100)
Outputs = list[Tensor]


def step(batch: int, width: int, dtype: torch.dtype) -> tuple[Callable[..., Any], Outputs, Tensor]:
    table, h = (
        random(SEEDS, ROWS, 3 * width, dtype=dtype),
        random(SEEDS, batch, 3, 1, width, seed=1, dtype=dtype),
    )
    return BranchStep.apply, [table, h, *weights(SEEDS, width, dtype)], integers(ROWS, SEEDS, batch, 3, 2)


def scan(batch: int, width: int, dtype: torch.dtype) -> tuple[Callable[..., Any], Outputs, Tensor]:
    table = random(SEEDS, ROWS, 3 * width, dtype=dtype)
    return Scan.apply, [table, *weights(SEEDS, width, dtype)], integers(ROWS, SEEDS, batch, 5)


def draw(batch: int, width: int, dtype: torch.dtype) -> tuple[Callable[..., Any], Outputs, Tensor]:
    hidden, weight = (
        random(SEEDS, batch, 3, width, dtype=dtype),
        random(SEEDS, width, ROWS, seed=1, dtype=dtype),
    )
    return (
        Draw.apply,
        [hidden, weight, random(SEEDS, 1, ROWS, seed=2, dtype=dtype)],
        integers(ROWS, SEEDS, batch, 3, 2),
    )


def think(batch: int, width: int, dtype: torch.dtype) -> tuple[Callable[..., Any], Outputs, Tensor]:
    table, states = (
        random(SEEDS, ROWS + 1, 3 * width, dtype=dtype),
        random(SEEDS, batch, 3, 1, width, seed=1, dtype=dtype),
    )
    head = random(SEEDS, width, ROWS, seed=2, dtype=dtype), random(SEEDS, 1, ROWS, seed=3, dtype=dtype)
    inputs = [table[:, :1], table[:, 1:], states, *weights(SEEDS, width, dtype), *head]
    return Think.apply, inputs, integers(ROWS, SEEDS, batch, 3, 2, 3)


def last(batch: int, width: int, dtype: torch.dtype) -> tuple[Callable[..., Any], Outputs, Tensor]:
    table, h = (
        random(SEEDS, ROWS, 3 * width, dtype=dtype),
        random(SEEDS, batch, width, seed=1, dtype=dtype),
    )
    return LastState.apply, [table, h, *weights(SEEDS, width, dtype)], integers(ROWS, SEEDS, batch, 5)


def outputs(kernel: Any, numbers: Outputs, ids: Tensor) -> Outputs:
    """Return values and gradients."""
    leaves = [x.clone().requires_grad_() for x in numbers]
    if kernel == Draw.apply:
        _, log_prob, entropy = kernel(*leaves, ids, True)
        value = torch.cat([log_prob, entropy.unsqueeze(-1)], -1)
    elif kernel == Think.apply:
        _, *values = kernel(*leaves, ids, True)
        value = torch.cat([x.flatten(3) for x in values], -1)
    else:
        value = kernel(leaves[0], ids, *leaves[1:])
    return [value.detach(), *torch.autograd.grad(value.square().sum(), leaves)]


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("kernel", [step, scan, draw, think, last])
def test_a_seed_at_every_place_of_a_stack(kernel: Callable[..., Any], dtype: torch.dtype) -> None:
    """Check widths and numbers of rows that leave remainders, a seed's block at any address."""
    for width in WIDTHS:
        for batch in (1, 3, 11):
            function, numbers, ids = kernel(batch, width, dtype)
            whole = outputs(function, numbers, ids)
            for places in ([0], [1], [3], [2, 1], [3, 0, 2]):
                found = outputs(function, [x[places] for x in numbers], ids[places])
                assert all(torch.equal(x, y[places]) for x, y in zip(found, whole, strict=True)), (
                    width,
                    batch,
                )


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("kernel", [step, scan, draw, think, last])
def test_a_row_among_fewer_rows(kernel: Callable[..., Any], dtype: torch.dtype) -> None:
    """Check values, and gradients at what is a row's own, in batches of 1 … 37 sequences."""
    for width in WIDTHS:
        function, numbers, ids = kernel(37, width, dtype)
        values = outputs(function, numbers, ids)
        for count in (1, 2, 3, 5, 11, 33):
            part = [x[:, :count] if x.shape[1] == 37 else x for x in numbers]
            found = outputs(function, part, ids[:, :count])
            for ours, theirs in zip(found, values, strict=True):
                if theirs.shape[1] == 37:
                    assert torch.equal(ours, theirs[:, :count]), (width, count)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("kernel", [step, scan, draw, think, last])
def test_what_is_no_number_stays_with_its_seed(kernel: Callable[..., Any], number: float) -> None:
    """Break each input of one seed in turn, and one row of the states."""
    for width in (3, 8, 17):
        function, numbers, ids = kernel(11, width, torch.float32)
        wanted = outputs(function, numbers, ids)
        others = [0, 1, 3]
        for place in range(len(numbers)):
            broken = [x.clone() for x in numbers]
            broken[place][2, -1:] = number
            found = outputs(function, broken, ids)
            assert all(torch.equal(x[others], y[others]) for x, y in zip(found, wanted, strict=True))
            assert any(not torch.equal(x[2], y[2]) for x, y in zip(found, wanted, strict=True))


SIZES: dict[str, dict[str, Any]] = {
    "plain": {"use_reasoner": False},
    "plain, width 3": {"use_reasoner": False, "base_lm_hidden_dim": 3, "data_loader_batch_size": 7},
    "plain, width 20": {"use_reasoner": False, "base_lm_hidden_dim": 20, "think_at": "all"},
    "afresh": {},
    "onward, width 33": {
        "interpreter_start": "onward",
        "reasoner_hidden_dim": 33,
        "data_loader_batch_size": 5,
    },
    "onward, width 70": {
        "interpreter_start": "onward",
        "reasoner_hidden_dim": 70,
        "data_loader_batch_size": 3,
    },
    "all shared": RUNS["all shared"],
    "many symbols": RUNS["many symbols"],
    "variable length": {"variable_len": True, "trice_samples": 5},
    "state": RUNS["state"],
}
LONG = {"max_steps": 20, "kernels": "native"}


@pytest.mark.parametrize("name", SIZES)
def test_twenty_steps_of_a_seed_alone_and_in_company(name: str) -> None:
    settings = quick(**LONG, **SIZES[name])
    company = trained(settings, [5, 6, 7])
    for place, seed in ((0, 5), (2, 7)) if name in ("plain", "afresh") else ((1, 6),):
        same(trained(settings, [seed]), company, (0, place))


@pytest.mark.parametrize("name", ["plain", "afresh", "onward, width 33", "variable length"])
def test_a_seed_that_has_diverged_touches_no_other(name: str) -> None:
    settings = quick(**{**LONG, "max_steps": 6}, **SIZES[name])
    alone = trained(settings, [5])
    for broken, at in ((0, 1), (1, 0)):
        company = trained(settings, [6, 5] if at else [5, 6], broken)
        same(alone, company, (0, at))
        assert any(bool(p[broken].isnan().any()) for p in company[0].values())


@pytest.mark.parametrize("changes", [{}, {"interpreter_start": "onward"}, {"use_reasoner": False}])
def test_a_step_does_not_depend_on_what_ran_before(changes: dict[str, Any]) -> None:
    """Compare a new model's gradients with those after other shapes: no call keeps anything."""
    settings = quick(kernels="native", **changes)

    def gradients() -> Outputs:
        model, numbers = build_model(settings, [1]), build_training_params(settings)
        batch = next(draw_batches(settings.task, [1], numbers, next(model.parameters())))
        parts = {name: weight.at(0.0) for name, weight in numbers.weights.items()}
        accumulate(model, build_objective(settings), batch, parts, numbers, torch.zeros(1))
        return [p.grad for p in model.parameters() if p.grad is not None]

    before = gradients()
    trained(replace(quick(kernels="native", data_loader_batch_size=20), max_steps=1), [3, 4])
    assert all(map(torch.equal, before, gradients()))
