"""What thoughts stand for, reckoned by hand; and the losses of a record against the run's own evaluation."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.answers.thoughts.runs import row, trained
from tests.records import small
from tests.test_edges import ROOT
from toyqs import thought_record
from toyqs.answers.loaded.load import load_run
from toyqs.answers.thoughts.arm import log_likelihood, sample
from toyqs.evidence import dictionary
from toyqs.evidence.dictionary import (
    Entry,
    chance_information,
    entries,
    gains,
    loss,
    spelled,
    told,
    usage,
)
from toyqs.thought_record import Feature, at
from toyqs.training.evaluation import thought_language

TWO_OF_THREE = math.log(3) - 2 / 3 * math.log(2)  # entropy of (2/3, 1/3)


def test_a_thought_has_its_answers_counted() -> None:
    record = small()
    x, y = 0, 1
    assert entries(record) == [
        Entry((0, 1), 3, [(y, 3)]),
        Entry((), 1, [(x, 1)]),
        Entry((0,), 1, [(y, 1)]),
        Entry((1, 1), 1, [(x, 1)]),
    ]
    assert [spelled(record, entry.thought) for entry in entries(record)] == ["ab", "", "a", "bb"]
    assert spelled(record._replace(symbols=["op0", "op1"]), (0, 1)) == "op0 op1"


def test_purity_is_the_share_of_the_most_frequent_answer() -> None:
    record = small()
    counted = np.ones((2, 2), dtype=int)
    found = entries(
        record._replace(arrays=record.arrays | {"counted": counted, "truth": np.eye(2, dtype=int)})
    )
    (first,) = (entry for entry in found if entry.thought == (0, 1))
    assert first.answers == [(1, 1), (0, 2)][::-1] and first.purity == pytest.approx(2 / 3)


def test_symbols_are_counted_at_each_place() -> None:
    assert usage(small()).tolist() == [[4, 1, 1], [0, 4, 2]]


def test_what_is_told_of_answers_and_features() -> None:
    found = {(x.about, x.by): x for x in told(small())}
    assert list(found) == [(about, by) for about in (None, "parity") for by in (None, 0, 1)]
    whole = found[None, None]
    # First thoughts ab, bb, ab for y, x, y: of the 3 pairings one tells all, two tell less.
    less = 2 * TWO_OF_THREE - math.log(3)
    first = TWO_OF_THREE / 3 + less * 2 / 3
    # Second thoughts are three different ones: every pairing tells all.
    assert whole.information == pytest.approx(TWO_OF_THREE)
    assert whole.chance == pytest.approx((first + TWO_OF_THREE) / 2)
    assert whole.entropy == pytest.approx(TWO_OF_THREE) and whole.positions == 3
    assert whole.share == pytest.approx(1.0)
    # Symbols in the second place: b, b, b tell nothing; none, none, b are y, x, y.
    second = found[None, 1]
    assert second.information == pytest.approx(less / 2)
    assert second.chance == pytest.approx(first / 2)
    assert found["parity", 0].positions == 2, "one has no such value"


def test_what_every_pairing_tells_is_no_share() -> None:
    record = small()
    arrays = record.arrays | {"symbols": np.arange(16).reshape(2, 2, 2, 2)}
    found = told(record._replace(symbols=[str(i) for i in range(16)], arrays=arrays))
    assert math.isnan(found[0].share) and found[0].information == pytest.approx(TWO_OF_THREE)


def test_chance_is_the_mean_over_all_pairings_and_that_of_the_metrics() -> None:
    by, of = np.array([0, 0, 1, 1, 1, 2]), np.array([0, 1, 1, 0, 2, 1])
    every = [dictionary._information(by, np.array(other))[0] for other in itertools.permutations(of)]
    rows, columns = np.bincount(by), np.bincount(of)
    assert chance_information(rows, columns) == pytest.approx(np.mean(every), abs=1e-12)
    rows, columns = np.array([700, 1, 1, 40, 258]), np.array([500, 499, 1])
    other = thought_language.chance_information(torch.from_numpy(rows), torch.from_numpy(columns))
    assert chance_information(rows, columns) == pytest.approx(other, rel=1e-9)


def test_what_thinking_gains_at_each_position() -> None:
    np.testing.assert_allclose(gains(small()), [[-0.0625, -0.5], [1.25, math.nan]])


def test_a_model_that_needs_a_thought_is_compared_with_another_sequence_s() -> None:
    record = small()
    arrays = {name: x for name, x in record.arrays.items() if not name.endswith("_none")}
    np.testing.assert_allclose(gains(record._replace(arrays=arrays))[0], [0.1875, 0.25])


def test_vectors_without_names_have_no_dictionary_and_with_names_have_one() -> None:
    record = small()
    arrays = {name: x for name, x in record.arrays.items() if name != "symbols"}
    plain = record._replace(symbols=None, arrays=arrays)
    assert entries(plain) == told(plain) == [] and usage(plain) is None
    named = record._replace(arrays=arrays | {"nearest": record.arrays["symbols"]})
    assert entries(named) == entries(record) and told(named) == told(record)


def test_a_moment_of_the_training_is_a_record_of_its_own() -> None:
    record = small()
    (then,) = record.evaluations
    found = at(record, then)
    assert found.sequences == [4] and found.arrays["inputs"].tolist() == [[1, 1, 0]]
    assert [entry.times for entry in entries(found)] == [2]
    assert found.features["parity"].values.tolist() == [[2, 1]] and found.evaluations == []
    elsewhere = then._replace(arrays=then.arrays | {"positions": np.array([[0, 2]])})
    assert at(record, elsewhere).features == {}


def test_the_loss_and_its_error() -> None:
    found = loss(small())
    assert found.nll == pytest.approx(0.6875)
    # Of 2 of 9 sequences, whose sums are 0.4375 above and below the mean of their positions.
    assert found.error == pytest.approx(math.sqrt((1 - 2 / 9) * 2 * 2 * 0.4375**2) / 3)
    whole = loss(small(held_out=2))
    assert whole.error == 0.0
    other, arrays = loss(small(), "log_q_shuffled"), small().arrays
    assert loss(small(), "log_q_none").nll == pytest.approx(
        -arrays["log_q_none"][arrays["counted"] == 1].mean()
    )
    assert other.nll == pytest.approx(-arrays["log_q_shuffled"][arrays["counted"] == 1].mean())


def test_the_loss_is_the_evaluation_s_on_those_sequences_and_the_row_s_to_sampling_error(
    tmp_path: Path,
) -> None:
    (folder,) = trained(tmp_path, [5], eval_sequences=700, base_lr=0.05, max_steps=20)
    record, run = thought_record.read(folder), load_run(folder)
    parts = [log_likelihood(run, part, part.thoughts).mean(-1) for part in sample(run, 5)]
    each = -torch.cat(parts)
    found, step = loss(record), np.abs(record.arrays["log_q"]).max() / 32767
    assert len(record.sequences) == 120
    assert found.nll == pytest.approx(float(each[record.sequences].mean()), abs=step / 2)
    assert abs(found.nll - row(folder)["nll"]) < 4 * found.error
    for column, name in {"nll_no_thought": "log_q_none", "nll_shuffled": "log_q_shuffled"}.items():
        other = loss(record, name)
        assert abs(other.nll - row(folder)[column]) < 4 * other.error < 1
    spread = float(each.mean(-1).std()) / math.sqrt(120)
    assert found.error == pytest.approx(spread * math.sqrt(1 - 120 / 700), rel=0.25)


def test_a_feature_that_no_position_has_is_left_out() -> None:
    record = small(features={"never": Feature(np.full((2, 2), 2), ["even", "odd"])})
    assert {x.about for x in told(record)} == {None}


def test_it_never_loads_torch() -> None:
    code = f"import sys, {dictionary.__name__}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_answer_under_another_name_is_told_once() -> None:
    record = small()
    truth = record.arrays["truth"]
    names = [str(i) for i in range(int(truth.max()) + 1)]
    again = {"again": Feature(truth.max() - truth, names), "coarser": Feature(truth // 2, names)}
    assert {x.about for x in told(record._replace(features=again))} == {None, "coarser"}
