"""`thoughts_every`: records of thoughts in training, which change no number of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.answers.thoughts.runs import row, trained
from tests.killing import TIMES
from toyqs import thought_record
from toyqs.config.checks.values import check
from toyqs.config.errors import Refusal
from toyqs.config.run_config import RunConfig
from toyqs.experiment import checkpoint, stack
from toyqs.tasks.texts.char_text import CharText

TEXT = str(Path(__file__).parents[1] / "logbook.txt")


def test_they_are_of_the_record_s_sequences_and_change_no_number(tmp_path: Path) -> None:
    (plain,) = trained(tmp_path / "plain", [3])
    (along,) = trained(tmp_path / "along", [3], thoughts_every=2)
    assert Path(plain).name == Path(along).name, "one key"
    of_training = ("metrics.jsonl", "model.safetensors", "config.json")
    assert all((Path(plain) / x).read_bytes() == (Path(along) / x).read_bytes() for x in of_training)
    rows = ({k: v for k, v in row(x).items() if k not in TIMES} for x in (plain, along))
    assert next(rows) == next(rows)
    record, without = thought_record.read(along), thought_record.read(plain)
    assert without.evaluations == [] and record.sequences == without.sequences
    assert all((record.arrays[name] == x).all() for name, x in without.arrays.items())
    assert [x.step for x in record.evaluations] == [2, 4], "the last, of step 6, is the record's own"
    for each in record.evaluations:
        assert each.rows == [i * 40 // 24 for i in range(24)]
        assert each.arrays.keys() == record.arrays.keys() - {"inputs"}
        assert (each.arrays["truth"] == record.arrays["truth"][each.rows]).all()
    first, second = (x.arrays["log_q"] for x in record.evaluations)
    assert np.abs(first - second).max() > 1e-3


def test_they_are_of_the_model_as_it_was_then(tmp_path: Path) -> None:
    """A constant rate makes the first half of a training one of its own."""
    plain: dict[str, Any] = {"use_scheduler": False, "entropy_schedule": "constant"}
    (whole,) = trained(tmp_path / "whole", [3], thoughts_every=3, **plain)
    (half,) = trained(tmp_path / "half", [3], max_steps=3, **plain)
    (then,) = thought_record.read(whole).evaluations
    without = ("log_q_none", "predicted_p_none")  # whatever the thoughts are; their noise is another here
    for name in without:
        now = thought_record.read(half).arrays[name][then.rows]
        np.testing.assert_allclose(then.arrays[name], now, atol=2e-4)


def test_a_training_that_is_resumed_has_them_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = trained(tmp_path / "whole", [3], thoughts_every=1)
    settings: dict[str, Any] = {"thoughts_every": 1, "checkpoint_every": 3}

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stack.Training, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "cut", [3], **settings)
    assert next((tmp_path / "cut").glob(f"*/{checkpoint.NAME}"))
    (resumed,) = trained(tmp_path / "cut", [3], **settings)
    assert [x.step for x in thought_record.read(resumed).evaluations] == [1, 2, 3, 4, 5]
    assert (Path(resumed) / thought_record.NAME).read_bytes() == (
        Path(whole) / thought_record.NAME
    ).read_bytes()


def test_a_training_that_begins_again_has_no_old_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = trained(tmp_path, [3])

    def killed(*args: object) -> None:
        assert not (Path(folder) / thought_record.NAME).exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(stack.Training, "evaluate", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, [3])


def test_lengths_may_grow_and_the_file_stays_small(tmp_path: Path) -> None:
    text: dict[str, Any] = {"task": CharText(path=TEXT), "seq_len": 128, "thoughts_every": 1}
    (folder,) = trained(tmp_path, [3], **text, length_schedule="short_to_long")
    record = thought_record.read(folder)
    assert [x.arrays["symbols"].shape[-1] for x in record.evaluations] == [1, 1, 2, 3, 3]
    assert {len(x.rows) for x in record.evaluations} == {2}
    assert (Path(folder) / thought_record.NAME).stat().st_size < 400_000


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"thoughts_every": 450}, "thoughts_every=450: records nothing within 450 steps; give less than 450"),
        (
            {"thoughts_every": 4},
            "thoughts_every=4: records thoughts 112 times, and there may be 100 records; give 5 or more",
        ),
        ({"thoughts_every": -1}, "thoughts_every=-1: is too small"),
    ],
)
def test_none_and_too_many_are_refused(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(Refusal, match=line):
        check(replace(RunConfig(), **settings))


def test_as_many_as_there_may_be_are_not(tmp_path: Path) -> None:
    check(replace(RunConfig(), thoughts_every=5))
    check(replace(RunConfig(), thoughts_every=449))
    check(replace(RunConfig(), thoughts_every=4, use_reasoner=False))
