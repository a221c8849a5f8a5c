"""Rows on disk, pairing, intervals and the verdict."""

from __future__ import annotations

import json
import math
import time
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from toyqs import results
from toyqs.results import interval, load_curve, load_rows, reasoning_gain, verdict, write_json


def add_run(folder, key, **values):
    (folder / key).mkdir()
    write_json(folder / key / "config.json", {})
    row = {"key": key, "seed": 1, "commit": "abc", "results_version": 1, "nll": 0.5} | values
    write_json(folder / key / "summary.json", row)


def arm(values, seeds=None):
    seeds = range(1, len(values) + 1) if seeds is None else seeds
    return pd.DataFrame({"seed": list(seeds), "nll": values})


def gains(**values):
    return {name: pd.Series(list(column), index=range(len(column))) for name, column in values.items()}


HIGH, LOW, UNSURE = (1.0, 1.1, 0.9, 1.05), (-1.0, -1.1, -0.9, -1.05), (-1.0, 1.0, -0.5, 0.6)


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
    monkeypatch.setattr(results.os, "fsync", fail)
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
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        load_rows(tmp_path / "nowhere")
    add_run(tmp_path, "a")
    (tmp_path / "a" / "summary.json").write_text("{torn")
    with pytest.raises(ValueError, match=r"summary\.json: not a JSON object"):
        load_rows(tmp_path)


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
    text = json.dumps({"seed": 1, "commit": "a", "results_version": 1, **values})
    for run in range(500):
        (tmp_path / f"{run:03}").mkdir()
        (tmp_path / f"{run:03}" / "summary.json").write_text(text)
    clock = time.process_time()
    assert load_rows(tmp_path).shape == (500, 103)
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


def test_interval_is_students():
    values = np.random.default_rng(0).normal(size=6)
    found = interval(values, confidence=0.9)
    low, high = stats.t.interval(0.9, 5, loc=values.mean(), scale=stats.sem(values))
    assert (found.lower, found.upper, found.count) == (pytest.approx(low), pytest.approx(high), 6)


def test_interval_at_the_edges():
    assert interval([0.1, 0.1, 0.1]).half_width == 0
    one = interval([0.3])
    assert one.mean == 0.3 and math.isnan(one.half_width)
    for lost in (math.nan, math.inf):
        found = interval([0.3, lost, 0.4])
        assert math.isnan(found.mean) and math.isnan(found.half_width) and found.count == 3
    with pytest.raises(ValueError, match="no values"):
        interval([])


def test_gain_pairs_by_seed_and_keeps_a_diverged_one():
    control = arm([1.0, 2.0, 3.0, 9.0], seeds=[3, 1, 2, 7])
    found = reasoning_gain(arm([0.5, math.nan, 0.25], seeds=[1, 2, 3]), control)
    assert list(found.index) == [1, 2, 3]
    assert found[1] == 1.5 and math.isnan(found[2]) and found[3] == 0.75


def test_gain_refuses_what_cannot_be_paired():
    with pytest.raises(ValueError, match="no seed in common"):
        reasoning_gain(arm([1.0]), arm([1.0], seeds=[9]))
    with pytest.raises(ValueError, match="no seed in common"):
        reasoning_gain(arm([1.0]), pd.DataFrame())
    with pytest.raises(ValueError, match="two rows for one seed"):
        reasoning_gain(arm([1.0]), arm([1.0, 1.0], seeds=[1, 1]))


@pytest.mark.parametrize(
    ("word", "columns"),
    [
        ("helps", {"zero_length": HIGH, "compute_matched": HIGH, "param_matched": HIGH}),
        ("helps", {"zero_length": UNSURE, "compute_matched": HIGH, "param_matched": HIGH}),
        ("helps", {"param_matched": HIGH}),
        ("helps", {"zero_length": HIGH, "param_matched": (0.5,) * 4}),
        ("hurts", {"zero_length": LOW, "compute_matched": HIGH, "param_matched": HIGH}),
        ("hurts", {"zero_length": LOW}),
        (
            "helps at this base width only",
            {"zero_length": HIGH, "compute_matched": HIGH, "param_matched": LOW},
        ),
        ("helps at this base width only", {"zero_length": HIGH, "compute_matched": UNSURE}),
        ("helps at this base width only", {"zero_length": HIGH, "compute_matched": (0.0,) * 4}),
        ("helps at this base width only", {"zero_length": HIGH}),
        ("no evidence", {"zero_length": UNSURE, "compute_matched": HIGH, "param_matched": UNSURE}),
        ("no evidence", {"zero_length": (0.0,) * 4}),
        ("no evidence", {"zero_length": (-1.0, 0.5, -0.5, 0.6)}),
        ("no evidence", {"param_matched": LOW}),
        ("no verdict", {"zero_length": HIGH[:3], "param_matched": HIGH}),
        ("no verdict", {"zero_length": HIGH, "param_matched": (*HIGH, math.nan)}),
        ("no verdict", {"no_reasoner": HIGH, "policy_off": HIGH}),
        ("no verdict", {}),
    ],
)
def test_the_word_of_the_verdict(word, columns):
    assert verdict(gains(**columns)).word == word
    more = gains(**columns | {"no_reasoner": LOW, "policy_off": (math.nan,)})
    assert verdict(more).word == word, "a control that is not judged must not move the verdict"


def test_the_sentence_gives_numbers_and_their_meaning():
    found = verdict(gains(zero_length=HIGH, compute_matched=UNSURE, param_matched=LOW)).sentence
    assert "1.012 ± 0.136 lower than the same model with zero-length thoughts" in found
    assert "higher than a plain GRU with as many parameters" in found
    assert "could be chance, than the base model without thoughts" in found
    assert "a plain GRU with as many parameters does better: capacity explains the gain" in found
    assert "training compute may explain the gain" in found
    assert "nats per counted position" in found


def test_the_sentence_claims_no_more_than_was_controlled_for():
    alone = verdict(gains(zero_length=HIGH, param_matched=HIGH)).sentence
    assert "capacity alone does not" in alone and "other matched control was not run" in alone
    both = gains(zero_length=UNSURE, param_matched=HIGH, compute_matched=HIGH)
    assert "what the thoughts say is not shown to matter" in verdict(both).sentence
    assert "No control with as much capacity" in verdict(gains(zero_length=HIGH)).sentence
    lost = gains(zero_length=(1.0, math.nan, 1.0, 1.0))
    assert "Seed 1 diverged in thinking or in zero_length" in verdict(lost).sentence
