"""Compare teacher forcing over one or several tokens with a policy loss alone."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

if not __package__:  # called as a file, in a checkout
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toyqs.evidence.arms import THINKING
from toyqs.evidence.cells import Cell
from toyqs.evidence.figures.recipes.forcing import forcing_figure
from toyqs.evidence.figures.script import Product, require_one_token, run_script
from toyqs.evidence.judging.findings import estimate_text, find
from toyqs.evidence.judging.gain import by_seed, estimate
from toyqs.evidence.judging.paired import Compared, compare, p_text
from toyqs.evidence.rows import by_step
from toyqs.evidence.selection import differing, thinking_cells
from toyqs.evidence.tables.layout import Column, plain_text
from toyqs.evidence.text import plus_minus
from toyqs.files import IDENTITY, Refusal

DESCRIPTION = """\
Compare finished runs that differ in what trains them: the policy loss alone (nll_loss_beta=0), teacher
forcing beside it, over one token or several (n_tokens_ahead, ahead), and teacher forcing alone
(policy_loss_beta=0). Runs may each start from a run of their own. NLL and accuracy are of the first token,
whatever is trained. Steps are those up to the higher of the two last losses of a pair, which both reach, as a
share of the other's: 75 % are a quarter fewer. Differences are paired by seed, and Holm's correction is over
all that the table has."""

QUESTION = "What does teacher forcing over several tokens add to REINFORCE?"
ALONE = "REINFORCE alone"
KEYS = ("n_tokens_ahead", "ahead", "nll_loss_beta", "policy_loss_beta")
STARTS = ("start_from",)


class Way(NamedTuple):
    """The finished runs that are trained in one way."""

    name: str
    rows: pd.DataFrame  # one for each seed
    curve: pd.DataFrame  # held-out NLL, a row for each step, a column for each seed


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line described by DESCRIPTION; return the exit code."""
    return run_script(teacher_forcing, DESCRIPTION, "teacher_forcing.png", words)


def teacher_forcing(runs: Path, cells: Sequence[Cell]) -> Product:
    """Make figure and table of the thinking runs of the cells chosen.

    Args:
        runs: their folder.
        cells: those chosen; one of them has a policy loss alone, over one token.
    """
    cells = thinking_cells(runs, cells)
    require_one_token(runs, cells)
    for name, values in differing(cells).items():
        if name not in (*KEYS, *STARTS) and not name.endswith(IDENTITY) and not _idle(name, cells):
            raise Refusal(f"{runs}: the cells differ in {name} too; choose, say, {name}={values[0]}")
    ways = ways_of(runs, cells)
    if ALONE not in ways:
        raise Refusal(f"{runs}: no finished run has nll_loss_beta=0 and n_tokens_ahead=1, to compare with", 1)
    pairs = pairs_of(ways)
    tested = compare(
        {
            f"{own} {other} {what}": _difference(ways, own, other, what)
            for own, other in pairs
            for what in ("nll", "accuracy")
        }
    )
    table = pd.DataFrame([_row(ways, own, other, tested) for own, other in pairs])
    curves = {way.name: way.curve for way in ways.values()}
    text = [*_text(ways), "", *_pair_text(ways, pairs, tested)]
    return Product(QUESTION, forcing_figure(curves), table, text, find(cells), KEYS)


def _idle(name: str, cells: Sequence[Cell]) -> bool:
    """Tell whether a setting differs only because it has no effect in some of the cells."""
    return len({str(cell.settings[name]) for cell in cells if name in cell.settings}) == 1


def name_of(settings: Mapping[str, Any]) -> str:
    """Return what trains a run, in words."""
    number, ahead = int(settings.get("n_tokens_ahead", 1)), settings.get("ahead", "persist")
    over = f", {number} tokens" if number > 1 else ""
    over += f", {ahead}" if number > 1 and ahead != "persist" else ""
    if not settings.get("nll_loss_beta", 1):
        return f"{ALONE}{over}"
    return f"teacher forcing{over}" + ("" if settings.get("policy_loss_beta", 1) else " alone")


def ways_of(runs: Path, cells: Sequence[Cell]) -> dict[str, Way]:
    """Return the ways of training by their names, the policy loss alone first.

    Raises:
        Refusal: two finished runs of one way have one seed.
    """
    frames: dict[str, list[pd.DataFrame]] = {}
    for cell in cells:
        if len(frame := cell.arms[THINKING]):
            frames.setdefault(name_of(cell.settings), []).append(frame)
    ways = {}
    for name in sorted(frames, key=lambda name: (not name.startswith(ALONE), "alone" in name, len(name))):
        rows = pd.concat(frames[name], ignore_index=True).sort_values("seed")
        if rows["seed"].duplicated().any():
            seed = int(rows["seed"][rows["seed"].duplicated()].iloc[0])
            raise Refusal(f"{runs}: two runs of seed {seed} are trained by {name}; choose with KEY=VALUE")
        ways[name] = Way(name, rows, by_step(runs, rows))
    return ways


