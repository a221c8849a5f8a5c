"""Anti-theatre: three tests that thoughts must pass to count as more than show.

The three are those of published code for Quiet-STaR, made strict: each number has an interval, what a model
does without thoughts is asked of a control that was trained so, and chance has its own line.
"""

from __future__ import annotations

import argparse
import textwrap
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from toyqs.answers.command import add_thoughts_measure
from toyqs.answers.heading import against, heading
from toyqs.answers.loaded.load import LoadedRun
from toyqs.answers.thoughts import changes
from toyqs.answers.thoughts.arm import (
    Arm,
    differing_settings,
    equal_sequences,
    interval_words,
    load_arm,
    load_control,
    log_likelihood,
    mean_interval,
    predict,
    sample,
    with_symbols,
)
from toyqs.answers.thoughts.continuation import distances, why_not
from toyqs.evidence.judging.gain import Interval
from toyqs.evidence.tables.thoughts import wrapped_line
from toyqs.evidence.text import WIDTH, aligned, plus_minus
from toyqs.objectives.rewards import hits, rounding

USED = 0.01  # nats that another sequence's thoughts cost a seed that uses its own
ABLATION = "ablation, against the control's runs"
PASSED, FAILED, UNDEFINED = "passed", "failed", "not defined"

PerPosition = tuple[Tensor, Tensor]  # values and weights, (n, T)
Parts = defaultdict[int, list[PerPosition]]  # by seed, of successive sequences


class Line(NamedTuple):
    """A number that a test asks for."""

    words: str
    found: Interval
    needs: str
    passes: bool


def _above_zero(words: str, found: Interval) -> Line:
    return Line(words, found, "needs more than 0", found.lower > 0)


class Outcome(NamedTuple):
    """What a test came to."""

    name: str
    lines: list[Line]
    why: str = ""  # it is not defined
    note: str = ""

    @property
    def verdict(self) -> str:
        """Return the word of the test: every line has to pass."""
        if self.why:
            return UNDEFINED
        return PASSED if all(line.passes for line in self.lines) else FAILED


def add_to(measures: Any) -> None:
    """Add the measure to a command line."""
    text = "whether thoughts are more than show: distance from the text, ablation, score against use"
    part = add_thoughts_measure(measures, "theatre", _measure, text)
    help_ = "runs of a control, such as zero_length, with the same seeds"
    part.add_argument("--against", metavar="RUN", nargs="+", required=True, help=help_)
    help_ = "exit with 1 if a test that is defined fails, or if the ablation is not defined"
    part.add_argument("--strict", action="store_true", help=help_)
    part.set_defaults(code=lambda given, result: int(given.strict and _failed(result)))


def _failed(result: dict[str, Any]) -> bool:
    tests = result["tests"]
    return tests[ABLATION]["verdict"] == UNDEFINED or any(x["verdict"] == FAILED for x in tests.values())


def _measure(given: argparse.Namespace) -> dict[str, Any]:
    arm = load_arm(given.runs, given.device)
    arm.first.check_thoughts()
    control = load_control(arm, given.against, given.device)
    outcomes = [
        distance(arm, given.sequences),
        ablation(arm, control, given.sequences),
        correlation(arm, given.sequences),
    ]
    _print(arm, control, outcomes)
    if given.strict and outcomes[1].why:
        print("--strict: the ablation is not defined, so that nothing was tested; give another control")
    return {
        "seeds": list(arm.runs),
        "against": [run.folder for run in control.runs.values()],
        "intervals_over": "seeds" if len(arm.runs) > 1 else "sequences",
        "tests": {
            x.name: {
                "verdict": x.verdict,
                "why": x.why,
                "measured": {y.words: y.found._asdict() | {"passes": y.passes} for y in x.lines},
            }
            for x in outcomes
        },
    }


def distance(arm: Arm, count: int | None = None) -> Outcome:
    """Test whether thoughts are more than the text said early.

    Passed where they are farther from the run's own direct continuation of the text than half as far as they
    are from that of another sequence, which is as far as chance has them.
    """
    name = "distance from the direct continuation"
    if why := why_not(arm.first.config, next(sample(arm.first, 0, 2)).whole):
        return Outcome(name, [], why)
    sequences = equal_sequences(arm.first, count)
    own, other, excess = (Parts(list) for _ in range(3))
    for seed, run in arm.runs.items():
        for sampled in sample(run, seed, count):
            near, far, counts = distances(run, sampled)
            weights = sampled.batch.weights[0].double() * counts.double().mean(-1)
            for into, values in ((own, near), (other, far), (excess, near - far / 2)):
                mean = (values * counts).sum(-1) / counts.sum(-1).clamp(min=1)
                into[seed].append((mean.cpu(), weights.cpu()))
    lines = [
        Line("distance, 0 (the same) to 1", _over(own, sequences), "", True),
        Line("distance from another sequence's continuation", _over(other, sequences), "", True),
        _above_zero("distance beyond half of the latter", _over(excess, sequences)),
    ]
    note = "continuation: the run's own without a thought, which its training may never have asked for"
    return Outcome(name, lines, note=note)


