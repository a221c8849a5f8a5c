"""The figure of the estimators, and what it refuses."""

from __future__ import annotations

import os
import sys

import pandas as pd
import pytest

from analysis import estimators
from toyqs.evidence.figures.estimators import COLUMNS, estimators_figure

ROWS = [
    {"estimator": name, "K": k, "aim": aim, "cosine": 0.9, "length": 1.0 / k, "noise": 2.0 / k}
    for name, aim in (("one", "reward"), ("two", "reward and entropy"))
    for k in (2, 4)
]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "estimators.csv"
    pd.DataFrame(ROWS).to_csv(path, index=False)
    return path


def test_a_row_for_each_estimator_in_every_panel(table):
    figure = estimators_figure(estimators.read(str(table)))
    panels = figure.axes
    assert len(panels) == 3
    for axes, column in zip(panels, COLUMNS, strict=True):
        one, _ = (points for points in axes.collections if points.get_label() in {"one", "two"})
        wanted = [row[column] for row in ROWS if row["estimator"] == "one"]
        assert one.get_offsets().tolist() == [[value, 0] for value in wanted]
        assert (axes.get_xscale() == "log") == (column != "cosine")
        few, many = one.get_facecolors()[:, :3].mean(1)
        assert few > many, "darker for more thoughts"
    labels = [(label.get_text(), label.get_fontstyle()) for label in panels[0].get_yticklabels()]
    assert labels == [("one", "normal"), ("two", "italic")]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["K = 2", "K = 4"]


def test_the_figure_is_written(table, tmp_path, capsys):
    path = tmp_path / "e.png"
    assert estimators.main([str(table), "-o", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == f"figure {path}\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere.csv"], "nowhere.csv: cannot be read; give the CSV of python bench/estimators.py"),
        (["other.csv"], "other.csv: holds no estimators"),
        (["empty.csv"], "empty.csv: cannot be read"),
        (["."], ".: cannot be read"),
        (["pipe.csv"], "pipe.csv: cannot be read"),
        (["binary.csv"], "binary.csv: cannot be read"),
        (["estimators.csv", "-o", "nowhere/x.png"], "-o nowhere/x.png: there is no folder nowhere"),
        (["estimators.csv", "-o", "folder.png"], "-o folder.png: is a folder"),
        (["estimators.csv", "--nosuch"], "unrecognized arguments: --nosuch"),
        (["estimators.csv", "-o", "x.jpg"], "-o x.jpg: the ending chooses the format"),
    ],
)
def test_refusals(table, tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(sys, "argv", ["toyqs estimators"])
    assert estimators.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"toyqs estimators: {says}")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.9", "nine"), ("0.9", ""), ("0.9", "inf"), ("0.9", "0.9,1"),
        (",4,", ",-4,"), (",4,", ",x,"), ("one", ""),
    ],
)  # fmt: skip
def test_a_damaged_line_is_named(table, tmp_path, capsys, old, new):
    head, first, second, *rest = table.read_text().splitlines()
    table.write_text("\n".join([head, first, second.replace(old, new, 1), *rest, ""]))
    path = tmp_path / "e.png"
    assert estimators.main([str(table), "-o", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{table}: line 3 holds no estimator" in line or f"{table}: cannot be read" in line
    assert not path.exists()
