"""Ways of training compared: their names, pairs of seeds, steps to one loss, starts that differ."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis import teacher_forcing
from analysis.teacher_forcing import name_of, steps_share
from tests.analysis.synthetic import Figures, Script, settings, write

SEEDS = (1, 2, 3)


@pytest.fixture
def call(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Script(teacher_forcing.main, "teacher_forcing.png", Figures(monkeypatch), capsys)


def cells(number: int, nll: dict[int, float], accuracy: float, **changes) -> None:
    """Write a cell for each seed, which starts from a run of its own."""
    for seed, loss in nll.items():
        own = {"start_from": f"starts/{seed}", "start_from.identity": f"hash{seed}", "n_tokens_ahead": number}
        own |= {"ahead": "persist"} if number > 1 else {}
        write(
            Path("runs"),
            settings(**changes) | own,
            {"thinking": {seed: loss}},
            accuracy={"thinking": accuracy},
        )


def test_names() -> None:
    assert name_of({"n_tokens_ahead": 1, "nll_loss_beta": 0.0}) == "REINFORCE alone"
    assert name_of({"n_tokens_ahead": 4, "nll_loss_beta": 0}) == "REINFORCE alone, 4 tokens"
    four = {"n_tokens_ahead": 4, "nll_loss_beta": 1.0, "ahead": "continue"}
    assert name_of(four) == "teacher forcing, 4 tokens, continue"
    assert name_of({"policy_loss_beta": 0.0}) == "teacher forcing alone"


def test_steps_to_the_loss_that_both_reach() -> None:
    """The slower one of a pair has it at its last step, however much lower the other goes."""
    steps = [10, 20, 30, 40]
    slow, fast = [1.0, 0.9, 0.8, 0.7], [0.9, 0.7, 0.5, 0.4]
    share = steps_share(pd.DataFrame({1: fast, 2: slow}, steps), pd.DataFrame({1: slow, 2: fast}, steps))
    assert share.to_dict() == {1: 0.5, 2: 2.0}
    assert steps_share(pd.DataFrame({1: slow}, steps), pd.DataFrame({1: slow}, steps)).to_dict() == {1: 1.0}


def test_ways_are_paired_by_seed_whatever_they_start_from(call) -> None:
    cells(1, {1: 1.40, 2: 1.50, 3: 1.45}, 0.40, nll_loss_beta=0.0)
    cells(1, {1: 0.40, 2: 0.60, 3: 0.45}, 0.90, nll_loss_beta=1.0)
    cells(4, {1: 0.80, 2: 1.05, 3: 0.85}, 0.70, nll_loss_beta=1.0)
    code, out, err, figure, table = call()
    assert (code, err) == (0, "")
    found = table.set_index(["training", "compared_with"])
    assert list(found.index) == [
        ("teacher forcing", "REINFORCE alone"),
        ("teacher forcing, 4 tokens", "REINFORCE alone"),
        ("teacher forcing, 4 tokens", "teacher forcing"),
    ]
    assert found["nll_difference"].tolist() == pytest.approx([-0.9666667, -0.55, 0.4166667])
    assert found["accuracy_difference"].tolist() == pytest.approx([0.5, 0.3, -0.2])
    assert (found["seeds"] == 3).all() and (found["steps_share"].iloc[:2] < 1).all()
    assert found["steps_share"].iloc[2] > 1
    assert "over 6 comparisons" in out and "published: +4.4 points" in out
    assert max(map(len, out.splitlines())) <= 115
    labels = [x.get_text() for x in figure.legends[0].get_texts()]
    assert labels == ["REINFORCE alone", "teacher forcing", "teacher forcing, 4 tokens"]


def test_what_is_refused(call) -> None:
    cells(1, {1: 0.4, 2: 0.5}, 0.9, nll_loss_beta=1.0)
    assert "no finished run has nll_loss_beta=0 and n_tokens_ahead=1" in call().err
    cells(1, {1: 1.4, 2: 1.5}, 0.4, nll_loss_beta=0.0)
    assert call().code == 0
    write(
        Path("runs"),
        settings(n_tokens_ahead=1, nll_loss_beta=1.0, start_from="other"),
        {"thinking": {2: 0.5}},
    )
    assert "two runs of seed 2 are trained by teacher forcing" in call().err
    cells(1, {1: 0.4}, 0.9, nll_loss_beta=1.0, base_lm_hidden_dim=4)
    assert "the cells differ in base_lm_hidden_dim too" in call().err
