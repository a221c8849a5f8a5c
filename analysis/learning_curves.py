"""Draw the held-out loss of every arm while it trained, a panel for each cell."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

if not __package__:  # called as a file, in a checkout
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toyqs.evidence.arms import arm_names
from toyqs.evidence.cells import Cell
from toyqs.evidence.figures import marks, style
from toyqs.evidence.figures.script import Product, run_script
from toyqs.evidence.judging.findings import find, floor_of
from toyqs.evidence.judging.gain import interval
from toyqs.evidence.measures import loss_words
from toyqs.evidence.rows import held_out
from toyqs.evidence.selection import (
    BASE,
    differing,
    in_order,
    place_of,
    telling_apart,
    thinking_cells,
)
from toyqs.evidence.tables.sweep import loss_heading, loss_lines
from toyqs.files import Refusal

if TYPE_CHECKING:  # a notebook's MPLBACKEND stops matplotlib's import, unless toyqs comes first
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DESCRIPTION = """\
Draw the held-out NLL of every arm against the training step, or what training has cost so far
(logarithmic), a panel for each cell: thin lines are seeds, the thick one their mean. The table holds the
means and their 95 % t-intervals."""
OVER = """\
what the losses are drawn over: %(choices)s; flops is a row's mean FLOPs of a step times the steps,
cpu_seconds its CPU seconds, evaluations included, spread evenly over its steps; without this flops where
arms train for different numbers of steps, else steps"""

QUESTION = "How fast does each arm learn?"
LABELS = {
    "steps": "training steps",
    "flops": "FLOPs so far",
    "cpu_seconds": "CPU seconds so far, a seed's total\nspread evenly over its steps",
}
TOO_FAR = 4  # times the median of the runs' greatest losses
MOST = 16  # panels that can still be read
COSTS = {"flops": "flops_per_step", "cpu_seconds": "cpu_seconds"}  # columns of a row
FIRST = ("task", BASE, "weight_groups", "policy_loss_beta")  # the settings that name a panel if they can


class Curve(NamedTuple):
    """One run while it trained."""

    losses: pd.Series  # held-out NLL by step
    cost: float  # of a step, in what the curves are drawn over


Curves = Mapping[str, Mapping[int, Curve]]  # arm -> seed -> its curve


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line described by DESCRIPTION; return the exit code."""
    over = {"choices": list(LABELS), "help": OVER}
    return run_script(learning_curves, DESCRIPTION, "learning_curves.png", words, over)


def learning_curves(runs: Path, cells: Sequence[Cell], over: str | None = None) -> Product:
    """Make figure and table of the cells chosen; plain models are drawn where no run thinks.

    Args:
        runs: their folder.
        cells: those chosen.
        over: a name in LABELS; None: chosen by whether all runs train for equally many steps.
    """
    cells = thinking_cells(runs, cells, or_plain=True)
    over = over or _usual(cells)
    keys = telling_apart(cells, FIRST)
    if len(cells) > MOST:
        kinds = "; ".join(f"{name}={','.join(differing(cells)[name])}" for name in keys)
        raise Refusal(
            f"{runs}: {len(cells)} panels, more than {MOST}; choose among {kinds} with KEY=VALUE,VALUE"
        )
    cells = in_order(cells, keys)
    problems: list[str] = []
    curves = [_curves(runs, cell, over, problems) for cell in cells]
    if not any(curves):
        raise Refusal(problems[0], 1)
    tables = [_means(cell, keys, by_arm, over) for cell, by_arm in zip(cells, curves, strict=True)]
    table = pd.concat(tables, ignore_index=True)
    findings = find(cells)
    text = [loss_heading(findings), *loss_lines(findings, keys), *(["", *problems] if problems else [])]
    arms = arm_names(arm for cell in cells for arm in cell.arms)
    figure = _figure(cells, keys, curves, marks.drawn(arms), LABELS[over])
    return Product(QUESTION, figure, table, text, findings, keys, [*filter(None, [marks.left_out(arms)])])


def _usual(cells: Sequence[Cell]) -> str:
    """Return "flops" where runs differ in their number of steps and all say what one costs, else "steps"."""
    rows = pd.concat([frame for cell in cells for frame in cell.arms.values()])
    known = {"train_steps", COSTS["flops"]} <= set(rows) and bool((rows[COSTS["flops"]] > 0).all())
    return "flops" if known and rows["train_steps"].nunique() > 1 else "steps"


