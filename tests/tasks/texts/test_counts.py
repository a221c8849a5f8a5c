"""Models of counts, worked by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from toyqs.tasks.texts.char_text import CharText
from toyqs.tasks.texts.counts import count_nll


def test_a_text_of_three_letters() -> None:
    """Training text a b a a, held-out text b a c: V = 3.

    By frequency: a has 3 + 1 of 4 + 3, b 1 + 1, c 0 + 1: 4/7, 2/7, 1/7.
    By the letter before: after b stands a once of 1, so p(a | b) = (1 + 4/7) / (1 + 1) = 11/14; after a stand
    b and a once each, and c never, so p(c | a) = (0 + 1/7) / (2 + 1) = 1/21.
    """
    training, held_out = torch.tensor([0, 1, 0, 0]), torch.tensor([1, 0, 2])
    found = count_nll(training, held_out[:-1], held_out[1:], torch.ones(2), 3)
    assert found == {
        "unigram_nll": pytest.approx(-(math.log(4 / 7) + math.log(1 / 7)) / 2),
        "bigram_nll": pytest.approx(-(math.log(11 / 14) + math.log(1 / 21)) / 2),
    }
    first = count_nll(training, held_out[:-1], held_out[1:], torch.tensor([3.0, 0.0]), 3)
    assert first["bigram_nll"] == pytest.approx(-math.log(11 / 14)), "positions that do not count do not"


def test_the_probabilities_of_every_next_token_sum_to_one() -> None:
    training = torch.tensor([0, 1, 0, 0, 3, 3, 1])
    for before in range(5):
        losses = [
            count_nll(training, torch.tensor([before]), torch.tensor([after]), torch.ones(1), 5)
            for after in range(5)
        ]
        for name in ("unigram_nll", "bigram_nll"):
            assert sum(math.exp(-loss[name]) for loss in losses) == pytest.approx(1.0)


def test_a_pair_that_the_training_text_lacks_or_a_last_token_is_finite() -> None:
    """A pair after the last one in order, a token never followed by another, tokens that never occur."""
    for training in ([0, 1], [3, 4], [0, 0, 2]):
        found = count_nll(torch.tensor(training), torch.tensor([4]), torch.tensor([4]), torch.ones(1), 5)
        assert all(math.isfinite(x) and x > 0 for x in found.values())


def test_a_run_s_text_is_counted_where_it_is_trained_on(tmp_path: Path) -> None:
    """The held-out half of the file is predicted from the other alone."""
    path = tmp_path / "text.txt"
    path.write_text("abab" * 10 + "aabb" * 10)
    task = CharText(path=str(path), held_out_fraction=0.5)
    batch = task.sample(torch.Generator(), 4, 6, "held_out")
    wanted = count_nll(task.ids[:40], batch.inputs, batch.targets, batch.weights, 2)
    assert task.references(batch) == wanted and wanted["bigram_nll"] > wanted["unigram_nll"]
