"""Tables for papers: a line for each cell and arm, as plain text, Markdown or LaTeX."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence

import pandas as pd

from toyqs.evidence.arms import WITHOUT_CONTENT
from toyqs.evidence.judging.decision import LEVEL
from toyqs.evidence.judging.findings import COSTS, Finding, started_text, verdict_text
from toyqs.evidence.measures import loss_words
from toyqs.evidence.selection import setting_line, value_of
from toyqs.evidence.tables.arm_columns import HEADINGS, arm_columns
from toyqs.evidence.tables.layout import (
    Column,
    heading,
    in_markdown,
    latex,
    markdown,
    named,
    plain_text,
    varying,
)
from toyqs.evidence.tables.references import joint_lines
from toyqs.evidence.tables.sweep import SHORT, SIGN, names_of, notes
from toyqs.evidence.text import WIDTH
from toyqs.files import visible

RENDERERS: dict[str, Callable[[Sequence[Column]], list[str]]] = {
    "text": plain_text,
    "md": markdown,
    "latex": latex,
}
GAIN = "gain: the arm's {} minus thinking's, paired by seed"


def paper_table(
    findings: Sequence[Finding], keys: Sequence[str], form: str, states: Mapping[str, str]
) -> list[str]:
    """Return the lines of a table of cells and arms, at most 110 columns wide, and what explains it.

    Columns that would say the same in every line are said once, below. Where the table is too wide, costs
    are left out, the last first, then the cells are numbered.

    Args:
        findings: of the cells, in the order in which they are shown.
        keys: the settings that name a cell.
        form: of RENDERERS.
        states: the key of a run -> its state in a word.
    """
    counts = [len(finding.cell.arms) for finding in findings]
    first = [
        named(SHORT.get(key, key), _each([value_of(f.cell, key) for f in findings], counts)) for key in keys
    ]
    frames = [frame for finding in findings for frame in finding.cell.arms.values()]
    known = arm_columns(findings)
    arm, *results, gain = known[: -len(COSTS)]
    results, costs = [*results, gain._replace(name="gain", unit="nats")], known[-len(COSTS) :]
    more = [
        Column("", "seeds", [str(len(frame)) for frame in frames]),
        Column("", "started", [_started(*each) for f in findings for each in f.cell.arms.items()]),
    ]
    body, said = varying([arm, *more, *results, *costs], [heading(column) for column in (arm, *results)])
    names, numbered = names_of(findings, keys), list[str]()
    columns, left_out = _fitting(first, body, form)
    if _width(columns, form) > WIDTH:
        numbers = [str(number) for number in range(1, len(findings) + 1)]
        numbered = [f"cell {n}: {name}" for n, name in zip(numbers, names, strict=True)]
        names = [f"cell {n}" for n in numbers]
        columns, left_out = _fitting([Column("", "cell", _each(numbers, counts))], body, form)
    explained = [SIGN] if any("±" in text for column in columns for text in column.texts) else []
    words = loss_words(finding.cell.loss for finding in findings)
    explained += [GAIN.format(words)] if any(finding.gains for finding in findings) else []
    lines = ["; ".join(explained)] if explained else []
    lines += joint_lines([finding.cell for finding in findings])
    lines += [f"the same in every line: {'; '.join(said)}"] if said else []
    lines += [f"left out for want of room (--csv has all): {', '.join(left_out)}"] if left_out else []
    lines += [*numbered, *_verdicts(findings, names), *notes(findings, names, states)]
    caption = setting_line([finding.cell for finding in findings])
    starts = [sum(counts[:place]) for place in range(1, len(counts))]
    table = latex(columns, starts) if form == "latex" else RENDERERS[form](columns)
    return _framed(caption, table, lines, form)


def _started(arm: str, frame: pd.DataFrame) -> str:
    return "–" if arm in WITHOUT_CONTENT else started_text(frame) or "–"


def _each(texts: Sequence[str], counts: Sequence[int]) -> list[str]:
    """Return a cell's text for each of its arms."""
    return [text for text, count in zip(texts, counts, strict=True) for _ in range(count)]


def _fitting(first: Sequence[Column], body: Sequence[Column], form: str) -> tuple[list[Column], list[str]]:
    """Return the columns of a table without those costs for which there is no room, and their names."""
    shown, left_out = list(body), []
    while _width([*first, *shown], form) > WIDTH and shown[-1][:2] in HEADINGS.values():
        left_out.append(" ".join(shown.pop()[:2]))
    return [*first, *shown], left_out[::-1]


def _width(columns: Sequence[Column], form: str) -> int:
    return max(map(len, markdown(columns) if form == "md" else plain_text(columns)))


def _verdicts(findings: Sequence[Finding], names: Sequence[str]) -> list[str]:
    judged = [(f, name) for f, name in zip(findings, names, strict=True) if f.verdict and f.gains]
    if not judged:
        return []
    cells = sum(finding.verdict is not None for finding in findings)
    corrected = f", corrected for {cells} cells (Holm)" if cells > 1 else ""
    lines = [f"verdict, by paired t-tests at {LEVEL:g}{corrected}:"]
    return [*lines, *(f"  {f'{name}: ' if name else ''}{verdict_text(f)}" for f, name in judged)]


def _framed(caption: str, table: Sequence[str], lines: Iterable[str], form: str) -> list[str]:
    """Return a table below its caption and above its notes: comments in LaTeX, a block in Markdown."""
    if form == "md":
        block = _wrapped(lines)
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", "".join(block))), default=0))
        return [*_wrapped([in_markdown(caption)]), "", *table, "", f"{fence}text", *block, fence]
    prefix = "% " if form == "latex" else ""
    head = [r"% needs \usepackage{booktabs}"] if form == "latex" else []
    return [*head, *_wrapped([caption], prefix), "", *table, "", *_wrapped(lines, prefix)]


def _wrapped(lines: Iterable[str], prefix: str = "") -> list[str]:
    wrapper = textwrap.TextWrapper(WIDTH, initial_indent=prefix, subsequent_indent=f"{prefix}  ")
    return [part for line in lines for part in wrapper.wrap(visible(line))]
