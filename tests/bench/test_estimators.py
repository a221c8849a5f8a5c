"""The table of estimators, checked against what is known of some of them."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch

from bench import estimators
from bench.estimators import ESTIMATORS, aim, estimates, groups, measured, world


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_unordered_groups_with_their_orders_are_all_groups(number: int) -> None:
    index, orders = groups(number)
    assert float(orders.sum()) == 6**number
    assert len({tuple(one) for one in index.tolist()}) == len(index) == math.comb(number + 5, number)
    logits, _ = world(0)
    probability = orders * logits.log_softmax(0)[index].sum(1).exp()
    assert abs(float(probability.sum()) - 1) < 1e-12


@pytest.mark.parametrize(
    "name",
    [
        *("no baseline", "leave-one-out", "maximum entropy", "VarGrad", "true mean as baseline"),
        *("credit by prefix, right rewards", "credit by prefix, wrong rewards"),
    ],
)
def test_unbiased_ones_are_exact(name: str) -> None:
    logits, rewards = world(3)
    estimator, beta = ESTIMATORS[name]
    each, probability = estimates(estimator, 3, logits, rewards)
    torch.testing.assert_close(probability @ each, aim(logits, rewards, beta), rtol=0, atol=1e-12)


def test_what_the_figure_says() -> None:
    known = {name: measured(name, 4, 3) for name in ESTIMATORS}
    assert abs(known["group mean"]["length"] - 3 / 4) < 1e-12
    assert abs(known["group mean"]["cosine"] - 1) < 1e-12
    assert known["no baseline"]["noise"] > 2 * known["leave-one-out"]["noise"]
    assert known["leave-one-out"]["noise"] > known["true mean as baseline"]["noise"]
    right, wrong = (known[f"credit by prefix, {what} rewards"]["noise"] for what in ("right", "wrong"))
    assert right < known["leave-one-out"]["noise"] < wrong
    for name in ("positive advantages only", "group mean / std (GRPO)", "Plackett-Luce"):
        assert 0.3 < known[name]["cosine"] < 0.999, name


def test_the_table_is_written(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(estimators, "NUMBERS", (1, 2, 3))
    path = tmp_path / "table.csv"
    monkeypatch.setattr("sys.argv", ["estimators.py", "-o", str(path), "--worlds", "1"])
    estimators.main()
    table = pd.read_csv(path)
    assert list(table.columns) == list(estimators.COLUMNS)
    assert set(table["estimator"]) == set(ESTIMATORS)
    assert table[table["estimator"] == "listwise"]["K"].tolist() == [2, 3]
    assert table[table["estimator"] == "trajectory balance, log Z estimated"]["K"].tolist() == [3]
    assert table[table["estimator"] == "no baseline"]["K"].tolist() == [1, 2, 3]
    assert f"table  {path}" in capsys.readouterr().out
