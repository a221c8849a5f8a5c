"""Cells as text: their losses, gains and verdicts, and what else a reader must know."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import pandas as pd

from toyqs.evidence.arms import JUDGED, arm_names, one_run
from toyqs.evidence.judging.decision import LEVEL
from toyqs.evidence.judging.findings import (
    OTHERS_ALONE,
    Finding,
    estimate_text,
    started_text,
    verdict_text,
)
from toyqs.evidence.measures import loss_words
from toyqs.evidence.selection import BASE, place_of, value_of
from toyqs.evidence.tables.divergence import divergence_notes
from toyqs.evidence.tables.layout import GAP, Column, heading, named, plain_text, varying, width
from toyqs.evidence.tables.references import joint_lines, reference_lines
from toyqs.evidence.text import WIDTH, spans, task_words

GAIN_HEADING = """\
gain of thinking over each control, nats, paired by seed, ± half of a 95 % t-interval (uncorrected):"""
SIGN = "±: half of a 95 % t-interval over seeds"
SHORT = {BASE: "base_width"}  # headings that would make a table too wide


def loss_heading(findings: Sequence[Finding]) -> str:
    """Return the line above `loss_lines`."""
    words = loss_words(finding.cell.loss for finding in findings)
    return f"held-out {words}, nats per counted position, ± half of a 95 % t-interval over seeds:"


def loss_lines(findings: Sequence[Finding], keys: Sequence[str]) -> list[str]:
    """Return a text table of every arm's NLL, one line per cell, after the cell's values of some settings."""
    arms = arm_names(arm for finding in findings for arm in finding.cell.arms)
    return _in_blocks(_settings(findings, keys), [_texts([f.losses for f in findings], arms, ".3f")])


def gain_lines(findings: Sequence[Finding], keys: Sequence[str]) -> list[str]:
    """Return a text table of the gain over every control; see `loss_lines`.

    The judged controls come first; the others stand below them where all are too many for one line.
    """
    cells = [finding.cell for finding in findings if finding.cell.thinks]
    arms = arm_names(arm for cell in cells for arm in list(cell.arms)[1:])
    groups = [[arm for arm in arms if (arm in JUDGED) == judged] for judged in (True, False)]
    gains = [finding.gains for finding in findings]
    return _in_blocks(_settings(findings, keys), [_texts(gains, group, "+.3f") for group in groups])


def verdict_lines(findings: Sequence[Finding], keys: Sequence[str]) -> list[str]:
    """Return a text table of every cell's seeds, loss and verdict, and lines on these; see `loss_lines`.

    There is no verdict where no judged control was asked for.
    """
    runs = [next(iter(finding.cell.arms.values())) for finding in findings]
    losses = Column(loss_words(f.cell.loss for f in findings), "nats", list(map(_loss, findings)))
    started = [started_text(run) for run in runs]
    settings = _settings(findings, keys)
    columns = [
        *settings,
        Column("", "seeds", [str(len(run)) for run in runs]),
        losses,
        Column("", "started", started),
    ]
    cells = sum(finding.verdict is not None for finding in findings)
    if any(arm in JUDGED for finding in findings for arm in finding.cell.arms):
        columns.append(Column("", "verdict", list(map(verdict_text, findings)), left=True))
    shown, said = varying(columns, [heading(column) for column in (*settings, losses, *columns[-1:])])
    lines = [f"the same in every line: {'; '.join(said)}"] if said else []
    if any(finding.verdict and finding.verdict.judged for finding in findings):
        corrected = f", corrected for {cells} cells (Holm)" if cells > 1 else ""
        lines.append(f"verdict: by paired t-tests at {LEVEL:g}{corrected}")
    if any(started):
        lines.append("started: seeds whose thoughts are used; one that never starts stays in every mean")
    if any("*" in each for each in started):
        lines.append(f"*: {OTHERS_ALONE}")
    return [*plain_text(shown), "", *lines]


def _loss(finding: Finding) -> str:
    return estimate_text(finding.losses.get(next(iter(finding.cell.arms))), ".3f", "not finished")


def _settings(findings: Sequence[Finding], keys: Sequence[str]) -> list[Column]:
    return [named(SHORT.get(key, key), [value_of(f.cell, key) for f in findings]) for key in keys]


def _texts(cells: Sequence[Mapping[str, pd.Series]], arms: Sequence[str], form: str) -> list[Column]:
    return [named(arm, [estimate_text(each.get(arm), form, sign="±") for each in cells]) for arm in arms]


def _in_blocks(first: Sequence[Column], groups: Sequence[Sequence[Column]]) -> list[str]:
    """Return a table of the columns; where it is too wide, several, each of which begins with the first ones.

    Args:
        first: columns.
        groups: of more columns, which stand apart where they are not all in one line.
    """
    room = WIDTH - sum(width(column) + GAP for column in first)
    blocks: list[list[Column]] = []
    whole = [column for group in groups for column in group]
    for group in groups if sum(width(column) + GAP for column in whole) > room + GAP else [whole]:
        blocks.append([])
        for column in group:
            if blocks[-1] and sum(width(each) + GAP for each in [*blocks[-1], column]) > room + GAP:
                blocks.append([])
            blocks[-1].append(column)
    lines: list[str] = []
    for block in filter(None, blocks):
        lines += [*([""] if lines else []), *plain_text([*first, *block])]
    return lines


def sweep_table(findings: Sequence[Finding], keys: Sequence[str]) -> str:
    """Return a line per cell: its loss and verdict, then what thinking gains over each control.

    Args:
        findings: of the cells of a sweep.
        keys: the settings that name a cell.

    Returns:
        Lines without a newline at the end.
    """
    tasks = sorted({task_words(finding.cell.settings) for finding in findings})
    lines = textwrap.wrap(f"{len(findings)} cells: {'; '.join(tasks)}", WIDTH)
    if len(tasks) == 1:
        lines += reference_lines([finding.cell for finding in findings])
    shown = verdict_lines(findings, keys)
    lines += ["", *shown, *([SIGN] if any("±" in line for line in shown) else [])]
    lines += [*joint_lines([finding.cell for finding in findings]), ""]
    if gains := gain_lines(findings, keys):
        lines += [GAIN_HEADING, *gains, ""]
    return "\n".join([*lines, *notes(findings, names_of(findings, keys))])


def names_of(findings: Iterable[Finding], keys: Sequence[str]) -> list[str]:
    """Return the cells' names by some settings."""
    return [place_of(finding.cell, keys) for finding in findings]


