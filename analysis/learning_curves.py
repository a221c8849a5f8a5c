"""Draw the held-out loss of every arm while it trained, a panel for each cell."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toyqs.evidence.arms import arm_names
from toyqs.evidence.cells import Cell
from toyqs.evidence.figures import marks, style
from toyqs.evidence.figures.script import Product, run_script
from toyqs.evidence.findings import find, floor_of
from toyqs.evidence.gain import interval
from toyqs.evidence.rows import held_out
from toyqs.evidence.selection import (
    BASE,
    differing,
    in_order,
    place_of,
    telling_apart,
    thinking_cells,
)
from toyqs.evidence.tables import NLL_HEADING, loss_lines
from toyqs.files import Refusal

if TYPE_CHECKING:  # a notebook's MPLBACKEND stops matplotlib's import, unless toyqs comes first
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DESCRIPTION = """\
Draw the held-out NLL of every arm against the training step (logarithmic), a panel for each cell: thin
lines are seeds, the thick one their mean. The table holds the means and their 95 % t-intervals."""

TOO_FAR = 4  # times the median of the runs' greatest losses
MOST = 16  # panels that can still be read
FIRST = ("task", BASE, "weight_groups", "policy_loss_beta")  # the settings that name a panel if they can

Curves = Mapping[str, Mapping[int, pd.Series]]  # arm -> seed -> held-out NLL by step


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line described by DESCRIPTION; return the exit code."""
    return run_script(learning_curves, DESCRIPTION, "learning_curves.png", words)


def learning_curves(runs: Path, cells: Sequence[Cell]) -> Product:
    """Make figure and table of the cells chosen; plain models are drawn where no run thinks."""
    cells = thinking_cells(runs, cells, or_plain=True)
    keys = telling_apart(cells, FIRST)
    if len(cells) > MOST:
        kinds = "; ".join(f"{name}={','.join(differing(cells)[name])}" for name in keys)
        raise Refusal(
            f"{runs}: {len(cells)} panels, more than {MOST}; choose among {kinds} with KEY=VALUE,VALUE"
        )
    cells = in_order(cells, keys)
    problems: list[str] = []
    curves = [_curves(runs, cell, problems) for cell in cells]
    if not any(curves):
        raise Refusal(problems[0], 1)
    tables = [_means(cell, keys, by_arm) for cell, by_arm in zip(cells, curves, strict=True)]
    table = pd.concat(tables, ignore_index=True)
    findings = find(cells)
    text = [NLL_HEADING, *loss_lines(findings, keys), *(["", *problems] if problems else [])]
    return Product(_figure(cells, keys, curves), table, text, findings, keys)


def _curves(runs: Path, cell: Cell, problems: list[str]) -> Curves:
    """Return the curves of a cell; add a run that has none to the problems."""
    curves: dict[str, dict[int, pd.Series]] = {}
    for arm, frame in cell.arms.items():
        for key, seed in zip(frame.get("key", ()), frame.get("seed", ()), strict=True):
            curve = held_out(runs, key)
            if len(curve):
                curves.setdefault(arm, {})[seed] = curve
            else:
                problems.append(f"no readable curve: {arm} seed {seed}, {runs / key / 'metrics.jsonl'}")
    return curves


def _together(curves: Mapping[int, pd.Series]) -> pd.DataFrame:
    """Return one column per seed, at the steps that all seeds were measured at."""
    return pd.concat(curves, axis=1, join="inner").sort_index()


def _means(cell: Cell, keys: Sequence[str], curves: Curves) -> pd.DataFrame:
    rows = []
    for arm, by_seed in curves.items():
        together = _together(by_seed)
        for step, values in zip(together.index, together.to_numpy(), strict=True):
            mean, half_width, count = interval(values)
            row = {key: cell.settings.get(key) for key in keys} | {"arm": arm, "step": step}
            rows.append(row | {"seeds": count, "nll": mean, "nll_half_width": half_width})
    return pd.DataFrame(rows, columns=[*keys, "arm", "step", "seeds", "nll", "nll_half_width"])


def _figure(cells: Sequence[Cell], keys: Sequence[str], curves: Sequence[Curves]) -> Figure:
    across = len(cells) if len(cells) <= 3 else 2 if len(cells) == 4 else 3 if len(cells) <= 9 else 4
    down = math.ceil(len(cells) / across)
    figure = style.new_figure(12, 1.2 + (3.0 if down > 1 else 4.4) * down)
    panels = list(figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).flat)
    arms, floor = arm_names(arm for cell in cells for arm in cell.arms), floor_of(cells)
    for axes, cell, by_arm in zip(panels, cells, curves, strict=False):
        for arm in (arm for arm in reversed(arms) if arm in by_arm):  # the first arm on top
            _draw(axes, arm, by_arm[arm])
        marks.draw_floor(axes, floor)
        axes.set_title(place_of(cell, keys).replace(" ", ", " if across < 4 else "\n"))
        axes.tick_params(labelbottom=True)
    style.log_axis(panels[0])
    panels[0].minorticks_off()
    panels[0].set_ylim(top=_top(curves))
    for axes in panels[len(cells) :]:
        axes.remove()
    for axes in panels[: len(cells)][-across:]:
        axes.set_xlabel("training steps (log scale)")
    figure.supylabel("held-out NLL, nats per counted position", fontsize=11)
    marks.legend(figure, [arm for arm in arms if any(arm in by_arm for by_arm in curves)], floor is not None)
    return figure


def _draw(axes: Axes, arm: str, curves: Mapping[int, pd.Series]) -> None:
    colour = style.arm_colour(arm)
    # one line with gaps instead of many lines: a sweep has hundreds of seeds
    gaps = pd.concat([pd.concat([curve, pd.Series({math.nan: math.nan})]) for curve in curves.values()])
    axes.plot(gaps.index, gaps, color=colour, linewidth=0.7, alpha=0.45)
    mean = _together(curves).mean(axis=1, skipna=False)
    axes.plot(mean.index, mean, color=colour, linewidth=1.9, label=arm)


def _top(curves: Sequence[Curves]) -> float | None:
    """Return an upper end that leaves out losses far above the usual ones; None where there are none."""
    highest = [curve.max() for cell in curves for by_seed in cell.values() for curve in by_seed.values()]
    highest = [loss for loss in highest if math.isfinite(loss)]
    usual = TOO_FAR * statistics.median(highest) if highest else 0.0
    return usual if usual and max(highest) > usual else None


if __name__ == "__main__":
    sys.exit(main())
