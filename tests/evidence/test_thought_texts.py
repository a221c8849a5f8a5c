"""Thoughts of a record as text, checked on a record made by hand."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from tests import records
from toyqs.evidence.tables.thoughts import (
    counted_words,
    cut,
    names_of,
    sequences_text,
    thought_words,
    vector_word,
    word,
)
from toyqs.thought_record import Record


def without(record: Record, *names: str) -> Record:
    return record._replace(arrays={x: y for x, y in record.arrays.items() if x not in names})


def test_thoughts_as_words() -> None:
    assert thought_words(records.small()).tolist() == [
        [["ab", "a"], ["bb", "(empty)"]],
        [["ab", "ab"], ["ba", "bb"]],
    ]
    assert word(["a", "b"], [1, 0, 2]) == "ba" and word(["12", "b"], [1, 0]) == "b 12"
    assert names_of(["a", "\x1b"]) == ["a", "\\x1b"]
    assert names_of(["the", " cat"]) == ["'the'", "' cat'"]
    assert counted_words(["ab", "c", "c", "ab", "c"]) == "c ×3, ab ×2" and counted_words(["a"]) == "a"
    assert cut("abcd", 4) == "abcd" and cut("abcde", 4) == "abc…"
    assert vector_word(np.array([[3.0, 4.0], [0.0, 0.5]])) == "5.00 0.50"


def test_vectors_are_their_nearest_names_or_their_lengths() -> None:
    record = records.small()
    ids = record.arrays["symbols"]
    vectors = np.stack([ids * 3.0, ids * 4.0], -1)
    bare = without(record, "symbols")
    named = bare._replace(arrays=bare.arrays | {"vectors": vectors, "nearest": ids})
    assert thought_words(named).tolist() == thought_words(record).tolist()
    unnamed = bare._replace(arrays=bare.arrays | {"vectors": vectors}, symbols=None)
    assert thought_words(unnamed)[0, 0].tolist() == ["0.00 5.00", "0.00 10.00"]
    assert thought_words(bare._replace(symbols=None))[0, 0].tolist() == ["(vectors)", "(vectors)"]


def test_sequences_where_thinking_gained_and_lost_most() -> None:
    lines = sequences_text(records.small(), 1)
    gained, lost = lines.index("Where thinking gained most:"), lines.index("Where thinking lost most:")
    assert lines[gained + 1 : lost] == [
        "  sequence 4 of the held-out ones: +1.25 nats; read: y y x",
        "    position  reads  truth   gain  p(truth)  alone  another's  thoughts",
        f"           2      y      y  +1.25     {math.exp(-0.25):.3f}  {math.exp(-1.5):.3f}"
        f"      {(math.exp(-0.25) + math.exp(-4)) / 2:.3f}  ab ×2",
        "",
    ]
    assert lines[lost + 1] == "  sequence 0 of the held-out ones: -0.56 nats; read: x <b>\\x1b[31m y"
    assert [line.split()[-2:] for line in lines[lost + 3 :]] == [["ab,", "a"], ["bb,", "(empty)"]]
    assert lines[lost + 3].split()[:4] == ["2", "<b>\\x1b[31m", "y", "-0.06"]


def test_a_model_that_needs_a_thought_is_compared_with_another_sequence_s() -> None:
    lines = sequences_text(without(records.small(), "log_q_none"), 1)
    row = lines.index("Where thinking gained most:") + 1
    assert lines[row : row + 2] == [
        "  sequence 4 of the held-out ones: +1.88 nats; read: y y x",
        "    position  reads  truth   gain  p(truth)  another's  thoughts",
    ]
    assert "alone" not in " ".join(lines) and "learned to do without" not in " ".join(lines)
    assert "minus log p(truth) with the thoughts of another sequence" in " ".join(lines).replace("   ", " ")


def test_a_record_in_which_no_sequence_lost() -> None:
    record = records.small()
    better = record._replace(arrays=record.arrays | {"log_q_none": record.arrays["log_q_none"] - 9})
    lines = sequences_text(better, 5)
    assert lines[-1] == "  nowhere: it lost 0.01 nats or more in no sequence"
    assert sum("sequence" in line and "nats; read" in line for line in lines) == 2


@pytest.mark.parametrize("tokens", [["x", " ", "\x1b"], ["a word of some length", " and", "<b>"]])
def test_a_long_text_shows_its_best_positions_and_what_was_read_before(tokens: list[str]) -> None:
    size, generator = 40, np.random.default_rng(0)
    inputs = generator.integers(0, 3, (1, size))
    gain = generator.normal(size=(1, size))
    arrays = {
        "inputs": inputs,
        "positions": np.arange(size)[None],
        "truth": (inputs + 1) % 3,
        "counted": np.ones((1, size), int),
        "symbols": generator.integers(0, 3, (1, size, 4, 9)),
        "log_q": np.repeat((gain - 5)[..., None], 4, -1),
        "log_q_none": np.full((1, size), -5.0),
        "log_q_shuffled": np.full((1, size, 4), -5.0),
    }
    record = records.small()._replace(
        arrays=arrays, tokens=tokens, symbols=["one", " two", "three"], sequences=[7], features={}
    )
    lines = sequences_text(record, 1)
    assert max(map(len, lines)) <= 110 and not re.search("[\x00-\x1f\x7f-\x9f]", "".join(lines))
    kind = "gained" if gain.sum() > 0 else "lost"
    assert f"    6 of its 40 positions, those where thinking {kind} most:" in lines
    rows = [re.match(r" +(\d+) +(?:…|').*' +'.*  ([+-]\d\.\d\d) ", line) for line in lines]
    found = [(int(row[1]), float(row[2])) for row in rows if row]
    best = np.argsort(-gain[0] if gain.sum() > 0 else gain[0])[:6]
    assert [position - 1 for position, _ in found] == sorted(best.tolist())
    assert [value for _, value in found] == pytest.approx(gain[0, sorted(best)].tolist(), abs=0.006)