def ablation(arm: Arm, control: Arm, count: int | None = None) -> Outcome:
    """Test whether the control's runs, which do without these thoughts, do worse, paired by seed.

    What the run itself does with its thoughts taken away says nothing: its head was trained to expect some.
    The thoughts also have to be used (`started` in the glossary): where another sequence's do as well, a run
    is better for another reason.
    """
    name = ABLATION
    nll: dict[int, PerPosition] = {}
    accuracy, use = dict(nll), dict(nll)
    for seed, run in arm.runs.items():
        number = count or run.config.eval_sequences
        mine, other = (_scored(x, seed, number) for x in (run, control.runs[seed]))
        if any(not torch.equal(mine[key], other[key]) for key in ("at", "weights")):
            return Outcome(name, [], "run and control do not think at the same positions")
        weights = mine["weights"]
        nll[seed] = other["nll"] - mine["nll"], weights
        accuracy[seed] = 100 * (mine["accuracy"] - other["accuracy"]), weights
        use[seed] = mine["shuffled"] - mine["nll"], weights
    sequences = equal_sequences(arm.first, count)
    costs = [float((values * weights).sum() / weights.sum()) for values, weights in use.values()]
    using = sum(cost >= USED for cost in costs)
    needs = f"needs {USED}"
    if len(costs) > 1:
        needs += f" in half: {using} of {len(costs)} seeds"
    lines = [
        _above_zero("NLL of the control, nats, higher by", mean_interval(nll, sequences)),
        _above_zero("accuracy of the control, points, lower by", mean_interval(accuracy, sequences)),
        Line(
            "NLL with another sequence's thoughts, nats, higher by",
            mean_interval(use, sequences),
            needs,
            2 * using >= len(costs),
        ),
    ]
    return Outcome(name, lines)


def _scored(run: LoadedRun, seed: int, count: int | None) -> dict[str, Tensor]:
    """Return NLL, with own and another sequence's thoughts, accuracy, weights and positions, (n, T) each."""
    parts: dict[str, list[Tensor]] = {}
    for sampled in sample(run, seed, count):
        logits, thoughts = predict(run, sampled, sampled.thoughts), sampled.thoughts
        found = {
            "nll": -log_likelihood(run, sampled, thoughts).mean(-1),
            "accuracy": hits(logits, sampled.batch.targets.unsqueeze(-1))[0, ..., 0].mean(-1),
            "weights": sampled.batch.weights[0],
            "at": sampled.positions[0],
        }
        if thoughts is not None and run.config.has_thoughts:
            others = changes.shuffled(thoughts)
            given = with_symbols(run, sampled, others.symbols, others.lengths)
            found["shuffled"] = -log_likelihood(run, sampled, given).mean(-1)
        for key, values in found.items():
            parts.setdefault(key, []).append(values.double().cpu())
    return {key: torch.cat(each) for key, each in parts.items()}


def correlation(arm: Arm, count: int | None = None) -> Outcome:
    """Test whether thoughts that the policy holds likelier are of more use.

    Of the K thoughts of a position: Spearman's rank correlation of log π(h_k | x) with log q(y | h_k, x). A
    position where all thoughts are equal in one of the two, up to rounding, does not count.
    """
    name = "the thoughts' score against their use"
    found = Parts(list)
    for seed, run in arm.runs.items():
        for sampled in sample(run, seed, count):
            thoughts = sampled.thoughts
            assert thoughts is not None
            if thoughts.log_prob is None:
                return Outcome(name, [], f"thoughts={run.config.symbol_kind} have no density")
            if thoughts.log_prob.shape[3] == 1:
                return Outcome(name, [], "trice_samples=1: there is no other thought to compare with")
            score = thoughts.log_prob.sum(-1)[0]
            value, counts = rank_correlation(score, log_likelihood(run, sampled, thoughts))
            weights = sampled.batch.weights[0].double() * counts
            found[seed].append((value.cpu(), weights.cpu()))
    number = sum(int((weights > 0).sum()) for each in found.values() for _, weights in each)
    if not number:
        return Outcome(name, [], "at no position do thoughts differ in both")
    words = f"rank correlation, mean over {number:,} positions"
    return Outcome(name, [_above_zero(words, _over(found, equal_sequences(arm.first, count)))])


def rank_correlation(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Compute Spearman's correlation along the last axis, equal values (up to rounding) sharing their ranks.

    Args:
        a: (..., K).
        b: (..., K).

    Returns:
        (...), 0 where it has no meaning, and bool: where it has.
    """
    x, y = _ranks(a), _ranks(b)
    spread = x.square().sum(-1) * y.square().sum(-1)
    return (x * y).sum(-1) / spread.sqrt().clamp(min=1e-9), spread > 0


def _ranks(values: Tensor) -> Tensor:
    """Return ranks less their mean, (..., K): half the number of smaller values less that of larger ones."""
    differences = values.double().unsqueeze(-1) - values.double().unsqueeze(-2)
    return (
        differences.sign().masked_fill(differences.abs() <= rounding(values).unsqueeze(-1), 0.0).sum(-1) / 2
    )


def _over(found: Mapping[int, list[PerPosition]], sequences: Tensor) -> Interval:
    joined = {seed: [torch.cat(x) for x in zip(*each, strict=True)] for seed, each in found.items()}
    return mean_interval({seed: (values, weights) for seed, (values, weights) in joined.items()}, sequences)


def _short(found: Interval) -> str:
    return plus_minus(found.mean, found.half_width, ".3f")


def _print(arm: Arm, control: Arm, outcomes: list[Outcome]) -> None:
    print(*heading(arm.folders), *against(control.folders), sep="\n")
    words = f"The control was trained with {differing_settings(arm.first, control.first)}."
    print("\n".join(textwrap.wrap(words, WIDTH)))
    for number, outcome in enumerate(outcomes, start=1):
        why = f": {outcome.why}" if outcome.why else ""
        print("", *wrapped_line(f"{number}. {outcome.name}: {outcome.verdict}{why}"), sep="\n")
        rows = [(f"   {x.words}", _short(x.found), x.needs) for x in outcome.lines]
        if rows:
            print("\n".join(aligned(list(zip(*rows, strict=True)), left=(0, 2))))
        if outcome.note:
            print(f"   {outcome.note}")
    print(f"\n{interval_words(arm)}\nneeds more than 0: the whole interval has to lie there")
