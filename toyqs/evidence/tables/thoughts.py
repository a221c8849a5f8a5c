"""The thoughts of a record as text: as words, and sequence by sequence."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from toyqs.evidence.dictionary import gains, symbols_of
from toyqs.evidence.text import WIDTH, aligned, wrapped
from toyqs.files import visible
from toyqs.thought_record import Array, Record

EMPTY = "(empty)"
MOST_POSITIONS = 6  # of a sequence that are printed
LEAST = 0.01  # nats gained or lost in a sequence that is printed
MOST_READ = 16  # characters of a token, or of a text before a position


def names_of(names: Iterable[str]) -> list[str]:
    """Return names of tokens or symbols as they can be shown: in quotes where blanks are among them."""
    shown = [visible(name) for name in names]
    return [f"'{name}'" for name in shown] if any(" " in name for name in shown) else shown


def cut(text: str, most: int = MOST_READ) -> str:
    """Return a text, or its beginning where it is longer than `most`."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def word(names: Sequence[str], ids: Iterable[int]) -> str:
    """Return one thought as a word.

    Args:
        names: of the symbols, as `names_of` returns them.
        ids: of its symbols; those from len(names) on stand for none.

    Returns:
        Names of one letter side by side, others apart.
    """
    between = " " if max(map(len, names)) > 1 else ""
    return between.join(names[i] for i in ids if i < len(names)) or EMPTY


def vector_word(vectors: Array) -> str:
    """Return one thought of vectors (L, Z) without names as a word: their lengths."""
    return " ".join(f"{x:.2f}" for x in np.linalg.norm(vectors, axis=-1))


def counted_words(words: Iterable[str]) -> str:
    """Return words, the most frequent first, each once with the number of times: "fdf ×3, efe"."""
    times = Counter(words).most_common()
    return ", ".join(each if count == 1 else f"{each} ×{count}" for each, count in times)


def thought_words(record: Record) -> Array:
    """Return every thought of a record as a word, (N, T, K); of vectors their nearest names or lengths."""
    ids = symbols_of(record)
    if ids is None or not record.symbols:
        vectors = record.arrays.get("vectors")
        if vectors is None:
            return np.full(record.arrays["log_q"].shape, "(vectors)")
        return _each(vectors, vector_word)
    names = names_of(record.symbols)
    return _each(ids, lambda thought: word(names, thought.tolist()))


def _each(thoughts: Array, spell: Any) -> Array:
    shape, rest = thoughts.shape[:3], thoughts.shape[3:]
    return np.array([spell(x) for x in thoughts.reshape(-1, *rest)], dtype=object).reshape(shape)


def sequences_text(record: Record, most: int) -> list[str]:
    """Return the lines that show the sequences where thinking gained most, and those where it lost most.

    Args:
        record: of a run.
        most: sequences of each kind.
    """
    gain = gains(record)
    totals = np.nansum(gain, axis=1)
    order = np.argsort(-totals, kind="stable")
    lines = _explained("log_q_none" in record.arrays, record.arrays["log_q"].shape[-1])
    words = thought_words(record)
    for title, chosen, sign in (("gained", order[:most], 1), ("lost", order[::-1][:most], -1)):
        some = [int(n) for n in chosen if sign * totals[n] >= LEAST]
        lines += ["", f"Where thinking {title} most:"]
        lines += [] if some else [f"  nowhere: it {title} {LEAST} nats or more in no sequence"]
        for n in some:
            lines += _sequence(record, n, gain[n], words[n], sign)
    return lines


def _explained(alone: bool, number: int) -> list[str]:
    """Return the lines that say what the numbers of a sequence are."""
    mean, times = "", ""
    if number > 1:
        mean = ", the mean over the position's thoughts"
        times = "; ×3: three of the position's thoughts are this one"
    over = "without a thought" if alone else "with the thoughts of another sequence"
    lines = [
        "sequence: its number among the held-out ones, from 0; position: in the sequence, from 1",
        f"gain: log p(truth) with a thought{mean and f'{mean},'} minus log p(truth) {over}, in nats; of a "
        "sequence the sum over its positions that count",
        f"p(truth): the right token's probability{mean}; "
        f"{'alone: without a thought; ' if alone else ''}another's: with the thoughts that another sequence "
        f"has there{times}",
    ]
    if alone:
        lines.append(
            "Such a gain is not what thinking is worth, for the model may never have learned to do without: "
            "that is what controls are for."
        )
    return [part for line in lines for part in wrapped_line(line)]


def _sequence(record: Record, n: int, gain: Array, words: Array, sign: int) -> list[str]:
    """Return the lines of one sequence: what was read, then the positions that gained (lost) most."""
    arrays, names = record.arrays, [cut(name) for name in names_of(record.tokens)]
    counted = np.flatnonzero(arrays["counted"][n])
    shown = sorted(counted[np.argsort(-sign * gain[counted], kind="stable")][:MOST_POSITIONS])
    head = f"sequence {record.sequences[n]} of the held-out ones: {np.nansum(gain):+.2f} nats; read: "
    lines = wrapped_line(head + _read(record, arrays["inputs"][n]), WIDTH - 2)
    if len(shown) < len(counted):
        kind = "gained" if sign > 0 else "lost"
        lines.append(f"  {len(shown)} of its {len(counted)} positions, those where thinking {kind} most:")
    places = arrays["positions"][n, shown]
    columns = [
        ["position", *map(str, places + 1)],
        ["reads", *(_read(record, arrays["inputs"][n, : place + 1], MOST_READ) for place in places)],
        ["truth", *(names[i] for i in arrays["truth"][n, shown])],
        ["gain", *(f"{x:+.2f}" for x in gain[shown])],
    ]
    for heading, log_p in (("p(truth)", "log_q"), ("alone", "log_q_none"), ("another's", "log_q_shuffled")):
        if log_p in arrays:
            p = np.exp(arrays[log_p][n, shown])
            columns.append([heading, *(f"{x:.3f}" for x in (p.mean(-1) if p.ndim > 1 else p))])
    room = WIDTH - 4 - sum(max(map(len, column)) + 2 for column in columns)
    columns = wrapped([*columns, ["thoughts", *(counted_words(words[t]) for t in shown)]], max(20, room))
    lines += ["  " + line for line in aligned(columns, left=[len(columns) - 1])]
    return ["  " + line for line in lines]


def _read(record: Record, ids: Array, most: int | None = None) -> str:
    """Return the tokens of a sequence as one text; with `most` the end of it, or of other tasks the last."""
    names = [visible(name) for name in record.tokens]
    if not any(" " in name for name in names):
        return cut(names[ids[-1]], most) if most else " ".join(names[i] for i in ids)
    text = "".join(names[i] for i in ids)
    return f"'{text}'" if most is None or len(text) <= most else f"…{text[-most:]}'"


def wrapped_line(line: str, width: int = WIDTH) -> list[str]:
    """Break a line at its blanks, so that a path stays whole; return its parts, the later ones indented."""
    return textwrap.wrap(line, width, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
