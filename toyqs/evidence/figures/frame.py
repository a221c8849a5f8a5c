"""The frame of a figure: a plain title above it, its settings in small letters below, its size for a talk."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.text import Text

from toyqs.evidence.cells import Cell
from toyqs.evidence.figures import style
from toyqs.evidence.figures.beside import place_beside
from toyqs.evidence.text import spans

LETTER = 0.56  # of a font's size, the width of a letter on the mean
LINE = 1.35  # of a font's size, from line to line
EDGE = 0.12  # inches around title, legend and footer
QUESTION, ABOUT, FOOTER = 1.35, 1.0, 0.8  # of the usual font's size
TEXTS = ("task.path", "task.dataset")  # what names a text


class Line(NamedTuple):
    """A text of a title or a footer, broken into lines."""

    text: str
    points: float

    @property
    def height(self) -> float:
        """Return its height in inches."""
        return (1 + self.text.count("\n")) * LINE * self.points / 72


def frame(
    figure: Figure, question: str, about: Sequence[str], footer: Sequence[str], talk: bool = False
) -> None:
    """Write title and footer around the panels, and move the legend between panels and footer.

    Args:
        figure: drawn, as high as its panels are to be; it becomes higher, or for a talk a slide.
        question: what the figure answers.
        about: lines below the question in letters of the usual size: of what runs.
        footer: lines in small letters below the figure: settings, and what is not shown.
        talk: see `style.style`.
    """
    if talk:
        figure.set_size_inches(*style.TALK_SIZE)
    width, panels = figure.get_size_inches()
    title = [_line(question, width, QUESTION), *(_line(line, width, ABOUT) for line in about)]
    small = "\n".join(_line(line, width, FOOTER).text for line in footer)
    last = Line(small, FOOTER * mpl.rcParams["font.size"])
    legend = _legend_height(figure)
    bottom = 2 * EDGE + last.height + (legend + EDGE if legend else 0.0)
    above = EDGE + sum(line.height for line in title)
    height = panels if talk else panels + above + bottom
    figure.set_size_inches(width, height)
    top = height - EDGE
    for place, (text, points) in enumerate(title):
        look: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": points}
        if place:
            figure.text(0.5, top / height, text, **look)
        else:
            figure.suptitle(text, x=0.5, y=top / height, fontweight="bold", **look)
        top -= title[place].height
    look = {"va": "bottom", "fontsize": last.points, "color": "#555555"}
    figure.text(EDGE / width, EDGE / height, small, **look)
    for each in figure.legends:
        each.set_bbox_to_anchor((0.5, (2 * EDGE + last.height) / height), figure.transFigure)
    room = (0.0, bottom / height, 1.0, (height - above - bottom) / height)
    figure.set_layout_engine("constrained", rect=room)
    if talk:
        _wrap_labels(figure)
    place_beside(figure)


def _line(text: str, width: float, size: float) -> Line:
    points = size * mpl.rcParams["font.size"]
    letters = int((width - 2 * EDGE) * 72 / (LETTER * points))
    return Line(textwrap.fill(text, letters, break_on_hyphens=False), points)


def _legend_height(figure: Figure) -> float:
    """Give the legend, where there is one, as few lines as fit; return its height in inches."""
    if not figure.legends:
        return 0.0
    given = figure.legends.pop()
    handles = [handle for handle in given.legend_handles if handle is not None]
    labels = [text.get_text() for text in given.get_texts()]
    for lines in range(1, len(handles) + 1):
        columns = math.ceil(len(handles) / lines)
        look: dict[str, Any] = {"ncols": columns, "loc": "lower center", "borderaxespad": 0}
        legend = figure.legend(handles, labels, columnspacing=1.3, **look)
        extent = legend.get_window_extent()
        if extent.width < figure.bbox.width - 2 * EDGE * figure.dpi or columns == 1:
            break
        figure.legends.remove(legend)
    return float(extent.height / figure.dpi)


def _wrap_labels(figure: Figure) -> None:
    """Break the labels of panels that are longer than their panel is wide or high."""
    figure.draw_without_rendering()
    for axes in figure.axes:
        for label, room in (
            (axes.title, axes.bbox.width),
            (axes.xaxis.label, axes.bbox.width),
            (axes.yaxis.label, axes.bbox.height),
        ):
            _wrap(label, room / figure.dpi)


def _wrap(label: Text, inches: float) -> None:
    letters = max(8, int(inches * 72 / (LETTER * float(label.get_fontsize()))))
    lines = label.get_text().splitlines()
    label.set_text("\n".join(textwrap.fill(line, letters, break_long_words=False) for line in lines))


def about_line(cells: Sequence[Cell]) -> str:
    """Return the task and the seeds of cells in a few words: "rev_prog, seeds 7–11"."""
    names = dict.fromkeys(_task(cell) for cell in cells)
    seeds = {seed for cell in cells for frame in cell.arms.values() if len(frame) for seed in frame["seed"]}
    plural = "seed" if len(seeds) == 1 else "seeds"
    return f"{' and '.join(names) if len(names) < 3 else 'several tasks'}, {plural} {spans(seeds)}"


def _task(cell: Cell) -> str:
    """Return a task's name, with that of its text where it has one."""
    text = next((value for name in TEXTS if (value := cell.settings.get(name))), None)
    name = str(cell.settings.get("task", "a task"))
    return f"{name} ({Path(text).name if '/' in text else text})" if isinstance(text, str) else name
