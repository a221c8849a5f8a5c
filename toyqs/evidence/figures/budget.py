"""The budget curve: the loss of thinking runs against the number of symbols of their thoughts."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from toyqs.evidence.cells import Cell
from toyqs.evidence.figures import marks, style
from toyqs.evidence.figures.axis import MOST
from toyqs.evidence.judging.findings import floor_of
from toyqs.evidence.judging.gain import by_seed, estimate

SCHEDULE, SHORTEST, LONGEST = "length_schedule", "min_reasoning_len", "max_reasoning_len"
OF_LENGTH = (SCHEDULE, LONGEST, SHORTEST)
CONTROLS = ("zero_length", "state_handed_on", "pause", "compute_matched")
WITH_SYMBOLS = ("pause",)  # controls that have thoughts of L symbols
MARKERS = {"constant": "o", "random": "s", "short_to_long": "^", "long_to_short": "v"}
DARKEST, LIGHTEST = 0.95, 0.5  # of the colours of L
LINEAR = 0.1  # nats, up to which the scale of losses is linear
BEYOND = 3  # times the curves' own range: how far above and below them a control is shown
LEAST = 0.02 * LINEAR  # of the scale, on which a decade is LINEAR: the least range of curves
BESIDE = 0.6  # of the reach, for the points of one control and L, side by side
BAYES = "best possible (Bayes)"


class Line(NamedTuple):
    """A cell and the losses of its thinking runs."""

    cell: Cell
    panel: str  # what its panel has in common
    curves: dict[int, dict[int, tuple[float, float]]]  # seed -> L' -> NLL and accuracy; NaN where it diverged

    @property
    def length(self) -> int:
        """Return L, the longest thoughts of its training."""
        return int(self.cell.settings[LONGEST])

    @property
    def schedule(self) -> str:
        """Return how L goes in training."""
        return str(self.cell.settings.get(SCHEDULE, "constant"))

    @property
    def name(self) -> str:
        """Return its name in the legend."""
        if self.schedule == "constant":
            return f"L = {self.length}"
        return f"L = {self.cell.settings.get(SHORTEST, 1)} to {self.length}, {self.schedule}"

    @property
    def lengths(self) -> list[int]:
        """Return every L'."""
        return list(next(iter(self.curves.values())))

    def values(self, which: int) -> dict[int, pd.Series]:
        """Return L' -> the seeds' NLL, 0, or accuracy, 1."""
        return {n: pd.Series({seed: x[n][which] for seed, x in self.curves.items()}) for n in self.lengths}


class Control(NamedTuple):
    """A control's rows, of one cell or of all that share it."""

    arm: str
    line: Line  # the first cell that has it
    rows: pd.DataFrame
    level: bool  # whether it is one run in all cells, and depends on no length


def panels_of(lines: Sequence[Line]) -> list[str]:
    """Return the names of the panels, each once."""
    return list(dict.fromkeys(line.panel for line in lines))


def in_panel(lines: Sequence[Line], panel: str) -> list[Line]:
    """Return the lines of a panel."""
    return [line for line in lines if line.panel == panel]


def controls_of(lines: Sequence[Line]) -> list[Control]:
    """Return the controls of one panel's lines, each run once."""
    found = []
    for arm in CONTROLS:
        runs: dict[tuple[str, ...], tuple[Line, pd.DataFrame]] = {}
        for line in lines:
            rows = line.cell.arms.get(arm, pd.DataFrame())
            if len(rows):
                runs.setdefault(tuple(sorted(rows["key"])), (line, rows))
        level = len(runs) == 1 and arm not in WITH_SYMBOLS
        found += [Control(arm, line, rows, level) for line, rows in runs.values()]
    return found


def table(lines: Sequence[Line]) -> pd.DataFrame:
    """Return one row per cell and L', and one per control.

    Returns:
        `panel`; the settings of the length; `arm`; `length`, L', none where a control has no symbols;
        `seeds`, their number; `nll` and `accuracy`, each with its `_half_width` (95 % t over seeds).
    """
    rows = []
    for line in lines:
        known = {"panel": line.panel} | {key: line.cell.settings.get(key) for key in OF_LENGTH}
        right = line.values(1)
        rows += [
            known | {"arm": "thinking", "length": length} | _numbers(nll, right[length])
            for length, nll in line.values(0).items()
        ]
    for panel in panels_of(lines):
        for arm, line, frame, level in controls_of(in_panel(lines, panel)):
            known = {"panel": panel} | {
                key: None if level else line.cell.settings.get(key) for key in OF_LENGTH
            }
            length = line.length if arm in WITH_SYMBOLS else None
            numbers = _numbers(by_seed(frame, "nll"), by_seed(frame, "accuracy"))
            rows.append(known | {"arm": arm, "length": length} | numbers)
    return pd.DataFrame(rows).astype({"length": "Int64", LONGEST: "Int64", SHORTEST: "Int64"})


