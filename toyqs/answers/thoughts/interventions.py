"""Causal tests: what predictions lose when a thought, or one symbol of it, is another."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from toyqs.answers.command import add_thoughts_measure
from toyqs.answers.heading import heading, of_first_token
from toyqs.answers.loaded.load import LoadedRun
from toyqs.answers.thoughts import changes
from toyqs.answers.thoughts.arm import (
    Arm,
    Sampled,
    equal_sequences,
    interval_words,
    load_arm,
    log_likelihood,
    mean_interval,
    sample,
    with_symbols,
)
from toyqs.answers.thoughts.changes import Change, Scale
from toyqs.config.errors import Refusal
from toyqs.evidence.judging.gain import Interval
from toyqs.evidence.text import aligned, plus_minus
from toyqs.rng import stream
from toyqs.types import Thoughts

OTHERS = 4  # sequences whose symbols a symbol is swapped with, and noise symbols that it is replaced by
OF_SYMBOLS = {
    "swapped": "swapped",
    "drawn_on": "swapped, later ones anew",
    "constant": "constant",
    "noise": "noise",
    "removed": "removed",
}
WHOLE = {
    "shuffled": "the thoughts of another sequence",
    "constant": "one and the same thought everywhere",
    "no_thought": "no thought",
}

Name = tuple[str, *tuple[int, ...]]  # what is measured, and of which symbols, from 1
PerPosition = tuple[Tensor, Tensor]  # values and weights, (n, T)


def add_to(measures: Any) -> None:
    """Add the measure to a command line."""
    text = "what predictions lose when a thought, or one symbol of it, is changed"
    add_thoughts_measure(measures, "interventions", _measure, text)


def _measure(given: argparse.Namespace) -> dict[str, Any]:
    arm = load_arm(given.runs, given.device)
    arm.first.check_thoughts()
    if arm.first.model.thinks_in_turn:
        raise Refusal(
            f"{arm.first.folder}: with thought_into=state, base_lm and base_reasoner in one core a thought "
            "depends on those before it, so that none is changed alone; give runs of another weight_groups"
        )
    per_seed = {seed: measured(run, seed, given.sequences) for seed, run in arm.runs.items()}
    names = dict.fromkeys(name for found in per_seed.values() for name in found)
    sequences = equal_sequences(arm.first, given.sequences)
    each = {name: {s: x[name] for s, x in per_seed.items() if name in x} for name in names}
    found = {name: mean_interval(x, sequences) for name, x in each.items()}
    length = arm.first.sizes.length
    _print(arm, found, length)
    count = len(next(iter(next(iter(per_seed.values())).values()))[0])
    return {
        "runs": arm.keys,
        "seeds": list(arm.runs),
        "sequences": count,
        "intervals_over": "seeds" if len(arm.runs) > 1 else "sequences",
        "own": found["own",]._asdict(),
        "whole": {name: _plain(found.get((name,))) for name in WHOLE},
        "symbols": [
            {"symbol": place, "share": found["share", place].mean}
            | {name: _plain(found.get((name, place))) for name in OF_SYMBOLS}
            for place in range(1, length + 1)
        ],
        "cut": [_plain(found["cut", kept]) for kept in range(length + 1)],
        "moves": [
            {"symbol": first, "later": later, "nats": _plain(found.get(("moves", first, later)))}
            for first, later in combinations(range(1, length + 1), 2)
        ],
    }


def measured(run: LoadedRun, seed: int, count: int | None = None) -> dict[Name, PerPosition]:
    """Measure a run on held-out sequences, in nats per position; see docs/answers.md.

    Args:
        run: with thoughts of symbols.
        seed: of its training.
        count: number of sequences; None: as many as its evaluation had.

    Returns:
        ("own",): −log q(y | h, x), the mean over the thoughts of a position. ("shuffled",), ("constant",),
        ("no_thought",), (change, l) of OF_SYMBOLS and ("cut", l): what that costs more than the own
        thoughts, paired; ("share", l): of the thoughts that have a symbol l; ("moves", l, m): how far
        symbol l moves symbol m. What the run cannot do is absent.
    """
    parts: dict[Name, list[PerPosition]] = {}
    noise, scales, fixed = stream(seed, "answers/noise symbols"), [], None
    for sampled in sample(run, seed, count):
        thoughts = sampled.thoughts
        assert thoughts is not None
        if fixed is None:
            lengths = thoughts.given_length
            fixed = thoughts.symbols[:, :1, :1, :1], None if lengths is None else lengths[:, :1, :1, :1]
            scales = [changes.scale_of(thoughts, i) for i in range(run.sizes.length)]
        differences = _Differences(run, sampled, thoughts)
        differences.of_whole_thoughts(*fixed)
        for index, scale in enumerate(scales):
            differences.of_symbol(index, scale, noise)
        for name, value in differences.found.items():
            parts.setdefault(name, []).append(value)
    return {
        name: (torch.cat([x for x, _ in each]), torch.cat([w for _, w in each]))
        for name, each in parts.items()
    }


class _Differences:
    """What is measured of some sequences: name -> values and weights (B, T), in float64 on the CPU."""

    def __init__(self, run: LoadedRun, sampled: Sampled, thoughts: Thoughts) -> None:
        self.run, self.sampled, self.thoughts = run, sampled, thoughts
        self.own = log_likelihood(run, sampled, thoughts)
        self.found: dict[Name, PerPosition] = {}
        self._add(("own",), [(-self.own, torch.ones_like(self.own, dtype=torch.bool))])

    def of_whole_thoughts(self, fixed: Tensor, fixed_lengths: Tensor | None) -> None:
        """Add other thoughts, no thought and thoughts cut short."""
        symbols, lengths = self.thoughts.symbols, self.thoughts.given_length
        shuffled = changes.shuffled(self.thoughts)
        ends = None if fixed_lengths is None or lengths is None else fixed_lengths.expand_as(lengths)
        constant = shuffled._replace(symbols=fixed.expand_as(symbols), lengths=ends)
        self._add(("shuffled",), [self._cost(shuffled)])
        self._add(("constant",), [self._cost(constant)])
        if self.run.predicts_without_thought:
            self._add(("no_thought",), [self._cost_of(None, shuffled.changed)])
        for length in range(symbols.shape[4] + 1):
            self._add(("cut", length), [self._cost(changes.cut(self.thoughts, length))])

    def of_symbol(self, index: int, scale: Scale | None, noise: torch.Generator) -> None:
        """Add the changes of one symbol."""
        thoughts, symbol = self.thoughts, index + 1
        has = changes.has_symbol(thoughts, index)[0]
        self._add(("share", symbol), [(has.double(), torch.ones_like(has))])
        swaps = [changes.swapped(thoughts, index, s) for s in range(1, min(OTHERS, has.shape[0] - 1) + 1)]
        kept = [(x, with_symbols(self.run, self.sampled, x.symbols, x.lengths)) for x in swaps]
        self._add(("swapped", symbol), [self._cost_of(y, x.changed) for x, y in kept])
        anew = [(x, changes.continued(self.run, self.sampled, x, index)) for x in swaps]
        self._add(("drawn_on", symbol), [self._cost_of(y, x.changed) for x, y in anew])
        for later in range(symbol, thoughts.symbols.shape[4]):
            found = [changes.moved(thoughts, x, y, later) for x, y in kept]
            self._add(("moves", symbol, later + 1), [(x[0][0], x[1][0]) for x in found if x is not None])
        self._add(("removed", symbol), [self._cost(changes.removed(thoughts, index))])
        if scale is not None:
            self._add(("constant", symbol), [self._cost(changes.replaced(thoughts, index, scale.first))])
            self._add(("noise", symbol), [self._cost(x) for x in self._noisy(index, scale, noise)])

    def _noisy(self, index: int, scale: Scale, noise: torch.Generator) -> Iterator[Change]:
        """Yield changes of a symbol to noise."""
        width = self.thoughts.symbols.shape[5:] if not self.run.config.symbols_are_tokens else (1,)
        for _ in range(OTHERS):
            shape = (*self.thoughts.symbols.shape[:4], *width)
            uniform = torch.rand(shape, generator=noise, dtype=torch.float64).to(self.own.device)
            values = changes.noise_symbols(self.run, uniform, scale)
            yield changes.replaced(self.thoughts, index, values)

    def _cost(self, change: Change) -> PerPosition:
        thoughts = with_symbols(self.run, self.sampled, change.symbols, change.lengths)
        return self._cost_of(thoughts, change.changed)

    def _cost_of(self, thoughts: Thoughts | None, counts: Tensor) -> PerPosition:
        return self.own - log_likelihood(self.run, self.sampled, thoughts), counts[0]

    def _add(self, name: Name, each: list[PerPosition]) -> None:
        """Add the mean over the thoughts that count, (B, T, K) each; a position's weight is their share."""
        if not each:
            return
        values, counts = (torch.cat(x, -1) for x in zip(*each, strict=True))
        number = counts.double().sum(-1)
        mean = values.double().masked_fill(~counts, 0.0).sum(-1) / number.clamp(min=1)
        weights = self.sampled.batch.weights[0].double() * number / counts.shape[-1]
        self.found[name] = mean.cpu(), weights.cpu()


