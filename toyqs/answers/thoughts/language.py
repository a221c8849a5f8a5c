"""The language of a run's thoughts: symbols, distinct thoughts, what they tell, a dictionary, pass@k."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from toyqs.answers.command import add_thoughts_measure
from toyqs.answers.heading import heading
from toyqs.answers.loaded.load import LoadedRun
from toyqs.answers.thoughts.arm import (
    Arm,
    equal_sequences,
    interval_words,
    load_arm,
    mean_interval,
    predict,
    sample,
)
from toyqs.command_line import whole
from toyqs.config.builders.recording import own_symbol_names
from toyqs.evidence.judging.gain import Interval, interval
from toyqs.evidence.tables.thoughts import names_of
from toyqs.evidence.text import aligned, plus_minus
from toyqs.objectives.rewards import hits, target_log_prob
from toyqs.training.evaluation.thought_language import (
    Usage,
    count_symbols,
    pass_at,
    spoken,
    telling,
    usage_of,
    zipf_exponent,
)

MOST_COLUMNS = 6  # seeds that are printed one by one
MOST_ANSWERS = 6  # of a thought that are printed
LABELS = {  # name of a number -> how it is printed
    "symbols_used": "symbols used",
    "symbol_zipf": "Zipf exponent of the symbols",
    "distinct_thoughts": "distinct thoughts",
    "thought_entropy": "entropy of a thought, nats",
    "answer_entropy": "entropy of an answer, nats",
    "information": "information between them, nats",
    "chance": "  by chance: mean over all shuffles",
    "homogeneity": "homogeneity: thought tells answer",
    "completeness": "completeness: answer tells thought",
    "v_measure": "V-measure: harmonic mean of both",
}
VECTORS = "not defined: the symbols of these thoughts are vectors, of which none occurs twice"


class Speech(NamedTuple):
    """What one run thought on its held-out sequences, at the thinking positions."""

    log_q: Tensor  # (B, T, K) log q(y | h_k, x), nats
    right: Tensor  # (B, T, K) 1 where y is the likeliest token, else 0
    weights: Tensor  # (B, T)
    answers: Tensor  # (B, T) long, y
    symbols: Tensor | None  # (B, T, L) long, of the first thought; None: vectors

    @property
    def counted(self) -> Tensor:
        """Return which positions count, (B, T) bool."""
        return self.weights > 0


class Vocabulary(NamedTuple):
    """The symbols, the thoughts and the answers of one run, counted."""

    symbols: Tensor  # (V,) long, how often each occurs
    usage: Usage
    numbers: dict[str, float]  # by the names of LABELS


def add_to(measures: Any) -> None:
    """Add the measure to the command line."""
    text = "what thoughts say: symbols, a dictionary, how well they tell the answer, pass@k"
    part = add_thoughts_measure(measures, "language", _language, text)
    help_ = "thoughts per position, of which pass@k is taken (as many as in training)"
    part.add_argument("--thoughts", type=whole, metavar="N", help=help_)
    help_ = "entries of each dictionary that are printed (12); -o writes all"
    part.add_argument("--entries", type=whole, default=12, metavar="N", help=help_)


def _language(given: argparse.Namespace) -> Any:
    arm = load_arm(given.runs, given.device)
    arm.first.check_thoughts()
    speeches = {seed: listen(run, seed, given.sequences, given.thoughts) for seed, run in arm.runs.items()}
    first = next(iter(speeches.values()))
    print(*heading(arm.folders), sep="\n")
    print(f"{int(first.counted.sum()):,} positions of {len(first.weights):,} held-out sequences\n")
    result: dict[str, Any] = {"pass": _print_pass(arm, speeches, equal_sequences(arm.first, given.sequences))}
    if first.symbols is None:
        print(f"\nSymbols, distinct thoughts, what they tell, dictionary:\n{VECTORS}")
        return result | {"language": None}
    size = arm.first.model.num_symbols
    assert size is not None
    found = {seed: vocabulary(speech, size) for seed, speech in speeches.items()}
    _print_numbers({seed: each.numbers for seed, each in found.items()})
    entries = {seed: dictionary(arm.first, each.usage) for seed, each in found.items()}
    for seed, each in entries.items():
        _print_dictionary(seed, each, given.entries)
    return result | {
        "language": {
            seed: {"numbers": each.numbers, "symbols": each.symbols.tolist(), "dictionary": entries[seed]}
            for seed, each in found.items()
        }
    }


@torch.no_grad()
def listen(run: LoadedRun, seed: int, count: int | None = None, number: int | None = None) -> Speech:
    """Let a run think on held-out sequences.

    Args:
        run: with thoughts.
        seed: that it was trained with.
        count: number of sequences; None: as many as its own evaluation had.
        number: K; None: as many as in training, and the thoughts are those of the run's row.
    """
    sizes = run.sizes._replace(number=number or run.sizes.number)
    parts: list[list[Tensor]] = []
    for part in sample(run, seed, count, sizes):
        logits = predict(run, part, part.thoughts)
        targets = part.batch.targets.unsqueeze(-1)
        right = hits(logits, targets)[0, ..., 0]
        kept = [target_log_prob(logits, targets)[0], right, part.batch.weights[0], part.batch.targets[0]]
        assert part.thoughts is not None
        if run.model.num_symbols is not None:
            kept.append(spoken(part.thoughts.symbols[0, :, :, 0], run.model.num_symbols))
        parts.append([x.cpu() for x in kept])
    log_q, right, weights, answers, *symbols = map(torch.cat, zip(*parts, strict=True))
    return Speech(log_q.double(), right, weights.double(), answers, symbols[0] if symbols else None)


def vocabulary(speech: Speech, num_symbols: int) -> Vocabulary:
    """Count what one run said, of each counted position its first thought.

    Args:
        speech: with symbols.
        num_symbols: V.
    """
    assert speech.symbols is not None
    halves = [
        count_symbols(speech.symbols[start::2][speech.counted[start::2]], num_symbols) for start in (0, 1)
    ]
    usage = usage_of(speech.symbols[speech.counted], speech.answers[speech.counted])
    told = telling(usage)
    counts = halves[0] + halves[1]
    used, exponent = int((counts > 0).sum()), float(zipf_exponent(*halves))
    of_table = (told.thoughts, told.answers, told.information, told.chance)
    above_chance = (told.homogeneity, told.completeness, told.v_measure)
    values = (used, exponent, len(usage.thoughts), *of_table, *above_chance)
    numbers = dict(zip(LABELS, map(float, values), strict=True))
    return Vocabulary(counts, usage, numbers)


def dictionary(run: LoadedRun, usage: Usage) -> list[dict[str, Any]]:
    """Return a run's thoughts, the most frequent first, each with its answers, likewise, and their counts."""
    names, answers = symbol_names(run), run.config.task.symbols(usage.answers.tolist())
    together = "" if max(map(len, names)) == 1 else " "
    entries: list[dict[str, Any]] = [
        {"thought": together.join(names[i] for i in thought if i < len(names)), "times": times, "answers": []}
        for thought, times in zip(usage.thoughts.tolist(), usage.of_thoughts.tolist(), strict=True)
    ]
    for thought, answer, count in torch.cat([usage.pairs, usage.counts[None]]).T.tolist():
        entries[thought]["answers"].append((answers[answer], count))
    for entry in entries:
        entry["answers"].sort(key=lambda pair: -pair[1])
    return sorted(entries, key=lambda entry: -entry["times"])


