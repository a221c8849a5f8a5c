"""Fit what a step of a thought is worth in parameters: the exponent φ of recurrence equivalence."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit

if not __package__:  # called as a file, in a checkout
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toyqs.evidence.arms import THINKING
from toyqs.evidence.cells import Cell
from toyqs.evidence.figures.equivalence import Fitted, equivalence_figure
from toyqs.evidence.figures.script import Product, require_one_token, run_script
from toyqs.evidence.judging.findings import find
from toyqs.evidence.selection import BASE, WIDTHS, differing, telling_apart, thinking_cells
from toyqs.evidence.text import spelled
from toyqs.files import Refusal

DESCRIPTION = """\
Fit  loss = E + A (N_base + L^φ N_reasoner)^−α  to the held-out NLL of the thinking runs of a sweep over
widths and over L (max_reasoning_len), by least squares. N_base are the parameters of a model without
thoughts, the control no_reasoner or a run with use_reasoner=false of the same base width; N_reasoner those
that a thinking run has beyond them. φ = 1: L steps of a reasoner are worth
as much as one of L times its size; φ = 0: as much as a single step. Draw the loss over
N_base + L^φ N_reasoner, and how well every φ fits. The interval of φ holds that of a bootstrap over seeds
and every φ that fits as well as the best by an F test: where the runs say little of φ it is as wide."""

QUESTION = "What is a step of a thought worth, in parameters?"
LENGTH, BASE_ARM = "max_reasoning_len", "no_reasoner"
PHIS = np.linspace(-1.0, 2.0, 151)
ALPHAS = np.geomspace(0.02, 4.0, 40)
FITTED = 4  # E, A, α and φ
RESAMPLES, LEVEL = 1000, 0.95
PUBLISHED = 0.46  # of 116 looped language models, Schwethelm et al. 2026, 2604.21106

Array = np.ndarray


class Runs(NamedTuple):
    """The runs that are fitted, one entry each."""

    once: Array  # N_base
    again: Array  # N_reasoner
    length: Array  # L
    loss: Array
    seed: Array


class Fits(NamedTuple):
    """The best fit for each weighting of the runs, one entry each."""

    error: Array  # weighted sum of squares
    phi: Array
    alpha: Array
    floor: Array  # E
    scale: Array  # A, of (N / the runs' geometric mean)^−α


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line described by DESCRIPTION; return the exit code."""
    return run_script(recurrence_equivalence, DESCRIPTION, "recurrence_equivalence.png", words)


def recurrence_equivalence(runs: Path, cells: Sequence[Cell]) -> Product:
    """Make figure and table of the cells of one sweep over widths and lengths.

    Args:
        runs: their folder.
        cells: those chosen; of plain models among them the sizes are taken.
    """
    plain = {cell.settings[BASE]: cell.arms[BASE_ARM] for cell in cells if next(iter(cell.arms)) == BASE_ARM}
    cells = thinking_cells(runs, cells)
    require_one_token(runs, cells)
    for name, values in differing(cells).items():
        if name not in (*WIDTHS, LENGTH):
            raise Refusal(f"{runs}: the cells differ in {name} too; choose, say, {name}={values[0]}")
    table = rows_of(runs, cells, plain)
    check(runs, table)
    data = Runs(*(table[name].to_numpy(float) for name in ("n_base", "n_reasoner", LENGTH, "nll", "seed")))
    best, profile = fit(data, np.ones((1, len(table)))), profile_of(data)
    resampled, as_good = bootstrap(data), as_good_as_best(profile, len(table))
    hull = (min(resampled[0], as_good[0]), max(resampled[1], as_good[1]))
    size, law = effective(data, best.phi[0]), predicted(data, best)
    table["effective"], table["fitted"] = size, law
    text = lines(table, best, hull, resampled, as_good)
    keys = telling_apart(cells, (LENGTH,))
    each = (data.length, data.loss, size, law)
    shown = Fitted(*each, best.phi[0], PHIS, profile / len(table), hull, PUBLISHED)
    return Product(QUESTION, equivalence_figure(shown), table, text, find(cells), keys)


