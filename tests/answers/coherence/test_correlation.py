"""Correlations of clustered values, against scipy's where clusters are single pairs, and their error rate."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy.stats import pearsonr
from torch import Tensor

from toyqs.answers.coherence import correlation
from toyqs.answers.coherence.correlation import Correlation, among, clustered, over_seeds


def pairs(count: int, slope: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, noise = torch.randn(2, count, generator=generator, dtype=torch.float64)
    return x, slope * x + noise


def test_of_single_pairs_it_is_nearly_the_usual_test() -> None:
    for slope in (0.0, 0.1, 0.3):
        x, y = pairs(400, slope, seed=1)
        got, wanted = clustered(x + 1e3, 5 * y, torch.arange(400)), pearsonr(x, y)
        low, high = wanted.confidence_interval()
        assert abs(got.r - wanted.statistic) < 1e-9 and (got.units, got.pairs) == (400, 400)
        assert abs(got.lower - low) < 0.02 and abs(got.upper - high) < 0.02
        assert abs(math.log(got.p / wanted.pvalue)) < 1.5


def test_copies_in_a_cluster_change_nothing() -> None:
    x, y = pairs(30, 0.4)
    once = clustered(x, y, torch.arange(30))
    many = clustered(*(v.repeat_interleave(9) for v in (x, y, torch.arange(30) * 7)))
    assert many.pairs == 270 and many.units == 30
    for got, wanted in zip(many[:4], once[:4], strict=True):
        assert abs(got - wanted) < 1e-10
    assert pearsonr(*(v.repeat_interleave(9) for v in (x, y))).pvalue < once.p / 1e6


def false_alarms(test: Callable[[Tensor, Tensor, Tensor], Correlation]) -> float:
    """Return how often p < 5 % of values that have nothing to do with each other, but come in clusters."""
    generator, clusters, found = torch.Generator().manual_seed(3), torch.arange(40).repeat_interleave(6), 0
    for _ in range(200):
        x, y = torch.randn(2, 40, generator=generator).repeat_interleave(6, 1)
        x, y = (
            x + 0.3 * torch.randn(240, generator=generator),
            y + 0.3 * torch.randn(240, generator=generator),
        )
        found += test(x, y, clusters).p < 0.05
    return found / 200


def test_it_errs_as_often_as_it_says() -> None:
    assert false_alarms(clustered) < 0.09
    assert false_alarms(lambda x, y, _: clustered(x, y, torch.arange(len(x)))) > 0.3  # each pair by itself


def test_of_several_seeds() -> None:
    each = [clustered(*pairs(200, 0.2, seed), torch.arange(200)) for seed in range(4)]
    found = over_seeds(each)
    z = torch.tensor([math.atanh(x.r) for x in each], dtype=torch.float64)
    assert abs(found.r - math.tanh(float(z.mean()))) < 1e-12 and (found.units, found.pairs) == (4, 800)
    half = 3.182446305284263 * float(z.std()) / 2
    assert abs(math.atanh(found.upper) - float(z.mean()) - half) < 1e-9
    assert over_seeds(each[:1]) == each[0]


@pytest.mark.parametrize("y", [torch.ones(6), torch.arange(6.0)])
def test_where_it_is_undefined(y: Tensor) -> None:
    found = clustered(torch.arange(6.0), y, torch.arange(6))
    assert math.isnan(found.p) and math.isnan(found.lower)
    assert math.isnan(clustered(*pairs(2, 0.0), torch.arange(2)).r)


def test_among_the_thoughts_of_a_position() -> None:
    """Positions that differ make a correlation over all thoughts, and none among those of one."""
    place = torch.arange(50.0).unsqueeze(-1)
    x, y = (place + v.view(50, 4) for v in pairs(200, 0.0))
    clusters = torch.arange(50).repeat_interleave(4)
    assert clustered(x.flatten(), y.flatten(), clusters).r > 0.9
    assert abs(clustered(among(x).flatten(), among(y).flatten(), clusters).r) < 0.25


def test_a_jackknife_of_the_wrong_size_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The spread of the leave-one-out values alone, not times C − 1."""
    right = correlation._of_sums

    def narrow(sums: Tensor) -> Tensor:
        found = right(sums)
        return found if found.dim() == 0 else found.mean() + (found - found.mean()) / len(found) ** 0.5

    monkeypatch.setattr(correlation, "_of_sums", narrow)
    with pytest.raises(AssertionError):
        test_of_single_pairs_it_is_nearly_the_usual_test()
