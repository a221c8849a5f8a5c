"""The gain of thinking token by token: over a control's runs, or over the same runs without a thought."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from toyqs.answers.command import add_thoughts_measure
from toyqs.answers.heading import against, heading
from toyqs.answers.loaded.load import LoadedRun
from toyqs.answers.thoughts.arm import (
    Arm,
    differing_settings,
    equal_sequences,
    interval_words,
    load_arm,
    load_control,
    log_likelihood,
    mean_interval,
    sample,
)
from toyqs.command_line import whole
from toyqs.config.builders.held_out import draw_held_out
from toyqs.config.errors import Refusal
from toyqs.evidence.judging.gain import Interval
from toyqs.evidence.text import WIDTH, aligned, plus_minus
from toyqs.objectives.losses import log_mean_exp

TENTHS = 10


class TokenLosses(NamedTuple):
    """The NLL of one run at every counted position of its held-out sequences, in their order."""

    nll: Tensor  # (n,) mean over the thoughts, nats, as in the run's row
    marginal: Tensor  # (n,) of the mixture of the thoughts, −log (1/K) Σ q
    weights: Tensor  # (n,)
    sequences: Tensor  # (n,) long, which sequence it is in, equal ones alike
    targets: Tensor  # (n,) long


class Pair(NamedTuple):
    """The losses of one seed on both sides, at the same positions."""

    own: TokenLosses
    other: TokenLosses


class Part(NamedTuple):
    """Some of the tokens: their mean NLL on both sides, and the gain with its interval."""

    tokens: int
    other: float
    own: float
    gain: Interval


def add_to(measures: Any) -> None:
    """Add the measure to the command line."""
    part = add_thoughts_measure(measures, "tokens", _tokens, "gain of thinking, token by token")
    help_ = "runs of a control, of the same seeds; without them: the same runs, their thoughts taken away"
    part.add_argument("--against", metavar="CONTROL", nargs="+", help=help_)
    part.add_argument(
        "--count", type=whole, metavar="N", help="about so many tokens, in place of --sequences"
    )


def _tokens(given: argparse.Namespace) -> Any:
    arm = load_arm(given.runs, given.device)
    control = load_control(arm, given.against, given.device) if given.against else None
    for run in (arm.first, *([control.first] if control else [])):
        if run.config.use_reasoner and run.config.think_at == "hard":
            raise Refusal(
                f"{run.folder}: thinks where it finds it hard, and is not measured at the other positions; "
                "give runs of think_at=marked or all"
            )
    if control is None:
        _check_alone(arm.first)
    count = given.sequences or _sequences(arm.first, given.count)
    pairs = {seed: _pair(run, control, seed, count) for seed, run in arm.runs.items()}
    mixed = {seed: Pair(*(x._replace(nll=x.marginal) for x in pair)) for seed, pair in pairs.items()}
    whole_text = torch.cat(groups := by_difficulty(pairs))
    rows = {str(number): compared(pairs, places) for number, places in enumerate(groups, 1)}
    rows |= {"all": compared(pairs, whole_text), "mixture": compared(mixed, whole_text)}
    _print(arm, control, rows)
    return {name: _plain(part) for name, part in rows.items()}


def _check_alone(run: LoadedRun) -> None:
    """Refuse a run that cannot be compared with itself."""
    if not run.thinks:
        run.check_thoughts()
    if not run.predicts_without_thought:
        raise Refusal(
            f"{run.folder}: this run has no prediction without a thought to compare with; give --against and "
            "a control's run"
        )


def _sequences(run: LoadedRun, tokens: int | None) -> int | None:
    """Return the number of sequences with about so many counted positions; None: the run's own number."""
    if tokens is None:
        return None
    weights = draw_held_out(run.config, 1, torch.zeros(1), 2).weights
    return max(2, -(-2 * tokens // int((weights > 0).sum())))


def _pair(run: LoadedRun, control: Arm | None, seed: int, count: int | None) -> Pair:
    own = token_losses(run, seed, count)
    if control is None:
        return Pair(own, token_losses(run, seed, count, thinking=False))
    other = token_losses(control.runs[seed], seed, count)
    for mine, theirs in ((own.targets, other.targets), (own.sequences, other.sequences)):
        if not torch.equal(mine, theirs):
            raise Refusal(
                f"{control.runs[seed].folder}: is measured at other positions than {run.folder}; give runs "
                "of one think_at, and --sequences N where their eval_sequences differ"
            )
    return Pair(own, other)


def token_losses(
    run: LoadedRun, seed: int, count: int | None = None, *, thinking: bool = True
) -> TokenLosses:
    """Measure a run at every counted position.

    Args:
        run: of any task.
        seed: that it was trained with.
        count: number of sequences; None: as many as its own evaluation had.
        thinking: False: predict without a thought, where the run can.
    """
    sizes = run.sizes if thinking else run.sizes._replace(number=1, length=0)
    parts: list[list[Tensor]] = []
    numbers, first = equal_sequences(run, count), 0
    for part in sample(run, seed, count, sizes):
        log_q = log_likelihood(run, part, part.thoughts if thinking else None).double()
        weights, targets = part.batch.weights[0], part.batch.targets[0]
        sequences = numbers[first : first + len(weights)].view(-1, 1).expand(weights.shape)
        kept = (
            -log_q.mean(-1),
            -log_mean_exp(log_q),
            weights.double(),
            sequences.to(weights.device),
            targets,
        )
        parts.append([x[weights > 0].cpu() for x in kept])
        first += len(weights)
    return TokenLosses(*map(torch.cat, zip(*parts, strict=True)))


def by_difficulty(pairs: Mapping[int, Pair], parts: int = TENTHS) -> list[Tensor]:
    """Part the tokens into groups of equally many, ascending by their mean NLL over both sides and all seeds.

    Sorted by one side alone, that side would have had bad luck with the last group, and the other would
    seem to gain there even where both are equally good.

    Returns:
        Their indices (m,) long, fewer groups where there are fewer tokens.
    """
    mean = torch.stack([side.nll for pair in pairs.values() for side in pair]).mean(0)
    return list(mean.argsort(stable=True).tensor_split(min(parts, len(mean))))


def compared(pairs: Mapping[int, Pair], places: Tensor) -> Part:
    """Compare both sides at some tokens, paired token by token.

    Args:
        pairs: by seed.
        places: (m,) long.

    Returns:
        The interval is over seeds, or over the different sequences of one.
    """
    sides = [
        torch.stack([(x.nll * x.weights)[places].sum() / x.weights[places].sum() for x in side]).mean()
        for side in zip(*pairs.values(), strict=True)
    ]
    gains = {seed: _by_sequence(own, other.nll - own.nll, places) for seed, (own, other) in pairs.items()}
    number = len(next(iter(gains.values()))[0])
    gain = mean_interval(gains, torch.arange(number))
    return Part(len(places), float(sides[1]), float(sides[0]), gain)


def _by_sequence(like: TokenLosses, values: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return each sequence's weighted mean over some tokens, and their weight, (B, 1); 0 without any."""
    zeros = torch.zeros(int(like.sequences.max()) + 1, dtype=torch.float64)
    sequences, weights = like.sequences[places], like.weights[places]
    totals = zeros.index_add(0, sequences, weights)
    sums = zeros.index_add(0, sequences, values[places] * weights)
    return (sums / totals.clamp(min=1e-300)).unsqueeze(1), totals.unsqueeze(1)


def _print(arm: Arm, control: Arm | None, rows: Mapping[str, Part]) -> None:
    print(*heading(arm.folders), sep="\n")
    if control is not None:
        print(*against(control.folders), sep="\n")
    print()
    lines = [
        ("", "", "nats", "nats", "nats"),
        ("tenth", "tokens", "control" if control else "alone", "NLL", "gain"),
    ]
    for name, part in rows.items():
        gain = plus_minus(part.gain.mean, part.gain.half_width, "+.3f")
        lines.append((name, f"{part.tokens:,}", f"{part.other:.3f}", f"{part.own:.3f}", gain))
    print(*aligned(list(zip(*lines, strict=True)), rule=True), sep="\n")
    print("tenths: by the mean NLL of both; NLL: the mean over thoughts; mixture: of their mean prediction")
    print(interval_words(arm))
    print(_over(arm.first, control.first) if control else _alone(arm.first))


def _over(run: LoadedRun, control: LoadedRun) -> str:
    words = f"gain, paired by seed and token, over runs with {differing_settings(run, control)}"
    return "\n".join(textwrap.wrap(words, WIDTH))


def _alone(run: LoadedRun) -> str:
    """Say that the gain is over a model that may never have learned to do without its thoughts."""
    beta = run.config.base_nll_beta
    learned = (
        f"learned to predict alone with base_nll_beta={beta:g}" if beta else "never learned to predict alone"
    )
    return (
        "gain: over the same runs with their thoughts taken away, which is not what thinking is worth.\n"
        f"Their head {learned}; --against CONTROL compares with runs of a control."
    )


def _plain(part: Part) -> dict[str, Any]:
    gain = {"gain": part.gain.mean, "half_width": part.gain.half_width}
    return {"tokens": part.tokens, "control": part.other, "with_thoughts": part.own, **gain}
