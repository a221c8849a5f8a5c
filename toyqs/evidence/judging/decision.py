"""The verdict on thinking, by its gains over the controls."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from toyqs.evidence.arms import JUDGED, MATCHED
from toyqs.evidence.judging.gain import interval
from toyqs.evidence.judging.significance import LEVEL, holm_bar, p_value
from toyqs.evidence.text import spans

FEWEST_SEEDS = 4
NOT_JUDGED, TOO_FEW, UNUSED = "not judged", "too few seeds", "thoughts not used"
WORSE = "worse than not thinking"
BEATS_ALL = "beats every matched control"
BEATS_BASE = "beats the same base"
NEVER_REWARDED = "no better than never-rewarded thoughts"
UNTOLD = "cannot be told from not thinking"
BEST_FIRST = (BEATS_ALL, BEATS_BASE, NEVER_REWARDED, TOO_FEW, NOT_JUDGED, UNTOLD, UNUSED, WORSE)
ALONE = {word: LEVEL for word in (WORSE, BEATS_ALL, BEATS_BASE, NEVER_REWARDED)}  # the bars of one cell
MEANINGS = {
    WORSE: "Thoughts of no symbols do better.",
    BEATS_ALL: "The thoughts gain over the same base without them, and over every explanation tested:",
    BEATS_BASE: "The thoughts gain over the same base without them.",
    NEVER_REWARDED: "Thoughts help this base, but those that are never rewarded may do as well.",
    UNTOLD: "These seeds show thinking neither to help nor to hurt.",
}
EXPLANATIONS = {
    "state_handed_on": "the reasoner's state",
    "pause": "steps without content",
    "compute_matched": "more training",
    "param_matched": "more parameters",
}


class Case(NamedTuple):
    """What a cell is judged by."""

    gains: Mapping[str, pd.Series]  # of thinking over each control by seed; empty: no seed in common
    started: pd.Series  # whether each seed of thinking started; seeds of which it is not known are left out
    absent: Collection[str] = ()  # judged controls that the run cannot have, or has under another's name
    has_base: bool = True  # whether the run has a base LM


class Verdict(NamedTuple):
    """The first line of the decision table that holds for a cell; see `verdicts`."""

    word: str
    before: str  # the word before correction for the number of cells
    cells: int  # of the table
    p: float  # the largest over the controls that the word needs; NaN: no test led to the word
    sentence: str  # what the word means

    @property
    def standing(self) -> int:
        """Return the word's place in BEST_FIRST."""
        return next(place for place, line in enumerate(BEST_FIRST) if self.word.startswith(line))

    @property
    def corrected(self) -> bool:
        """Tell whether the word is another before correction for the number of cells."""
        return self.word != self.before

    @property
    def judged(self) -> bool:
        """Tell whether the cell could be judged."""
        return not self.word.startswith((NOT_JUDGED, TOO_FEW))

    @property
    def text(self) -> str:
        """Return the word; where it is another before correction, with that."""
        if not self.corrected:
            return self.word
        before = self.before
        for line in (BEATS_BASE, UNTOLD):  # only the controls named differ
            if self.word.startswith(line) and before.startswith(line):
                before = before.removeprefix(line).lstrip(",; ")
        return f"{self.word} (before correction for {self.cells} cells: {before})"


def verdict(
    gains: Mapping[str, pd.Series], started: pd.Series | None = None, absent: Collection[str] = ()
) -> Verdict:
    """Judge one cell by itself: `verdicts` of a table of one.

    Args:
        gains: `reasoning_gain` over each control, by the control's name.
        started: whether each seed of thinking started, by seed; None: not known.
        absent: judged controls that the run cannot have, such as policy_off where no policy loss trains.
    """
    return verdicts([Case(gains, pd.Series(dtype=bool) if started is None else started, absent)])[0]


