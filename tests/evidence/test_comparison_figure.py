"""The figure of a comparison with many arms."""

from __future__ import annotations

import pandas as pd
import pytest

from toyqs.evidence.arms import CONTROLS, JUDGED, THINKING
from toyqs.evidence.cells import Cell
from toyqs.evidence.figures import style
from toyqs.evidence.figures.comparison import comparison_figure
from toyqs.evidence.judging.findings import find


@pytest.mark.parametrize("count", [8, 13])
def test_of_more_arms_than_colours_can_tell_the_judged_have_curves(tmp_path, monkeypatch, count):
    """Every arm has its row at the right, and the legend of the curves is within the figure."""
    figures = []
    monkeypatch.setattr(style, "save", lambda figure, path: figures.append(figure))
    arms = [THINKING, *CONTROLS][:count]
    frames = {arm: pd.DataFrame({"seed": [0, 1], "nll": [0.5, 0.7], "bayes_floor": 0.1}) for arm in arms}
    curve = pd.DataFrame({"step": [1, 10, 100], "nll": [1.0, 0.8, 0.6]})
    (finding,) = find([Cell({"task": "rev_prog"}, frames, {})])
    comparison_figure(finding, {arm: {0: curve, 1: curve} for arm in arms}, tmp_path / "figure.png")
    (figure,) = figures
    left, right = figure.axes
    shown = arms if count == 8 else [arm for arm in arms if arm in (THINKING, *JUDGED)]
    assert {x.get_label() for x in left.get_lines()} & set(arms) == set(shown)
    assert ("judged arms" in left.get_title()) == (count == 13)
    assert [text.get_text() for text in right.get_yticklabels()] == [style.arm_name(arm) for arm in arms]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [*map(style.arm_name, shown), "best possible (Bayes)"]
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 + 10 < legend.x0 and legend.x1 < figure.bbox.x1 - 10
    assert left.title.get_window_extent().x1 < right.title.get_window_extent().x0
