"""A comparison of arms as a table to read."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping

import pandas as pd

from toyqs.evidence.arms import JUDGED, WITHOUT_CONTENT, control_words, one_run
from toyqs.evidence.cells import Cell
from toyqs.evidence.judging.findings import COSTS, OTHERS_ALONE, Finding, direction, without_thought
from toyqs.evidence.judging.gain import estimate
from toyqs.evidence.measures import loss_words
from toyqs.evidence.tables.arm_columns import arm_columns
from toyqs.evidence.tables.divergence import divergence_notes
from toyqs.evidence.tables.layout import heading, plain_text, varying
from toyqs.evidence.tables.references import joint_lines, reference_lines
from toyqs.evidence.tables.sweep import SIGN
from toyqs.evidence.tables.thought_measures import thought_lines
from toyqs.evidence.text import WIDTH, aligned, human, listed, short, task_words, wrapped

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
    shown, said = varying(columns, [heading(column) for column in columns[: -len(COSTS)]])
    lines = [*_title(finding.cell), "", *plain_text(shown), ""]
    lines += [f"the same in every line: {'; '.join(said)}"] if said else []
    if finding.gains:
        symbols = f"{SIGN}; " if any("±" in line for line in lines) else ""
        symbols += f"gain: this arm's {loss_words([finding.cell.loss])} minus thinking's, paired by seed"
        lines += [
            symbols,
            *joint_lines([finding.cell]),
            "",
            *control_lines(finding),
            *one_run(finding.cell.shown_as),
            "",
        ]
    lines += [*_notes(finding.cell.arms), *thought_lines(thinking, finding.cell.settings)]
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
    return [*textwrap.wrap(setting(cell), WIDTH), *reference_lines([cell])]


def setting(cell: Cell) -> str:
    """Return the task, the widths and the seeds of a cell's run in one line."""
    widths = {"base width": "base_lm_hidden_dim", "reasoner width": "reasoner_hidden_dim"}
    parts = [f"{word} {x:g}" for word, name in widths.items() if (x := cell.settings.get(name)) is not None]
    seeds = listed(next(iter(cell.arms.values()))["seed"])
    return ", ".join([task_words(cell.settings), *parts, f"seeds {seeds}"])


def _labels(arms: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return what says the labels of a warm start in each arm, which its columns leave out."""
    labelled = {
        arm: x.iloc[0] for arm, x in arms.items() if "label_flops" in x and x["label_flops"].notna().all()
    }
    said = [f"{arm} {human(x['label_parameters'])}, {human(x['label_flops'])}" for arm, x in labelled.items()]
    if not said:
        return []
    what = (
        "Labels of the warm start, in training alone and not counted above, parameters, FLOPs of a position"
    )
    return textwrap.wrap(f"{what}: {'; '.join(said)}.", WIDTH)


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
    notes += _labels(arms)
    for note in divergence_notes(arms):
        notes += textwrap.wrap(note, WIDTH)
    if started:
        alone = "" if without_thought(thinking) else f" This is {OTHERS_ALONE}."
        notes += textwrap.wrap(f"Started to think: {'; '.join(started)}.{alone}", WIDTH)
    return notes