def rows_of(runs: Path, cells: Sequence[Cell], plain: Mapping[Any, pd.DataFrame]) -> pd.DataFrame:
    """Return one row for each finite run: its seed, L, N_base, N_reasoner and NLL.

    Args:
        runs: the folder.
        cells: of runs that think.
        plain: base width -> the rows of models without thoughts, for cells without a control no_reasoner.

    Raises:
        Refusal: nothing says N_base of a cell.
    """
    rows = []
    for cell in cells:
        thinking = cell.arms[THINKING]
        base = cell.arms.get(BASE_ARM, plain.get(cell.settings.get(BASE)))
        if not len(thinking):
            continue
        if base is None or not len(base):
            raise Refusal(
                f"{runs}: N_base is the size of a model without thoughts; run the cells with controls=fair, "
                f"or use_reasoner=false {BASE}={spelled(cell.settings[BASE])} beside them"
            )
        once = int(base["parameters"].iloc[0])
        for row in thinking.to_dict("records"):
            sizes = {"n_base": once, "n_reasoner": row["parameters"] - once}
            rows.append({"seed": row["seed"], LENGTH: cell.settings[LENGTH], **sizes, "nll": row["nll"]})
    table = pd.DataFrame(rows, columns=["seed", LENGTH, "n_base", "n_reasoner", "nll"])
    return table[np.isfinite(table["nll"].astype(float))].reset_index(drop=True)


def check(runs: Path, table: pd.DataFrame) -> None:
    """Refuse runs of which φ cannot be known.

    Raises:
        Refusal: one line; there is one length, one size, or no more different models than numbers to fit.
    """
    for name, words in ((LENGTH, f"{LENGTH}=1,2,4"), ("n_reasoner", "base_lm_hidden_dim=4,8,16")):
        if table[name].nunique() < 2:
            what = "L" if name == LENGTH else "size"
            raise Refusal(
                f"{runs}: all thoughts have one {what}, which says nothing of φ; sweep, say, {words}", 1
            )
    places = len(table[[LENGTH, "n_base", "n_reasoner"]].drop_duplicates())
    if places <= FITTED:
        raise Refusal(
            f"{runs}: {places} models are too few for {FITTED} numbers; sweep more widths or lengths", 1
        )


def effective(data: Runs, phi: Array | float) -> Array:
    """Return N_base + L^φ N_reasoner of each run; a column of several φ gives a row for each."""
    return data.once + data.length**phi * data.again


def fit(data: Runs, weights: Array) -> Fits:
    """Fit the runs by weighted least squares: E and A exactly, α and φ on a grid; E and A are not below 0.

    Args:
        data: of n runs.
        weights: (weightings, n).
    """
    best = Fits(*(np.full(len(weights), np.inf) for _ in Fits._fields))
    column = np.arange(len(weights))
    for alpha in ALPHAS:
        error, floor, scale = _solved(data, weights, alpha)
        row = error.argmin(0)
        found = (
            error[row, column],
            PHIS[row],
            np.full(len(weights), alpha),
            *(x[row, column] for x in (floor, scale)),
        )
        better = found[0] < best.error
        best = Fits(*(np.where(better, new, old) for new, old in zip(found, best, strict=True)))
    return best


def profile_of(data: Runs) -> Array:
    """Return the least sum of squares that each φ of PHIS allows."""
    every = np.ones((1, len(data.loss)))
    return np.min([_solved(data, every, alpha)[0][:, 0] for alpha in ALPHAS], axis=0)


