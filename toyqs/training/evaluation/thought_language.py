"""The language of thoughts whose symbols are tokens: which symbols, which thoughts, for which answers.

The answer of a position is its target.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from toyqs.training.batches import stride
from toyqs.types import Batch, Thoughts

SAMPLE = 1024  # about so many positions, the same at every evaluation: more of them have more thoughts
TERMS = 2**17  # of a sum that are computed at once
STEEPEST = 16.0  # of a Zipf exponent; beyond it the first symbol is all but the only one


class Telling(NamedTuple):
    """How well the thoughts of a sample tell the answers, and these the thoughts."""

    information: float  # I between thought and answer, of the table as it is, nats
    chance: float  # E, the mean of I over all pairings of these thoughts with these answers, nats
    answers: float  # H(answer), nats
    thoughts: float  # H(thought), nats

    @property
    def homogeneity(self) -> float:
        """Return (I − E) / (H(answer) − E): how well a thought tells the answer.

        It is 1 where every thought stands for one answer, and 0 in the mean over all shuffles of the answers.
        Negative: less than by chance. NaN: the sample cannot tell, as all answers are one, or all thoughts
        occur once.

        Source: Rosenberg and Hirschberg 2007, "V-measure", corrected for chance as in Vinh et al. 2010,
        "Information theoretic measures for clusterings comparison".
        """
        return self._above_chance(self.answers)

    @property
    def completeness(self) -> float:
        """Return (I − E) / (H(thought) − E): how well the answer tells the thought, as `homogeneity`."""
        return self._above_chance(self.thoughts)

    @property
    def v_measure(self) -> float:
        """Return the harmonic mean of both, the adjusted mutual information of Vinh et al."""
        return self._above_chance((self.answers + self.thoughts) / 2)

    def _above_chance(self, most: float) -> float:
        possible = most - self.chance
        return (self.information - self.chance) / possible if possible > 1e-9 else math.nan


class Usage(NamedTuple):
    """Which thoughts occur with which answers in a sample, and how often."""

    thoughts: Tensor  # (R, L) long, the different thoughts
    answers: Tensor  # (C,) long, the different answers, ascending
    pairs: Tensor  # (2, P) long, the places of a thought and of an answer that occur together, ascending
    counts: Tensor  # (P,) long, how often they do

    @property
    def of_thoughts(self) -> Tensor:
        """Return how often each thought occurs, (R,) long."""
        return self._sums(self.pairs[0], self.thoughts)

    @property
    def of_answers(self) -> Tensor:
        """Return how often each answer occurs, (C,) long."""
        return self._sums(self.pairs[1], self.answers)

    def _sums(self, places: Tensor, things: Tensor) -> Tensor:
        return self.counts.new_zeros(len(things)).index_add_(0, places, self.counts)


def usage_of(thoughts: Tensor, answers: Tensor) -> Usage:
    """Count thoughts (n, L) long with their answers (n,) long."""
    index = torch.zeros_like(answers)
    for symbols in thoughts.T:  # numbered again after each symbol, so that no number grows large
        index = (index * (int(symbols.max()) + 1) + symbols).unique(return_inverse=True)[1]
    different = thoughts.new_empty(int(index.max()) + 1, thoughts.shape[1])
    different.index_copy_(0, index, thoughts)
    known, place = answers.unique(return_inverse=True)
    joint, counts = (index * len(known) + place).unique(return_counts=True)
    return Usage(different, known, torch.stack([joint // len(known), joint % len(known)]), counts)


def telling(usage: Usage) -> Telling:
    """Measure what thoughts and answers of a sample tell of each other."""
    of_thoughts, of_answers = usage.of_thoughts, usage.of_answers
    joint, thoughts, answers = map(entropy, (usage.counts, of_thoughts, of_answers))
    return Telling(thoughts + answers - joint, chance_information(of_thoughts, of_answers), answers, thoughts)


def entropy(counts: Tensor) -> float:
    """Compute the entropy of relative frequencies (n,), in nats."""
    return float(torch.special.entr(counts.double() / counts.sum()).sum())


def chance_information(of_thoughts: Tensor, of_answers: Tensor) -> float:
    """Compute the mean mutual information of a sample over all n! pairings of its thoughts and answers.

        E = Σ_ij Σ_m (m / n) log(n m / a_i b_j) P(m),    P hypergeometric: of n pairs, a_i have thought i,
                                                         b_j answer j, and m both

    It is the bias of the information of a sample without any dependence, exact for every n.

    Args:
        of_thoughts: (thoughts,) long, a_i.
        of_answers: (answers,) long, b_j; of the same sum n.

    Returns:
        In nats.

    Source: Vinh, Epps and Bailey 2010, "Information theoretic measures for clusterings comparison".
    """
    total = int(of_thoughts.sum())
    log_factorial = torch.arange(1, total + 2, dtype=torch.float64).lgamma()
    # Equal counts have equal terms: there are at most √(2 n) different ones.
    rows, row_times = of_thoughts.unique(return_counts=True)
    columns, column_times = of_answers.unique(return_counts=True)
    margin = log_factorial[rows] + log_factorial[total - rows] - log_factorial[total]
    margin = margin.view(-1, 1) + log_factorial[columns] + log_factorial[total - columns]
    times = row_times.view(-1, 1) * column_times
    expected, step = 0.0, max(1, TERMS // times.numel())
    stop = int(min(rows.max(), columns.max())) + 1
    for start in range(1, stop, step):
        both = torch.arange(start, min(start + step, stop)).view(-1, 1, 1)  # m
        only_row, only_column = rows.view(-1, 1) - both, columns - both
        rest = total - rows.view(-1, 1) - only_column  # pairs with neither
        possible = (only_row >= 0) & (only_column >= 0) & (rest >= 0)
        log_p = margin
        for count in (both, only_row, only_column, rest):
            log_p = log_p - log_factorial[count.clamp(0, total)]
        gain = both.double() / total * (both * total / (rows.view(-1, 1) * columns).double()).log()
        expected += float((torch.where(possible, log_p.exp() * gain, 0.0) * times).sum())
    return expected


def zipf_exponent(ranked_by: Tensor, counts: Tensor) -> Tensor:
    """Estimate the exponent s of a law r^−s over the ranks r = 1 … V of the symbols, by maximum likelihood.

        Σ_r r^−s log r / Σ_r r^−s = Σ_r c_r log r / Σ_r c_r,    c_r the counts in the order of another sample

    One sample ranks the symbols and another counts them: ranked by their own counts, equally frequent symbols
    would seem to follow a law. Symbols that do not occur have ranks too.

    Args:
        ranked_by: (..., V) counts of one half of the thoughts.
        counts: (..., V) of the other half.

    Returns:
        (...) float64; 0: all symbols are as frequent; NaN: V = 1, or one symbol is all but the only one.

    Source: Piantadosi 2014, "Zipf's word frequency law in natural language" (ranks from another sample).
    """
    wanted, log_rank = mean_log_rank(ranked_by, counts), _log_rank(counts.shape[-1])
    low = torch.full_like(wanted, -STEEPEST)
    high = -low
    for _ in range(50):
        middle = (low + high) / 2
        expected = ((-middle.unsqueeze(-1) * log_rank).softmax(-1) * log_rank).sum(-1)
        above = expected > wanted  # it falls with s
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return low.masked_fill((low.abs() > STEEPEST - 1e-6) | ~wanted.isfinite(), math.nan)


def mean_log_rank(ranked_by: Tensor, counts: Tensor) -> Tensor:
    """Compute Σ_r c_r log r / Σ_r c_r as in `zipf_exponent`; of equally frequent symbols, ids ascend.

    Where all symbols are as frequent its expectation is the mean of log 1 … log V, for samples of any size.
    """
    order = ranked_by.argsort(dim=-1, descending=True, stable=True)
    ranked = counts.gather(-1, order).double()
    return (ranked * _log_rank(counts.shape[-1])).sum(-1) / ranked.sum(-1)


def _log_rank(count: int) -> Tensor:
    return torch.arange(1, count + 1, dtype=torch.float64).log()


def pass_at(right: Tensor, number: int, k: int) -> Tensor:
    """Estimate the probability that at least one of k thoughts makes the prediction right, without bias.

        1 − C(n − c, k) / C(n, k),    c of n thoughts are right

    Args:
        right: (...) c.
        number: n.
        k: at most n.

    Returns:
        (...) float64.

    Source: Chen et al. 2021, "Evaluating large language models trained on code".
    """
    wrong = number - right.double()
    fails = torch.ones_like(wrong)
    for place in range(k):
        fails = fails * (wrong - place).clamp(min=0) / (number - place)
    return 1 - fails


def spoken(symbols: Tensor, num_symbols: int) -> Tensor:
    """Return the ids (..., L) long of symbols that are tokens, (..., L), or relaxed ones, (..., L, V).

    V stands for no symbol, after a thought's end.
    """
    if not symbols.is_floating_point():
        return symbols
    return symbols.argmax(-1).masked_fill(~symbols.any(-1), num_symbols)


class ThoughtSample:
    """The first thought of about SAMPLE of the held-out positions, for every seed."""

    def __init__(self, num_symbols: int | None, held_out: Batch) -> None:
        """Select every n-th sequence.

        Args:
            num_symbols: V of the thoughts; None: their symbols are no tokens, and nothing is measured.
            held_out: all sequences.
        """
        self.num_symbols, self.stride = num_symbols, stride(held_out, SAMPLE)
        self.parts: list[tuple[Tensor, ...]] = []

    def add(self, start: int, thoughts: Thoughts | None, batch: Batch) -> None:
        """Take in what belongs to the sample of sequences that begin at a number `start`."""
        if thoughts is None or self.num_symbols is None:
            return
        first = -start % self.stride
        symbols = spoken(thoughts.symbols[:, first :: self.stride, :, 0], self.num_symbols)
        targets, weights = (x[:, first :: self.stride] for x in (batch.targets, batch.weights))
        number = (start + first) // self.stride + torch.arange(symbols.shape[1])
        half = (number % 2).view(1, -1, 1).expand(targets.shape)
        self.parts.append(tuple(x.flatten(1, 2).cpu() for x in (symbols, targets, weights > 0, half)))

    def measures(self) -> dict[str, Tensor]:
        """Measure the sample.

        Returns:
            (S,) float64 each: `symbol_zipf`, `distinct_thoughts`, `homogeneity` and `completeness`; empty
            where the symbols are no tokens.
        """
        if not self.parts:
            return {}
        seeds = zip(*(torch.cat(x, 1) for x in zip(*self.parts, strict=True)), strict=True)
        columns = zip(*(self._measure(*each) for each in seeds), strict=True)
        halves, *others = (torch.stack(column) for column in columns)
        names = ("distinct_thoughts", "homogeneity", "completeness")
        zipf = {"symbol_zipf": zipf_exponent(halves[:, 0], halves[:, 1])}
        return zipf | dict(zip(names, others, strict=True))

    def _measure(self, symbols: Tensor, answers: Tensor, counted: Tensor, half: Tensor) -> list[Tensor]:
        """Measure one seed's symbols (n, L); return its counts (2, V) of each half first."""
        symbols, answers, half = symbols[counted], answers[counted], half[counted]
        assert self.num_symbols is not None
        counts = torch.stack([count_symbols(symbols[half == which], self.num_symbols) for which in (0, 1)])
        usage = usage_of(symbols, answers)
        found = telling(usage)
        numbers = (float(len(usage.thoughts)), found.homogeneity, found.completeness)
        return [counts, *(torch.tensor(x, dtype=torch.float64) for x in numbers)]


def count_symbols(symbols: Tensor, num_symbols: int) -> Tensor:
    """Count the symbols of thoughts (n, L) long, those after their end left out; return (V,) long."""
    return torch.bincount(symbols.flatten(), minlength=num_symbols)[:num_symbols]
