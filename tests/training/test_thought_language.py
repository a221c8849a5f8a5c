"""The language of thoughts: estimators against enumeration, and what an evaluation makes of them."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations, permutations, product
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from toyqs.config.builders.training import thought_sizes
from toyqs.positions import focus, thinking_positions
from toyqs.rng import stream, thought_noise
from toyqs.training.evaluation import thought_language
from toyqs.training.evaluation.metrics import evaluate
from toyqs.training.evaluation.thought_language import (
    Telling,
    Usage,
    chance_information,
    telling,
    usage_of,
    zipf_exponent,
)
from toyqs.types import Batch

THOUGHTS, ANSWERS = [0, 0, 0, 1, 1, 2, 3], [0, 0, 1, 1, 2, 2, 1]  # of seven positions


def information(thoughts: Any, answers: Any) -> float:
    """Compute the mutual information of a sample by its definition, pair by pair."""
    total, pairs = len(thoughts), Counter(zip(thoughts, answers, strict=True))
    left, right = Counter(thoughts), Counter(answers)
    return sum(n / total * math.log(n * total / (left[i] * right[j])) for (i, j), n in pairs.items())


def counted(thoughts: list[int], answers: list[int]) -> Usage:
    return usage_of(torch.tensor(thoughts).unsqueeze(1), torch.tensor(answers))


def check_chance() -> None:
    """Compare the chance level with the mean over all 5,040 pairings."""
    every = [information(THOUGHTS, shuffled) for shuffled in permutations(ANSWERS)]
    found = telling(counted(THOUGHTS, ANSWERS))
    assert found.information == pytest.approx(information(THOUGHTS, ANSWERS), abs=1e-12)
    assert found.chance == pytest.approx(sum(every) / len(every), abs=1e-12)
    assert found.chance > 0.3, "a small sample seems to tell much"
    for name in ("homogeneity", "completeness", "v_measure"):
        most = [telling(counted(THOUGHTS, list(shuffled))) for shuffled in set(permutations(ANSWERS))]
        assert sum(getattr(x, name) for x in most) / len(most) == pytest.approx(0, abs=1e-12), name


def test_chance_is_the_mean_over_all_pairings() -> None:
    check_chance()


def first_order(of_thoughts: Tensor, of_answers: Tensor) -> float:
    """Return what (R − 1)(C − 1) / 2n would take off, the bias of large samples."""
    return (len(of_thoughts) - 1) * (len(of_answers) - 1) / (2 * int(of_thoughts.sum()))


def drawn_with_replacement(of_thoughts: Tensor, of_answers: Tensor) -> float:
    """Return the mean where each pair is drawn afresh from the product of both frequencies."""
    n = int(of_thoughts.sum())
    left, right = (
        torch.repeat_interleave(torch.arange(len(x)), x).tolist() for x in (of_thoughts, of_answers)
    )
    generator = torch.Generator().manual_seed(0)
    draws = torch.randint(n, (200, 2, n), generator=generator).tolist()
    return sum(information([left[i] for i in a], [right[j] for j in b]) for a, b in draws) / 200


@pytest.mark.parametrize("mutant", [first_order, drawn_with_replacement, lambda a, b: 0.0])
def test_another_chance_level_is_found(mutant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thought_language, "chance_information", mutant)
    with pytest.raises(AssertionError):
        check_chance()


def test_chance_of_a_large_table_is_near_the_first_order_bias() -> None:
    counts = torch.full((6,), 5000), torch.full((4,), 7500)
    assert chance_information(*counts) == pytest.approx(first_order(*counts), rel=1e-3)


def test_thoughts_and_answers_are_counted_together() -> None:
    thoughts = torch.tensor([[2, 0], [0, 3], [2, 0], [2, 1], [0, 3], [2, 0]])
    usage = usage_of(thoughts, torch.tensor([9, 4, 9, 4, 9, 4]))
    found = [
        (tuple(usage.thoughts[i].tolist()), int(usage.answers[j]), int(count))
        for (i, j), count in zip(usage.pairs.T, usage.counts, strict=True)
    ]
    assert found == [((0, 3), 4, 1), ((0, 3), 9, 1), ((2, 0), 4, 1), ((2, 0), 9, 2), ((2, 1), 4, 1)]
    assert (usage.of_thoughts.tolist(), usage.of_answers.tolist()) == ([2, 3, 1], [3, 3])


def test_a_code_and_no_code() -> None:
    code = telling(counted([0, 0, 1, 1, 2, 2, 3, 3], [5, 5, 5, 5, 7, 7, 9, 9]))  # two words for 5
    assert code.homogeneity == pytest.approx(1) and 0.5 < code.completeness < 0.9
    assert code.completeness < code.v_measure < 1
    swapped = Telling(code.information, code.chance, code.thoughts, code.answers)
    assert (swapped.homogeneity, swapped.completeness) == (code.completeness, code.homogeneity)
    harmonic = 2 / (1 / code.homogeneity + 1 / code.completeness)
    assert code.v_measure == pytest.approx(harmonic, abs=1e-12)
    one = telling(counted([0, 0, 0], [0, 1, 2]))
    assert one.homogeneity == 0 and math.isnan(one.completeness), "one thought has no other"
    unique = telling(counted([0, 1, 2, 3], [0, 0, 1, 1]))
    assert math.isnan(unique.homogeneity), "thoughts that occur once tell nothing, whatever they mean"


def check_zipf() -> None:
    """Compare the exponent with the one of the law that counts follow, and with its definition."""
    ranks = torch.arange(1, 8, dtype=torch.float64)
    for exponent in (0.0, 0.5, 1.0, 2.5):
        counts = (1e15 * ranks**-exponent).round().long()
        assert float(zipf_exponent(counts, counts)) == pytest.approx(exponent, abs=1e-9)
    counts = torch.tensor([[3, 1, 7, 2], [5, 0, 4, 1]])
    found = zipf_exponent(counts, counts.flip(0))
    for got, ranked_by, own in zip(found.tolist(), counts.tolist(), counts.flip(0).tolist(), strict=True):
        order = sorted(range(4), key=lambda symbol: -ranked_by[symbol])

        def log_likelihood(s: float, order: Any = order, own: Any = own) -> float:
            normaliser = sum(r**-s for r in range(1, 5))
            return sum(own[x] * math.log(r**-s / normaliser) for r, x in enumerate(order, 1))

        best = log_likelihood(got)
        assert best > max(log_likelihood(got - 1e-4), log_likelihood(got + 1e-4))


def check_uniform() -> None:
    """Sum over all 6,561 samples of four symbols out of three, and four to rank them by: no law is seen."""
    halves = [torch.bincount(torch.tensor(x), minlength=3) for x in product(range(3), repeat=4)]
    ranked_by, counts = (torch.stack(x) for x in zip(*product(halves, halves), strict=True))
    mean = float(thought_language.mean_log_rank(ranked_by, counts).mean())
    assert mean == pytest.approx((math.log(2) + math.log(3)) / 3, abs=1e-12)


def test_zipf() -> None:
    check_zipf()
    check_uniform()
    assert math.isnan(float(zipf_exponent(torch.tensor([9, 0]), torch.tensor([5, 0])))), "infinite"
    assert math.isnan(float(zipf_exponent(torch.tensor([9]), torch.tensor([5]))))


def by_their_own_counts(ranked_by: Tensor, counts: Tensor) -> Tensor:
    return right_mean(counts, counts)


right_mean = thought_language.mean_log_rank


def test_symbols_ranked_by_their_own_counts_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thought_language, "mean_log_rank", by_their_own_counts)
    for check in (check_zipf, check_uniform):
        with pytest.raises(AssertionError):
            check()


def check_pass() -> None:
    """Compare with the share of all subsets of k thoughts that hold a right one."""
    for number, right in ((5, 0), (5, 2), (6, 1), (4, 4)):
        for k in range(1, number + 1):
            subsets = list(combinations([True] * right + [False] * (number - right), k))
            wanted = sum(map(any, subsets)) / len(subsets)
            assert float(thought_language.pass_at(torch.tensor(right), number, k)) == pytest.approx(wanted)


def test_pass_at_k_is_the_share_of_subsets() -> None:
    check_pass()


def test_thoughts_drawn_with_replacement_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thought_language, "pass_at", lambda right, n, k: 1 - (1 - right.double() / n) ** k)
    with pytest.raises(AssertionError):
        check_pass()


def sample(
    settings: Any, batch: Batch, seed: int, num_symbols: int
) -> tuple[list[tuple[int, ...]], list[int], list[list[int]]]:
    """Return first thoughts and answers of all counted positions, and the symbols of each half; naively."""
    model, sizes = tiny.model(settings), thought_sizes(settings)
    context = model.read(batch.inputs, thinking_positions(batch))
    noise = thought_noise([stream(seed, "evaluation noise")], batch.think, sizes)
    given = model.think(context, noise, None, None)
    at = focus(batch, thinking_positions(batch))
    thoughts, answers, halves = [], [], [[], []]
    for b in range(batch.inputs.shape[1]):
        for t in range(2):
            if not float(at.weights[0, b, t]):
                continue
            symbols = given.symbols[0, b, t, 0].tolist()
            if settings.thoughts == "gumbel":
                symbols = [row.index(1.0) for row in symbols]
            thoughts.append(tuple(symbols))
            answers.append(int(at.targets[0, b, t]))
            halves[b % 2] += [symbol for symbol in symbols if symbol < num_symbols]
    return thoughts, answers, halves


@pytest.mark.parametrize(
    "changes", [{}, {"variable_len": True}, {"thoughts": "gumbel", "objective": "pathwise"}]
)
@torch.no_grad()
def test_an_evaluation_measures_the_first_thought_of_every_counted_position(changes: dict[str, Any]) -> None:
    settings = tiny.config(trice_samples=2, max_reasoning_len=3, **changes)
    batch = tiny.batch(30)
    batch = batch._replace(weights=torch.where(batch.weights > 0.6, batch.weights, 0.0))
    thoughts, answers, halves = sample(settings, batch, 4, 3)
    found = evaluate(tiny.model(settings), batch, [4], thought_sizes(settings), full=False)
    assert found["distinct_thoughts"].tolist() == [len(set(thoughts))]
    numbers = {thought: number for number, thought in enumerate(set(thoughts))}
    wanted = telling(counted([numbers[x] for x in thoughts], answers))
    assert float(found["homogeneity"]) == pytest.approx(wanted.homogeneity, abs=1e-12)
    assert float(found["completeness"]) == pytest.approx(wanted.completeness, abs=1e-12)
    counts = [torch.bincount(torch.tensor(half), minlength=3) for half in halves]
    assert torch.equal(found["symbol_zipf"][0], zipf_exponent(*counts))


@torch.no_grad()
def test_row_and_curve_measure_equally_many_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A larger evaluation takes every n-th sequence; chunks do not matter to which."""
    monkeypatch.setattr(thought_language, "SAMPLE", 16)
    settings, seen = tiny.config(), []
    monkeypatch.setattr(thought_language, "usage_of", lambda *x: seen.append(x) or usage_of(*x))
    batch = tiny.batch(33)
    for at_once in (3 * 4, 10**6):
        evaluate(tiny.model(settings), batch, [4], thought_sizes(settings), full=False, at_once=at_once)
    assert [len(answers) for _, answers in seen] == [18, 18]  # of every fourth sequence: 0, 4 … 32
    chosen = focus(batch, thinking_positions(batch)).targets[0, ::4].flatten()
    assert all(torch.equal(answers, chosen) for _, answers in seen)


@torch.no_grad()
def test_a_diverged_seed_has_no_language() -> None:
    settings = tiny.config()
    model = tiny.model(settings, 2)
    for parameter in model.parameters():
        parameter[0] = math.nan
    found = evaluate(model, tiny.batch(6, copies=2), [1, 2], thought_sizes(settings), full=False)
    for name in ("symbol_zipf", "distinct_thoughts", "homogeneity", "pass_at_k", "marginal_gap"):
        assert found[name].isnan().tolist() == [True, False], name
