"""Draw held-out accuracy and what thinking gains over each control by the depth of what is asked."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

if not __package__:  # called as a file, in a checkout
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toyqs.evidence.arms import THINKING, arm_names
from toyqs.evidence.cells import Cell
from toyqs.evidence.figures import marks, style
from toyqs.evidence.figures.axis import MOST
from toyqs.evidence.figures.script import Product, require_one_token, run_script
from toyqs.evidence.judging.findings import estimate_text, find
from toyqs.evidence.judging.gain import estimate
from toyqs.evidence.rows import by_depth
from toyqs.evidence.selection import in_order, place_of, telling_apart, thinking_cells
from toyqs.evidence.tables.layout import Column, plain_text
from toyqs.files import Refusal

if TYPE_CHECKING:  # a notebook's MPLBACKEND stops matplotlib's import, unless toyqs comes first
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DESCRIPTION = """\
Draw the held-out accuracy of every arm, and the nats that thinking gains over each control, against the
depth of what is asked: every seed's point, means and 95 % t-intervals. Grey are the depths that training
has; the others were never trained on. A column for each cell."""
QUESTION = "How deep does thinking help?"
FIRST = ("task", "base_lm_hidden_dim", "max_reasoning_len", "backbone")  # that name a cell if they can
MOST_CELLS = 4  # side by side
MOST_DEPTHS = 16  # that a panel has room for
TRAINED = "#EBEBEB"


class Depths(NamedTuple):
    """A cell's held-out results by depth."""

    cell: Cell
    trained: dict[int, bool]  # depth -> whether training has it, ascending
    nll: dict[str, pd.DataFrame]  # arm -> a row for each depth, a column for each seed
    accuracy: dict[str, pd.DataFrame]

    def gain(self, arm: str) -> pd.DataFrame:
        """Return what thinking gains over a control, by depth and by the seeds that both have."""
        (own, *_) = self.nll.values()
        seeds = own.columns.intersection(self.nll[arm].columns)
        return self.nll[arm][seeds] - own[seeds]

    @property
    def gained(self) -> list[str]:
        """Return the controls that have a seed in common with thinking."""
        if not self.cell.thinks or THINKING not in self.nll:
            return []
        return [arm for arm in self.nll if arm != THINKING and len(self.gain(arm).columns)]


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line described by DESCRIPTION; return the exit code."""
    return run_script(gain_by_depth, DESCRIPTION, "gain_by_depth.png", words)


def gain_by_depth(runs: Path, cells: Sequence[Cell]) -> Product:
    """Make figure and table of the cells chosen; plain models are drawn where no run thinks.

    Args:
        runs: their folder.
        cells: those chosen.
    """
    cells = thinking_cells(runs, cells, or_plain=True)
    require_one_token(runs, cells)
    keys = telling_apart(cells, FIRST)
    if len(cells) > MOST_CELLS:
        raise Refusal(f"{runs}: {len(cells)} columns, {MOST_CELLS} at most; choose with {keys[0]}=VALUE")
    cells = in_order(cells, keys)
    found = [_depths(runs, cell) for cell in cells]
    if not all(depths.trained for depths in found):
        raise Refusal(
            f"{runs}: no results by depth: the task has one depth or none, or the runs are of an earlier "
            "version; docs/depth.md names tasks with depths",
            1,
        )
    table = pd.concat([_table(depths, keys) for depths in found], ignore_index=True)
    arms = arm_names(arm for cell in cells for arm in cell.arms)
    more = [f"{MOST_DEPTHS} depths of {most} are drawn" for most in _too_many(found)]
    notes = [*filter(None, [marks.left_out(arms)]), *more]
    text = [line for depths in found for line in _text(depths, keys)]
    return Product(QUESTION, _figure(found, keys, marks.drawn(arms)), table, text, find(cells), keys, notes)


def _too_many(found: Sequence[Depths]) -> list[int]:
    most = max(len(depths.trained) for depths in found)
    return [most] if most > MOST_DEPTHS else []


def _depths(runs: Path, cell: Cell) -> Depths:
    """Load the results of a cell's finished runs."""
    trained: dict[int, bool] = {}
    metrics: dict[str, dict[str, pd.DataFrame]] = {"nll": {}, "accuracy": {}}
    for arm, frame in cell.arms.items():
        each = {row["seed"]: by_depth(runs, row["key"]) for row in frame.to_dict("records")}
        each = {seed: one for seed, one in each.items() if len(one)}
        if not each:
            continue
        trained |= {int(depth): bool(x) for one in each.values() for depth, x in one["trained"].items()}
        for metric, arms in metrics.items():
            arms[arm] = pd.DataFrame({seed: one[metric] for seed, one in each.items()})
    return Depths(cell, dict(sorted(trained.items())), metrics["nll"], metrics["accuracy"])