def _curves(runs: Path, cell: Cell, over: str, problems: list[str]) -> Curves:
    """Return the curves of a cell; add a run that has none, or does not say its cost, to the problems."""
    curves: dict[str, dict[int, Curve]] = {}
    for arm, frame in cell.arms.items():
        for row in frame.to_dict("records"):
            losses, seed = held_out(runs, row["key"], cell.loss), row["seed"]
            cost = _cost(row, over, losses.index.max()) if len(losses) else None
            file = runs / row["key"] / ("summary.json" if len(losses) else "metrics.jsonl")
            if cost:
                curves.setdefault(arm, {})[seed] = Curve(losses, cost)
            else:
                lacking = f"row without {COSTS[over]}" if len(losses) else "no readable curve"
                problems.append(f"{lacking}: {arm} seed {seed}, {file}")
    return curves


def _cost(row: Mapping[Any, Any], over: str, steps: int) -> float | None:
    """Return what a step of a run cost on the mean; None where its row does not say."""
    if over == "steps":
        return 1.0
    total = row.get(COSTS[over])
    if total is None or not total > 0:  # not a number where another row has it
        return None
    return total if over == "flops" else total / steps


def _together(curves: Mapping[int, Curve]) -> pd.DataFrame:
    """Return one column per seed, at the steps that all seeds were measured at."""
    losses = {seed: curve.losses for seed, curve in curves.items()}
    return pd.concat(losses, axis=1, join="inner").sort_index()


def _mean_cost(curves: Mapping[int, Curve]) -> float:
    return statistics.mean(curve.cost for curve in curves.values())


def _means(cell: Cell, keys: Sequence[str], curves: Curves, over: str) -> pd.DataFrame:
    rows = []
    added = [] if over == "steps" else [over]
    for arm, by_seed in curves.items():
        together, cost = _together(by_seed), _mean_cost(by_seed)
        for step, values in zip(together.index, together.to_numpy(), strict=True):
            mean, half_width, count = interval(values)
            row = {key: cell.settings.get(key) for key in keys} | {
                "arm": arm,
                "step": step,
                over: cost * step,
            }
            rows.append(row | {"seeds": count, cell.loss: mean, f"{cell.loss}_half_width": half_width})
    columns = [*keys, "arm", "step", *added, "seeds", cell.loss, f"{cell.loss}_half_width"]
    return pd.DataFrame(rows, columns=columns)


def _figure(
    cells: Sequence[Cell], keys: Sequence[str], curves: Sequence[Curves], arms: Sequence[str], label: str
) -> Figure:
    across = len(cells) if len(cells) <= 3 else 2 if len(cells) == 4 else 3 if len(cells) <= 9 else 4
    down = math.ceil(len(cells) / across)
    figure = style.new_figure(12, (2.8 if down > 1 else 4.2) * down)
    panels = list(figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).flat)
    floor = floor_of(cells)
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
        axes.set_xlabel(f"{label} (log scale)")
    words = loss_words(cell.loss for cell in cells)
    figure.supylabel(f"held-out {words}, nats per counted position", fontsize="medium")
    marks.legend(figure, [arm for arm in arms if any(arm in by_arm for by_arm in curves)], floor is not None)
    return figure


def _draw(axes: Axes, arm: str, curves: Mapping[int, Curve]) -> None:
    colour = style.arm_colour(arm)
    # one line with gaps instead of many lines: a sweep has hundreds of seeds
    places = [x for losses, cost in curves.values() for x in (*(losses.index * cost), math.nan)]
    gaps = [x for losses, _ in curves.values() for x in (*losses, math.nan)]
    axes.plot(places, gaps, color=colour, linewidth=style.points(0.7), alpha=0.45)
    mean = _together(curves).mean(axis=1, skipna=False)
    marks.draw_mean(axes, arm, mean.set_axis(mean.index * _mean_cost(curves)))


def _top(curves: Sequence[Curves]) -> float | None:
    """Return an upper end that leaves out losses far above the usual ones; None where there are none."""
    each = (curve for cell in curves for by_seed in cell.values() for curve in by_seed.values())
    highest = [loss for curve in each if math.isfinite(loss := curve.losses.max())]
    usual = TOO_FAR * statistics.median(highest) if highest else 0.0
    return usual if usual and max(highest) > usual else None


if __name__ == "__main__":
    sys.exit(main())
