"""Parts of figures: seeds next to their mean and interval, and scales that show all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from toyqs.evidence.arms import JUDGED, THINKING
from toyqs.evidence.figures import style
from toyqs.evidence.judging.gain import estimate

FAR = 5  # times the values of most controls: too far off to share a linear scale with them
ROOM = 0.4  # of the points' range: how far beyond them an interval is shown
SEED_GAP = 0.04  # inches from an interval to its seeds
MARGIN = 0.04  # of what is shown
MOST_ARMS = 8  # of which the colours can still be told apart
# arm -> marker and line, for eyes and printers that do not tell all colours apart
LOOKS = {
    "thinking": ("o", "-"),
    "no_reasoner": ("s", "-"),
    "zero_length": ("D", "-"),
    "state_handed_on": ("^", "--"),
    "pause": ("v", "--"),
    "policy_off": ("P", "-"),
    "deterministic": ("X", "-."),
    "random": ("<", ":"),
    "constant": (">", ":"),
    "reward_shuffled": ("h", "-."),
    "policy_reversed": ("*", "-."),
    "compute_matched": ("p", "-"),
    "param_matched": ("d", "-"),
}
OTHER_LOOK = ("o", "-")

Values = Mapping[str, Sequence[pd.Series]]  # arm -> one series by seed for each cell


def offsets(count: int, width: float) -> np.ndarray:
    """Return places for several marks side by side, centred on 0 and `width` / count apart."""
    return (np.arange(count) - (count - 1) / 2) * (width / max(count, 1))


def drawn(arms: Sequence[str]) -> list[str]:
    """Return the arms that a figure shows: of more than MOST_ARMS only thinking and the judged controls."""
    if len(arms) <= MOST_ARMS:
        return list(arms)
    return [arm for arm in arms if arm in (THINKING, *JUDGED)]


def left_out(arms: Sequence[str]) -> str:
    """Return a sentence on the arms that are not `drawn`; "" where all are."""
    lacking = [style.arm_name(arm) for arm in arms if arm not in drawn(arms)]
    return f"in the table only: {', '.join(lacking)}" if lacking else ""


def draw_arm(
    axes: Axes,
    arm: str,
    places: Sequence[float],
    values: Sequence[pd.Series],
    sideways: bool = False,
    joined: bool = True,
) -> None:
    """Draw every seed's point and the mean with its 95 % t-interval.

    Args:
        axes: the panel.
        arm: chooses colour and marker.
        places: one per cell, on the axis that has no values.
        values: one per cell; where a seed diverged, the others' points are drawn, but no mean.
        sideways: the values lie along x; else along y.
        joined: where they lie along y, join the means by a line.
    """
    points = [(place, x) for place, seeds in zip(places, values, strict=True) for x in seeds.dropna()]
    where, what = [place for place, _ in points], [value for _, value in points]
    estimates = [estimate(seeds) for seeds in values]
    means = [x.mean for x in estimates]
    halves = [0.0 if math.isnan(x.half_width) else x.half_width for x in estimates]
    colour = style.arm_colour(arm)
    marker, dashes = LOOKS.get(arm, OTHER_LOOK)
    look: dict[str, Any] = {"marker": marker, "markersize": style.points(5), "capsize": 2.5}
    look["elinewidth"] = style.points(1.2)
    line: dict[str, Any] = {"color": colour, "label": arm, **look}
    right, up = (0.0, SEED_GAP) if sideways else (-SEED_GAP, 0.0)
    shifted = axes.transData + ScaledTranslation(right, up, axes.figure.dpi_scale_trans)
    dots: dict[str, Any] = {"color": colour, "transform": shifted, "s": style.points(3.6) ** 2}
    dots |= {"alpha": 0.65, "linewidths": 0, "zorder": 3}
    if sideways:
        axes.errorbar(means, np.array(places), xerr=halves, linestyle="none", **line)
        axes.scatter(what, where, **dots)
    else:
        line |= {"linestyle": dashes if joined else "none", "linewidth": style.points(1.3)}
        axes.errorbar(np.array(places), means, yerr=halves, **line)
        axes.scatter(where, what, **dots)


def draw_mean(axes: Axes, arm: str, mean: pd.Series) -> None:
    """Draw the mean of an arm's curves, the arm's marker at its end; indexed by the place along x."""
    marker, line = LOOKS.get(arm, OTHER_LOOK)
    look: dict[str, Any] = {"linestyle": line, "linewidth": style.points(1.9), "label": arm}
    last = mean.last_valid_index()
    ends = [] if last is None else [int(mean.index.get_loc(last))]
    axes.plot(
        mean.index,
        mean,
        color=style.arm_colour(arm),
        marker=marker,
        markersize=style.points(5),
        markevery=ends,
        **look,
    )


def handle(colour: str, label: str, look: tuple[str, str] = OTHER_LOOK) -> Line2D:
    """Return a legend's entry for points of a colour, with their marker and line."""
    marker_and_line: dict[str, Any] = dict(zip(("marker", "linestyle"), look, strict=True))
    return Line2D([], [], color=colour, label=label, **marker_and_line)


