"""Rows on disk."""

from __future__ import annotations

import json
import math
import time
import warnings

import pytest

from toyqs import files
from toyqs.evidence.rows import is_complete, load_curve, load_rows
from toyqs.files import write_json


def add_run(folder, key, **values):
    (folder / key).mkdir()
    write_json(folder / key / "config.json", {})
    row = {"key": key, "seed": 1, "commit": "abc", "results_version": 1, "nll": 0.5} | values
    write_json(folder / key / "summary.json", files.sealed(row, folder / key, ["config.json"]))


def test_json_is_standard_and_numbers_that_are_not_finite_become_null(tmp_path):
    path = tmp_path / "summary.json"
    write_json(path, {"nll": math.nan, "inner": {"list": [1.5, -math.inf]}, "tuple": (math.inf, "NaN", True)})

    def refuse(word):
        raise AssertionError(word)

    read = json.loads(path.read_text(), parse_constant=refuse)
    assert read == {"nll": None, "inner": {"list": [1.5, None]}, "tuple": [None, "NaN", True]}


def test_an_interrupted_write_leaves_the_older_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    write_json(path, {"nll": 1.0})

    def fail(*_):
        raise KeyboardInterrupt

    with path.open() as reader:
        write_json(path, {"nll": 1.0, "longer": True})
        assert json.load(reader) == {"nll": 1.0}, "a reader keeps the file it opened"
    write_json(path, {"nll": 1.0})
    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"nll": 2.0})
    assert json.loads(path.read_text()) == {"nll": 1.0}
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]


def test_load_rows_tells_complete_from_unfinished_and_ignores_the_rest(tmp_path):
    add_run(tmp_path, "b", nll=0.25, seed=2)
    add_run(tmp_path, "a")
    (tmp_path / "c").mkdir()
    write_json(tmp_path / "c" / "config.json", {})
    (tmp_path / "reports").mkdir()
    (tmp_path / "notes.txt").write_text("not a run")
    frame = load_rows(tmp_path)
    assert list(frame["key"]) == ["a", "b"] and list(frame["nll"]) == [0.5, 0.25]
    assert frame.attrs["unfinished"] == ["c"]
    some = load_rows(tmp_path, ["b", "c", "never-begun"])
    assert list(some["key"]) == ["b"] and some.attrs["unfinished"] == ["c"]


def test_load_rows_without_rows(tmp_path):
    assert load_rows(tmp_path).empty
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such folder"):
        load_rows(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"{torn", "not a JSON object"),
        (b"\xff\xfe\xff", "not a JSON object"),
        (b"[" * 100_000, "not a JSON object"),
        (b'{"key": "a", "nll": 1}', "not a row (it has no seed)"),
        (b'{"key": "a", "seed": 1}', "not a row (it has no nll)"),
        (b'{"key": 1, "seed": 1, "nll": 1}', "not a row (key=1 is no such value)"),
        (b'{"key": "a", "seed": "1", "nll": 1}', "not a row (seed='1' is no such value)"),
        (b'{"key": "a", "seed": 1, "nll": "low"}', "not a row (nll='low' is no such value)"),
        (b'{"key": "a", "seed": 1, "nll": 1, "cpu_seconds": []}', "not a row (cpu_seconds=[] is no such"),
    ],
)
def test_a_damaged_row_is_named_and_counts_as_none(tmp_path, text, says):
    add_run(tmp_path, "a")
    assert is_complete(tmp_path, "a")
    path = tmp_path / "a" / "summary.json"
    path.write_bytes(text)
    add_run(tmp_path, "b")
    with pytest.warns(UserWarning, match="^left out: ") as caught:
        rows = load_rows(tmp_path)
    (line,) = rows.attrs["damaged"]
    assert list(rows["key"]) == ["b"] and [str(x.message) for x in caught] == [line]
    assert line.startswith(f"left out: {path}: {says}")
    assert line.endswith("move it away and give the command again")
    assert not is_complete(tmp_path, "a")


@pytest.mark.parametrize(
    ("column", "says"), [("commit", "2 commits"), ("results_version", "results versions")]
)
def test_rows_of_several_origins_say_so(tmp_path, column, says):
    add_run(tmp_path, "a", **{column: 1})
    add_run(tmp_path, "b", **{column: 1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_rows(tmp_path)
    add_run(tmp_path, "c", **{column: 2})
    with pytest.warns(UserWarning, match=says):
        assert len(load_rows(tmp_path)) == 3


def test_five_hundred_runs_load_within_a_second(tmp_path):
    values = {f"column {i}": float(i) for i in range(100)}
    row = {"key": "a", "nll": 1.0, "seed": 1, "commit": "a", "results_version": 1, **values}
    text = json.dumps(row)
    for run in range(500):
        (tmp_path / f"{run:03}").mkdir()
        (tmp_path / f"{run:03}" / "summary.json").write_text(text)
    clock = time.process_time()
    assert load_rows(tmp_path).shape == (500, 105)
    assert time.process_time() - clock < 1


def test_a_curve_forgives_a_torn_last_line_only(tmp_path):
    path = tmp_path / "k" / "metrics.jsonl"
    path.parent.mkdir()
    lines = [json.dumps({"step": s, "kind": "held_out", "nll": n}) for s, n in ((1, 1.5), (2, None))]
    path.write_text("\n".join([*lines, '{"step": 3, "ki']))
    curve = load_curve(tmp_path, "k")
    assert list(curve["step"]) == [1, 2]
    assert curve["nll"][0] == 1.5 and math.isnan(curve["nll"][1])
    path.write_text("\n".join([lines[0], '{"step": 3, "ki', lines[1], ""]))
    with pytest.raises(ValueError, match="line 2: not a JSON object"):
        load_curve(tmp_path, "k")
    path.write_text("")
    assert list(load_curve(tmp_path, "k").columns) == ["step", "kind", "nll"]
