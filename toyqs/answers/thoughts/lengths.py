"""The budget curve: finished runs with fewer and with more symbols of thought than they were trained with."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from toyqs.answers.command import add_thoughts_measure
from toyqs.answers.heading import heading
from toyqs.answers.loaded.load import LoadedRun, load_run
from toyqs.answers.thoughts.arm import (
    Arm,
    Sampled,
    equal_sequences,
    interval_words,
    load_arm,
    mean_interval,
    sample,
    with_symbols,
)
from toyqs.answers.thoughts.changes import cut
from toyqs.config.builders.model import reads_symbols
from toyqs.config.errors import Refusal
from toyqs.evidence.text import aligned, plus_minus
from toyqs.model.core import Core
from toyqs.objectives.rewards import hits, target_log_prob
from toyqs.rng import ThoughtSizes, stream, thought_noise
from toyqs.training.evaluation.reading import read_positions
from toyqs.types import Thoughts

NO_TABLE = ("deterministic", "state")  # kinds of symbols that a reasoner reads without a table of them


class Upto(NamedTuple):
    """The longest thoughts to be measured."""

    number: float
    times_trained: bool  # whether that is a multiple of the trained length, or a number of symbols

    def of(self, length: int) -> int:
        """Return the number of symbols, for runs trained with thoughts of this length."""
        return int(self.number * length) if self.times_trained else int(self.number)


def upto(word: str) -> Upto:
    """Parse a number of symbols, or a multiple of the trained length such as 2L; a type of argparse."""
    found = re.fullmatch(r"(\d{1,6})(L?)|(\d{0,3}\.\d{1,3})L", word)
    if found is None:
        raise argparse.ArgumentTypeError(f"{word} is no length; give a number of symbols, or 2L")
    whole, letter, part = found.groups()
    return Upto(float(whole or part), bool(letter or part))


TWICE = Upto(2, times_trained=True)


class AtLength(NamedTuple):
    """What a run predicts with thoughts of one length, by sequence and position, (n, T) float64."""

    nll: Tensor  # −log q(y | h, x), the mean over the thoughts of a position, in nats
    accuracy: Tensor
    weights: Tensor  # 0 where a position does not count


@torch.no_grad()
def of_length(run: LoadedRun, sampled: Sampled, length: int, further: Tensor | None = None) -> Thoughts:
    """Return a run's thoughts of so many symbols: its own, cut after them or gone on with by the policy.

    Thoughts that end sooner by themselves, or where the task says so, stay as they are.

    Args:
        run: with thoughts.
        sampled: where, with the run's own thoughts of L symbols.
        length: L', from 0.
        further: (1, B, T, K, …) noise of the symbols after the L-th; None: L' is L at most.
    """
    own = sampled.thoughts
    assert own is not None
    if length == own.symbols.shape[4]:
        return own
    if length < own.symbols.shape[4]:
        change = cut(own, length)
        return with_symbols(run, sampled, change.symbols, change.lengths)
    assert further is not None
    noise = torch.cat([sampled.noise, further], 4)[:, :, :, :, :length].contiguous()
    thoughts = run.model.think(sampled.context, noise, None, sampled.batch.lengths)
    assert thoughts is not None
    return thoughts


@torch.no_grad()
def at_lengths(
    run: LoadedRun, seed: int, lengths: Sequence[int], count: int | None = None
) -> dict[int, AtLength]:
    """Measure a run with thoughts of several lengths on the same held-out sequences.

    At the length of its row these are the row's sequences and thoughts.

    Args:
        run: with thoughts, which can be as long (`check_length`).
        seed: of its training.
        lengths: L', from 0.
        count: number of sequences; None: as many as its evaluation had.
    """
    beyond = range(run.sizes.length, max(lengths))
    streams = [stream(seed, f"evaluation noise/symbol {index + 1}") for index in beyond]
    parts: dict[int, list[AtLength]] = {length: [] for length in lengths}
    for sampled in sample(run, seed, count):
        further = _further(sampled, streams, run.sizes)
        others = _other_positions(run, sampled)
        for length in lengths:
            here = _predicted(run, sampled, of_length(run, sampled, length, further))
            each = zip(here, others, strict=True) if others else ((x,) for x in here)
            parts[length].append(AtLength(*(torch.cat(x, 1).double().cpu() for x in each)))
    return {length: AtLength(*map(torch.cat, zip(*each, strict=True))) for length, each in parts.items()}


def _further(sampled: Sampled, streams: Sequence[torch.Generator], sizes: ThoughtSizes) -> Tensor:
    """Draw the noise of further symbols, (1, B, T, K, symbols, …), each from a stream of its own.

    So it does not depend on how many there are, in whatever chunks the sequences are read.
    """
    one = sizes._replace(length=1)
    noise = [thought_noise([each], sampled.whole.think, one).to(sampled.noise) for each in streams]
    return torch.cat(noise, 4) if noise else sampled.noise[:, :, :, :, :0]


def curve(folder: str, seed: int, most: int, count: int | None = None) -> dict[int, tuple[float, float]]:
    """Measure a finished run at every length up to one.

    Args:
        folder: of a run with thoughts, runs/KEY.
        seed: of its training.
        most: L', the longest thoughts.
        count: number of sequences; None: as many as its evaluation had.

    Returns:
        L' -> NLL in nats and accuracy, as in its row.

    Raises:
        Refusal: as `load_run`, `LoadedRun.check_data` and `check_length`.
    """
    run = load_run(folder)
    run.check_data()
    check_length(run, most)
    found = at_lengths(run, seed, range(most + 1), count)
    return {n: (mean_of(x.nll, x.weights), mean_of(x.accuracy, x.weights)) for n, x in found.items()}


@torch.no_grad()
def _predicted(run: LoadedRun, sampled: Sampled, thoughts: Thoughts) -> AtLength:
    targets = sampled.batch.targets.unsqueeze(-1)
    logits = run.model.talk(sampled.context, thoughts).logits[..., :1, :]
    logits = logits.expand(
        *targets.shape[:3], *logits.shape[3:]
    )  # no symbols may give one prediction for all
    nll, right = -target_log_prob(logits, targets).mean(-1), hits(logits, targets).squeeze(-1).mean(-1)
    return AtLength(nll[0], right[0], sampled.batch.weights[0])


def _other_positions(run: LoadedRun, sampled: Sampled) -> AtLength | None:
    """Return what is predicted without a thought where only the hardest positions think; None: all think."""
    if run.sizes.hard_quantile is None:
        return None
    _, _, selection = read_positions(run.model, sampled.whole, run.sizes)
    assert selection is not None
    return AtLength(selection.nll[0], selection.accuracy[0], selection.weights[0])


def check_length(run: LoadedRun, length: int) -> None:
    """Refuse thoughts that a run cannot have.

    Raises:
        Refusal: it has no thoughts, no symbols, no reasoner that reads any, or too few positions.
    """
    config = run.config
    if not run.thinks:
        run.check_thoughts()
    most, why = None, ""
    if not config.has_thoughts:
        most, why = 0, "was trained without symbols"
    elif config.max_reasoning_len == 1 and not _reads_on(run):
        most, why = 1, "was trained with one symbol, and its reasoner has learned to read none"
    known = _positions(run)
    if known is not None:
        around = config.longest_sequence - config.max_reasoning_len
        if length + around > known:
            most, why = known - around, f"has {known} positions, and {length + around} are needed"
    if most is None or length <= most:
        return
    remedy = f"give --upto {most}"
    if config.learns_positions and most > 1:
        remedy += (
            f", or runs of positions_up_to={length + config.longest_sequence - config.max_reasoning_len}"
        )
    raise Refusal(f"{run.folder}: {why} for thoughts of {length} symbols; {remedy}")


def _reads_on(run: LoadedRun) -> bool:
    """Tell whether the reasoner can consume its own symbols."""
    letters = run.model.letters
    roles = [role for role, letter in letters.items() if letter == letters["reasoner"]]
    return run.config.symbol_kind in NO_TABLE or reads_symbols(run.config, roles)


def _positions(run: LoadedRun) -> int | None:
    """Return how many positions there are for a sequence and its thought; None: any number."""
    if not run.config.learns_positions and run.config.pretrained is None:
        return None  # rotary positions are computed, however many there are
    known = [cast(Core, core).backbone.longest for core in run.model.cores.values()]
    return min((x for x in known if x is not None), default=None)


def add_to(measures: Any) -> None:
    """Add the measure to a command line."""
    text = "NLL and accuracy with fewer and with more symbols of thought than trained with"
    part = add_thoughts_measure(measures, "lengths", _measure, text)
    help_ = "the most symbols, a number or a multiple of those trained with (2L)"
    part.add_argument("--upto", type=upto, default=TWICE, metavar="N", help=help_)


def _measure(given: argparse.Namespace) -> dict[str, Any]:
    arm = load_arm(given.runs, given.device)
    trained = arm.first.sizes.length
    most = given.upto.of(trained)
    check_length(arm.first, most)
    found = {seed: at_lengths(run, seed, range(most + 1), given.sequences) for seed, run in arm.runs.items()}
    sequences = equal_sequences(arm.first, given.sequences)
    rows = [_row(found, length, sequences) for length in range(most + 1)]
    _print(arm, rows, trained)
    return {
        "runs": arm.keys,
        "seeds": list(arm.runs),
        "sequences": len(next(iter(found.values()))[0].nll),
        "intervals_over": "seeds" if len(arm.runs) > 1 else "sequences",
        "trained_with": trained,
        "lengths": rows,
    }


def _row(found: dict[int, dict[int, AtLength]], length: int, sequences: Tensor) -> dict[str, Any]:
    """Return what was measured at a length."""
    each = {seed: measured[length] for seed, measured in found.items()}
    nll = mean_interval({seed: (x.nll, x.weights) for seed, x in each.items()}, sequences)
    accuracy = mean_interval({seed: (x.accuracy, x.weights) for seed, x in each.items()}, sequences)
    by_seed = {str(seed): mean_of(x.nll, x.weights) for seed, x in each.items()}
    return {"length": length, "nll": nll._asdict(), "accuracy": accuracy._asdict(), "nll_by_seed": by_seed}


def mean_of(values: Tensor, weights: Tensor) -> float:
    """Return the weighted mean."""
    return float((values * weights).sum() / weights.sum())


def _print(arm: Arm, rows: Sequence[dict[str, Any]], trained: int) -> None:
    config = arm.first.config
    shown = ["symbols", *(f"{row['length']}{' *' if row['length'] == trained else '  '}" for row in rows)]
    nll = [plus_minus(row["nll"]["mean"], row["nll"]["half_width"], ".3f") for row in rows]
    right = [
        plus_minus(100 * row["accuracy"]["mean"], 100 * row["accuracy"]["half_width"], ".1f") for row in rows
    ]
    print(*heading(arm.folders), "", sep="\n")
    print("\n".join(aligned([shown, ["NLL, nats", *nll], ["accuracy, %", *right]])))
    lengths = f"{trained}"
    if config.has_thoughts and config.length_schedule != "constant":
        lengths = f"{config.min_reasoning_len} to {config.max_reasoning_len}, {config.length_schedule}"
    star = "*: as the run was measured; " if any(row["length"] == trained for row in rows) else ""
    print(f"\n{star}trained with {lengths}")
    if len(rows) > 1:
        print(
            "fewer symbols: the runs' own thoughts, cut; more: the same thoughts, gone on with by the policy"
        )
    print(interval_words(arm))
