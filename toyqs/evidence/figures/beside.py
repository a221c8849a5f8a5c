"""A few letters beside a point, where they cover nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox, Transform

MARK = "beside"  # the gid of such a text
NEAREST, FARTHEST, STEP = 9, 90, 6  # points from the point to the middle of its letters
DIRECTIONS = 16
CLEAR = 3.0  # pixels between letters and what is drawn


def write_beside(axes: Axes, x: float, y: float, text: str) -> None:
    """Write a few letters near a point, with a thin line to it; `place_beside` finds their place."""
    line = {"arrowstyle": "-", "color": "#888888", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 2}
    look: dict[str, Any] = {"fontsize": "small", "ha": "center", "va": "center", "zorder": 4}
    place: dict[str, Any] = {"xytext": (NEAREST, NEAREST), "textcoords": "offset points"}
    look |= {"gid": MARK, "arrowprops": line, "annotation_clip": False}
    axes.annotate(text, (x, y), **place, **look).set_in_layout(False)


def place_beside(figure: Figure) -> None:
    """Move the letters of `write_beside` to the nearest places at which they cover nothing, and stay inside.

    Letters for which there is no such place stay where they are farthest off.

    Args:
        figure: of its final size, otherwise finished.
    """
    found = {axes: [text for text in axes.texts if text.get_gid() == MARK] for axes in figure.axes}
    if not any(found.values()):
        return
    figure.draw_without_rendering()
    for axes, texts in found.items():
        drawn, taken = _points(axes) if texts else np.empty((0, 2)), list[Bbox]()
        for text in texts:
            if isinstance(text, Annotation):
                _place(text, axes, drawn, taken)


def _place(text: Annotation, axes: Axes, drawn: np.ndarray, taken: list[Bbox]) -> None:
    """Move one text, and add its box to those taken."""
    for offset in _offsets():
        text.xyann = offset
        text.get_window_extent()  # moves the letters
        box = Bbox(Text.get_window_extent(text).get_points() + CLEAR * np.array([[-1, -1], [1, 1]]))
        inside = axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1
        inside = inside and axes.bbox.y0 < box.y0 and box.y1 < axes.bbox.y1
        covered = np.all((drawn > box.min) & (drawn < box.max), axis=1).any()
        if inside and not covered and not any(box.overlaps(other) for other in taken):
            break
    taken.append(box)


def _offsets() -> Iterator[tuple[float, float]]:
    for distance in range(NEAREST, FARTHEST + 1, STEP):
        for turn in range(DIRECTIONS):
            angle = math.pi / 4 + 2 * math.pi * turn / DIRECTIONS
            yield distance * math.cos(angle), distance * math.sin(angle)


def _points(axes: Axes) -> np.ndarray:
    """Return pixels (n, 2) of everything drawn in a panel: points, and lines by a pixel every few."""
    parts = [np.empty((0, 2)), *(_filled(line.get_transform(), line.get_xydata()) for line in axes.lines)]
    for each in axes.collections:
        if isinstance(each, LineCollection):
            parts += [_filled(each.get_transform(), segment) for segment in list(each.get_segments())]
        elif isinstance(each, PathCollection):
            parts.append(each.get_offset_transform().transform(np.asarray(each.get_offsets())))
    return np.concatenate(parts)


def _filled(transform: Transform, way: Any) -> np.ndarray:
    """Return the corners (n, 2) of a way in pixels, and points between them, CLEAR pixels apart or nearer."""
    corners = transform.transform(np.asarray(way, dtype=float))
    parts = [corners]
    for start, end in itertools.pairwise(corners):
        length = float(np.linalg.norm(end - start))
        if math.isfinite(length):
            shares = np.linspace(0.0, 1.0, min(2 + int(length / CLEAR), 10_000))
            parts.append(start + (end - start) * shares[:, None])
    return np.concatenate(parts)
