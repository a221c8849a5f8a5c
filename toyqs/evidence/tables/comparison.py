"""A comparison of arms as a table to read."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping

import pandas as pd

from toyqs.evidence.arms import JUDGED, WITHOUT_CONTENT, control_words, one_run
from toyqs.evidence.cells import Cell
from toyqs.evidence.judging.findings import OTHERS_ALONE, Finding, direction, without_thought
from toyqs.evidence.judging.gain import estimate, mean_of
from toyqs.evidence.tables.arm_columns import arm_columns
from toyqs.evidence.tables.divergence import divergence_notes
from toyqs.evidence.tables.layout import heading, plain_text, varying
from toyqs.evidence.text import WIDTH, aligned, listed, plus_minus, short, task_words, wrapped

AGAINST = """\
thinking against each control, by the 95 % interval of its gain, uncorrected (in brackets: not judged):"""


def comparison_table(finding: Finding) -> str:
    """Return a comparison as plain text, at most 110 columns wide, with the verdict under it.

    Returns:
        Lines without a newline at the end.

    Raises:
        ValueError: the run itself has no rows, or an arm two rows for one seed.
    """
    thinking = next(iter(finding.cell.arms.values()))
    if thinking.empty:
        raise ValueError("the thinking arm has no complete run, so there is nothing to compare")
    columns = arm_columns([finding])
    shown, said = varying(columns, [heading(column) for column in columns[:4]])
    lines = [*_title(finding.cell), "", *plain_text(shown), ""]
    lines += [f"the same in every line: {'; '.join(said)}"] if said else []
    if finding.gains:
        symbols = "±: half of a 95 % t-interval over seeds; "
        symbols += "gain: this arm's NLL minus thinking's, paired by seed"
        lines += [symbols, "", *control_lines(finding), *one_run(finding.cell.shown_as), ""]
    lines += _notes(finding.cell.arms)
    if finding.gains and finding.verdict:
        word, meaning = f"Verdict: {finding.verdict.text}.", finding.verdict.sentence
        lines += ["", *textwrap.wrap(word, WIDTH), *textwrap.wrap(meaning, WIDTH)]
    return "\n".join(lines).rstrip("\n")


def control_lines(finding: Finding) -> list[str]:
    """Return a line on each control: whether thinking is better, by the 95 % interval of its gain alone."""
    settings = finding.cell.settings
    rows = [(*_against(arm, gain), control_words(arm, settings)) for arm, gain in finding.gains.items()]
    columns = list(zip(*rows, strict=True))
    room = WIDTH - sum(max(map(len, column)) + 2 for column in columns[:-1])
    return [AGAINST, *aligned(wrapped(columns, room), left=[0, 1, 2, 3])]


def _against(arm: str, values: pd.Series) -> tuple[str, str, str]:
    gain = estimate(values)
    ends = "–" if math.isnan(gain.lower) else f"{short(gain.lower, '+.3f')} to {short(gain.upper, '+.3f')}"
    return arm if arm in JUDGED else f"({arm})", direction(values), ends


def _title(cell: Cell) -> list[str]:
    floor = mean_of(next(iter(cell.arms.values())), "bayes_floor")
    best = "not known" if floor is None else f"{floor:.3f} nats"
    return [
        *textwrap.wrap(setting(cell), WIDTH),
        f"Best possible NLL (Bayes), per counted position: {best}",
    ]


def setting(cell: Cell) -> str:
    """Return the task, the widths and the seeds of a cell's run in one line."""
    widths = {"base width": "base_lm_hidden_dim", "reasoner width": "reasoner_hidden_dim"}
    parts = [f"{word} {x:g}" for word, name in widths.items() if (x := cell.settings.get(name)) is not None]
    seeds = listed(next(iter(cell.arms.values()))["seed"])
    return ", ".join([task_words(cell.settings), *parts, f"seeds {seeds}"])


def _notes(arms: Mapping[str, pd.DataFrame]) -> list[str]:
    (_, thinking), *_ = arms.items()
    notes, started = [], []
    for arm, frame in arms.items():
        have = set() if frame.empty else set(frame["seed"])
        if lacking := set(thinking["seed"]) - have:
            notes.append(f"Not finished: {arm}, seed {listed(lacking)}.")
        if arm not in WITHOUT_CONTENT and "started" in frame and frame["started"].notna().any():
            never = frame.loc[frame["started"].eq(False), "seed"]
            names = f" (never: seed {listed(never)})" if 0 < len(never) < len(frame) else ""
            started.append(f"{arm} {len(frame) - len(never)} of {len(frame)} seeds{names}")
    for note in divergence_notes(arms):
        notes += textwrap.wrap(note, WIDTH)
    if started:
        alone = "" if without_thought(thinking) else f" This is {OTHERS_ALONE}."
        notes += textwrap.wrap(f"Started to think: {'; '.join(started)}.{alone}", WIDTH)
    return notes + _thoughts(thinking) + _language(thinking)


def _thoughts(frame: pd.DataFrame) -> list[str]:
    """Return two sentences on whether the thoughts are used, from means over seeds."""
    words = {
        "nll": "with its own thought",
        "nll_shuffled": "with a thought from another place",
        "nll_no_thought": "without a thought",
        "nll_marginal": "averaging the predictions of all its thoughts",
    }
    more = ("thought_entropy", "information", "information_shuffled")
    means = {name: mean_of(frame, name) for name in (*words, *more)}
    if means["nll_shuffled"] is None:
        return []
    known = {text: mean for name, text in words.items() if (mean := means[name]) is not None}
    losses = [f"{short(mean, '.3f')} {text}" for text, mean in known.items()]
    sentences = f"NLL of the thinking model: {', '.join(losses)}."
    if means["thought_entropy"] is not None:
        sentences += f" Entropy of a thought: {short(means['thought_entropy'], '.2f')} nats."
    if means["information"] is not None:
        sentences += f" A thought tells {short(means['information'], '.2f')} nats about what was read"
        chance = means["information_shuffled"]
        sentences += "." if chance is None else f"; one from another place tells {short(chance, '.2f')}."
    return textwrap.wrap(sentences, WIDTH)


def _language(frame: pd.DataFrame) -> list[str]:
    """Return a line on thoughts whose symbols are tokens: how far they are a code for the answers."""
    names = ("homogeneity", "completeness", "distinct_thoughts", "pass_at_k")
    means = [mean_of(frame, name) for name in names]
    if means[0] is None:
        return []
    tells, told, distinct, passes = (math.nan if mean is None else mean for mean in means)
    return [
        f"Thoughts as a code: homogeneity {plus_minus(tells, math.nan, '.2f')}, completeness "
        f"{plus_minus(told, math.nan, '.2f')} (0 by chance, 1 at most), {distinct:.0f} distinct, "
        f"pass@K {100 * passes:.1f} %."
    ]
