"""Runs of one arm: what they are asked about is what their rows measured; intervals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats

from tests.answers.thoughts.runs import row, trained
from toyqs.answers.thoughts.arm import (
    equal_sequences,
    load_arm,
    log_likelihood,
    mean_interval,
    sample,
    with_symbols,
)
from toyqs.config.errors import Refusal
from toyqs.tasks.hidden_markov import HiddenMarkov
from toyqs.tasks.iterate import Iterate


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"variable_len": True, "interpreter_start": "onward"},
        {"adaptive_len": True, "task": Iterate()},
        {"max_reasoning_len": 0},
        {"use_reasoner": False},
        {"thoughts": "gaussian"},
        {"n_tokens_ahead": 2},
        {"n_tokens_ahead": 2, "ahead": "joint"},
    ],
)
def test_own_thoughts_have_the_loss_of_the_row(tmp_path: Path, changes: dict[str, Any]) -> None:
    folders = trained(tmp_path, [4, 2], **changes)
    arm = load_arm(folders)
    assert list(arm.runs) == [2, 4]
    for folder, (seed, run) in zip(reversed(folders), arm.runs.items(), strict=True):
        values, weights = [], []
        for part in sample(run, seed):
            values.append(-log_likelihood(run, part, part.thoughts).mean(-1))
            weights.append(part.batch.weights[0])
        alike = equal_sequences(run)
        found = mean_interval({seed: (torch.cat(values), torch.cat(weights))}, alike)
        assert found.mean == pytest.approx(row(folder)["nll"], abs=1e-12)
        assert found.count == len(alike.unique()) and len(alike) == 40


@pytest.mark.parametrize("changes", [{}, {"variable_len": True, "interpreter_start": "onward"}])
def test_symbols_given_back_are_the_thoughts_themselves(tmp_path: Path, changes: dict[str, Any]) -> None:
    (folder,) = trained(tmp_path, [1], **changes)
    run = load_arm([folder]).first
    part = next(sample(run, 1, 10))
    again = with_symbols(run, part, part.thoughts.symbols)
    for thoughts in (part.thoughts, again):
        assert thoughts.log_prob is not None
    assert torch.equal(again.log_prob, part.thoughts.log_prob)
    assert torch.equal(log_likelihood(run, part, again), log_likelihood(run, part, part.thoughts))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"think_at": "all"},
        {"think_at": "hard", "hard_quantile": 0.6},
        {"think_at": "hard", "task": HiddenMarkov()},
        {"adaptive_len": True, "task": Iterate()},
    ],
)
def test_positions_are_those_that_think(tmp_path: Path, changes: dict[str, Any]) -> None:
    (folder,) = trained(tmp_path, [1], **changes)
    run = load_arm([folder]).first
    for part in sample(run, 1):
        assert bool(part.whole.think.gather(2, part.positions).all())
        assert torch.equal(part.whole.inputs.gather(2, part.positions), part.batch.inputs)
        base = run.model.read(part.whole.inputs, part.positions).base
        assert torch.equal(base, part.context.base)


def test_runs_of_one_arm_differ_in_their_seed_alone(tmp_path: Path) -> None:
    first, second = trained(tmp_path, [1]), trained(tmp_path, [2], trice_samples=3)
    with pytest.raises(Refusal, match=r"has trice_samples=3, and .* has trice_samples=4; give runs that"):
        load_arm(first + second)
    with pytest.raises(Refusal, match="has seed 1, as"):
        load_arm(first + first)
    assert list(load_arm(first + trained(tmp_path, [3], info="again")).runs) == [1, 3]


def test_an_interval_over_seeds_or_over_the_sequences_of_one() -> None:
    torch.manual_seed(0)
    values, weights = torch.rand(3, 7, 4, dtype=torch.float64), torch.ones(3, 7, 4, dtype=torch.float64)
    means = values.mean((1, 2))
    found = mean_interval({seed: (values[seed], weights[seed]) for seed in range(3)}, torch.arange(7))
    low, high = stats.t.interval(0.95, 2, means.mean(), stats.sem(means))
    assert (found.lower, found.upper, found.count) == (pytest.approx(low), pytest.approx(high), 3)
    own = values[0].mean(-1)
    low, high = stats.t.interval(0.95, 6, own.mean(), stats.sem(own))
    found = mean_interval({0: (values[0], weights[0])}, torch.arange(7))
    assert (found.lower, found.upper, found.count) == (pytest.approx(low), pytest.approx(high), 7)
    copies = torch.arange(7).repeat(50)
    again = mean_interval({0: (values[0].repeat(50, 1), weights[0].repeat(50, 1))}, copies)
    assert again == (pytest.approx(found.mean), pytest.approx(found.half_width), 7), "copies say nothing new"


def test_one_sequence_has_no_interval() -> None:
    values, weights = torch.rand(4, 3), torch.zeros(4, 3)
    weights[[0, 2]] = 1.0
    found = mean_interval({0: (values, weights)}, torch.tensor([1, 0, 1, 0]))
    assert found.count == 1 and math.isnan(found.half_width)
    assert found.mean == pytest.approx(float(values[[0, 2]].mean()))


def test_equal_sequences_have_one_number(tmp_path: Path) -> None:
    (folder,) = trained(tmp_path, [1], task=Iterate(), eval_sequences=200)
    run = load_arm([folder]).first
    inputs = torch.cat([part.whole.inputs[0] for part in sample(run, 1)])
    numbers = equal_sequences(run)
    assert len(numbers) == 200 and len(numbers.unique()) == 18
    for number in numbers.unique():
        assert len(inputs[numbers == number].unique(dim=0)) == 1


def test_sequences_count_by_their_weights() -> None:
    values = torch.tensor([[1.0, 5.0], [2.0, 2.0], [4.0, 3.0]])
    weights = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    assert mean_interval({0: (values, weights)}, torch.arange(3)).mean == pytest.approx((1 + 2 + 2 + 3) / 4)


@pytest.mark.parametrize("seeds", [1, 2])
def test_what_no_position_counts_for_is_no_number(seeds: int) -> None:
    nothing = (torch.zeros(3, 2, dtype=torch.float64), torch.zeros(3, 2, dtype=torch.float64))
    found = mean_interval(dict.fromkeys(range(seeds), nothing), torch.arange(3))
    assert math.isnan(found.mean) and math.isnan(found.half_width)
