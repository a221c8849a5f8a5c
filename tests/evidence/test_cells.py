"""Cells: planned, found again, merged, and what of them is missing."""

from __future__ import annotations

import json
import os

import pytest

from toyqs.evidence.cells import Cell, load_cells, name_of, write_cell
from toyqs.files import write_json

SETTINGS = {"task": "rev_prog", "task.k": 3, "base_lm_hidden_dim": 4, "policy_loss_beta": 1.0, "info": ""}


def finish(folder, key, seed, **values):
    (folder / key).mkdir(exist_ok=True)
    row = {"key": key, "seed": seed, "commit": "abc", "results_version": 1, "nll": 0.5} | values
    write_json(folder / key / "summary.json", row)


def plan(folder, arms, asked=None, when=None, **changes):
    """Plan a cell of arms -> seeds, the keys made of both; `when` dates the plan."""
    keys = {arm: {seed: f"{arm}-{seed}" for seed in seeds} for arm, seeds in arms.items()}
    before = set((folder / "cells").glob("*"))
    write_cell(folder, SETTINGS | changes, keys, list(arms) if asked is None else asked)
    if when is not None:
        (new,) = set((folder / "cells").glob("*")) - before
        os.utime(new, (when, when))


def only(folder) -> Cell:
    (cell,) = load_cells(folder)
    return cell


def seeds_of(cell):
    return {arm: list(frame["seed"]) if len(frame) else [] for arm, frame in cell.arms.items()}


def test_what_was_planned_is_found_with_the_rows_that_are_there(tmp_path):
    plan(tmp_path, {"thinking": [10, 9], "zero_length": [9, 10]}, seed=9)
    finish(tmp_path, "thinking-10", 10, nll=0.25)
    finish(tmp_path, "thinking-9", 9, nll=0.125)
    finish(tmp_path, "zero_length-10", 10)
    finish(tmp_path, "of-another-cell", 9)
    (tmp_path / "zero_length-9").mkdir()
    write_json(tmp_path / "zero_length-9" / "config.json", {})  # begun, not finished
    cell = only(tmp_path)
    assert cell.settings == SETTINGS
    assert seeds_of(cell) == {"thinking": [9, 10], "zero_length": [10]}
    assert list(cell.arms["thinking"]["nll"]) == [0.125, 0.25]
    assert cell.missing == {"zero_length": [9]}


def test_an_arm_asked_for_of_which_nothing_has_finished_is_empty(tmp_path):
    plan(tmp_path, {"thinking": [1, 2], "policy_off": [1, 2]})
    cell = only(tmp_path)
    assert seeds_of(cell) == {"thinking": [], "policy_off": []}
    assert cell.missing == {"thinking": [1, 2], "policy_off": [1, 2]}


def test_twins_not_asked_for_count_where_they_are_there_and_are_never_missing(tmp_path):
    plan(tmp_path, {"thinking": [1, 2], "no_reasoner": [1, 2], "zero_length": [1, 2]}, asked=["thinking"])
    finish(tmp_path, "thinking-1", 1)
    finish(tmp_path, "no_reasoner-2", 2)
    cell = only(tmp_path)
    assert seeds_of(cell) == {"thinking": [1], "no_reasoner": [2]}
    assert cell.missing == {"thinking": [2]}


def test_the_run_itself_is_first_even_where_only_a_control_was_asked_for(tmp_path):
    plan(tmp_path, {"thinking": [1], "zero_length": [1]}, asked=["zero_length"])
    finish(tmp_path, "zero_length-1", 1)
    assert seeds_of(only(tmp_path)) == {"thinking": [], "zero_length": [1]}


def test_plans_of_equal_settings_are_one_cell(tmp_path):
    plan(tmp_path, {"thinking": [1, 2], "zero_length": [1, 2]}, asked=["thinking"])
    plan(tmp_path, {"thinking": [2, 3], "zero_length": [2, 3]}, info="again")
    plan(tmp_path, {"thinking": [4]}, base_lm_hidden_dim=8)
    for seed in (1, 2, 3):
        finish(tmp_path, f"thinking-{seed}", seed)
    narrow, wide = load_cells(tmp_path)
    assert (narrow.settings["base_lm_hidden_dim"], wide.settings["base_lm_hidden_dim"]) == (4, 8)
    assert seeds_of(narrow) == {"thinking": [1, 2, 3], "zero_length": []}
    assert narrow.missing == {"zero_length": [2, 3]}, "zero_length was not asked for at seed 1"
    assert wide.missing == {"thinking": [4]}