def _solved(data: Runs, weights: Array, alpha: float) -> tuple[Array, Array, Array]:
    """Return the least sum of squares, E and A for each φ and weighting at one α."""
    size = effective(data, PHIS[:, None])
    x = (size / np.exp(np.log(size).mean(1, keepdims=True))) ** -alpha
    total, loss, squares = (weights @ y for y in (np.ones_like(data.loss), data.loss, data.loss**2))
    one, two, with_loss = x @ weights.T, x**2 @ weights.T, x @ (weights * data.loss).T
    spread = np.maximum(total * two - one**2, 1e-300)
    scale = np.maximum((total * with_loss - one * loss) / spread, 0.0)
    scale = np.where(loss < scale * one, with_loss / two, scale)  # where E would be below 0
    floor = np.maximum((loss - scale * one) / total, 0.0)
    error = squares - 2 * (floor * loss + scale * with_loss)
    return error + floor**2 * total + 2 * floor * scale * one + scale**2 * two, floor, scale


def predicted(data: Runs, best: Fits) -> Array:
    """Return the first fit's loss of each run."""
    size = effective(data, best.phi[0])
    relative = size / np.exp(np.log(size).mean())
    return best.floor[0] + best.scale[0] * relative ** -best.alpha[0]


def as_good_as_best(profile: Array, count: int) -> tuple[float, float]:
    """Return the least and the largest φ that fit so many runs as well as the best, by an F test at LEVEL."""
    freedom = count - FITTED
    ratio = stdtrit(freedom, (1 + LEVEL) / 2) ** 2 / freedom  # of F(1, n − 4), which is the square of t
    found = PHIS[profile <= max(profile.min(), 0.0) * (1 + ratio) + 1e-12 * count]
    return float(found[0]), float(found[-1])


def bootstrap(data: Runs) -> tuple[float, float]:
    """Return the interval of φ over resamples of the seeds, each with all its runs."""
    seeds, place = np.unique(data.seed, return_inverse=True)
    drawn = np.random.default_rng(0).integers(len(seeds), size=(RESAMPLES, len(seeds)))
    times = (drawn[:, :, None] == np.arange(len(seeds))).sum(1)
    edge = (1 - LEVEL) / 2
    different, back = np.unique(times, axis=0, return_inverse=True)
    found = fit(data, different[:, place].astype(float)).phi[back.ravel()]
    low, high = np.quantile(found, (edge, 1 - edge))
    return float(low), float(high)


def lines(
    table: pd.DataFrame,
    best: Fits,
    interval: tuple[float, float],
    resampled: tuple[float, float],
    as_good: tuple[float, float],
) -> list[str]:
    """Return what was found, in words."""
    seeds = table["seed"].nunique()
    places = len(table[[LENGTH, "n_base", "n_reasoner"]].drop_duplicates())
    share = 1 - best.error[0] / ((table["nll"] - table["nll"].mean()) ** 2).sum()
    text = [
        f"loss = E + A (N_base + L^φ N_reasoner)^−α over {len(table)} runs: {places} models, {seeds} seeds",
        f"φ {best.phi[0]:.2f}, 95 % interval {_span(interval)}",
        f"(a bootstrap over seeds: {_span(resampled)}; what fits as well by an F test: {_span(as_good)})",
        f"E {best.floor[0]:.3f}, α {best.alpha[0]:.2f}, R² {share:.3f}",
    ]
    if seeds < 5:
        text.append(f"{seeds} seeds have few resamples, and the bootstrap over them is too narrow")
    if as_good[0] <= PHIS[0] or as_good[1] >= PHIS[-1]:
        text.append("The profile is flat: these runs bound φ on one side at most.")
    if best.alpha[0] in (ALPHAS[0], ALPHAS[-1]):
        text.append("α is at an end of its grid: the law does not describe these runs.")
    return [*text, f"published: φ {PUBLISHED} of 116 looped language models (2604.21106)"]


def _span(ends: tuple[float, float]) -> str:
    return " to ".join(map(_end, ends))


def _end(phi: float) -> str:
    """Return an end of an interval; the ends of the grid are open."""
    if phi <= PHIS[0]:
        return f"{phi:.2f} or less"
    return f"{phi:.2f} or more" if phi >= PHIS[-1] else f"{phi:.2f}"


if __name__ == "__main__":
    sys.exit(main())
