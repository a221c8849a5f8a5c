"""The cells of a folder that a figure shows, and the words of a script's command line."""

from __future__ import annotations

import errno
import os
import shlex

import pytest

from analysis import capacity_vs_gain
from tests.analysis.synthetic import Figures, Script, settings, write
from toyqs import files
from toyqs.evidence.figures import style


def sweep(folder, widths=(4, 8), **changes):
    for width in widths:
        write(folder, settings(base_lm_hidden_dim=width, **changes), {"thinking": {1: 0.1, 2: 0.2}})


@pytest.fixture
def call(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Script(capacity_vs_gain.main, "capacity.png", Figures(monkeypatch), capsys)


def test_a_folder_of_several_sweeps_asks_which(tmp_path, call):
    for reasoner in (24, 32):
        sweep(tmp_path / "runs", reasoner_hidden_dim=reasoner, interpreter_hidden_dim=reasoner)
        sweep(tmp_path / "runs", reasoner_hidden_dim=reasoner, interpreter_hidden_dim=reasoner, task_k=2)
    sweep(tmp_path / "runs", task="other", task_x=1, info="a label is no difference")
    code, _, err, figure, _ = call()
    assert (code, figure) == (2, None)
    assert "task=other,rev_prog; reasoner_hidden_dim=24,32; interpreter_hidden_dim=24,32; add" in err
    code, _, err, _, _ = call("task=rev_prog")
    assert code == 2 and "task.k=2,3; reasoner_hidden_dim=24,32; " in err
    remedy = shlex.split(err.rpartition("add, say, ")[2])
    assert remedy == ["task.k=2", "reasoner_hidden_dim=24"]
    code, out, _, _, _ = call("task=rev_prog", *remedy)
    assert code == 0 and "k=2" in out and "reasoner width 24" in out
    code, out, _, _, table = call(
        "task.k=3", "-o", "x.png", "reasoner_hidden_dim=32.0", "base_lm_hidden_dim=8"
    )
    assert code == 0 and "k=3" in out and set(table["base_lm_hidden_dim"]) == {8}


def test_two_texts_of_one_name_are_told_apart(tmp_path, call):
    """As is one that was planned before hashes were noted."""
    text = {"task": "char_text", "task.path": "a/text.txt", "task.k": None}
    sweep(tmp_path / "runs", **text, **{"task.identity": "1f"})
    code, out, _, _, _ = call()
    assert code == 0 and " path=text.txt, reasoner" in out and "1f" not in out
    sweep(tmp_path / "runs", **text, **{"task.identity": "2e"})
    code, _, err, _, _ = call()
    assert code == 2 and "task.identity=1f,2e; add, say, task.identity=1f" in err
    code, _, _, _, table = call("task.identity=2e")
    assert code == 0 and len(table)
    sweep(tmp_path / "runs", **text)
    code, _, err, _, _ = call()
    assert code == 2 and "task.identity=1f,2e,null; add" in err
    assert call("task.identity=null")[0] == 0


def test_cells_of_before_a_setting_existed_are_not_drawn_over_those_of_since(tmp_path, call):
    sweep(tmp_path / "runs")
    sweep(tmp_path / "runs", novel=0.5)
    code, _, err, figure, _ = call()
    assert (code, figure) == (2, None) and "(base_lm_hidden_dim=4), one of which has no novel" in err
    assert err.count("\n") == 1 and call(*shlex.split(err.rpartition("add, say, ")[2]))[0] == 0


def test_widths_that_grow_with_the_base_are_one_sweep(tmp_path, call):
    for width in (4, 8, 16):
        sweep(tmp_path / "runs", [width], reasoner_hidden_dim=width, interpreter_hidden_dim=2 * width)
    code, out, _, _, _ = call()
    assert code == 0 and "reasoner as wide as the base, interpreter 2 × the base's width" in out
    sweep(tmp_path / "runs", [32], reasoner_hidden_dim=24, interpreter_hidden_dim=24)
    code, _, err, _, _ = call()
    assert code == 2 and "reasoner_hidden_dim=4,8,16,24" in err, (
        "two sweeps that meet at no width are two all the same"
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-o", "x.jpg"], "-o x.jpg: the ending chooses the format"),
        (["-o", "x"], "-o x: the ending"),
        (["-o", "nowhere/x.png"], "-o nowhere/x.png: there is no folder nowhere"),
        (
            ["reasoner_width=24"],
            "reasoner_width=24: the cells have no such setting; did you mean reasoner_hidden_dim?",
        ),
        (["base_lm_hidden_dim=5"], "base_lm_hidden_dim=5: no such cell; there is base_lm_hidden_dim=4,8"),
        (["base_lm_hidden_dim=4,5"], "base_lm_hidden_dim=5: no such cell"),
        (["thinking"], "thinking: a choice is written KEY=VALUE"),
        (["--format", "png"], "unrecognized arguments: --format"),
    ],
)
def test_refusals(tmp_path, call, words, says):
    sweep(tmp_path / "runs")
    code, _, err, figure, _ = call(*words)
    assert (code, figure) == (2, None)
    assert says in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


def test_values_are_chosen_as_they_are_typed(tmp_path, call):
    for place, value in enumerate((None, 6)):
        sweep(tmp_path / "runs", [2 + place], thought_vocab=value, linear_lm_head=bool(place))
    for words, width in (
        (["thought_vocab=null"], 2),
        (["linear_lm_head=True"], 3),
        (["policy_loss_beta=1", "thought_vocab=6"], 3),
    ):
        code, _, _, _, table = call(*words)
        assert code == 0 and set(table["base_lm_hidden_dim"]) == {width}


def test_a_figure_that_cannot_be_there_is_one_line(tmp_path, call):
    sweep(tmp_path / "runs")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "table.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "full.png").symlink_to("/dev/full")
    before = sorted(tmp_path.iterdir())
    call.figures.really = True  # what is not refused is written, and not into the pipe
    for name, says in {
        "folder.png": "-o folder.png: is a folder; give the name of a file",
        "table.png": "-o table.csv: is a folder",
        "pipe.png": "-o pipe.png: is a pipe or a device",
        "full.png": "-o full.png: is a pipe or a device",
        "nowhere/x.png": "-o nowhere/x.png: there is no folder nowhere; make it first",
    }.items():
        code = capacity_vs_gain.main(["runs", "-o", name])
        out, err = call.capsys.readouterr()
        assert (code, out, err.count("\n")) == (2, "", 1) and says in err
    assert sorted(tmp_path.iterdir()) == before and not call.figures.drawn


@pytest.mark.parametrize("full", ["the table", "the figure"])
def test_on_a_full_device_there_is_neither_figure_nor_table(tmp_path, call, monkeypatch, full):
    sweep(tmp_path / "runs")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((files.os, "fsync") if full == "the table" else (style, "save")), refuse)
    code = capacity_vs_gain.main(["runs", "-o", "x.png"])
    out, err = call.capsys.readouterr()
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "-o x.png: cannot be written: No space left on device" in err
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_no_words_at_all(call):
    assert capacity_vs_gain.main([]) == 2
    assert "no folder of runs; give RUNS" in call.capsys.readouterr().err


def test_help(call):
    assert capacity_vs_gain.main(["--help"]) == 0
    out = call.capsys.readouterr().out
    assert "RUNS [KEY=VALUE ...]" in out and "capacity.png" in out and "reasoner_hidden_dim=32 keeps" in out