def notes(
    findings: Sequence[Finding], names: Sequence[str], states: Mapping[str, str] | None = None
) -> list[str]:
    """Return what a reader must know in addition: which seeds are missing, diverged or never thought.

    Args:
        findings: of the cells shown.
        names: theirs.
        states: the key of a run -> its state in a word; None: it is not known.
    """
    lines = ["Missing: nothing that was asked for."]
    if missing := _by_cell(findings, names, lambda finding: _missing(finding, states or {})):
        why = "without a row that can be read" if states else "not finished"
        lines = [f"Missing, asked for but {why}:", *(f"  {line}" for line in missing)]
    for note in _by_cell(findings, names, _divergence):
        lines += textwrap.wrap(note, WIDTH)
    if never := _by_cell(findings, names, _never):
        lines += textwrap.wrap(f"Never started to think: {'; '.join(never)}.", WIDTH)
    return lines + _one_runs(findings, names)


def _one_runs(findings: Sequence[Finding], names: Sequence[str]) -> list[str]:
    """Return a line on each control that is one run with another arm, with its cells where not in all."""
    places: dict[str, list[str]] = {}
    for finding, name in zip(findings, names, strict=True):
        for line in one_run(finding.cell.shown_as):
            places.setdefault(line, []).append(name)
    everywhere = sum(finding.cell.compares for finding in findings)
    texts = [f"{x} ({'; '.join(at)})" if len(at) < everywhere else x for x, at in places.items()]
    return [wrapped_line for text in texts for wrapped_line in textwrap.wrap(text, WIDTH)]


def _by_cell(
    findings: Iterable[Finding], names: Iterable[str], describe: Callable[[Finding], str]
) -> list[str]:
    """Return the description of each cell that has one, after the cell's name."""
    described = [(name, describe(finding)) for finding, name in zip(findings, names, strict=True)]
    return [f"{name}: {text}" if name else text for name, text in described if text]


def _missing(finding: Finding, states: Mapping[str, str]) -> str:
    """Return the seeds without a row, by arm and, where it is known, by state."""
    cell, found = finding.cell, dict[str, set[int]]()
    whole = cell.missing.keys() == cell.arms.keys() and not finding.losses
    for arm, seeds in cell.missing.items():
        for seed in seeds:
            name = "everything" if whole else arm
            word = states.get(cell.keys.get(arm, {}).get(seed, ""))
            found.setdefault(f"{name} {word}" if word else name, set()).add(seed)
    return _seeds(found)


def _divergence(finding: Finding) -> str:
    return " ".join(divergence_notes(finding.cell.arms))


def _never(finding: Finding) -> str:
    thinking = next(iter(finding.cell.arms.values()))
    if "started" not in thinking:
        return ""
    seeds = list(thinking["seed"][thinking["started"].eq(False)])
    return _seeds({f"{len(seeds)} of {len(thinking)}": seeds})


def _seeds(named: Mapping[str, Collection[int]]) -> str:
    return ", ".join(f"{name} (seed {spans(seeds)})" for name, seeds in named.items() if len(seeds))
