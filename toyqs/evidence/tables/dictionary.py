"""The dictionary of a run's thoughts as text: what they stand for, which symbols they use, what they tell."""

from __future__ import annotations

import math

from toyqs.evidence.dictionary import Entry, Told, entries, told, usage
from toyqs.evidence.tables.thoughts import cut, names_of, word, wrapped_line
from toyqs.evidence.text import WIDTH, aligned, wrapped
from toyqs.files import visible
from toyqs.thought_record import Record

MOST_ANSWERS = 6  # of a thought that are printed
MOST_SYMBOLS = 10  # of a place that are printed
WIDEST, NARROW = 36, 14  # of a thought, of a feature's name
MOST_PLACES = 7  # of thoughts of which it is printed what they tell
UNNAMED = "Their symbols are vectors without names, so there is no dictionary."


def dictionary_text(record: Record, most: int) -> list[str]:
    """Return the lines that say what thoughts stand for, which symbols they use and what they tell.

    Args:
        record: of a run.
        most: entries of the dictionary.
    """
    if not (found := entries(record)):
        return [UNNAMED]
    return [
        "What thoughts stand for, the most frequent first:",
        "",
        *_entries(record, found, most),
        "",
        *_usage(record),
        "",
        *_told(told(record)),
    ]


def _entries(record: Record, found: list[Entry], most: int) -> list[str]:
    names, tokens = names_of(record.symbols or []), [cut(name) for name in names_of(record.tokens)]
    columns = [["thought"], ["times"], ["stands for"], ["purity"], ["answers and how often"]]
    for entry in found[:most]:
        answers = [f"{tokens[answer]} ×{count:,}" for answer, count in entry.answers[:MOST_ANSWERS]]
        more = ["…"] if len(entry.answers) > MOST_ANSWERS else []
        row = (cut(word(names, entry.thought), WIDEST), f"{entry.times:,}", tokens[entry.answers[0][0]])
        texts = (*row, f"{100 * entry.purity:.0f} %", ", ".join([*answers, *more]))
        for column, text in zip(columns, texts, strict=True):
            column.append(text)
    room = WIDTH - sum(max(map(len, column)) + 2 for column in columns[:-1])
    lines = aligned(wrapped(columns, max(30, room)), left=[0, len(columns) - 1])
    if rest := sum(entry.times for entry in found[most:]):
        share = 100 * rest / sum(entry.times for entry in found)
        lines.append(f"… and {len(found) - most:,} more, {share:.0f} % of all thoughts")
    return lines + wrapped_line(
        "answer: the right token of the position; stands for: the answer that the thought came with most "
        "often; purity: the share of that answer"
    )


def _usage(record: Record) -> list[str]:
    """Return the lines that say how often each symbol stands at each place."""
    counts, names = usage(record), [*names_of(record.symbols or []), "none"]
    assert counts is not None
    lines = ["Symbols by place, the most frequent first:", ""]
    for place, row in enumerate(counts, 1):
        order = [int(i) for i in (-row).argsort(kind="stable") if row[i]]
        shares = [f"{names[i]} {100 * row[i] / row.sum():.0f} %" for i in order[:MOST_SYMBOLS]]
        if others := order[MOST_SYMBOLS:]:
            shares.append(f"{len(others)} others {100 * row[others].sum() / row.sum():.0f} %")
        lines += wrapped_line(f"{place}: {', '.join(shares)}")
    return lines + (["none: the thought has ended before"] if counts[:, -1].any() else [])


def _told(measures: list[Told]) -> list[str]:
    """Return the table of what a thought and its symbols tell about the answer and the task's features."""
    about: dict[str | None, list[Told]] = {}
    for measure in measures:
        about.setdefault(measure.about, []).append(measure)
    answer = [measure[2:] for measure in about[None]]  # a feature may be the answer by another name
    shown = {x: row for x, row in about.items() if x is None or [each[2:] for each in row] != answer}
    columns = [["about", *("the answer" if name is None else cut(visible(name), NARROW) for name in shown)]]
    columns.append(["entropy, nats", *(f"{row[0].entropy:.2f}" for row in shown.values())])
    for index in range(min(MOST_PLACES + 1, len(answer))):
        heading = f"symbol {index}" if index else "a thought"
        columns.append([heading, *(_percent(row[index].share) for row in shown.values())])
    return [
        "What thoughts tell, % of what there is to tell:",
        "",
        *aligned(columns, left=[0]),
        *wrapped_line(
            "a thought: all its symbols; symbol 1: the first one alone. Mutual information with a value at "
            "the same position: 0 % in the mean over all shuffles of the values, 100 % where all is told"
        ),
    ]


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{round(100 * share)} %"
