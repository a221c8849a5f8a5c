"""A map of cells by two settings: the gain over each control as a colour."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from toyqs.evidence.figures import style
from toyqs.evidence.judging.findings import Finding, started_flags
from toyqs.evidence.judging.gain import estimate
from toyqs.evidence.measures import loss_words

GAINS, LOSSES = "PuOr_r", "cividis_r"  # colours that every common form of colour blindness tells apart
HATCH: dict[str, Any] = {"hatch": "////", "fill": False, "edgecolor": "#555555", "linewidth": 0}
EMPTY = "#E4E4E4"  # a cell that was not run, or has no such control
ROW, COLUMN = 0.27, 0.42  # inches of a cell
NARROWEST, LOWEST = 9.0, 2.4  # inches of a figure and of a block
DARK = 0.6  # of the scale, from where on hatches are white
TITLE = 13  # letters of a line of a panel's title
DOT = 6.5  # points across the dot of a cell in which every seed started


class Layout(NamedTuple):
    """Where the cells of a map stand."""

    rows: Sequence[str]  # from top to bottom
    columns: Sequence[str]  # from left to right
    blocks: Sequence[str]  # maps below one another, by their titles; one of "" where there is one
    across: str  # what the columns are, in words
    places: Mapping[int, tuple[int, int, int]]  # number of a finding -> its block, row and column


def heat_map(findings: Sequence[Finding], arms: Sequence[str], layout: Layout, gained: bool) -> Figure:
    """Draw a panel for each control (across) and block (down), a coloured field for each cell.

    A field is hatched where the 95 % interval of the mean holds 0. A dot in it is as large as the share of
    seeds that started to think.

    Args:
        findings: of cells.
        arms: those to draw.
        layout: where the cells stand.
        gained: colour the gain over a control; else an arm's loss.
    """
    width = max(NARROWEST, 2.2 + len(arms) * max(1.2, COLUMN * len(layout.columns)))
    height = len(layout.blocks) * max(LOWEST, 0.8 + ROW * len(layout.rows))
    figure = style.new_figure(width, height)
    grid = figure.subplots(len(layout.blocks), len(arms), squeeze=False, sharex=True, sharey=True)
    values = [finding.gains if gained else finding.losses for finding in findings]
    means = [estimate(x).mean for each in values for arm, x in each.items() if arm in arms]
    reach = max((abs(x) for x in means if math.isfinite(x)), default=1.0) or 1.0
    low = -reach if gained else min((x for x in means if math.isfinite(x)), default=0.0)
    meshes: list[QuadMesh] = []
    for block, title in enumerate(layout.blocks):
        for place, arm in enumerate(arms):
            axes = grid[block, place]
            spots = {layout.places[i][1:]: i for i in range(len(findings)) if layout.places[i][0] == block}
            fields = {spot: values[i][arm] for spot, i in spots.items() if arm in values[i]}
            found = {spot: estimate(x) for spot, x in fields.items()}
            meshes.append(_fields(axes, layout, found, low, reach, gained))
            _dots(axes, {spot: findings[spots[spot]] for spot in fields})
            axes.set_title(textwrap.fill(style.arm_name(arm), TITLE) if not block else "")
        _name(grid[block], layout, title)
    for axes in grid[-1]:
        axes.set_xlabel(layout.across)
    words = loss_words(finding.cell.loss for finding in findings)
    label = "gain of thinking, nats\n(above 0: better)" if gained else f"held-out {words}, nats"
    figure.colorbar(meshes[0], ax=list(grid.flat), label=label, fraction=0.05, pad=0.02)
    _legend(figure, gained, any(len(_started(finding)) for finding in findings))
    return figure


def _fields(
    axes: Axes, layout: Layout, found: Mapping[Any, Any], low: float, high: float, gained: bool
) -> QuadMesh:
    """Draw the fields of a panel; (row, column) -> estimate."""
    shape = (len(layout.rows), len(layout.columns))
    colours = np.full(shape, math.nan)
    for spot, value in found.items():
        colours[spot] = value.mean
    axes.set_facecolor(EMPTY)
    axes.grid(False)
    edges = [np.arange(size + 1) - 0.5 for size in shape]
    look: dict[str, Any] = {"cmap": GAINS if gained else LOSSES, "vmin": low, "vmax": high}
    mesh = axes.pcolormesh(edges[1], edges[0], colours, edgecolor="white", linewidth=0.8, **look)
    for (row, column), value in found.items():
        if gained and not (value.lower > 0 or value.upper < 0):
            dark = abs(value.mean) > DARK * high
            lines = HATCH | ({"edgecolor": "white"} if dark else {})
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **lines))
    return mesh


def _started(finding: Finding) -> Any:
    return started_flags(next(iter(finding.cell.arms.values())))


def _dots(axes: Axes, found: Mapping[Any, Finding]) -> None:
    shares = {spot: float(flags.mean()) for spot, x in found.items() if len(flags := _started(x))}
    if shares:
        rows, columns = zip(*shares, strict=True)
        sizes = [style.points(DOT) ** 2 * share for share in shares.values()]
        axes.scatter(columns, rows, s=sizes, color="black", edgecolor="white", linewidth=0.6, zorder=3)


def _name(panels: Sequence[Axes], layout: Layout, title: str) -> None:
    panels[0].set_yticks(range(len(layout.rows)), layout.rows, family="monospace")
    panels[0].set_ylim(len(layout.rows) - 0.5, -0.5)
    panels[0].set_ylabel(title)
    for axes in panels:
        axes.set_xticks(range(len(layout.columns)), layout.columns)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)


def _legend(figure: Figure, gained: bool, started: bool) -> None:
    handles: list[Any] = []
    if gained:
        handles.append(Patch(**HATCH, label="95 % interval holds 0"))
    if started:
        dot: dict[str, Any] = {"marker": "o", "color": "black", "linestyle": "none"}
        for share, label in ((1.0, "all seeds started to think"), (0.25, "a quarter of them did")):
            size = style.points(DOT) * math.sqrt(share)
            handles.append(Line2D([], [], markersize=size, label=label, **dot))
    handles.append(Patch(facecolor=EMPTY, label="not run"))
    figure.legend(handles=handles)
