"""How thoughts are used, by records whose answers are known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from toyqs.evidence.judging.use import answers_changed, non_empty, use_of
from toyqs.files import Refusal
from toyqs.thought_record import Record, write

FIRST, SECOND, THIRD = np.eye(3)


def record(**arrays: np.ndarray) -> Record:
    """Return one of a sequence of two positions that think, the second of which does not count; K = 2."""
    own = np.array([[[FIRST, SECOND], [THIRD, THIRD]]])
    found = {
        "inputs": np.zeros((1, 2), int),
        "positions": np.array([[0, 1]]),
        "truth": np.zeros((1, 2), int),
        "counted": np.array([[1, 0]]),
        "symbols": np.array([[[[0, 2], [2, 2]], [[2, 2], [2, 2]]]]),
        "log_q": np.zeros((1, 2, 2)),
        "log_q_shuffled": np.zeros((1, 2, 2)),
        "predicted_p": own,
        "predicted_p_none": np.array([[FIRST, FIRST]]),
    }
    return Record("rev_prog", 1, [0], ["0", "1", "2"], ["a", "b"], found | arrays, {}, [])


def test_of_the_thoughts_that_count(tmp_path: Path) -> None:
    """Of the first position's two thoughts one changes the answer, and one has a symbol."""
    assert answers_changed(record()) == 0.5 and non_empty(record()) == 0.5
    write(tmp_path, record())
    assert use_of(tmp_path) == (0.5, 0.5)


def test_the_likeliest_of_many_tokens_are_named() -> None:
    """Of large vocabularies the likeliest alone are recorded, by their ids."""
    named = {"predicted": np.array([[[[2, 0, 1], [1, 2, 0]], [[0, 1, 2], [0, 1, 2]]]])}
    own = np.broadcast_to([0.6, 0.3, 0.1], (1, 2, 2, 3))
    alone = {"predicted_none": np.array([[[1, 0, 2], [0, 1, 2]]])}
    of_none = np.broadcast_to([0.5, 0.4, 0.1], (1, 2, 3))
    assert answers_changed(record(predicted_p=own, predicted_p_none=of_none, **named, **alone)) == 0.5


def test_what_cannot_be_known_is_nan(tmp_path: Path) -> None:
    arrays = {name: x for name, x in record().arrays.items() if name not in ("predicted_p_none", "symbols")}
    bare = record()._replace(arrays=arrays)
    assert math.isnan(answers_changed(bare)) and math.isnan(non_empty(bare))
    (tmp_path / "config.json").write_text('{"use_reasoner": true, "max_reasoning_len": 0}')
    (tmp_path / "summary.json").write_text("{}")
    assert all(math.isnan(x) for x in use_of(tmp_path)), "a run without thoughts has no record"
    with pytest.raises(Refusal, match="is not the folder of a finished run"):
        use_of(tmp_path / "none")
