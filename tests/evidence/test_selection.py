"""The settings that a table of cells has columns for."""

from __future__ import annotations

from typing import Any

from toyqs.evidence.cells import Cell
from toyqs.evidence.selection import columns_of

BASE, REASONER, INTERPRETER = "base_lm_hidden_dim", "reasoner_hidden_dim", "interpreter_hidden_dim"


def cells(*settings: dict[str, Any]) -> list[Cell]:
    return [Cell(each, {}, {}) for each in settings]


def test_of_settings_that_go_together_the_first_is_shown() -> None:
    wide = [{BASE: x, REASONER: 2 * x, INTERPRETER: 2 * x, "seq_len": 3} for x in (4, 8)]
    assert columns_of(cells(*wide)) == [BASE]
    assert columns_of(cells(*wide, {BASE: 8, REASONER: 8, INTERPRETER: 8})) == [BASE, REASONER]
    many = [{"trice_samples": x, "train_nll_num": x} for x in (2, 4)]
    assert columns_of(cells(*many)) == ["trice_samples"]
    assert columns_of(cells(*many, {"trice_samples": 4, "train_nll_num": 1})) == [
        "trice_samples",
        "train_nll_num",
    ]


def test_also_beside_plain_cells_in_which_they_have_no_effect() -> None:
    thinking = [{"use_reasoner": True, BASE: x, REASONER: x, INTERPRETER: x} for x in (4, 8)]
    plain = [{"use_reasoner": False, BASE: x} for x in (4, 8)]
    assert columns_of(cells(*thinking, *plain)) == [BASE, "use_reasoner"]


def test_a_setting_stays_where_only_having_it_tells_cells_apart() -> None:
    wide = [{BASE: x, REASONER: x} for x in (4, 8)]
    assert columns_of(cells(*wide, {BASE: 4})) == [BASE, REASONER]


def test_other_settings_that_change_together_are_all_shown() -> None:
    given = cells({BASE: 4, "base_lr": 0.1, "objective": "a"}, {BASE: 8, "base_lr": 0.2, "objective": "b"})
    assert columns_of(given) == [BASE, "base_lr", "objective"]


def test_a_hash_is_shown_only_where_the_path_does_not_tell_the_texts_apart() -> None:
    texts = [{"task.path": "a", "task.identity": "1"}, {"task.path": "b", "task.identity": "2"}]
    assert columns_of(cells(*texts)) == ["task.path"]
    assert columns_of(cells(*texts, {"task.path": "b", "task.identity": "3"})) == [
        "task.path",
        "task.identity",
    ]
