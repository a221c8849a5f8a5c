"""The figure of a comparison."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from tests import figure_texts
from tests.evidence.tables.test_comparison import arm, arms, finding
from toyqs.evidence.arms import CONTROLS, JUDGED, THINKING
from toyqs.evidence.cells import Cell
from toyqs.evidence.figures import style
from toyqs.evidence.figures.comparison import comparison_figure
from toyqs.evidence.judging.findings import find

PNG = b"\x89PNG"


def curves(frames):
    steps = np.array([0, 10, 100, 1000])
    return {
        name: {int(s): pd.DataFrame({"step": steps, "nll": n + 1 / (1 + steps)}) for s, n in by_seed}
        for name, by_seed in ((name, zip(f["seed"], f["nll"], strict=True)) for name, f in frames.items())
    }


@pytest.mark.parametrize("count", [8, 13])
def test_of_more_arms_than_colours_can_tell_the_judged_have_curves(tmp_path, monkeypatch, count):
    """Every arm has its row at the right, and the legend of the curves is within the figure."""
    figures = []
    monkeypatch.setattr(style, "save", lambda figure, path: figures.append(figure))
    arms = [THINKING, *CONTROLS][:count]
    frames = {arm: pd.DataFrame({"seed": [0, 1], "nll": [0.5, 0.7], "bayes_floor": 0.1}) for arm in arms}
    curve = pd.DataFrame({"step": [1, 10, 100], "nll": [1.0, 0.8, 0.6]})
    (found,) = find([Cell({"task": "rev_prog"}, frames, {})])
    comparison_figure(found, {arm: {0: curve, 1: curve} for arm in arms}, tmp_path / "figure.png")
    figure, *others = figures
    assert others == [figure, figure], "as .png, .svg and .pdf"
    left, right = figure.axes
    shown = arms if count == 8 else [arm for arm in arms if arm in (THINKING, *JUDGED)]
    assert {x.get_label() for x in left.get_lines()} & set(arms) == set(shown)
    assert ("judged arms" in left.get_title()) == (count == 13)
    assert [text.get_text() for text in right.get_yticklabels()] == [style.arm_name(arm) for arm in arms]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [*map(style.arm_name, shown), "best possible (Bayes)"]
    assert figure_texts.overlaps(figure) == [] == figure_texts.outside(figure)


@pytest.mark.parametrize("floor", [0.0, None])
def test_the_figure_is_drawn_also_where_a_seed_diverged(tmp_path, floor):
    frames = arms(
        zero_length=arm([1.7, math.nan, 1.74, 1.77]), thinking=arm([0.1, 0.2, 0.3, 0.4], bayes_floor=floor)
    )
    lines = curves(frames)
    lines["zero_length"][2]["nll"] = None
    comparison_figure(finding(frames), lines, tmp_path / "figure.png")
    image = (tmp_path / "figure.png").read_bytes()
    assert image.startswith(PNG)
    assert [int.from_bytes(image[at : at + 4]) for at in (16, 20)] == [2400, 1208], "200 dots per inch"
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".pdf", ".png", ".svg"]


def test_the_figure_needs_no_curves(tmp_path):
    comparison_figure(finding({"thinking": arm([0.5])}), {}, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(PNG)


def test_every_arm_has_a_row_with_its_seeds_and_its_mean(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(style, "save", lambda figure, path: drawn.append(figure))
    frames = {"thinking": arm([0.5, 0.7]), "pause": arm([0.2, 0.3]), "zero_length": arm([1.0, math.nan])}
    comparison_figure(finding(frames), curves(frames), tmp_path / "figure.png")
    assert drawn[0].get_suptitle() == "Does thinking help?"
    about = [text.get_text() for text in drawn[0].texts[1:]]
    assert about[:2] == ["rev_prog, seeds 1, 2", "Verdict: not judged: seed 2 diverged"]
    left, right = drawn[0].axes
    means = {c.get_label(): c.lines[0] for c in right.containers}
    assert {name: list(line.get_ydata()) for name, line in means.items()} == dict(
        zip(frames, [[0], [1], [2]], strict=True)
    )
    assert means["pause"].get_xdata() == pytest.approx([0.25]) and np.isnan(
        means["zero_length"].get_xdata()[0]
    )
    seeds = right.collections[2 * list(frames).index("pause") + 1].get_offsets()
    assert seeds.tolist() == [[0.2, 1.0], [0.3, 1.0]]
    low, high = right.get_xlim()
    assert low < 0.2 and high > 1.0
    looks = {
        (line.get_marker(), line.get_linestyle()) for line in left.get_lines() if line.get_label() in frames
    }
    assert len(looks) == 3
    names = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    labels = [text.get_text() for text in right.get_yticklabels()]
    assert labels == [*names[:2], f"{names[2]}\n(1 diverged)"]


def test_arms_that_train_for_different_lengths_have_curves_over_flops(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(style, "save", lambda figure, path: drawn.append(figure))
    frames = {
        "thinking": arm([0.5, 0.7], steps=1000, flops_per_step=200.0),
        "compute_matched": arm([0.6, 0.9], steps=2000, flops_per_step=100.0),
    }
    comparison_figure(finding(frames), curves(frames), tmp_path / "figure.png")
    left = drawn[-1].axes[0]
    ends = {line.get_label(): line.get_xdata()[-1] for line in left.get_lines() if line.get_label() in frames}
    assert ends == {"thinking": 200_000, "compute_matched": 100_000} and "FLOPs" in left.get_xlabel()
    for changed in ({"steps": 2000, "flops_per_step": 200.0}, {"steps": 1000}):  # equal lengths, or no cost
        frames["thinking"] = arm([0.5, 0.7], **changed)
        comparison_figure(finding(frames), curves(frames), tmp_path / "figure.png")
        assert drawn[-1].axes[0].get_xlabel() == "training steps (log scale)"


def test_the_mean_curve_ends_where_a_seed_diverged(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(style, "save", lambda figure, path: drawn.append(figure))
    frames = {"thinking": arm([0.5, 0.7])}
    lines = curves(frames)
    lines["thinking"][2]["nll"] = [1.0, 0.9, None, None]
    comparison_figure(finding(frames), lines, tmp_path / "figure.png")
    left = drawn[0].axes[0]
    mean = next(line for line in left.get_lines() if line.get_label() == "thinking")
    assert list(mean.get_xdata()) == [10, 100, 1000]
    assert list(np.isnan(mean.get_ydata())) == [False, True, True]