def _table(depths: Depths, keys: Sequence[str]) -> pd.DataFrame:
    """Return one row per arm and depth, its means with half of their 95 % t-intervals over seeds."""
    rows = []
    for arm, losses in depths.nll.items():
        gain = depths.gain(arm) if arm in depths.gained else pd.DataFrame()
        for depth, trained in depths.trained.items():
            row = {key: depths.cell.settings.get(key) for key in keys}
            row |= {"arm": arm, "depth": depth, "trained": trained, "seeds": len(losses.columns)}
            for name, values in (("nll", losses), ("accuracy", depths.accuracy[arm]), ("gain", gain)):
                found = estimate(values.loc[depth] if depth in values.index else None)
                row |= {name: found.mean, f"{name}_half_width": found.half_width}
            rows.append(row)
    return pd.DataFrame(rows)


def _text(depths: Depths, keys: Sequence[str]) -> list[str]:
    """Return a cell's accuracy and gain by depth as text."""
    names = [f"{depth}{' ' if trained else '*'}" for depth, trained in depths.trained.items()]
    right = [
        Column(*_broken(arm), [estimate_text(100 * x, ".1f") for _, x in values.iterrows()])
        for arm, values in depths.accuracy.items()
    ]
    gains = [
        Column(*_broken(arm), [estimate_text(x, "+.3f") for _, x in depths.gain(arm).iterrows()])
        for arm in depths.gained
    ]
    title = [place_of(depths.cell, keys)] if keys else []
    text = [*title, "accuracy, %; *: never trained on", *plain_text([Column("", "depth", names), *right]), ""]
    if gains:
        text += ["gain of thinking, nats", *plain_text([Column("", "depth", names), *gains]), ""]
    return text[:-1]


def _broken(arm: str) -> tuple[str, str]:
    first, _, second = arm.rpartition("_")
    return (f"{first}_", second) if first else ("", second)


def _figure(found: Sequence[Depths], keys: Sequence[str], arms: Sequence[str]) -> Figure:
    gained = any(depths.gained for depths in found)
    figure = style.new_figure(max(9.0, 5.0 * len(found)), 7.6 if gained else 4.2)
    panels = figure.subplots(2 if gained else 1, len(found), squeeze=False, sharey="row", sharex="col")
    shown: dict[str, list[pd.Series]] = {}
    for depths, axes in zip(found, panels[0], strict=True):
        _draw(axes, depths, {arm: 100 * x for arm, x in depths.accuracy.items() if arm in arms})
        axes.set(title=place_of(depths.cell, keys).replace(" ", ", ") if keys else "")
    panels[0, 0].set(ylabel="held-out accuracy, %", ylim=(-3, 103))
    for depths, axes in zip(found, panels[1] if gained else [], strict=gained):
        gains = _draw(axes, depths, {arm: depths.gain(arm) for arm in depths.gained if arm in arms})
        for arm, series in gains.items():
            shown.setdefault(arm, []).extend(series)
        axes.axhline(0, color="black", linewidth=1, zorder=1)
    if gained:
        added = marks.fit(panels[1], "y", shown, [0.0])
        panels[1, 0].set_ylabel(f"gain over each control, nats{added}")
    for axes in panels[-1]:
        axes.set_xlabel("depth (grey: trained on)")
    marks.legend(figure, [arm for arm in arms if any(arm in depths.nll for depths in found)])
    return figure


def _draw(axes: Axes, depths: Depths, values: Mapping[str, pd.DataFrame]) -> dict[str, list[pd.Series]]:
    """Draw values by depth and seed over grey where depths are trained on; return what is drawn, by arm."""
    every = list(depths.trained)
    some = [every[i * (len(every) - 1) // (MOST_DEPTHS - 1)] for i in range(MOST_DEPTHS)]
    some = every if len(every) <= MOST_DEPTHS else sorted(set(some))
    deepest = max((depth for depth, trained in depths.trained.items() if trained), default=every[0] - 1)
    axes.axvspan(every[0] - 0.5, deepest + 0.5, color=TRAINED, linewidth=0, zorder=0)
    axes.set_xlim(every[0] - 0.5, every[-1] + 0.5)
    axes.set_xticks(some)
    axes.grid(False, axis="x")
    reach = min(0.8, 2 * MOST * (every[-1] - every[0] + 1))
    shown = {}
    for (arm, frame), shift in zip(values.items(), marks.offsets(len(values), reach), strict=True):
        having = [depth for depth in some if depth in frame.index]
        shown[arm] = [frame.loc[depth] for depth in having]
        marks.draw_arm(axes, arm, [depth + shift for depth in having], shown[arm])
    return shown


if __name__ == "__main__":
    sys.exit(main())