def verdicts(cases: Sequence[Case]) -> list[Verdict]:
    """Judge the cells of one table by paired t-tests of the gains, with Holm's correction for their number.

    Judged are zero_length, policy_off and the matched controls: state_handed_on, pause, compute_matched and
    param_matched. For each cell the first line that holds gives the word:

        not judged: …                           zero_length or policy_off was not run, a control asked for is
                                                missing, or a seed diverged (its gain is not finite)
        too few seeds (n of 4) to judge         fewer than 4 seeds that thinking and all judged controls have
        worse than not thinking                 worse than zero_length
        thoughts not used (…)                   of those seeds, as far as known, fewer than half started
        beats every matched control             better than zero_length, policy_off and all matched controls
        beats the same base, not …              better than zero_length and policy_off
        no better than never-rewarded thoughts  better than zero_length; there is a policy_off
        cannot be told from not thinking        otherwise; the matched controls that it beats are named

    A control named in `absent` is none of the cell's judged controls. A matched control that was not run is
    named with the word, and *beats every matched control* is then out of reach.

    Better, and worse: a control's p is the two-sided p-value of its paired gains, and 1 where their mean is
    not above 0 (not below 0 for *worse*). A cell's p for a word is the largest p over the controls that the
    word needs: those of its line. It is 1 where the cell cannot have the word: it is not judged or has too
    few seeds, it lacks a control of the line, or, for a word below that line, its thoughts are not used. A
    cell that has a stronger word counts with its own p for the weaker ones, and one without policy_off with
    its own p for *no better than never-rewarded thoughts*, which it never gets. Each of the four words that
    need a test has a bar: Holm's, at .05, over the p of all cells of the table for this word. With m cells
    of which k pass, it is .05 / (m − k), and .05 where all pass. A cell has the word where its p is not
    above the bar; else the next lines are tried, each with its own bar. So one cell alone is judged at .05.
    The matched controls that a cell does not beat, and those that it beats without its being told from not
    thinking, are named at the bar of *beats every matched control*. Where the bars change what is said,
    `text` adds what .05 would give.

    Args:
        cases: the cells of the table shown, those included that cannot be judged.

    Returns:
        One verdict a case.
    """
    tested = [_Tested(case) for case in cases]
    bars = {word: holm_bar([each.p[word] for each in tested]) for word in ALONE}
    found = []
    for each in tested:
        line = each.line(bars)
        words = each.text(line, bars), each.text(each.line(ALONE), ALONE)
        found.append(Verdict(*words, len(cases), each.p.get(line, math.nan), each.meaning(line, bars)))
    return found