def symbol_names(run: LoadedRun) -> list[str]:
    """Return the names of a run's thought symbols: the task's tokens, else letters, or numbers if many."""
    task = run.config.task
    return own_symbol_names(run.config) or task.symbols(range(task.vocab_size))


def below_single(log_q: Tensor, k: int) -> Tensor:
    """Compute how far the NLL of the mixture of k thoughts is below the mean over them, per position.

        log (1/k) Σ_i q(y | h_i) − (1/k) Σ_i log q(y | h_i),    the mean over ⌊K / k⌋ groups of k thoughts

    Args:
        log_q: (B, T, K).
        k: at most K.

    Returns:
        (B, T), at least 0.
    """
    groups = log_q[..., : log_q.shape[-1] // k * k].unflatten(-1, (-1, k))
    return (groups.logsumexp(-1) - math.log(k) - groups.mean(-1)).mean(-1)


def _print_pass(arm: Arm, speeches: Mapping[int, Speech], sequences: Tensor) -> list[dict[str, Any]]:
    """Print pass@k and the gap between mean and marginal likelihood for k = 1, 2, 4 … K."""
    if arm.first.model.joins_thoughts:
        print("pass@k: not defined: with mixing=attend all thoughts of a position give one prediction")
        return []
    most = next(iter(speeches.values())).log_q.shape[-1]
    sizes = [k for k in (1, 2, 4, 8, 16, 32, 64, 128) if k < most] + [most]
    columns, result = [["", "k", *map(str, sizes)]], []
    values: dict[str, list[Interval]] = {"pass@k": [], "gap": []}
    for k in sizes:
        rates = {seed: (pass_at(x.right.sum(-1), most, k), x.weights) for seed, x in speeches.items()}
        gaps = {seed: (below_single(x.log_q, k), x.weights) for seed, x in speeches.items()}
        values["pass@k"].append(mean_interval(rates, sequences))
        values["gap"].append(mean_interval(gaps, sequences))
        result.append({"k": k} | {name: found[-1]._asdict() for name, found in values.items()})
    percent = [plus_minus(100 * x.mean, 100 * x.half_width, ".1f") for x in values["pass@k"]]
    gap = [plus_minus(x.mean, x.half_width, ".4f") for x in values["gap"]]
    columns += [["pass@k", "%", *percent], ["NLL of the mean over k, below", "the mean NLL, nats", *gap]]
    print("\n".join(aligned(columns, rule=True)))
    print("pass@k: at least one of k thoughts makes the answer the likeliest token")
    print(interval_words(arm))
    if arm.first.config.think_at == "hard":
        print("think_at=hard: of the positions that think; the others have no thoughts")
    return result


def _print_numbers(numbers: Mapping[int, Mapping[str, float]]) -> None:
    names, seeds = list(next(iter(numbers.values()))), list(numbers)
    columns = [["", "first thought of each position", *LABELS.values()]]
    if len(seeds) <= MOST_COLUMNS:
        columns += [["seed", str(s), *(_number(x) for x in numbers[s].values())] for s in seeds]
    if len(seeds) > 1:
        means = [interval([numbers[seed][name] for seed in seeds]) for name in names]
        columns.append(["mean", "± 95 %", *(plus_minus(x.mean, x.half_width, ".3f") for x in means)])
    print("", *aligned(columns, left=[0], rule=True), sep="\n")
    print("homogeneity, completeness, V-measure: 1 at most, 0 in the mean over all shuffles of the answers")


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0f}" if value.is_integer() else f"{value:.3f}"


def _print_dictionary(seed: int, entries: Sequence[Mapping[str, Any]], most: int) -> None:
    print(f"\nDictionary of seed {seed}, the most frequent thoughts first:")
    columns: list[list[str]] = [["thought"], ["times"], ["answers and how often"]]
    every = list(dict.fromkeys(answer for entry in entries for answer, _ in entry["answers"]))
    shown = dict(zip(every, names_of(every), strict=True))
    for entry in entries[:most]:
        answers = [f"{shown[answer]} ×{count:,}" for answer, count in entry["answers"]]
        more = ["…"] if len(answers) > MOST_ANSWERS else []
        texts = (
            entry["thought"] or "(empty)",
            f"{entry['times']:,}",
            ", ".join(answers[:MOST_ANSWERS] + more),
        )
        for column, text in zip(columns, texts, strict=True):
            column.append(text)
    print(*aligned(columns, left=[0, 2]), sep="\n")
    if len(entries) > most:
        print(f"… and {len(entries) - most:,} more")
