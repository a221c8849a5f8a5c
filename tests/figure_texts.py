"""What covers what in a figure, measured with the renderer's boxes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

SLACK = 1.0  # pixels by which two boxes may touch


def texts(figure: Figure) -> dict[str, Bbox]:
    """Draw a figure, and return the box of every text that is seen, by a name for it."""
    figure.draw_without_rendering()
    hidden = {id(text) for axes in figure.axes for text in _hidden(axes)}
    found: dict[str, Bbox] = {}
    for text in figure.findobj(Text):
        if text.get_text().strip() and text.get_visible() and id(text) not in hidden:
            box = Text.get_window_extent(text)
            found[f"{text.get_text()} at {box.x0:.0f}, {box.y0:.0f}"] = box
    return found


def _hidden(axes: Axes) -> Iterator[Text]:
    """Yield the labels of ticks beyond their axis, which are not drawn."""
    for axis, low, high, which in (
        (axes.xaxis, axes.bbox.x0, axes.bbox.x1, 0),
        (axes.yaxis, axes.bbox.y0, axes.bbox.y1, 1),
    ):
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            at = axes.transData.transform((tick.get_loc(),) * 2)[which]
            if not low - 1 <= at <= high + 1:
                yield from (tick.label1, tick.label2)


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Return the pairs of texts that cover one another."""
    found = texts(figure)
    return [
        (one, other)
        for (one, a), (other, b) in itertools.combinations(found.items(), 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > SLACK and min(a.y1, b.y1) - max(a.y0, b.y0) > SLACK
    ]


def outside(figure: Figure) -> list[str]:
    """Return the texts that the figure's edge cuts off."""
    whole = figure.bbox
    return [
        name
        for name, box in texts(figure).items()
        if box.x0 < whole.x0 - SLACK
        or box.x1 > whole.x1 + SLACK
        or box.y0 < whole.y0 - SLACK
        or box.y1 > whole.y1 + SLACK
    ]


def covered(figure: Figure) -> list[str]:
    """Return the texts within panels that lie on a point, a line or an interval."""
    figure.draw_without_rendering()
    found = []
    for axes in figure.axes:
        spots = [np.empty((0, 2))]
        for line in axes.lines:
            way = line.get_transform().transform(np.asarray(line.get_xydata(), dtype=float))
            spots.append(_between(way))
        for each in axes.collections:
            if isinstance(each, LineCollection):
                spots += [_between(each.get_transform().transform(x)) for x in each.get_segments()]
            elif isinstance(each, PathCollection):
                spots.append(each.get_offset_transform().transform(np.asarray(each.get_offsets())))
        drawn = np.concatenate(spots)
        for text in axes.texts:
            box = Text.get_window_extent(text)
            if text.get_text() and np.all((drawn > box.min) & (drawn < box.max), axis=1).any():
                found.append(text.get_text())
    return found


def _between(way: np.ndarray) -> np.ndarray:
    if len(way) < 2:
        return way
    shares = np.linspace(0, 1, 400)[:, None]
    return np.concatenate([a + (b - a) * shares for a, b in itertools.pairwise(way)])