def pairs_of(ways: Mapping[str, Way]) -> list[tuple[str, str]]:
    """Return what is compared: each way with the policy loss alone, several tokens also with one."""
    pairs = [(name, ALONE) for name in ways if name != ALONE]
    one = "teacher forcing"
    return pairs + [(name, one) for name in ways if one in ways and name.startswith(one) and name != one]


def _difference(ways: Mapping[str, Way], own: str, other: str, what: str) -> pd.Series:
    """Return a way's metric minus another's, by the seeds that both have."""
    return (by_seed(ways[own].rows, what) - by_seed(ways[other].rows, what)).dropna()


def steps_share(own: pd.DataFrame, other: pd.DataFrame) -> pd.Series:
    """Return the steps up to one loss over those of another way, by the seeds that both have.

    The loss is the higher one of their last, which both reach, at their last step if not before.

    Args:
        own: held-out loss, a row for each step, a column for each seed.
        other: likewise.
    """
    shares = {}
    for seed in own.columns.intersection(other.columns):
        curves = [curve[seed].dropna() for curve in (own, other)]
        level = max(curve.iloc[-1] for curve in curves)
        first = [curve.index[np.argmax(curve.to_numpy() <= level)] for curve in curves]
        shares[seed] = first[0] / first[1]
    return pd.Series(shares, dtype=float)


def _row(ways: Mapping[str, Way], own: str, other: str, tested: Mapping[str, Compared]) -> dict[str, Any]:
    row: dict[str, Any] = {"training": own, "compared_with": other}
    for what in ("nll", "accuracy"):
        level, found = estimate(by_seed(ways[own].rows, what)), tested[f"{own} {other} {what}"]
        row |= {what: level.mean, f"{what}_half_width": level.half_width}
        row |= {f"{what}_difference": found.interval.mean}
        row |= {f"{what}_difference_half_width": found.interval.half_width}
        row |= {f"{what}_p": found.p, f"{what}_beyond_chance": found.beyond_chance}
    share = estimate(steps_share(ways[own].curve, ways[other].curve))
    return row | {"seeds": share.count, "steps_share": share.mean, "steps_share_half_width": share.half_width}


def _text(ways: Mapping[str, Way]) -> list[str]:
    """Return each way's losses as text."""
    frames = [way.rows for way in ways.values()]
    columns = [
        Column("trained by", "", list(ways), left=True),
        Column("seeds", "", [str(len(frame)) for frame in frames]),
        Column("NLL", "nats", [estimate_text(by_seed(frame, "nll"), ".3f") for frame in frames]),
        Column("accuracy", "%", [estimate_text(100 * by_seed(frame, "accuracy"), ".1f") for frame in frames]),
    ]
    return plain_text(columns)


def _pair_text(
    ways: Mapping[str, Way], pairs: Sequence[tuple[str, str]], tested: Mapping[str, Compared]
) -> list[str]:
    """Return the differences as text."""
    columns = [
        Column("trained by", "", [own for own, _ in pairs], left=True),
        Column("against", "", [other for _, other in pairs], left=True),
        Column("NLL", "nats", [_words(tested[f"{own} {other} nll"], 1, "+.3f") for own, other in pairs]),
        Column(
            "accuracy",
            "points",
            [_words(tested[f"{own} {other} accuracy"], 100, "+.1f") for own, other in pairs],
        ),
        Column(
            "steps",
            "% of its",
            [
                estimate_text(100 * steps_share(ways[own].curve, ways[other].curve), ".0f")
                for own, other in pairs
            ],
        ),
    ]
    return [
        *plain_text(columns),
        f"after a difference its p; *: beyond chance, by Holm's correction over {len(tested)} comparisons",
        "published: +4.4 points, 25 % fewer episodes, which is 75 % of the steps",
    ]


def _words(found: Compared, factor: float, form: str) -> str:
    mean, half = factor * found.interval.mean, factor * found.interval.half_width
    return f"{plus_minus(mean, half, form)} {p_text(found.p)}{'*' if found.beyond_chance else ' '}"


if __name__ == "__main__":
    sys.exit(main())
