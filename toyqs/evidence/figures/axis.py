"""The horizontal axis of a figure over cells: where each stands, by a setting or by what an arm costs."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from toyqs.evidence.cells import Cell
from toyqs.evidence.figures import style
from toyqs.evidence.selection import BASE, INTERPRETER, REASONER, value_of
from toyqs.evidence.text import human

BAND = 0.75  # of the distance between neighbouring cells, for the marks of all arms; of the axis twice MOST
MOST = 0.04  # of the axis, by which a mark stands beside its place at most
BESIDE = "a grey band is one cell, its arms side by side"
SPAN = 4  # greatest value over least from which on numbers stand on a logarithmic scale
UNEVEN = 12  # the whole range over the least distance from which on numbers are spaced evenly
NEAR = 0.1  # of a range of costs, for the marks of all arms of a cell at most
LETTERS = 60  # of all tick labels together, that fit side by side
WIDTHS = {BASE: "base", REASONER: "reasoner", INTERPRETER: "interpreter"}
LENGTHS = ("max_reasoning_len", "min_reasoning_len")  # on a linear scale
WORDS = {
    "max_reasoning_len": "L, symbols per thought",
    "trice_samples": "K, thoughts per position",
    "policy_loss_beta": "policy_loss_beta, the weight of the policy loss",
}
COSTS = {
    "parameters": "used parameters",
    "flops_per_token": "FLOPs per token",
    "train_flops": "FLOPs of the training",
    "cpu_seconds": "CPU seconds a seed",
}
MOST_TICKS = 7  # of a scale of costs


class Axis(NamedTuple):
    """Where the cells of a figure stand, each at one place or each arm at its own."""

    label: str
    scale: str  # "log", "linear" or "even"
    places: Mapping[str, Sequence[float]]  # arm -> its place in each cell; NaN where it has none
    names: Sequence[str]  # of each cell's tick; none on a scale of costs
    joined: bool  # whether a line from cell to cell means anything
    together: bool  # whether the arms of a cell stand at one place, and are drawn side by side around it

    @property
    def gap(self) -> float:
        """Return the least distance between cells, on the scale; 1 for a single cell.

        On a scale of costs no more than a share of the whole range, so that marks stay near their cost.
        """
        places = np.unique(self._scaled([x for each in self.places.values() for x in each]))
        if len(places) < 2:
            return 1.0
        return float(min(np.diff(places).min(), math.inf if self.names else NEAR * np.ptp(places)))

    @property
    def band(self) -> float:
        """Return the width of the marks of all arms of a cell, as a share of `gap`."""
        places = self._scaled(next(iter(self.places.values())))
        whole = 1.0 + (np.ptp(places) / self.gap if len(places) else 0.0)  # half a gap beside the outer cells
        return float(min(BAND, 2 * MOST * whole))

    def shifted(self, places: Sequence[float], share: float) -> list[float]:
        """Return places beside the given ones, by a share of `gap`."""
        moved = self._scaled(places) + share * self.gap
        return [float(x) for x in (2.0**moved if self.scale == "log" else moved)]

    def _scaled(self, places: Sequence[float]) -> np.ndarray:
        known = np.array([x for x in places if not math.isnan(x)], dtype=float)
        return np.log2(known) if self.scale == "log" else known

    def finish(self, axes: Axes, arms: int) -> None:
        """Give a panel this axis once so many arms are drawn: scale, ticks, a grey band for each cell."""
        beside = self.together and arms > 1
        if self.scale == "log":
            style.log_axis(axes, base=2 if self.names else 10)
        places = [x for x in next(iter(self.places.values())) if not math.isnan(x)]
        for place in places if beside else []:
            (start,), (end,) = (self.shifted([place], share) for share in (-self.band / 2, self.band / 2))
            axes.axvspan(start, end, color="#F4F4F4", linewidth=0, zorder=0)
        axes.set_xlabel(self.label)
        if not self.names:
            return _cost_ticks(axes, places)
        axes.set_xticks(places, [textwrap.fill(name, 16) for name in self.names])
        if sum(map(len, self.names)) > LETTERS:
            axes.tick_params(axis="x", rotation=30)
        axes.set_xticks([], minor=True)
        axes.set_xlim(self.shifted([min(places)], -0.5)[0], self.shifted([max(places)], 0.5)[0])


def setting_axis(cells: Sequence[Cell], keys: Sequence[str]) -> Axis:
    """Create the axis of a setting that all cells have, or of several that change together.

    Numbers stand on a logarithmic scale where they span more than a factor of SPAN, widths always, lengths of
    thoughts on a linear one; spaced evenly where that would crowd some of them, or has no place for 0. Words
    are spaced evenly. Of several settings the first says where a cell stands, unless it leaves cells at one
    place: then they are spaced evenly, too.

    Args:
        cells: in the order of the settings' values.
        keys: the settings.
    """
    values = [cell.settings[keys[0]] for cell in cells]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    apart = numbers and len(set(values)) == len(values)
    scale = _scale(keys[0], values) if apart else "even"
    places = [float(x) for x in (range(len(values)) if scale == "even" else values)]
    added = {"log": " (log scale)", "even": " (evenly spaced)" if numbers else "", "linear": ""}[scale]
    names = [", ".join(value_of(cell, key) for key in keys) for cell in cells]
    label = ", ".join(_name(cells, key) for key in keys) + added
    return Axis(label, scale, dict.fromkeys(_arms(cells), places), names, joined=apart, together=True)


def cost_axis(cells: Sequence[Cell], cost: str, joined: bool) -> Axis:
    """Create the axis of what each arm costs in each cell, a mean over seeds.

    Args:
        cells: of the figure.
        cost: a name in COSTS.
        joined: whether the cells lie on one line.
    """
    places = {arm: [cost_of(cell.arms.get(arm), cost) for cell in cells] for arm in _arms(cells)}
    known = [x for each in places.values() for x in each if x > 0]
    scale = "log" if known and max(known) >= SPAN * min(known) else "linear"
    label = COSTS[cost] + (" (log scale)" if scale == "log" else "")
    return Axis(label, scale, places, (), joined, together=False)


def at_thinking(axis: Axis) -> Axis:
    """Return an axis of costs on which all arms of a cell stand where its thinking run does."""
    first = next(iter(axis.places.values()))
    words, bracket, scale = axis.label.partition(" (")
    label = f"{words} of the thinking run{bracket}{scale}"
    return axis._replace(label=label, places=dict.fromkeys(axis.places, first), together=True)


def cost_of(frame: pd.DataFrame | None, cost: str) -> float:
    """Return a cost of an arm, the mean over its rows; NaN where they do not say."""
    parts = ("flops_per_step", "train_steps") if cost == "train_flops" else (cost,)
    if frame is None or not set(parts) <= set(frame):
        return math.nan
    return float(frame[list(parts)].astype(float).prod(axis=1, skipna=False).mean())


def _arms(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(arm for cell in cells for arm in cell.arms))


def _scale(key: str, values: Sequence[Any]) -> str:
    sizes = [abs(x) for x in values if x]
    if key in LENGTHS or not (key in WIDTHS or max(sizes, default=1) >= SPAN * min(sizes, default=1)):
        scale = "linear"
    else:
        scale = "log" if min(values) > 0 else "even"
    apart = np.diff(np.log(values) if scale == "log" else np.array(values, dtype=float))
    crowded = len(apart) and apart.sum() > UNEVEN * apart.min() and apart.max() > apart.min()
    return "even" if crowded else scale


def _name(cells: Sequence[Cell], key: str) -> str:
    """Return the words for a setting; roles that are always as wide as this one are named with it."""
    if key not in WIDTHS:
        return WORDS.get(key, key)
    alike = [
        word
        for name, word in WIDTHS.items()
        if all(cell.settings.get(name) == cell.settings[key] for cell in cells)
    ]
    together = len(cells) > 1 and len(alike) > 1
    if together and len(alike) == len(WIDTHS):
        return "width of all roles"
    return f"{' and '.join(alike) if together else WIDTHS[key]} width"


def _cost_ticks(axes: Axes, places: Sequence[float]) -> None:
    """Label a scale of costs in thousands and millions, a single cell's with its own."""
    low, high = axes.get_xlim()
    if len(set(places)) == 1 and high < SPAN * low:
        axes.set_xticks(places[:1])
    elif axes.get_xscale() == "log":
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for digits in ((1, 2, 5), (1, 3), (1,)):
            ticks = [x for p in powers for digit in digits if low <= (x := digit * 10.0**p) <= high]
            if len(ticks) <= MOST_TICKS:
                break
        if len(ticks) < 2:  # within one digit, as from 12k to 13k
            near = MaxNLocator(MOST_TICKS - 1, steps=[1, 2, 5, 10]).tick_values(low, high)
            ticks = [x for x in near if low <= x <= high]
        axes.set_xticks(ticks)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(MOST_TICKS - 1))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _brief(x)))


def _brief(number: float) -> str:
    """Return a round number without digits that say nothing: 20k, 0.5."""
    text = human(float(f"{number:.6g}"))
    digits = text.rstrip("kMGT")
    return f"{float(digits):g}{text[len(digits) :]}"
