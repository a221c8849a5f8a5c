"""Records of thoughts: what is written is read again, small, and damage is one clear line."""

from __future__ import annotations

import base64
import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.records import small
from tests.test_edges import ROOT
from toyqs import thought_record
from toyqs.files import Refusal
from toyqs.thought_record import ARRAYS, MOST_BYTES, NAME, Record, packed, read, write


def near(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """Compare arrays: numbers to half a step of 1/32767 of the largest, all others exactly."""
    assert found.keys() == wanted.keys()
    for name, values in found.items():
        exact = ARRAYS[name].of not in ("number", "share")
        largest = 0 if exact else np.nanmax(np.abs(wanted[name]))
        assert values.shape == wanted[name].shape
        np.testing.assert_allclose(values, wanted[name], rtol=0, atol=largest / 65533)
        assert values.dtype == (np.int64 if exact else np.float64)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = small()
    write(tmp_path, record)
    found = read(tmp_path)
    near(found.arrays, record.arrays)
    (own,), (other,) = found.evaluations, record.evaluations
    near(own.arrays, other.arrays)
    assert (own.step, own.rows) == (other.step, other.rows)
    assert found.features["parity"].values.tolist() == [[0, 1], [2, 1]]
    assert found.features["parity"].classes == ["even", "odd"]
    plain = ("task", "held_out", "sequences", "tokens", "symbols")
    assert [getattr(found, name) for name in plain] == [getattr(record, name) for name in plain]


def test_what_is_not_finite_comes_back_as_no_number(tmp_path: Path) -> None:
    arrays = small().arrays
    reward = arrays["reward"].copy()
    reward[0, 0] = -np.inf, np.inf
    write(tmp_path, small(arrays=arrays | {"reward": reward}))
    found = read(tmp_path).arrays["reward"]
    assert np.isnan(found).tolist() == (~np.isfinite(reward)).tolist()
    assert found[1, 1, 1] == pytest.approx(-3.0)


def test_numbers_that_are_all_zero_or_none_are_written(tmp_path: Path) -> None:
    arrays = small().arrays
    nothing = {"log_prob": np.zeros((2, 2, 2)), "reward": np.full((2, 2, 2), np.nan)}
    write(tmp_path, small(arrays=arrays | nothing))
    found = read(tmp_path).arrays
    assert not found["log_prob"].any() and np.isnan(found["reward"]).all()


def test_many_tokens_take_two_bytes_each_and_few_take_one(tmp_path: Path) -> None:
    names = [str(i) for i in range(300)]
    arrays = small().arrays
    write(tmp_path, small(tokens=names, arrays=arrays | {"truth": np.full((2, 2), 299)}))
    content = content_of(tmp_path)["arrays"]
    assert (content["truth"]["dtype"], content["inputs"]["dtype"]) == ("uint16", "uint8")
    assert base64.b64decode(content["truth"]["data"])[:2] == b"\x2b\x01"
    assert (read(tmp_path).arrays["truth"] == 299).all()


def test_equal_records_are_equal_bytes_and_no_time_is_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    first = packed(small())
    monkeypatch.setattr("time.time", lambda: 1e9)
    assert packed(small()) == first and first[4:8] == bytes(4)


def content_of(folder: Path) -> dict[str, Any]:
    return json.loads(gzip.decompress((folder / NAME).read_bytes()))


def put(folder: Path, content: dict[str, Any]) -> None:
    (folder / NAME).write_bytes(gzip.compress(json.dumps(content).encode()))


Change = Callable[[dict[str, Any]], object]
DAMAGE: dict[str, Change] = {
    "no version": lambda x: x.pop("version"),
    "a version that is no number": lambda x: x.update(version="1"),
    "a token that has no name": lambda x: x["tokens"].pop(),
    "a symbol beyond none": lambda x: x["symbols"].pop(),
    "a name that is no text": lambda x: x["tokens"].__setitem__(0, 7),
    "an array of another size": lambda x: x["arrays"]["truth"].update(shape=[2, 1]),
    "an array with more axes": lambda x: x["arrays"]["truth"].update(shape=[2, 2, 1]),
    "too few bytes": lambda x: x["arrays"]["truth"].update(data="AAAA"),
    "no base64": lambda x: x["arrays"]["truth"].update(data="%%%%%%%%"),
    "another dtype": lambda x: x["arrays"]["truth"].update(dtype="object"),
    "a size below 0": lambda x: x["arrays"]["truth"].update(shape=[2, -1]),
    "a scale of 0": lambda x: x["arrays"]["log_q"].update(scale=0),
    "an infinite scale": lambda x: x["arrays"]["log_q"].update(scale="inf"),
    "no predictions": lambda x: x["arrays"].pop("log_q"),
    "a position beyond the sequence": lambda x: x["arrays"]["positions"].update(data="AQIBAw=="),
    "a class beyond none": lambda x: x["features"]["parity"].update(classes=["even"]),
    "a row that is no sequence's": lambda x: x["evaluations"][0].update(rows=[2]),
    "rows of another number": lambda x: x["evaluations"][0].update(rows=[0, 1]),
    "an evaluation without arrays": lambda x: x["evaluations"][0].update(arrays={}),
    "no position that counts": lambda x: x["arrays"]["counted"].update(
        data=base64.b64encode(bytes(4)).decode()
    ),
    "no evaluations": lambda x: x.pop("evaluations"),
    "arrays that are none": lambda x: x.update(arrays=[]),
    "sequences of another number": lambda x: x.update(sequences=[0]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_one_line_that_says_how_to_make_it_again(tmp_path: Path, damage: str) -> None:
    write(tmp_path, small())
    content = content_of(tmp_path)
    put(tmp_path, content)
    read(tmp_path)  # it is the damage alone that is refused
    DAMAGE[damage](content)
    put(tmp_path, content)
    with pytest.raises(Refusal, match=r"is damaged; python -m toyqs\.answers record .* makes it again"):
        read(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"no gzip", packed(small())[:-20], packed(small())[:30], b"\x1f\x8b" + bytes(20)),
        gzip.compress(b"[1]"),
        gzip.compress(b" " * (MOST_BYTES + 1), compresslevel=1),
        packed(small())[:-8] + bytes(8),
    ],
    ids=["empty", "no gzip", "end cut", "beginning", "zeros", "a list", "too long", "wrong sum"],
)
def test_bytes_that_are_no_record_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(Refusal, match=rf"{NAME}: is damaged"):
        read(tmp_path)


def test_a_newer_version_says_so(tmp_path: Path) -> None:
    write(tmp_path, small())
    put(tmp_path, content_of(tmp_path) | {"version": 2, "tokens": {"new": "form"}})
    with pytest.raises(Refusal, match="has version 2, and this toyqs reads up to 1; use a newer one"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("settings", "row", "line"),
    [
        ({}, {}, r"holds no record of thoughts .*; make it: python -m toyqs\.answers record "),
        ({"use_reasoner": False}, {}, "this run has no thoughts"),
        ({"max_reasoning_len": 0}, {}, "this run has no thoughts"),
        ({}, {"diverged_at": 3}, "this run diverged"),
        (None, {}, "is not the folder of a finished run"),
        ({}, None, "is not the folder of a finished run"),
    ],
)
def test_where_there_is_none_a_line_says_why_and_what_to_do(
    tmp_path: Path, settings: dict[str, Any] | None, row: dict[str, Any] | None, line: str
) -> None:
    for name, content in (("config.json", settings), ("summary.json", row)):
        if content is not None:
            (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(Refusal, match=f"^{re.escape(str(tmp_path))}: {line}") as found:
        read(tmp_path)
    assert "\n" not in str(found.value) and found.value.code == 2


def test_the_page_has_every_field_and_every_array_with_its_axes() -> None:
    page = (ROOT / "docs/records.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.+?`) \| ([A-Z, ]+) \|", page, re.MULTILINE)
    shown = {name: axes.replace(", ", "") for names, axes in rows for name in re.findall(r"`(\w+)`", names)}
    assert shown == {name: kind.axes for name, kind in ARRAYS.items()}
    assert {"version", *Record._fields} <= set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))


def test_reading_never_loads_torch() -> None:
    code = f"import sys, {thought_record.__name__}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
