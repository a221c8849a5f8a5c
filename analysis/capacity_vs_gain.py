"""Draw base width against the loss of every arm and against what thinking gains over each control."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toyqs.evidence.arms import arm_names
from toyqs.evidence.cells import Cell
from toyqs.evidence.figures import marks, style
from toyqs.evidence.figures.script import Product, run_script
from toyqs.evidence.findings import Finding, arm_table, find, floor_of
from toyqs.evidence.selection import BASE, one_per_place, thinking_cells
from toyqs.evidence.tables import GAIN_HEADING, NLL_HEADING, gain_lines, loss_lines, verdict_lines
from toyqs.files import Refusal

if TYPE_CHECKING:  # a notebook's MPLBACKEND stops matplotlib's import, unless toyqs comes first
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DESCRIPTION = """\
Draw base width (logarithmic) against the held-out NLL of every arm, and against what thinking gains
over each control: every seed's point, means and 95 % t-intervals. Print both as tables, with the
verdict at each width."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line described by DESCRIPTION; return the exit code."""
    return run_script(capacity, DESCRIPTION, "capacity.png", words)


def capacity(runs: Path, cells: Sequence[Cell]) -> Product:
    """Make figure and table of the cells of one sweep over base_lm_hidden_dim.

    Args:
        runs: their folder.
        cells: those chosen; plain models among them are left out.
    """
    cells = one_per_place(runs, thinking_cells(runs, cells), [BASE])
    if not all(BASE in cell.settings for cell in cells):
        raise Refusal(f"{runs}: has cells in which {BASE} has no effect; choose the others with KEY=VALUE")
    findings = find(cells)
    text = [NLL_HEADING, *loss_lines(findings, [BASE]), "", GAIN_HEADING, *gain_lines(findings, [BASE])]
    text += ["", *verdict_lines(findings, [BASE])]
    return Product(_figure(findings), arm_table(findings, [BASE]), text, findings, [BASE])


def _figure(findings: Sequence[Finding]) -> Figure:
    cells = [finding.cell for finding in findings]
    figure = style.new_figure(12, 5.6)
    left, right = figure.subplots(1, 2)
    arms, floor = arm_names(arm for cell in cells for arm in cell.arms), floor_of(cells)
    loss = _draw(left, arms, cells, [finding.losses for finding in findings])
    gain = _draw(right, arms, cells, [finding.gains for finding in findings])
    marks.fit_losses([left], loss, floor)
    added = marks.fit_gains([right], "y", gain)
    marks.draw_floor(left, floor)
    right.axhline(0, color="black", linewidth=1, zorder=1)
    if not gain:
        right.text(0.5, 0.6, "no control has finished", transform=right.transAxes, ha="center")
    left.set(
        ylabel="held-out NLL, nats per counted position",
        title="Loss of every arm: seeds, mean, 95 % t-interval",
    )
    right.set(
        ylabel=f"gain, nats{added}", title="Gain of thinking over each control (above 0: thinking is better)"
    )
    marks.legend(figure, loss, floor is not None)
    return figure


def _draw(
    axes: Axes, arms: Sequence[str], cells: Sequence[Cell], values: Sequence[dict[str, pd.Series]]
) -> dict[str, list[pd.Series]]:
    """Draw the values of each cell and arm; return them by arm."""
    widths = np.array([cell.settings[BASE] for cell in cells], dtype=float)
    apart = np.diff(np.log2(widths)).min() if len(cells) > 1 else 1.0
    shown = {}
    for arm, shift in zip(arms, marks.offsets(len(arms), 0.66 * min(apart, 1.0)), strict=True):
        having = [(width, cell[arm]) for width, cell in zip(widths, values, strict=True) if arm in cell]
        if having:
            shown[arm] = [seeds for _, seeds in having]
            marks.draw_arm(axes, arm, [width * 2**shift for width, _ in having], shown[arm])
    style.log_axis(axes, base=2)
    axes.set_xticks(widths, [f"{width:g}" for width in widths])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="base width (log scale)", xlim=(widths[0] * 2**-0.5, widths[-1] * 2**0.5))
    return shown


if __name__ == "__main__":
    sys.exit(main())