def legend(figure: Figure, arms: Iterable[str], floor: bool = False) -> None:
    """Draw one legend for all panels, which `frame` moves below them."""
    handles = [handle(style.arm_colour(arm), style.arm_name(arm), LOOKS.get(arm, OTHER_LOOK)) for arm in arms]
    if floor:
        handles.append(Line2D([], [], color="black", linestyle="--", label="best possible (Bayes)"))
    figure.legend(handles=handles)


def draw_floor(axes: Axes, floor: float | None, sideways: bool = False) -> None:
    """Draw the least possible loss as a dashed line, where it is known."""
    if floor is not None:
        draw = axes.axvline if sideways else axes.axhline
        draw(floor, color="black", linestyle="--", linewidth=1.2, zorder=1)
        axes.autoscale_view()  # where no range was chosen, some room below it


def label_rows(axes: Axes, labels: Sequence[str], **font: Any) -> None:
    """Label the rows of a panel, the first at the top, and shade every other one."""
    for row in range(1, len(labels), 2):
        axes.axhspan(row - 0.5, row + 0.5, color="#F4F4F4", linewidth=0, zorder=0)
    axes.set_yticks(np.arange(len(labels)), labels, **font)
    axes.set_ylim(len(labels) - 0.4, -0.6)  # room for marks at the edge of a row
    axes.grid(False, axis="y")


def fit(panels: Iterable[Axes], which: str, values: Values, shown: Sequence[float]) -> str:
    """Give the panels a scale along "x" or "y" that shows every seed's value, and those of `shown`.

    Where a few arms are far off, the scale is linear as far as the others reach, logarithmic beyond.

    Returns:
        Words to add to the label of that axis.
    """
    limit = _limit(values)
    for axes in panels:
        if limit:
            (axes.set_xscale if which == "x" else axes.set_yscale)("symlog", linthresh=limit, linscale=1.5)
        low, high = _fit(axes, which, values, shown)
        if limit:
            axis = axes.xaxis if which == "x" else axes.yaxis
            ticks = symlog_ticks(limit, low, high)
            axis.set_ticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks])
            axis.set_ticks([], minor=True)
    sign = "±" if any((series < 0).any() for each in values.values() for series in each) else ""
    return f"; linear to {sign}{limit:.2g}, logarithmic beyond" if limit else ""


def _fit(axes: Axes, which: str, values: Values, shown: Sequence[float]) -> tuple[float, float]:
    """Set and return a range that holds every point; an interval much wider than the points is cut off."""
    seeds = [series for each in values.values() for series in each if series.notna().any()]
    points = np.concatenate([np.array(shown), *(series.dropna().to_numpy() for series in seeds)])
    if not len(points):
        return 0.0, 1.0
    estimates = [estimate(series) for series in seeds]
    ends = [end for x in estimates for end in (x.lower, x.upper) if math.isfinite(end)]
    transform = (axes.xaxis if which == "x" else axes.yaxis).get_transform()
    reach = transform.transform(np.array([*ends, points[0]]))
    points = transform.transform(points)
    room = ROOM * (np.ptp(points) or 1.0)
    low = max(reach.min(), points.min() - room)
    high = min(reach.max(), points.max() + room)
    low, high = min(low, points.min()), max(high, points.max())
    edge = MARGIN * ((high - low) or 1.0)
    low, high = transform.inverted().transform(np.array([low - edge, high + edge]))
    axes.set(**{f"{which}lim": (low, high)})
    return float(low), float(high)


def _limit(values: Values) -> float | None:
    """Return how far most arms' values reach, where those of the others are far beyond; else None."""
    reach = sorted(
        max((abs(series).max() for series in each if series.notna().any()), default=0.0)
        for each in values.values()
    )
    for place in range((len(reach) + 1) // 2, len(reach)):
        if 0 < FAR * reach[place - 1] < reach[place]:
            return 1.1 * reach[place - 1]
    return None


def symlog_ticks(limit: float, low: float, high: float) -> list[float]:
    """Return ticks between two values of a scale that is linear to a limit and logarithmic beyond."""
    nearest = MaxNLocator(6).tick_values(max(low, -limit), min(high, limit))
    inner = [x for x in nearest if abs(x) <= limit]
    powers = range(math.floor(math.log10(limit)), math.ceil(math.log10(max(-low, high, limit))) + 1)
    outer = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    outer = [sign * x for x in outer for sign in (-1, 1) if x > 1.3 * limit]
    return sorted(x for x in [*inner, *outer] if low <= x <= high)
