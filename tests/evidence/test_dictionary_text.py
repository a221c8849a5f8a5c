"""The dictionary of a record as text, checked on a record made by hand."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from tests import records
from toyqs.evidence.tables.dictionary import UNNAMED, dictionary_text
from toyqs.thought_record import Feature, Record


def block(lines: list[str], title: str) -> list[str]:
    """Return the table below a title, split at blanks."""
    first = next(i for i, line in enumerate(lines) if line.startswith(title))
    rest = lines[first + 2 :]
    return rest[: rest.index("") if "" in rest else None]


def test_what_thoughts_stand_for() -> None:
    """Of the record's counted positions: ab and a for y, bb and none for x, ab twice for y."""
    rows = block(dictionary_text(records.small(), 2), "What thoughts stand for")
    assert [re.split("  +", row) for row in rows[:3]] == [
        ["thought", "times", "stands for", "purity", "answers and how often"],
        ["ab", "3", "y", "100 %", "y ×3"],
        ["(empty)", "1", "x", "100 %", "x ×1"],
    ]
    assert rows[3] == "… and 2 more, 33 % of all thoughts"
    record = records.small()
    record.arrays["truth"][0, 0] = 0
    rows = block(dictionary_text(record, 9), "What thoughts stand for")
    assert re.split("  +", rows[1]) == ["ab", "3", "y", "67 %", "y ×2, x ×1"]
    assert not any("more" in row for row in rows) and rows[3].split()[:2] == ["a", "1"]


def fifty(symbols: Any, names: list[str], **features: Feature) -> Record:
    """Return a record of 50 sequences of 2 positions, a thought (L,) at each; truth: its first symbol."""
    arrays = {
        "inputs": np.zeros((50, 2), int),
        "positions": np.tile([0, 1], (50, 1)),
        "truth": symbols[..., 0],
        "counted": np.ones((50, 2), int),
        "symbols": symbols[:, :, None],
        "log_q": np.zeros((50, 2, 1)),
        "log_q_shuffled": np.zeros((50, 2, 1)),
    }
    return Record("toy", 50, list(range(50)), names, names, arrays, features, [])


def test_symbols_by_place() -> None:
    rows = block(dictionary_text(records.small(), 2), "Symbols by place")
    assert rows == [
        "1: a 67 %, b 17 %, none 17 %",
        "2: b 67 %, none 33 %",
        "none: the thought has ended before",
    ]
    symbols = np.arange(100).reshape(50, 2, 1) % 20
    (row,) = block(dictionary_text(fifty(symbols, list("abcdefghijklmnopqrst")), 2), "Symbols by place")
    assert row == f"1: {', '.join(f'{name} 5 %' for name in 'abcdefghij')}, 10 others 50 %"


def test_what_thoughts_tell() -> None:
    """A thought that is the answer's own symbol tells all of it, and nothing of a value that is by chance."""
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 3, (50, 2))
    features = {
        "answer": Feature(truth, ["0", "1", "2"]),
        "coin\x1b": Feature(generator.integers(0, 2, (50, 2)), ["heads", "tails"]),
    }
    record = fifty(np.stack([truth, np.zeros_like(truth)], -1), ["a", "b", "c"], **features)
    rows = [re.split("  +", row) for row in block(dictionary_text(record, 2), "What thoughts tell")]
    assert rows[0] == ["about", "entropy, nats", "a thought", "symbol 1", "symbol 2"]
    shares = np.bincount(truth.ravel()) / 100
    assert rows[1] == ["the answer", f"{-(shares * np.log(shares)).sum():.2f}", "100 %", "100 %", "0 %"]
    assert rows[2][0] == "coin\\x1b" and abs(int(rows[2][2].split()[0])) < 6, "the answer is named once"


def test_lines_fit_whatever_the_names_are() -> None:
    record = records.small()
    words = ["a symbol of a name that goes on and on", "another <b>\x1b[31m of these", "x"]
    lines = dictionary_text(record._replace(tokens=words, symbols=words[:2]), 5)
    assert max(map(len, lines)) <= 110 and "\x1b" not in "".join(lines)
    assert any("'another <b>\\x1" in line for line in lines)
    many = np.arange(240).reshape(2, 2, 2, 30) % 120
    record.arrays["symbols"] = many
    lines = dictionary_text(record._replace(symbols=[str(i) for i in range(120)]), 3)
    assert max(map(len, lines)) <= 110


def test_vectors_without_names_have_no_dictionary() -> None:
    record = records.small(symbols=None)
    del record.arrays["symbols"]
    assert dictionary_text(record, 5) == [UNNAMED]