def _numbers(nll: pd.Series, accuracy: pd.Series) -> dict[str, Any]:
    loss, right = estimate(nll), estimate(accuracy)
    return {
        "seeds": loss.count,
        "nll": loss.mean,
        "nll_half_width": loss.half_width,
        "accuracy": right.mean,
        "accuracy_half_width": right.half_width,
    }


def budget_figure(lines: Sequence[Line]) -> Figure:
    """Draw the lines, a panel for each kind; in the figure style."""
    panels = panels_of(lines)
    figure = style.new_figure(max(11.0, 6.5 * len(panels)), 5.2)
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    floor = floor_of([line.cell for line in lines])
    colours = _colours(lines)
    for axes, panel in zip(all_axes, panels, strict=True):
        own = in_panel(lines, panel)
        controls = controls_of(own)
        reach = min(0.5, MOST * (max(own[0].lengths) + 1))
        for control, place in zip(controls, _places(controls, reach), strict=True):
            _draw_control(axes, control, place)
        for line, shift in zip(own, marks.offsets(len(own), 0.8 * reach), strict=True):
            _draw_line(axes, line, colours[line.length], shift)
        marks.draw_floor(axes, floor)
        axes.set(xlabel="L', symbols of a thought (bordered: as in training)", title=panel)
        axes.set_xlim(-0.5, max(own[0].lengths) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_yscale("symlog", linthresh=LINEAR, linscale=0.6)
    others = {panel: _others(in_panel(lines, panel), floor) for panel in panels}
    _fit(all_axes[0], lines, [x for each in others.values() for x in each.values()])
    for axes, panel in zip(all_axes, panels, strict=True):
        _name_hidden(axes, others[panel])
    all_axes[0].set_ylabel(
        f"held-out NLL, nats per counted position\n(linear to {LINEAR}, logarithmic beyond)"
    )
    _legend(figure, lines, colours, floor is not None)
    return figure


def _colours(lines: Sequence[Line]) -> dict[int, Any]:
    """Return L -> a colour, darker for longer thoughts."""
    lengths = sorted({line.length for line in lines})
    return dict(zip(lengths, colormaps["YlOrRd"](np.linspace(LIGHTEST, DARKEST, len(lengths))), strict=True))


def _look(line: Line, colour: Any) -> dict[str, Any]:
    dashes = "-" if line.schedule == "constant" else "--"
    return {
        "color": colour,
        "marker": MARKERS[line.schedule],
        "linestyle": dashes,
        "markersize": style.points(5),
    }


def _draw_line(axes: Axes, line: Line, colour: Any, shift: float) -> None:
    found = {length: estimate(seeds) for length, seeds in line.values(0).items()}
    places = np.array(list(found)) + shift
    means, halves = ([x[i] for x in found.values()] for i in (0, 1))
    axes.errorbar(places, means, np.nan_to_num(halves), capsize=2, elinewidth=0.9, **_look(line, colour))
    own = {"markersize": style.points(9), "markeredgecolor": "black", "linestyle": "none", "zorder": 4}
    axes.plot(line.length + shift, found[line.length].mean, **_look(line, colour) | own)


def _others(lines: Sequence[Line], floor: float | None) -> dict[str, float]:
    """Return the means that a panel shows beside its curves, by a name for each."""
    found = {} if floor is None else {BAYES: floor}
    for arm, line, rows, level in controls_of(lines):
        name = style.arm_name(arm) + ("" if level else f" ({line.name})")
        found[name] = estimate(by_seed(rows, "nll")).mean
    return {name: mean for name, mean in found.items() if math.isfinite(mean)}


def _fit(axes: Axes, lines: Sequence[Line], others: Sequence[float]) -> None:
    """Set a range that shows every seed's curve, and others' values where they are not far off."""
    transform = axes.yaxis.get_transform()
    series = [seeds for line in lines for seeds in line.values(0).values() if seeds.notna().any()]
    if not series:
        axes.set_ylim(bottom=0)
        return
    points = transform.transform(np.concatenate([seeds.dropna().to_numpy() for seeds in series]))
    ends = [end for x in map(estimate, series) for end in (x.lower, x.upper) if math.isfinite(end)]
    reach = max(np.ptp(points), LEAST)
    low, high = points.min(), points.max()
    for values, share in ((ends, marks.ROOM), (others, BEYOND)):
        scaled = [*transform.transform(np.array(values, dtype=float)), low, high]
        low = min(low, max(min(scaled), points.min() - share * reach))
        high = max(high, min(max(scaled), points.max() + share * reach))
    edge = marks.MARGIN * max(high - low, LEAST)
    low, high = transform.inverted().transform(np.array([low - edge, high + edge]))
    low = max(low, 0.0)
    axes.set_ylim(low, high)
    ticks = marks.symlog_ticks(LINEAR, low, high)
    if len(ticks) < 3:
        ticks = [x for x in MaxNLocator(6).tick_values(low, high) if low <= x <= high]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks([], minor=True)


def _name_hidden(axes: Axes, others: Mapping[str, float]) -> None:
    """Write down in a panel's title what is above or below what it shows."""
    low, high = axes.get_ylim()
    lines: list[str] = []
    for word, hidden in (
        ("above", {name: x for name, x in others.items() if x > high}),
        ("below", {name: x for name, x in others.items() if x < low}),
    ):
        if hidden:
            text = f"{word} what is shown: " + ", ".join(f"{name} {x:.3g}" for name, x in hidden.items())
            lines.append(textwrap.fill(text, 80))
    axes.set_title("\n".join(filter(None, [axes.get_title(), *lines])))


def _places(controls: Sequence[Control], reach: float) -> list[float]:
    """Return where each control's point stands: left of its cell's L, those of one arm and L side by side."""
    spots = [(control.arm, control.line.length) for control in controls]
    return [
        spot[1] + reach * (marks.offsets(spots.count(spot), BESIDE)[spots[:place].count(spot)] - 0.7)
        for place, spot in enumerate(spots)
    ]


def _draw_control(axes: Axes, control: Control, place: float) -> None:
    arm, line, rows, level = control
    mean, half_width, _ = estimate(by_seed(rows, "nll"))
    if math.isnan(mean):
        return
    half, colour = 0.0 if math.isnan(half_width) else half_width, style.arm_colour(arm)
    if level:
        axes.axhline(mean, color=colour, linewidth=1.6)
        axes.axhspan(mean - half, mean + half, color=colour, alpha=0.12, linewidth=0)
        return
    look: dict[str, Any] = {"marker": MARKERS[line.schedule], "color": colour, "markersize": style.points(7)}
    look |= {"markerfacecolor": "white", "linestyle": "none", "zorder": 3, "capsize": 2}
    axes.errorbar(place, mean, half, **look)


def _legend(figure: Figure, lines: Sequence[Line], colours: Mapping[int, Any], floor: bool) -> None:
    named = {line.name: line for line in lines}
    handles = [
        Line2D([], [], label=name, **_look(line, colours[line.length])) for name, line in named.items()
    ]
    each = [controls_of(in_panel(lines, panel)) for panel in panels_of(lines)]
    levels = {control.arm: control.level for controls in each for control in controls}
    for arm in (arm for arm in CONTROLS if arm in levels):
        look: dict[str, Any] = {"color": style.arm_colour(arm), "label": style.arm_name(arm)}
        if not levels[arm]:
            look |= {"linestyle": "none", "marker": "o", "markerfacecolor": "white"}
            look["label"] += ", at its cell's L"
        handles.append(Line2D([], [], **look))
    points = {control.line.schedule for controls in each for control in controls if not control.level}
    hollow: dict[str, Any] = {"color": "#4D4D4D", "linestyle": "none", "markerfacecolor": "white"}
    for schedule in (name for name in MARKERS if name in points - {"constant"}):
        label = f"a control's point, {schedule}"
        handles.append(Line2D([], [], label=label, marker=MARKERS[schedule], **hollow))
    if floor:
        handles.append(Line2D([], [], color="black", linestyle="--", label=BAYES))
    figure.legend(handles=handles)
