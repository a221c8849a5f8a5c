"""What the thoughts of a record stand for: a dictionary, what symbols tell, where thinking helps.

Only positions that count in the loss are looked at. An answer is a position's token to predict. All of it can
be asked of a moment of the training too: `thought_record.at` returns that as a record.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

import numpy as np

from toyqs.thought_record import Array, Record

TERMS = 2**16  # of a sum that are computed at once


class Entry(NamedTuple):
    """One thought, and the answers at the positions where it was thought."""

    thought: tuple[int, ...]  # indices into record.symbols, up to the thought's end
    times: int  # that it was thought, over all K thoughts of each position
    answers: list[tuple[int, int]]  # indices into record.tokens and how often, the most frequent first

    @property
    def purity(self) -> float:
        """Return the share of the most frequent answer."""
        return self.answers[0][1] / self.times


class Told(NamedTuple):
    """The mutual information of thoughts, or of one of their symbols, with something at their position."""

    by: int | None  # a symbol's place in the thought, from 0; None: the whole thought
    about: str | None  # the name of a feature; None: the answer
    information: float  # of the table as it is, nats: too high, by about `chance`, where nothing is told
    chance: float  # its mean over all pairings of these thoughts with these values, nats
    entropy: float  # of what is told about, nats: the most that `information` can be
    positions: int  # that have it

    @property
    def share(self) -> float:
        """Return (I − E) / (H − E): 1 where all is told, 0 in the mean where nothing is; NaN: cannot be said.

        Source: Vinh, Epps and Bailey 2010, "Information theoretic measures for clusterings comparison".
        """
        possible = self.entropy - self.chance
        return (self.information - self.chance) / possible if possible > 1e-9 else math.nan


class Loss(NamedTuple):
    """The mean of −log q over a record's counted positions, nats, and how far from the row's it may be."""

    nll: float
    error: float  # standard error over sequences, of a sample without replacement; NaN: one sequence


def loss(record: Record, of: str = "log_q") -> Loss:
    """Compute the loss at a record's positions, the mean over thoughts, as the row's `nll`.

    Args:
        record: of a run.
        of: which of its arrays, log_q_none for the row's `nll_no_thought`, log_q_shuffled for `nll_shuffled`.

    Of N of M sequences, with sums s_i of −log q and w_i counted positions, the mean m = Σ s_i / Σ w_i has
    the error √((1 − N / M) · N / (N − 1) · Σ (s_i − m w_i)²) / Σ w_i.
    """
    counted = record.arrays["counted"] == 1
    weights, count, log_q = counted.sum(-1), len(counted), record.arrays[of]
    sums = np.where(counted, -(log_q.mean(-1) if log_q.ndim > 2 else log_q), 0.0).sum(-1)
    mean = sums.sum() / weights.sum()
    if count < 2:
        return Loss(float(mean), math.nan)
    left = 1 - count / max(count, record.held_out)
    squares = np.square(sums - mean * weights).sum() * count / (count - 1)
    return Loss(float(mean), float(np.sqrt(left * squares) / weights.sum()))


def symbols_of(record: Record) -> Array | None:
    """Return symbols (N, T, K, L), or the tokens nearest to vectors; None: vectors without names."""
    return record.arrays.get("symbols", record.arrays.get("nearest"))


def spelled(record: Record, thought: tuple[int, ...]) -> str:
    """Return a thought in the names of its symbols, with spaces between them unless all are one letter."""
    names = record.symbols or []
    together = "" if max(map(len, names), default=1) == 1 else " "
    return together.join(names[i] for i in thought)


def entries(record: Record) -> list[Entry]:
    """Return a record's thoughts, the most frequent first; none where they are vectors without names."""
    symbols = symbols_of(record)
    if symbols is None:
        return []
    counted, none = record.arrays["counted"] == 1, len(record.symbols or [])
    answers: dict[tuple[int, ...], Counter[int]] = {}
    for thoughts, answer in zip(symbols[counted].tolist(), record.arrays["truth"][counted], strict=True):
        for thought in thoughts:
            key = tuple(i for i in thought if i != none)
            answers.setdefault(key, Counter())[int(answer)] += 1
    found = [
        Entry(thought, sum(counts.values()), sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
        for thought, counts in answers.items()
    ]
    return sorted(found, key=lambda entry: (-entry.times, entry.thought))


def usage(record: Record) -> Array | None:
    """Count each symbol at each place of the thoughts, (L, symbols + 1), the last: after a thought's end.

    Returns:
        None where symbols are vectors without names.
    """
    symbols = symbols_of(record)
    if symbols is None:
        return None
    flat = symbols[record.arrays["counted"] == 1].reshape(-1, symbols.shape[-1])
    size = len(record.symbols or []) + 1
    return np.stack([np.bincount(place, minlength=size) for place in flat.T])


def told(record: Record) -> list[Told]:
    """Measure what thoughts, and the symbols at each of their places, tell of answers and features.

    Each of a position's K thoughts is taken by itself, and the mean of the K measures returned: thoughts of
    one position are no independent pairs. An end is a symbol of its own here. A symbol can tell something
    only together with others, so a whole thought may tell more than all its places.

    Returns:
        For the answer and then each feature that is not the answer itself under another name: the whole
        thought's, then its places'; nothing where symbols are vectors without names.
    """
    symbols = symbols_of(record)
    if symbols is None:
        return []
    counted, found = record.arrays["counted"] == 1, []
    spoken = symbols[counted]  # (n, K, L)
    places: list[int | None] = [None, *range(spoken.shape[-1])]
    # Place -> each thought's number, (n, K)
    by = {x: _numbered(spoken if x is None else spoken[..., x : x + 1]) for x in places}
    about: list[tuple[str | None, Array, int]] = [(None, record.arrays["truth"], -1)]
    about += [(name, x.values, len(x.classes)) for name, x in record.features.items()]
    for name, values, none in about:
        there = values[counted] != none
        if not there.any():
            continue
        of = np.unique(values[counted][there], return_inverse=True)[1]
        if name is not None and there.all() and _one_to_one(of, record.arrays["truth"][counted]):
            continue
        for place in places:
            numbers = [_information(each[there], of) for each in by[place].T]
            information, chance, entropy = np.mean(numbers, 0).tolist()
            found.append(Told(place, name, information, chance, entropy, len(of)))
    return found


def _one_to_one(values: Array, others: Array) -> bool:
    """Tell whether each of the values (n,) goes with one of the others (n,), and that with no other value."""
    pairs = np.unique(np.stack([values, others]), axis=1).shape[1]
    return pairs == len(np.unique(values)) == len(np.unique(others))


def _numbered(symbols: Array) -> Array:
    """Return a number for each thought (n, K, L), equal ones alike: (n, K), 0 … R − 1."""
    numbers = np.zeros(symbols.shape[:-1], dtype=np.int64)
    for place in np.moveaxis(symbols, -1, 0):  # numbered again after each, so that no number grows large
        joined = numbers * (place.max(initial=0) + 1) + place
        numbers = np.unique(joined, return_inverse=True)[1].reshape(joined.shape)
    return numbers


def _information(by: Array, of: Array) -> tuple[float, float, float]:
    """Return I, its mean E by chance, and H(of), of two numberings (n,)."""
    rows, columns = np.bincount(by), np.bincount(of)
    joint = np.bincount(by * len(columns) + of)
    rows, entropy = rows[rows > 0], _entropy(columns)
    return _entropy(rows) + entropy - _entropy(joint), chance_information(rows, columns), entropy


def _entropy(counts: Array) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def chance_information(rows: Array, columns: Array) -> float:
    """Compute the mean mutual information of a table over all pairings with its sums.

        E = Σ_ij Σ_m (m / n) log(n m / a_i b_j) P(m),    P hypergeometric: of n pairs, a_i are in row i,
                                                         b_j in column j, and m in both

    Args:
        rows: (rows,) sums a_i, above 0.
        columns: (columns,) sums b_j, above 0, of the same total n.

    Returns:
        In nats.

    Source: as `Told.share`.
    """
    total = int(rows.sum())
    factorial = np.concatenate([[0.0], np.log(np.arange(1, total + 1)).cumsum()])  # log n!
    (a, times_a), (b, times_b) = (np.unique(x, return_counts=True) for x in (rows, columns))
    margin = factorial[a] + factorial[total - a] - factorial[total]
    margin = margin[:, None] + factorial[b] + factorial[total - b]
    times, product = times_a[:, None] * times_b, a[:, None] * b
    expected, most = 0.0, int(min(a.max(), b.max()))
    for both in np.array_split(np.arange(1, most + 1)[:, None, None], 1 + most * product.size // TERMS):
        rest = np.stack(np.broadcast_arrays(a[:, None] - both, b - both, total - a[:, None] - b + both))
        log_p = margin - factorial[both] - factorial[rest.clip(0, total)].sum(0)
        terms = both / total * np.log(both * total / product) * np.exp(log_p)
        expected += float((np.where((rest >= 0).all(0), terms, 0.0) * times).sum())
    return expected


def gains(record: Record) -> Array:
    """Compute what thinking gains at each position, nats: mean log q over thoughts, less log q without one.

    Where the model does not predict without a thought: less the mean with another sequence's thoughts.

    Returns:
        (N, T), NaN where a position does not count.
    """
    arrays = record.arrays
    without = arrays["log_q_none"] if "log_q_none" in arrays else arrays["log_q_shuffled"].mean(-1)
    return np.where(arrays["counted"] == 1, arrays["log_q"].mean(-1) - without, np.nan)
