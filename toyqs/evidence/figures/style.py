"""The figure style: sizes, colours of the arms, atomic saving."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from toyqs.files import replacing

STYLE: dict[Any, Any] = {
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "font.size": 11,
    "axes.titlesize": "medium",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": "medium",
    "svg.hashsalt": "toyqs",  # equal rows give equal files
    "pdf.fonttype": 42,  # letters stay letters, which a paper's editor can change
}
TALK = 17  # points of the letters of a slide
TALK_SIZE = (40 / 3, 7.5)  # inches: a slide, 16:9
ENDINGS = (".png", ".svg", ".pdf")
UNDATED = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}  # equal rows, equal files

# Okabe and Ito's palette, and Paul Tol's for the arms beyond it: distinguishable with every common form of
# colour blindness
ARM_COLOURS = {
    "thinking": "#D55E00",
    "no_reasoner": "#4D4D4D",
    "zero_length": "#0072B2",
    "state_handed_on": "#332288",
    "pause": "#AA4499",
    "policy_off": "#56B4E9",
    "deterministic": "#F0E442",
    "random": "#999933",
    "constant": "#BBBBBB",
    "reward_shuffled": "#661100",
    "policy_reversed": "#AADDCC",
    "compute_matched": "#CC79A7",
    "param_matched": "#009E73",
}
OTHER_COLOUR = "#E69F00"

ARM_LABELS = {
    "thinking": "thinking",
    "no_reasoner": "no reasoner",
    "zero_length": "zero-length thoughts",
    "state_handed_on": "state handed on",
    "pause": "pause",
    "policy_off": "policy off",
    "deterministic": "deterministic",
    "random": "random",
    "constant": "constant",
    "reward_shuffled": "rewards shuffled",
    "policy_reversed": "policy reversed",
    "compute_matched": "compute-matched",
    "param_matched": "parameter-matched",
}


def arm_name(arm: str) -> str:
    """Return an arm's label."""
    return ARM_LABELS.get(arm, arm)


def arm_colour(arm: str) -> str:
    """Return an arm's colour, the same in every figure."""
    return ARM_COLOURS.get(arm, OTHER_COLOUR)


@contextmanager
def style(talk: bool = False) -> Iterator[None]:
    """Apply the figure style within a `with` block, and nothing of the user's own matplotlibrc.

    Args:
        talk: in letters that can be read from the back of a room.
    """
    own = {key: value for key, value in mpl.rcParamsDefault.items() if not key.startswith("backend")}
    with mpl.rc_context(own | STYLE | ({"font.size": TALK} if talk else {})):
        yield


def new_figure(width: float = 12.0, height: float = 5.0) -> Figure:
    """Create a figure that needs no display and no global state; width and height in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def points(size: float) -> float:
    """Return the size of a mark or a line that is `size` points beside letters of the usual size."""
    return float(size * mpl.rcParams["font.size"] / STYLE["font.size"])


def is_large() -> bool:
    """Tell whether figures are drawn for a talk."""
    return points(1.0) > 1.0


def log_axis(axes: Axes, base: float = 10) -> None:
    """Make the x axis logarithmic once all is drawn; where no point is finite it stays linear.

    A logarithmic axis without a positive number is an error of matplotlib's, and would take the table along.
    """
    panels = axes.get_shared_x_axes().get_siblings(axes)
    if any(math.isfinite(panel.dataLim.minposx) for panel in panels):
        axes.set_xscale("log", base=base)


def save(figure: Figure, path: Path | str) -> None:
    """Write a figure so that a reader sees the whole file or none.

    Args:
        figure: drawn within the `style` block in which this is called: ticks are labelled as late as here.
        path: its folder exists; its ending, one of ENDINGS, chooses the format.
    """
    with replacing(path) as temporary:
        ending = Path(path).suffix
        figure.savefig(temporary, format=ending[1:], metadata=UNDATED[ending])
