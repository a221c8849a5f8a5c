"""Settings in plain words, and the commands that the page advises: they sweep the cell that is shown."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.analysis import synthetic
from toyqs.evidence.cells import load_cells
from toyqs.evidence.page.words import in_words, width_sweep


def advised(folder: Path, command: str, **changes: object) -> dict[str, str]:
    chosen = synthetic.settings(**changes)
    synthetic.write(folder, chosen, {"thinking": {7: 0.5, 8: 0.6}, "zero_length": {7: 0.9}})
    (folder / synthetic.key_of(chosen, "thinking", 7) / "env.json").write_text(
        json.dumps({"command": command})
    )
    (cell,) = load_cells(folder)
    return width_sweep(folder, cell)


def test_the_words_of_the_command_are_kept_and_the_width_is_swept(tmp_path: Path) -> None:
    typed = "run.py seed=[7,8] base_lm_hidden_dim=8 'task.path=my text, one.txt' max_steps=300 runs_dir=x"
    found = advised(tmp_path, f"{typed} force=true", base_lm_hidden_dim=8)
    assert found["name"] == "width of the base LM"
    assert shlex.split(found["command"]) == [
        *("python", "run.py", "-m", "base_lm_hidden_dim=2,4,8,16,32", "seed=7,8"),
        *("task.path=my text, one.txt", "max_steps=300", "runs_dir=widths"),
    ]
    assert found["report"] == "python -m toyqs.evidence report widths -o widths.html"


def test_of_what_was_swept_the_cell_s_own_value_is_kept(tmp_path: Path) -> None:
    typed = "run.py -m '+run_modifier=[Small,All]' 'weight_groups=[A,A,A,A],[A,B,C,D]' policy_loss_beta=1,10"
    found = advised(
        tmp_path, f"{typed} seed=7,8", weight_groups="ABCD", policy_loss_beta=10.0, base_lm_hidden_dim=2
    )
    assert shlex.split(found["command"])[3:-1] == [
        *("base_lm_hidden_dim=1,2,4,8", "seed=7,8", "+run_modifier=[Small,All]"),
        *("weight_groups=[A,B,C,D]", "policy_loss_beta=10"),
    ]


def test_parts_that_share_weights_are_swept_together(tmp_path: Path) -> None:
    widths = dict.fromkeys(("base_lm_hidden_dim", "reasoner_hidden_dim", "interpreter_hidden_dim"), 32)
    typed = "run.py 'weight_groups=[A,B,B,A]' base_lm_hidden_dim=32 reasoner_hidden_dim=32 controls=none"
    found = advised(tmp_path / "equal", typed, weight_groups="ABBA", **widths)
    assert shlex.split(found["command"])[3:-1] == [
        *("model_hidden_dim=8,16,32,64,128", "seed=7,8", "weight_groups=[A,B,B,A]"),
    ]
    found = advised(tmp_path / "typed", "run.py model_hidden_dim=32", **widths)
    assert shlex.split(found["command"])[3:-1] == ["model_hidden_dim=8,16,32,64,128", "seed=7,8"]
    widths["reasoner_hidden_dim"], changes = 16, {"weight_groups": "ABBA", "max_steps": 100}
    found = advised(tmp_path / "unequal", typed, **changes, **widths)
    assert "max_steps=25,50,100,200,400" in found["command"] and "reasoner_hidden_dim=32" in found["command"]


@pytest.mark.parametrize("command", ["", "run.py 'unended"])
def test_no_words_are_made_up_where_none_are_known(tmp_path: Path, command: str) -> None:
    assert advised(tmp_path, command) == {}


def test_a_cell_is_named_in_plain_words(tmp_path: Path) -> None:
    advised(tmp_path, "run.py", weight_groups="AABB", base_lm_hidden_dim=2, mixing="gate")
    (cell,) = load_cells(tmp_path)
    keys = ["weight_groups", "base_lm_hidden_dim", "mixing", "no_such_key"]
    assert in_words(cell, keys) == "pattern AABB, base LM 2 wide, mixing=gate"
