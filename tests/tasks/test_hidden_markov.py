from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch

from toyqs.tasks import hidden_markov
from toyqs.tasks.hidden_markov import HiddenMarkov

TINY = {"states": 3, "vocab": 2, "positions": 4, "transition_sharpness": 1.5, "emission_sharpness": 1.0}


def draw(task, num, split, seed=0):
    return task.sample(torch.Generator().manual_seed(seed), num, 0, split)


def probability(task, symbols):
    """p(x_1 … x_n), summed over every hidden path."""
    transition, emission = task.transition.tolist(), task.emission.tolist()
    total = 0.0
    for path in itertools.product(range(task.states), repeat=len(symbols)):
        p = 1 / task.states
        for here, there in itertools.pairwise(path):
            p *= transition[here][there]
        for state, symbol in zip(path, symbols, strict=True):
            p *= emission[state][symbol]
        total += p
    return total


def exact_floor(task):
    """The mean over positions of the entropy of the next symbol, prefix by prefix."""
    total = 0.0
    for t in range(1, task.positions + 1):
        for prefix in itertools.product(range(task.vocab), repeat=t):
            joint = [probability(task, (*prefix, v)) for v in range(task.vocab)]
            total -= sum(p * math.log(p / sum(joint)) for p in joint)
    return total / task.positions


def test_worked_example():
    task = HiddenMarkov(states=2, vocab=2, transition_sharpness=1, emission_sharpness=1, seed=3)
    table = HiddenMarkov.__doc__.split("| …)\n")[1].split("\n\n")[0]
    rows = [[float(word) for word in line.split()] for line in table.splitlines()]
    symbols = [int(row[1]) for row in rows]
    assert symbols == [0, 1]
    for t, _, *numbers in rows:
        prefix = symbols[: int(t)]
        seen, emission, transition = probability(task, prefix), task.emission, task.transition
        # p(s_t | x_1 … x_t), by Bayes from each state of the first or second position
        first = emission[:, symbols[0]] / 2
        here = first if t == 1 else (first @ transition) * emission[:, symbols[1]]
        here = here / seen
        ahead = here @ transition
        wanted = [*here.tolist(), *ahead.tolist(), *(probability(task, [*prefix, v]) / seen for v in (0, 1))]
        assert numbers == pytest.approx(wanted, abs=0.0051)


@pytest.mark.parametrize("seed", [0, 1])
def test_oracle_is_the_sum_over_hidden_paths(seed):
    task = HiddenMarkov(**TINY, seed=seed)
    for symbols in itertools.product(range(2), repeat=4):
        oracle = task.oracle(torch.tensor(symbols))
        assert oracle.dtype == torch.float64 and oracle.shape == (4, 2)
        for t in range(4):
            prefix = symbols[: t + 1]
            for v in range(2):
                wanted = probability(task, (*prefix, v)) / probability(task, prefix)
                assert float(oracle[t, v].exp()) == pytest.approx(wanted, abs=1e-10)


def test_sampled_sequences_follow_the_chain():
    task = HiddenMarkov(**TINY)
    num = 200_000
    batch = draw(task, num, "train")
    assert torch.equal(batch.inputs[..., 1:], batch.targets[..., :-1])
    drawn = torch.cat([batch.inputs[0], batch.targets[0, :, -1:]], dim=1)
    counts = Counter(map(tuple, drawn.tolist()))
    chi_square = 0.0
    for symbols in itertools.product(range(2), repeat=5):
        expected = num * probability(task, symbols)
        chi_square += (counts[symbols] - expected) ** 2 / expected
    assert abs(chi_square - 31) < 5 * math.sqrt(62)


def test_batches_carry_their_oracle():
    task = HiddenMarkov()
    task.check(0)
    for split in ("train", "held_out"):
        batch = draw(task, 50, split)
        assert torch.equal(batch.oracle, task.oracle(batch.inputs))
        assert bool(batch.oracle.isfinite().all()) and bool(batch.think.all())
        torch.testing.assert_close(batch.oracle.exp().sum(-1), torch.ones(1, 50, 16, dtype=torch.float64))


def test_splits_are_independent_draws():
    """They differ by the generator alone: the same one gives the same sequences."""
    task = HiddenMarkov()
    assert torch.equal(draw(task, 20, "train", 1).inputs, draw(task, 20, "held_out", 1).inputs)
    assert not torch.equal(draw(task, 20, "train", 1).inputs, draw(task, 20, "held_out", 2).inputs)


@pytest.mark.parametrize("seed", [0, 1])
def test_floor_is_exact_where_it_can_be(seed):
    task = HiddenMarkov(**TINY, seed=seed)
    floor, error = task.floor_and_error
    assert error == 0.0 and task.floor() == floor == pytest.approx(exact_floor(task), abs=1e-10)


def test_estimated_floor(monkeypatch):
    tasks = [HiddenMarkov(**TINY, seed=seed) for seed in range(30)]
    exact = [task.floor() for task in tasks]
    assert all(task.floor_and_error[1] == 0.0 for task in tasks)
    monkeypatch.setattr(hidden_markov, "FLOOR_NUMBERS", 100)
    estimates = [HiddenMarkov(**TINY, seed=seed).floor_and_error for seed in range(30)]
    scores = [(mean - wanted) / error for (mean, error), wanted in zip(estimates, exact, strict=True)]
    assert 0.3 < sum(score**2 for score in scores) / len(scores) < 3, "as far off as the errors say"


def test_the_floor_is_what_the_oracle_scores():
    task = HiddenMarkov()
    floor, error = task.floor_and_error
    assert 0 < error < 0.0015 and HiddenMarkov().floor() == floor
    batch = draw(task, 20_000, "held_out")
    nll = -batch.oracle.gather(-1, batch.targets.unsqueeze(-1)).mean((0, 2, 3))
    assert abs(float(nll.mean()) - floor) < 5 * math.hypot(float(nll.std()) / len(nll) ** 0.5, error)


def test_sharpness():
    flat = HiddenMarkov(transition_sharpness=0, emission_sharpness=0, vocab=5)
    assert flat.floor() == pytest.approx(math.log(5), abs=1e-12)
    sure = HiddenMarkov(transition_sharpness=50, emission_sharpness=50, vocab=2, states=3, positions=6)
    assert sure.floor() < 0.2 and bool(draw(sure, 100, "train").oracle.isfinite().all())
    blunt, sharp = HiddenMarkov(transition_sharpness=1), HiddenMarkov(transition_sharpness=5)
    assert float(blunt.transition.max(1).values.mean()) < float(sharp.transition.max(1).values.mean())
    for matrix in (sharp.transition, sharp.emission):
        torch.testing.assert_close(matrix.sum(1), torch.ones(16, dtype=torch.float64))


@pytest.mark.parametrize(
    ("knobs", "key", "remedy"),
    [
        ({"states": 0}, "task.states=0", "task.states=1"),
        ({"vocab": 1}, "task.vocab=1", "task.vocab=2"),
        ({"positions": 0}, "task.positions=0", "task.positions=1"),
        ({"transition_sharpness": -1.0}, "task.transition_sharpness=-1.0", "0 to 50"),
        ({"emission_sharpness": 51.0}, "task.emission_sharpness=51.0", "0 to 50"),
        ({"emission_sharpness": math.nan}, "task.emission_sharpness=nan", "0 to 50"),
    ],
)
def test_refusals(knobs, key, remedy):
    with pytest.raises(ValueError) as error:
        HiddenMarkov(**knobs).check(128)
    message = str(error.value)
    assert key in message and remedy in message and "\n" not in message