def _print(arm: Arm, found: Mapping[Name, Interval], length: int) -> None:
    config, count = arm.first.config, found["own",].count
    over = "" if len(arm.runs) > 1 else f"; {count:,} different sequences"
    print(*heading(arm.folders), sep="\n")
    print(f"{_shown(found['own',])} nats: NLL with own thoughts, per thinking position that counts{over}")
    print(*of_first_token(arm.folders[0]), "", sep="\n")
    print("What costs how much more, in nats")
    lines = [(words, _shown(found.get((name,)), "+.3f")) for name, words in WHOLE.items()]
    for kept in range(length):
        symbols = "one symbol" if kept == 1 else f"{kept or 'no'} symbols"
        lines.append((f"own thoughts cut after {symbols}", _shown(found["cut", kept], "+.3f")))
    print("\n".join(aligned(list(zip(*lines, strict=True)), left=(0,))))
    print("\nOne symbol of the own thoughts changed: what that costs, in nats")
    print("\n".join(aligned(_columns(found, length), left=(0,))))
    if length > 1:
        print("\nHow far a swapped symbol moves the probabilities of a later one: KL divergence, in nats")
        if any(("moves", 1, later) in found for later in range(2, length + 1)):
            print("\n".join(aligned(_matrix(found, length), left=(0,))))
        else:
            print(f"not defined: thoughts={config.symbol_kind} have no density")
    print(f"\n{interval_words(arm)}")
    if arm.first.model.joins_thoughts:
        print("mixing=attend: all K thoughts of a position are changed at once, for they give one prediction")
    if config.hands_on:
        print("thought_into=state: all positions are changed at once, and what is lost later on is in it")
    if config.think_at == "hard":
        print("think_at=hard: of the positions that think, as nll_hard; the others have no thoughts")


def _columns(found: Mapping[Name, Interval], length: int) -> list[list[str]]:
    """Return the columns of the table of changed symbols; the share of thoughts where lengths differ."""
    places = range(1, length + 1)
    columns, shares = [["symbol", *map(str, places)]], [found["share", place].mean for place in places]
    if min(shares) < 1:
        columns.append(["thoughts with it", *(f"{100 * share:.1f} %" for share in shares)])
    for name, title in OF_SYMBOLS.items():
        columns.append([title, *(_shown(found.get((name, place)), "+.3f") for place in places)])
    return columns


def _matrix(found: Mapping[Name, Interval], length: int) -> list[list[str]]:
    """Return the columns of the table of how far one symbol moves another."""
    columns = [["swapped", *(f"symbol {first}" for first in range(1, length))]]
    for later in range(2, length + 1):
        cells = [found.get(("moves", first, later)) for first in range(1, length)]
        columns.append([f"of symbol {later}", *("" if x is None else _shown(x) for x in cells)])
    return columns


def _shown(found: Interval | None, form: str = ".3f") -> str:
    return "not defined" if found is None else plus_minus(found.mean, found.half_width, form)


def _plain(found: Interval | None) -> dict[str, float] | None:
    return None if found is None else found._asdict()
