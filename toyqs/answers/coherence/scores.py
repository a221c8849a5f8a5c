"""The coherence of a finished run's thoughts, and how it goes with what thoughts gain."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from toyqs.answers.coherence.correlation import Correlation, among, clustered, over_seeds
from toyqs.answers.command import add_thoughts_measure
from toyqs.answers.heading import heading, of_first_token
from toyqs.answers.loaded.load import LoadedRun
from toyqs.answers.thoughts.arm import Arm, equal_sequences, load_arm, sample
from toyqs.config.builders.auxiliaries import judge_of
from toyqs.config.checks.attention import check_coherence
from toyqs.config.errors import Refusal
from toyqs.evidence.judging.gain import interval
from toyqs.evidence.judging.significance import holm_bar
from toyqs.evidence.text import aligned, plus_minus
from toyqs.objectives import coherence
from toyqs.objectives.rewards import target_log_prob
from toyqs.types import Trace

SCORES = ("semantic", "syntactic", "both", "predictive", "coherence", "attention")
KNOWS = ("predictive", "coherence")  # what is made of the gain
WORDS = {
    "both": "both of these",
    "predictive": "predictive (is the gain)",
    "coherence": "coherence (has it in it)",
    "attention": "weight in prediction",
}
AGAINST = {
    "gain": "gain: log q(y | x, the thought alone) − log q(y | x) without any, nats",
    "contribution": "contribution: log q(y | x, all thoughts) − the same without this one, nats",
}


class Scored(NamedTuple):
    """The thoughts of one run at the counted positions."""

    scores: dict[str, Tensor]  # (n, K), by the names of SCORES
    against: dict[str, Tensor]  # (n, K), by the names of AGAINST
    sequences: Tensor  # (n,) long, alike where the sequence is


def add_to(measures: Any) -> None:
    """Add the measure to the command line."""
    text = "how well thoughts fit their context, and whether those that fit better gain more"
    add_thoughts_measure(measures, "coherence", _coherence, text)


def _coherence(given: argparse.Namespace) -> Any:
    arm = load_arm(given.runs, given.device)
    arm.first.check_thoughts()
    sequences = equal_sequences(arm.first, given.sequences)
    found = {seed: scored(run, seed, sequences, given.sequences) for seed, run in arm.runs.items()}
    first = next(iter(found.values()))
    means = {name: interval([float(x.scores[name].mean()) for x in found.values()]) for name in first.scores}
    tests = {
        (name, other, kind): over_seeds([correlated(x, name, other, kind) for x in found.values()])
        for other in first.against
        for name in first.scores
        for kind in ("all", "among")
    }
    _print(arm, found, means, tests)
    return {
        "runs": arm.keys,
        "means": {name: x._asdict() for name, x in means.items()},
        "correlations": [
            {"score": name, "with": other, "over": kind} | x._asdict()
            for (name, other, kind), x in tests.items()
        ],
    }


@torch.no_grad()
def scored(run: LoadedRun, seed: int, sequences: Tensor, count: int | None = None) -> Scored:
    """Score a run's thoughts on held-out sequences.

    Args:
        run: with thoughts.
        seed: of its training.
        sequences: (B,) long; see `equal_sequences`.
        count: number of sequences; None: as many as its evaluation had.

    Raises:
        Refusal: no score exists for this run, or its gain does not.
    """
    model, config = run.model, replace(run.config, log_coherence=True)
    try:
        check_coherence(config)
    except Refusal as refusal:
        raise Refusal(f"{run.folder}: {str(refusal).partition(': ')[2].partition(';')[0]}") from refusal
    model.judge = judge_of(config)
    if model.joins_thoughts:
        model.extra_predictions |= {"without"}
    parts: list[dict[str, Tensor]] = []
    place, clusters = 0, []
    for part in sample(run, seed, count):
        counted = part.batch.weights[0] > 0
        trace = model.talk(part.context, part.thoughts)
        own = coherence.scores(trace, part.batch) | _gains(trace, part.batch.targets.unsqueeze(-1))
        parts.append({name: x[0][counted].double().cpu() for name, x in own.items()})
        which = sequences[place : place + len(counted)]
        clusters.append(which.unsqueeze(-1).expand(counted.shape)[counted.cpu()])
        place += len(counted)
    whole = {name: torch.cat([x[name] for x in parts]) for name in parts[0]}
    scores = {name: whole[name] for name in SCORES if name in whole}
    return Scored(scores, {name: whole[name] for name in AGAINST if name in whole}, torch.cat(clusters))


def _gains(trace: Trace, targets: Tensor) -> dict[str, Tensor]:
    """Return what thoughts gain and add, their weights, and the scores without the gain, (1, B, T, K)."""
    given = trace.coherence
    assert given is not None and given.alone is not None and given.none is not None
    alone, none = (target_log_prob(x.unsqueeze(-2), targets) for x in (given.alone, given.none))
    found = {"gain": alone - none}
    if given.semantic is not None and given.syntactic is not None and any(given.shares[:2]):
        found["both"] = given.mean()
    if trace.attention is not None and trace.without_logits is not None:
        of_all, without = (
            target_log_prob(x[..., :1, :], targets) for x in (trace.logits, trace.without_logits)
        )
        found |= {"contribution": of_all - without, "attention": trace.attention}
    return found


def correlated(found: Scored, name: str, other: str, kind: str) -> Correlation:
    """Correlate a score of thoughts with what they gain, the sequences independent of each other.

    Args:
        found: of one run.
        name: of SCORES.
        other: of AGAINST.
        kind: all: over all thoughts, whose positions differ too; among: what differs among the thoughts of
            one position alone.
    """
    x, y = found.scores[name], found.against[other]
    if kind == "among":
        x, y = among(x), among(y)
    clusters = found.sequences.unsqueeze(-1).expand(x.shape)
    return clustered(x.flatten(), y.flatten(), clusters.flatten())


def _print(
    arm: Arm,
    found: Mapping[int, Scored],
    means: Mapping[str, Any],
    tests: Mapping[tuple[str, str, str], Correlation],
) -> None:
    first = next(iter(found.values()))
    print(*heading(arm.folders), sep="\n")
    print(*of_first_token(arm.folders[0]), sep="\n", end="")
    each, number = next(iter(first.scores.values())), len(first.sequences.unique())
    print(f"{each.numel():,} thoughts at {len(each):,} positions of {number:,} different sequences\n")
    asked = [x.p for (name, _, _), x in tests.items() if name not in KNOWS and x.p == x.p]
    bar = holm_bar(asked) if asked else 0.0
    for other in first.against:
        columns = [["", "score", *(WORDS.get(name, name) for name in first.scores)]]
        columns.append(["mean", "0 to 1", *(_mean(means[name]) for name in first.scores)])
        for kind, title in (("all", "over all thoughts"), ("among", "among a position's")):
            shown = [(name, tests[name, other, kind]) for name in first.scores]
            columns.append([title, f"r with the {other}", *(_r(x) for _, x in shown)])
            columns.append(["", "p", *(_p(x, bar if name not in KNOWS else None) for name, x in shown)])
        print(*aligned(columns, left=[0], rule=True), AGAINST[other], "", sep="\n")
    units = f"{len(arm.runs)} seeds" if len(arm.runs) > 1 else "sequences of one run, not over seeds"
    print(f"p, 95 % intervals: over {units}; thoughts of one sequence are not independent")
    if asked:
        print(f"*: beyond chance for all {len(asked)} correlations together (Holm, 5 %)")
    print("among a position's: both less their mean over its thoughts; weights can tell no more apart")


def _mean(found: Any) -> str:
    return plus_minus(found.mean, found.half_width, ".3f")


def _r(found: Correlation) -> str:
    if found.r != found.r:
        return "–"
    return f"{found.r:+.3f} ({found.lower:+.3f} to {found.upper:+.3f})"


def _p(found: Correlation, bar: float | None) -> str:
    if bar is None or found.p != found.p:
        return "–"
    text = "<0.0001" if found.p < 1e-4 else f"{found.p:.4f}"
    return text + ("*" if found.p <= bar else "")
