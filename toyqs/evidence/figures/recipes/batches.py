"""The figure of thoughts in one batch against one after another: ratios of time by K and by T."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from toyqs.evidence.figures import style
from toyqs.evidence.figures.frame import frame

QUESTION = "How much faster are thoughts in one batch than one after another?"
PUBLISHED = (4, 3.7)  # thoughts, and how many times as fast all at once are said to be
BACKBONES = {"gru": "GRU", "gpt2": "GPT-2"}
PANELS = (  # what is timed, the way, what lies along the axis, and its name
    ("sample", "thought by thought", "thoughts", "thoughts K of a position, one call each"),
    ("step", "thought by thought", "thoughts", "thoughts K of a position, one call each"),
    ("step", "position by position", "positions", "positions T, one call each"),
)
TITLES = {"sample": "sampling alone", "step": "a training step"}
SHADES = "viridis_r"


def batches_figure(rows: Sequence[Mapping[str, Any]], about: str) -> Figure:
    """Draw a row of panels for each backbone, in each the ratios of times with their quartiles.

    Args:
        rows: of bench/thoughts/batches.py, those of one backbone at least.
        about: where it was measured; the footer.
    """
    table = pd.DataFrame(rows)
    shown = [panel for panel in PANELS if table.loc[table["way"] == panel[1], panel[2]].nunique() > 1]
    shown = shown or list(PANELS[:2])
    backbones = [name for name in BACKBONES if name in set(table["backbone"])]
    drawn = style.new_figure(4.6 * len(shown), 1.2 + 3.2 * len(backbones))
    panels = drawn.subplots(len(backbones), len(shown), squeeze=False)
    for row, backbone in zip(panels, backbones, strict=True):
        for axes, (what, way, along, name) in zip(row, shown, strict=True):
            own = table[(table["backbone"] == backbone) & (table["way"] == way) & (table["what"] == what)]
            other = "positions" if along == "thoughts" else "thoughts"
            _panel(axes, own, along, other)
            axes.set_title(f"{BACKBONES[backbone]}, {TITLES[what]}\n{way}")
            axes.set_xlabel(name)
        row[0].set_ylabel("time over that in one batch")
        row[0].plot(*PUBLISHED, marker="*", color="#D55E00", markersize=style.points(12), zorder=5)
    handles = [
        Line2D([], [], linestyle=":", color="#4D4D4D", label="as many times as there are calls"),
        Line2D([], [], linestyle="none", marker="*", color="#D55E00", label="published: 3.7 for K = 4"),
    ]
    drawn.legend(handles=handles)
    notes = ["medians and quartiles of rounds in turns; 1: as fast", about]
    frame(drawn, QUESTION, ["the same symbols and the same gradient in all ways"], notes)
    return drawn


def _panel(axes: Axes, own: pd.DataFrame, along: str, other: str) -> None:
    """Draw the ratios along one size, a line for each value of the other."""
    values = sorted(set(own[other]))
    for place, value in enumerate(values):
        line = own[own[other] == value].sort_values(along)
        colour = colormaps[SHADES](0.2 + 0.8 * place / max(1, len(values) - 1))
        errors = [line["ratio"] - line["low"], line["high"] - line["ratio"]]
        label = f"{'T' if other == 'positions' else 'K'} = {value}"
        look: dict[str, Any] = {"marker": "o", "markersize": style.points(4), "linewidth": style.points(1.5)}
        axes.errorbar(line[along], line["ratio"], errors, color=colour, label=label, capsize=2, **look)
    places = sorted(set(own[along]))
    axes.plot(places, places, linestyle=":", color="#4D4D4D", zorder=0)
    axes.axhline(1.0, color="#4D4D4D", linewidth=0.8, zorder=0)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(places, [str(place) for place in places])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
    axes.legend(loc="upper left")
