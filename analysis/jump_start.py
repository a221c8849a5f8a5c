"""Draw how fast runs learn to think from scratch, after plain training and after baking."""

from __future__ import annotations

import argparse
import math
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

if not __package__:  # called as a file, in a checkout
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toyqs.command_line import run
from toyqs.evidence.cells import Cell, by_key
from toyqs.evidence.figures import marks, style
from toyqs.evidence.figures.script import (
    MORE,
    add_output,
    check_output,
    chosen_cells,
    require_one_token,
    runs_parser,
    write,
)
from toyqs.evidence.judging.findings import find, origins
from toyqs.evidence.judging.gain import by_seed, estimate, interval
from toyqs.evidence.judging.head_start import SCRATCH, Kind, kinds_of
from toyqs.evidence.judging.significance import holm_bar, p_value
from toyqs.evidence.rows import load_rows
from toyqs.evidence.selection import setting_line, thinking_cells
from toyqs.evidence.tables.layout import Column, plain_text
from toyqs.evidence.text import WIDTH, plus_minus
from toyqs.files import Refusal

if TYPE_CHECKING:  # a notebook's MPLBACKEND stops matplotlib's import, unless toyqs comes first
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DESCRIPTION = """\
Draw the held-out NLL of runs that think against their steps, and against CPU seconds with those of the runs
that came before: a line for each kind of start (from scratch, after NLL, after baking), with 95 % t-intervals
over seeds. Each seed may start from a run of its own. RUNS holds the runs that the others start from, too.
What a start saves is paired by seed; better or worse is by paired t-tests at .05, corrected (Holm) for the
number of comparisons. The table has a row for each run."""
QUESTION = "What is a start worth before thoughts are trained?"
STARTS = """\
print the words that start one run from each of those chosen, seed by seed, for the next command, and stop"""
LEVELS = """\
the NLLs to which steps are counted, with commas; without this the least one that every run reaches"""
COLOURS = ("#4D4D4D", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line described by DESCRIPTION; return the exit code."""
    parser = runs_parser(DESCRIPTION, "[--starts | --nll LEVELS] [-o FILE] [--talk]", MORE)
    add_output(parser, "jump_start.png")
    parser.add_argument("--starts", action="store_true", help=STARTS)
    parser.add_argument("--nll", metavar="LEVELS", default="", help=LEVELS)
    return run(_work, parser, words)


def _work(options: argparse.Namespace) -> None:
    if options.starts:
        print(start_words(chosen_cells(options)))
        return
    check_output(options.output, options.output.with_suffix(".csv"))
    kinds = _kinds(options)
    levels = _levels(options.nll, kinds)
    cells = [kind.cell for kind in kinds]
    with style.style(options.talk):
        written = write(options, _figure(kinds, levels), QUESTION, cells, [], table(kinds, levels))
    if warning := origins(cells):
        print(f"analysis/jump_start.py: {warning}", file=sys.stderr)
    text = [*textwrap.wrap(setting_line(cells), WIDTH), "", *lines(kinds, levels), *_judged(cells)]
    print("\n".join([*text, "", *written]), flush=True)


def start_words(cells: Sequence[Cell]) -> str:
    """Return `zip=[start_from,seed] start_from=KEY,… seed=N,…` of the cells' own runs, by seed.

    Raises:
        Refusal: none has finished, or two have one seed.
    """
    runs = [row for cell in cells for row in next(iter(cell.arms.values())).to_dict("records")]
    runs.sort(key=lambda row: int(row["seed"]))
    seeds = [int(row["seed"]) for row in runs]
    if not runs or len(set(seeds)) < len(seeds):
        why = "two runs have one seed" if runs else "no run has finished"
        raise Refusal(f"--starts: {why}; choose with KEY=VALUE, such as stage=bake", 1)
    keys = ",".join(row["key"] for row in runs)
    return f"zip=[start_from,seed] start_from={keys} seed={','.join(map(str, seeds))}"


def _kinds(options: argparse.Namespace) -> list[Kind]:
    cells = [
        c for c in thinking_cells(options.runs, chosen_cells(options)) if len(next(iter(c.arms.values())))
    ]
    require_one_token(options.runs, cells)
    if not cells:
        raise Refusal(f"{options.runs}: no run that thinks has finished", 1)
    try:
        kinds = kinds_of(options.runs, cells, by_key(load_rows(options.runs)))
    except KeyError as error:
        why = f"a run starts from {error.args[0]}, which is not there"
        raise Refusal(f"{options.runs}: {why}; give the folder that holds both") from None
    except ValueError as error:
        raise Refusal(f"{options.runs}: {error}") from None
    if len(kinds) > len(COLOURS):
        raise Refusal(f"{options.runs}: {len(kinds)} kinds of start, {len(COLOURS)} at most; choose fewer")
    if lost := [kind.name for kind in kinds if not all(map(len, kind.curves.values()))]:
        raise Refusal(f"{options.runs}: a run {lost[0]} has no readable curve", 1)
    return kinds


def _levels(given: str, kinds: Sequence[Kind]) -> list[float]:
    """Return the losses to which steps are counted."""
    if not given:
        worst = max(float(curve.min()) for kind in kinds for curve in kind.curves.values())
        return [math.ceil(100 * worst) / 100]
    try:
        levels = [float(word) for word in given.split(",")]
    except ValueError:
        levels = []
    if not levels or not all(map(math.isfinite, levels)):
        raise Refusal(f"--nll {given}: are losses in nats, with commas; give such as --nll 1,0.5")
    return levels


def saved(kind: Kind, scratch: Kind, level: float) -> pd.Series:
    """Return by seed the share of the steps from scratch to a loss that a start saves; NaN: never there."""
    steps, others = kind.steps_to(level), scratch.steps_to(level)
    seeds = steps.index.intersection(others.index)
    return 1 - steps[seeds] / others[seeds]


def table(kinds: Sequence[Kind], levels: Sequence[float]) -> pd.DataFrame:
    """Return a row for each run that thinks: what came before it, and its way to each loss."""
    frames = []
    for kind in kinds:
        runs = kind.runs.set_index("seed")
        found = pd.DataFrame({"kind": kind.name, "key": runs["key"]})
        for column in ("nll", "accuracy", "started", "policy_snr", "train_steps", "cpu_seconds"):
            found[column] = runs.get(column)
        found["steps_before"] = kind.total_before("train_steps")
        found["cpu_before"] = kind.total_before("cpu_seconds")
        found["nll_before"] = pd.Series({seed: rows[0]["nll"] for seed, rows in kind.before.items() if rows})
        for level in levels:
            found[f"steps_to_{level:g}"] = kind.steps_to(level)
            found[f"cpu_to_{level:g}"] = kind.cpu_to(level)
        frames.append(found.assign(commit=runs["commit"]).reset_index())
    return pd.concat(frames, ignore_index=True)


def lines(kinds: Sequence[Kind], levels: Sequence[float]) -> list[str]:
    """Return the table by kind, and of each loss the steps and what they save."""
    names = [kind.name for kind in kinds]

    def column(head: str, unit: str, values: Sequence[pd.Series], form: str) -> Column:
        found = [estimate(x) for x in values]
        return Column(head, unit, [plus_minus(x.mean, x.half_width, form, "–") for x in found])

    runs = [kind.runs for kind in kinds]
    columns = [
        Column("start", "", names, left=True),
        Column("seeds", "", [str(len(frame)) for frame in runs]),
        Column("started", "", [str(int(frame["started"].fillna(False).sum())) for frame in runs]),
        column("NLL", "nats", [by_seed(frame, "nll") for frame in runs], ".3f"),
        column("policy's signal", "to noise", [by_seed(frame, "policy_snr") for frame in runs], ".3f"),
        column("CPU s", "before", [kind.total_before("cpu_seconds") for kind in kinds], ".2f"),
        column("CPU s", "own", [by_seed(frame, "cpu_seconds") for frame in runs], ".2f"),
    ]
    text = [*plain_text(columns), ""]
    tests = {
        (kind.name, level): saved(kind, kinds[0], level)
        for kind in kinds[1:]
        for level in levels
        if kinds[0].name == SCRATCH
    }
    known = [p for p in map(p_value, tests.values()) if not math.isnan(p)]
    bar = holm_bar(known) if known else math.nan
    for level in levels:
        reached = [kind.steps_to(level) for kind in kinds]
        shares = [100 * tests.get((name, level), pd.Series(dtype=float)) for name in names]
        columns = [
            Column("start", "", names, left=True),
            Column("reach", "", [f"{x.notna().sum()} of {len(x)}" for x in reached]),
            column("steps", "", [x.dropna() for x in reached], ".0f"),
            column("CPU s", "in all", [kind.cpu_to(level).dropna() for kind in kinds], ".2f"),
            column("steps saved", "%", shares, "+.0f"),
            Column("than from scratch", "", [_word(x, bar) for x in shares], left=True),
        ]
        text += [
            f"To an NLL of {level:g}, over the seeds that reach it; saved, where all do: paired by seed",
            *plain_text(columns),
        ]
        text.append("")
    count = f"{len(known)} comparison{'' if len(known) == 1 else 's'}"
    return [*text, f"±: half of a 95 % t-interval over seeds; faster, slower: Holm over {count}"]


def _word(share: pd.Series, bar: float) -> str:
    p = p_value(share)
    if math.isnan(p):
        return "" if share.empty else "not judged"
    if p > bar:
        return f"undecided (p {p:.2g})"
    return f"{'faster' if share.mean() > 0 else 'slower'} (p {p:.2g})"


def _judged(cells: Sequence[Cell]) -> list[str]:
    """Return the verdict on the thoughts of each kind, over its controls."""
    compared = [cell for cell in cells if cell.compares]
    if not compared:
        return []
    text = ["", f"Thinking against its controls of the same start, corrected for {len(compared)} cells:"]
    for finding in find(compared):
        name = str(finding.cell.settings.get("start_from") or SCRATCH)
        assert finding.verdict is not None
        gains = {arm: estimate(gain) for arm, gain in finding.gains.items()}
        shown = ", ".join(
            f"{arm} {plus_minus(x.mean, x.half_width, '+.3f', '–')}" for arm, x in gains.items()
        )
        words = f"{name}: {finding.verdict.text}. Gain over {shown}"
        text += textwrap.wrap(words, WIDTH, subsequent_indent="  ")
    return text


def _figure(kinds: Sequence[Kind], levels: Sequence[float]) -> Figure:
    figure = style.new_figure(12, 4.6)
    panels: list[Axes] = list(figure.subplots(1, 2, sharey=True))
    for kind, colour in zip(kinds, COLOURS, strict=False):
        together = pd.concat(kind.curves, axis=1, join="inner").sort_index()
        found = [interval(values) for values in together.to_numpy()]
        mean = [x.mean for x in found]
        low, high = [x.lower for x in found], [x.upper for x in found]
        own = float(by_seed(kind.runs, "cpu_seconds").mean())
        steps = float(kind.runs["train_steps"].mean())
        cpu = float(kind.total_before("cpu_seconds").mean()) + own * together.index.to_numpy() / steps
        for axes, places in zip(panels, (together.index.to_numpy(), cpu), strict=True):
            axes.plot(places, mean, color=colour, linewidth=style.points(2))
            axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
    for axes in panels:
        for level in levels:
            axes.axhline(level, color="black", linewidth=style.points(0.7), linestyle=":")
        axes.set_ylim(bottom=0)
    panels[0].set(xlabel="steps of the training that thinks", ylabel="held-out NLL, nats")
    panels[1].set(xlabel="CPU seconds of a seed, what came before included")
    look = [marks.handle(colour, kind.name, ("", "-")) for kind, colour in zip(kinds, COLOURS, strict=False)]
    figure.legend(handles=look)
    return figure


if __name__ == "__main__":
    sys.exit(main())