def test_cells_are_compared_by_what_their_files_hold(tmp_path):
    """One text under two paths is one cell; two texts under one path are two, and so are two references."""
    text = {"task": "char_text", "task.path": "a.txt", "task.identity": "1"}
    plan(tmp_path, {"thinking": [1]}, **text)
    plan(tmp_path, {"thinking": [2]}, **text | {"task.path": "b.txt"})
    plan(tmp_path, {"thinking": [3]}, **text | {"task.identity": "2"})
    plan(tmp_path, {"thinking": [4]}, **text | {"reference_run": "runs/x", "reference_run.identity": "3"})
    plan(tmp_path, {"thinking": [5]}, **text | {"reference_run": "runs/x", "reference_run.identity": "4"})
    plan(tmp_path, {"thinking": [6]}, **{"task": "char_text", "task.path": "a.txt"})  # of an earlier version
    for seed in range(1, 7):
        finish(tmp_path, f"thinking-{seed}", seed)
    seeds = sorted(seeds_of(cell)["thinking"] for cell in load_cells(tmp_path))
    assert seeds == [[1, 2], [3], [4], [5], [6]]


@pytest.mark.parametrize("older", ["a", "b"])
def test_of_two_plans_for_one_run_the_later_holds(tmp_path, older):
    newer = {"a": "b", "b": "a"}[older]
    for name, when in ((older, 1000), (newer, 2000)):
        keys = {"thinking": {1: "thinking-1"}, "compute_matched": {1: name}}
        write_cell(tmp_path, SETTINGS, keys, keys)
        path = tmp_path / "cells" / f"{name_of(['thinking-1', name])}.json"
        os.utime(path, (when, when))
    finish(tmp_path, older, 1)
    assert only(tmp_path).missing == {"thinking": [1], "compute_matched": [1]}
    keys = {"thinking": {1: "thinking-1"}, "compute_matched": {1: older}}
    write_cell(tmp_path, SETTINGS, keys, keys)  # the older command, given again
    assert only(tmp_path).missing == {"thinking": [1]}


def test_settings_without_effect_are_no_settings_of_a_cell(tmp_path):
    """Also where an older note of the same cell does not say which they are."""
    older = {"thinking": {1: "thinking-1"}}
    write_cell(tmp_path, SETTINGS, older, older, ["task.k"])
    note = tmp_path / "cells" / f"{name_of(['thinking-1'])}.json"
    assert only(tmp_path).settings == {name: x for name, x in SETTINGS.items() if name != "task.k"}
    plan_ = json.loads(note.read_text())
    del plan_["inactive"]
    write_json(note, plan_)
    os.utime(note, (1, 1))
    assert only(tmp_path).settings == SETTINGS
    write_cell(tmp_path, SETTINGS, {"thinking": {2: "thinking-2"}}, ["thinking"], ["task.k"])
    assert "task.k" not in only(tmp_path).settings
    assert only(tmp_path).missing == {"thinking": [1, 2]}


def test_a_cell_planned_again_is_one_file_whatever_the_order_of_its_seeds(tmp_path):
    plan(tmp_path, {"thinking": [1, 2]})
    plan(tmp_path, {"thinking": [2, 1]})
    plan(tmp_path, {"thinking": [2, 1], "zero_length": [1, 2]}, asked=["thinking"])
    (path,) = (tmp_path / "cells").iterdir()
    assert path.name == f"{name_of(['thinking-2', 'thinking-1'])}.json"
    assert json.loads(path.read_text())["arms"]["zero_length"] == {"1": "zero_length-1", "2": "zero_length-2"}


def test_the_same_plan_again_is_the_same_file_with_a_new_date(tmp_path):
    plan(tmp_path, {"thinking": [1], "zero_length": [1]}, when=1000)
    (path,) = (tmp_path / "cells").iterdir()
    before = path.stat()
    plan(tmp_path, {"thinking": [1], "zero_length": [1]})
    after = path.stat()
    assert after.st_ino == before.st_ino and after.st_mtime > before.st_mtime == 1000
    plan(tmp_path, {"zero_length": [1], "thinking": [1]})  # another run is the first
    assert [*json.loads(path.read_text())["arms"]] == ["zero_length", "thinking"]


def test_folders_without_cells(tmp_path):
    assert load_cells(tmp_path) == []
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such folder"):
        load_cells(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{torn", "not a JSON object"),
        ("{}", "not a cell"),
        ('{"settings": 1, "arms": 1, "asked_for": 1}', "not a cell"),
        ('{"settings": {}, "arms": {"thinking": [1]}, "asked_for": []}', "not a cell"),
        ('{"settings": {}, "arms": {"thinking": {"one": "k"}}, "asked_for": []}', "not a cell"),
        ('{"settings": {}, "arms": {"thinking": {"1": null}}, "asked_for": []}', "not a cell"),
        ('{"settings": {}, "arms": {}, "asked_for": [], "inactive": 1}', "not a cell"),
        ("[" * 100_000, "not a JSON object"),
    ],
)
def test_a_damaged_plan_is_named(tmp_path, text, says):
    plan(tmp_path, {"thinking": [1]})
    (tmp_path / "cells" / "x.json").write_text(text)
    with pytest.raises(ValueError, match=rf"x\.json: {says}"):
        load_cells(tmp_path)