class _Tested:
    """The p-values of a cell, and what decides it without one."""

    def __init__(self, case: Case) -> None:
        possible = [name for name in JUDGED if name not in case.absent]
        self.gains = {name: case.gains[name] for name in possible if name in case.gains}
        self.has_base = case.has_base
        self.not_run = [name for name in possible if name not in self.gains]
        seeds = set.intersection(*(set(gain.index) for gain in self.gains.values())) if self.gains else set()
        self.unjudged = self._unjudged(len(seeds))
        self.unused = "" if self.unjudged else _unused(case.started, seeds)
        self.better: dict[str, float] = {}
        self.p = dict.fromkeys(ALONE, 1.0)
        if self.unjudged:
            return
        self.better = {name: _one_sided(gain) for name, gain in self.gains.items()}
        zero = self.gains["zero_length"]
        self.p |= {WORSE: _one_sided(-zero), UNTOLD: p_value(zero)}
        if self.unused:
            return
        base = [name for name in ("zero_length", "policy_off") if name in self.gains]
        self.p[BEATS_BASE] = max(self.better[name] for name in base)
        self.p[NEVER_REWARDED] = self.better["zero_length"]
        if not self.not_run:
            self.p[BEATS_ALL] = max(self.better.values())

    def line(self, bars: Mapping[str, float]) -> str:
        """Return the first line of the decision table that holds."""
        if self.unjudged or self.p[WORSE] <= bars[WORSE]:
            return self.unjudged or WORSE
        rewarded = "policy_off" in self.gains
        tried = (BEATS_ALL, BEATS_BASE, *([NEVER_REWARDED] if rewarded else []))
        return next((word for word in tried if self.p[word] <= bars[word]), self.unused or UNTOLD)

    def text(self, line: str, bars: Mapping[str, float]) -> str:
        """Return a line as it is printed, with the controls that it names."""
        if line not in (BEATS_BASE, UNTOLD):
            return line
        beaten, others = self._matched(bars)
        if line == UNTOLD:
            return f"{line}; beats {', '.join(beaten)}" if beaten else line
        line += f", not {', '.join(others)}" if others else ""
        return f"{line}; not run: {', '.join(self.not_run)}" if self.not_run else line

    def meaning(self, line: str, bars: Mapping[str, float]) -> str:
        """Return a sentence or two on what a line means."""
        if line == self.unjudged:
            return f"A verdict needs {FEWEST_SEEDS} seeds of every judged control, none of them diverged."
        if line == self.unused:
            return "For most seeds another sequence's thought, or none, costs nothing: no gain is due to it."
        meaning = MEANINGS[line]
        sentences = [meaning if self.has_base else meaning.replace(" base", " model")]
        if line == BEATS_ALL:
            sentences.append(f"{', '.join(EXPLANATIONS[name] for name in MATCHED if name in self.gains)}.")
        if line == BEATS_BASE:
            sentences += self._explanations(self._matched(bars)[1])
        if line in (BEATS_BASE, UNTOLD) and self.not_run:
            sentences.append(f"Not run, and so not ruled out: {', '.join(self.not_run)}.")
        return " ".join(sentences)

    def _explanations(self, others: Sequence[str]) -> list[str]:
        """Return sentences on matched controls that are not beaten: some are better than thinking."""
        better = [name for name in others if _one_sided(-self.gains[name]) <= LEVEL]
        open_ = [EXPLANATIONS[name] for name in others if name not in better]
        names = ", ".join(EXPLANATIONS[name] for name in better)
        found = [f"But better than the thoughts: {names}."] if better else []
        if open_:
            *first, last = open_
            names = f"{', '.join(first)} or {last}" if first else last
            found.append(f"{'' if better else 'But '}{names} may gain as much, or more.")
        return [f"{sentence[0].upper()}{sentence[1:]}" for sentence in found]

    def _matched(self, bars: Mapping[str, float]) -> tuple[list[str], list[str]]:
        """Return the matched controls that are beaten, and the others."""
        names = [name for name in MATCHED if name in self.gains]
        beaten = [name for name in names if self.better[name] <= bars[BEATS_ALL]]
        return beaten, [name for name in names if name not in beaten]

    def _unjudged(self, num_seeds: int) -> str:
        """Return why the cell cannot be judged; "" where it can."""
        if needed := [name for name in self.not_run if name not in MATCHED]:
            return f"{NOT_JUDGED}: {', '.join(needed)} not run"
        missing = [name for name, gain in self.gains.items() if gain.empty]
        if len(missing) == len(self.gains):
            return f"{NOT_JUDGED}: nothing finished to compare"
        if missing:
            return f"{NOT_JUDGED}: {', '.join(missing)} missing"
        lost = {s for gain in self.gains.values() for s, x in gain.items() if not math.isfinite(x)}
        if lost:
            return f"{NOT_JUDGED}: seed {spans(lost)} diverged"
        return f"{TOO_FEW} ({num_seeds} of {FEWEST_SEEDS}) to judge" if num_seeds < FEWEST_SEEDS else ""


def _unused(started: pd.Series, seeds: set[int]) -> str:
    """Return the line on thoughts that are not used, where fewer than half of the seeds known started."""
    flags = started[started.index.isin(seeds)]
    count = int(flags.sum())
    return f"{UNUSED} ({count} of {len(flags)} seeds started)" if 2 * count < len(flags) else ""


def _one_sided(gain: pd.Series) -> float:
    """Return the two-sided p-value of gains, and 1 where their mean is not above 0."""
    return p_value(gain) if interval(gain).mean > 0 else 1.0
