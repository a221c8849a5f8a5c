"""Figures that people can read: no letters over letters or points, marks near their place, slides."""

from __future__ import annotations

import json
import struct

import numpy as np
import pandas as pd
import pytest

from analysis import capacity_vs_gain, estimators, gain_by_depth, learning_curves, weight_groups
from tests import figure_texts
from tests.analysis import synthetic
from tests.analysis.synthetic import ARMS, Figures, Script, settings, spread, write
from toyqs.evidence.figures import style
from toyqs.evidence.figures.axis import MOST

SCRIPTS = {
    "capacity": (capacity_vs_gain.main, []),
    "capacity over a cost": (capacity_vs_gain.main, ["--over", "parameters"]),
    "curves": (learning_curves.main, []),
    "depths": (gain_by_depth.main, []),
    "patterns": (weight_groups.main, []),
    "map": (weight_groups.main, []),
}
SOME = ("AAAA", "AABB", "ABCD")


@pytest.fixture
def call(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(name, *words):
        main, given = SCRIPTS[name]
        script = Script(main, "figure.png", Figures(monkeypatch), capsys)
        return script(*given, *words, "-o", "figure.png")

    return run


def sweep(folder, name):
    """Write what a script draws: six widths, or patterns of sharing at one width or at two."""
    if name in ("patterns", "map"):
        for width in (8, 16) if name == "map" else (16,):
            for place, groups in enumerate(SOME):
                means = [0.6 - 0.1 * place, 0.7, 0.6, 0.65, 0.45, 0.3]
                chosen = settings(weight_groups=groups, base_lm_hidden_dim=width)
                write(folder, chosen, spread(means, range(4), place + width))
        return
    for width in synthetic.WIDTHS:
        chosen = settings(base_lm_hidden_dim=width)
        costs = {arm: 1000 + 40 * width * (place + 1) for place, arm in enumerate(ARMS)}
        costs["thinking"] = 12_000 + width
        losses = spread(synthetic.LOSSES[width], range(5), width)
        write(folder, chosen, losses, parameters=costs)
        if name == "depths":
            add_depths(folder, chosen, losses)
            if width == 4:
                return


def add_depths(folder, chosen, losses):
    """Add results at eight depths to the curves of a cell's runs."""
    for arm, by_seed in losses.items():
        for seed, nll in by_seed.items():
            with (folder / synthetic.key_of(chosen, arm, seed) / "metrics.jsonl").open("a") as file:
                for depth in range(1, 9):
                    line = {"kind": "by_depth", "depth": depth, "trained": int(depth < 5)}
                    line |= {"nll": nll * depth / 4, "accuracy": 0.9 - nll * depth / 40}
                    file.write(json.dumps({"step": 1} | line) + "\n")


@pytest.mark.parametrize("talk", [False, True], ids=["page", "talk"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_no_text_covers_another_or_a_point_or_is_cut_off(tmp_path, call, name, talk):
    sweep(tmp_path / "runs", name)
    code, _, err, figure, _ = call(name, *(["--talk"] if talk else []))
    assert (code, err) == (0, "")
    with style.style(talk):
        assert figure_texts.overlaps(figure) == [] == figure_texts.outside(figure)
        assert [text for text in figure_texts.covered(figure)] == []
    if name == "capacity over a cost":
        assert [text.get_text() for text in figure.axes[0].texts] == [str(x) for x in synthetic.WIDTHS]


def test_what_covers_something_is_found():
    """The measure itself: two texts at one place, a text on a point, a text beyond the edge."""
    figure = style.new_figure(4, 3)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1])
    axes.text(0.5, 0.5, "on the line")
    figure.text(0.5, 0.5, "one")
    figure.text(0.51, 0.5, "other")
    figure.text(1.0, 0.5, "beyond")
    pairs = [{name.split(" at ")[0] for name in pair} for pair in figure_texts.overlaps(figure)]
    assert {"one", "other"} in pairs
    assert [name.split(" at ")[0] for name in figure_texts.outside(figure)] == ["beyond"]
    assert figure_texts.covered(figure) == ["on the line"]


@pytest.mark.parametrize("count", [2, 6])
@pytest.mark.parametrize("key", ["base_lm_hidden_dim", "max_reasoning_len"])
def test_arms_stand_at_most_4_percent_of_the_axis_beside_their_place(tmp_path, call, key, count):
    """On a logarithmic scale as on a linear one, however few the cells are."""
    values = [2**place if key == "base_lm_hidden_dim" else place for place in range(1, count + 1)]
    for value in values:
        write(tmp_path / "runs", settings(**{key: value}), spread(synthetic.LOSSES[8], range(3), value))
    figure = call("capacity").figure
    for axes in figure.axes:
        across = axes.transData + axes.transAxes.inverted()
        ticks = across.transform(np.array([(value, 0) for value in values], dtype=float))[:, 0]
        for container in axes.containers:
            line = container.lines[0]
            places = across.transform(np.column_stack([line.get_xdata(), line.get_ydata()]).astype(float))[
                :, 0
            ]
            assert np.abs(places - ticks).max() <= MOST + 1e-9
    assert MOST == 0.04


@pytest.mark.parametrize("ending", style.ENDINGS)
def test_every_format_is_written_at_200_dpi_without_a_date(tmp_path, ending):
    contents = []
    for name in ("one", "two"):
        path = tmp_path / f"{name}{ending}"
        with style.style():
            figure = style.new_figure(3, 2)
            figure.subplots().plot([1, 2])
            style.save(figure, path)
        contents.append(path.read_bytes())
    first = contents[0]
    assert first == contents[1] and first.startswith(
        {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[ending]
    )
    if ending == ".png":
        assert struct.unpack(">II", first[16:24]) == (600, 400)
    assert b"CreationDate" not in first and b"<dc:date>" not in first


def test_a_talk_is_a_slide_in_large_letters(tmp_path, call):
    sweep(tmp_path / "runs", "capacity")
    page, slide = (call("capacity", *words).figure for words in ([], ["--talk"]))
    assert tuple(slide.get_size_inches()) == pytest.approx((40 / 3, 7.5))
    sizes = [figure.axes[0].xaxis.label.get_fontsize() for figure in (page, slide)]
    assert sizes == [11, style.TALK] and style.TALK >= 16
    marks = [figure.axes[0].containers[0].lines[0].get_markersize() for figure in (page, slide)]
    assert marks[1] / marks[0] == pytest.approx(17 / 11)


def test_the_title_asks_and_the_settings_are_small_and_below(tmp_path, call):
    sweep(tmp_path / "runs", "capacity")
    figure = call("capacity").figure
    assert figure.get_suptitle() == "How does the gain of thinking change with base width?"
    about, footer = (text for text in figure.texts if text is not figure._suptitle)
    assert about.get_text() == "rev_prog, seeds 0–4"
    first, *_ = footer.get_text().splitlines()
    assert first == "rev_prog p=6 m=3 k=3 label_noise=0, reasoner width 24, seeds 0–4"
    assert footer.get_fontsize() < about.get_fontsize() < figure._suptitle.get_fontsize()
    boxes = figure_texts.texts(figure)
    assert min(boxes.values(), key=lambda box: box.y0).y0 == footer.get_window_extent().y0


def test_estimators_are_read_by_row(tmp_path, monkeypatch):
    names = ["one", "two", "three"]
    rows = [
        {"estimator": name, "K": k, "aim": "reward", "cosine": 0.9, "length": 1.0 / k, "noise": 2.0 / k}
        for name in names
        for k in (2, 4, 16)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "e.csv", index=False)
    figures = Figures(monkeypatch)
    for words in ([], ["--talk"]):
        assert estimators.main([str(tmp_path / "e.csv"), "-o", str(tmp_path / "e.png"), *words]) == 0
        with style.style(bool(words)):
            assert figure_texts.overlaps(figures.drawn[-1]) == [] == figure_texts.outside(figures.drawn[-1])
    assert [label.get_text() for label in figures.drawn[0].axes[0].get_yticklabels()] == names
