"""The figure of recurrence equivalence: losses over effective size, and how well each exponent fits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from toyqs.evidence.figures import style
from toyqs.evidence.text import human, spelled

Array = NDArray[np.float64]


class Fitted(NamedTuple):
    """What the figure shows; all numbers of runs are in one order."""

    length: Array  # L of each run
    loss: Array  # of each run, nats per counted position
    size: Array  # N_base + L^φ N_reasoner of each run
    fit: Array  # the loss that the law gives each run
    phi: float  # φ of the law
    grid: Array  # every φ tried
    profile: Array  # least mean square error at each φ
    interval: tuple[float, float]  # of φ
    published: float  # φ


def equivalence_figure(found: Fitted) -> Figure:
    """Draw the losses over the size that the fit gives each run, and how well every φ fits."""
    figure = style.new_figure(11, 4.2)
    left, right = figure.subplots(1, 2)
    lengths = sorted(set(found.length))
    tones = colormaps["viridis_r"](np.linspace(0.1, 0.9, len(lengths)))
    for length, tone in zip(lengths, tones, strict=True):
        own = found.length == length
        left.scatter(found.size[own], found.loss[own], color=tone, label=f"L = {spelled(length)}", zorder=2)
    order = found.size.argsort()
    left.plot(found.size[order], found.fit[order], color="black", linewidth=1, label="fit", zorder=1)
    left.set_xscale("log")
    left.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    left.xaxis.set_major_formatter(FuncFormatter(lambda x, _: human(x)))
    left.xaxis.set_minor_formatter(NullFormatter())
    left.set(
        xlabel="N_base + L^φ N_reasoner",
        ylabel="held-out NLL, nats per counted position",
        title=f"Loss: every run, φ = {found.phi:.2f}",
    )
    left.legend()
    right.plot(found.grid, found.profile, color="black")
    right.axvspan(*found.interval, color="#D55E00", alpha=0.2, label="95 % interval")
    right.axvline(found.published, color="#0072B2", linestyle="--", label=f"published, {found.published}")
    right.set(xlabel="φ", ylabel="least mean square error", title="How well each φ fits")
    right.legend()
    return figure
