"""Whether reasoning patterns are in a run's weights: how it responds to problems it was not trained on."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from scipy.stats import binomtest

from toyqs.answers.command import add_measure, temperature
from toyqs.answers.heading import heading
from toyqs.answers.loaded.load import LoadedRun
from toyqs.answers.reasoning.asked import KINDS, held_out_problems, responses
from toyqs.command_line import whole
from toyqs.evidence.text import aligned
from toyqs.tasks.reasoning.corpus import Text
from toyqs.tasks.reasoning.strategies import Response, read

PROBLEMS = 40  # of each kind, by default
TOKENS = 96  # of a response at most, by default: more than any of the corpus has


class Criterion(NamedTuple):
    """Something that more than a share of responses must have."""

    words: str
    needed: float
    holds: Callable[[Text, Response], bool]


CRITERIA = (
    Criterion("right answer", 0.85, lambda problem, response: response.answer == problem.answer),
    Criterion("thinking tokens", 0.80, lambda problem, response: response.thinks),
    Criterion("fitting strategy", 0.60, lambda problem, response: response.strategies == problem.strategies),
)


class Share(NamedTuple):
    """How many responses meet a criterion, with Wilson's 95 % interval of their share."""

    met: int
    total: int

    @property
    def interval(self) -> tuple[float, float]:
        """Return the lower and the upper end."""
        low, high = binomtest(self.met, self.total).proportion_ci(method="wilson")
        return float(low), float(high)

    def exceeds(self, needed: float) -> bool:
        """Tell whether the whole interval is above a share."""
        return self.interval[0] > needed

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.met / self.total:.1f} % ({100 * low:.1f}-{100 * high:.1f} %)"


def add_to(measures: Any) -> None:
    """Add the measure to the command line."""
    text = "whether it reasons by the strategy that fits, on held-out problems of task=reasoning"
    part = add_measure(measures, "baked", _measure, text)
    help_ = f"held-out problems of each of the {len(KINDS)} kinds ({PROBLEMS})"
    part.add_argument("--problems", type=whole, default=PROBLEMS, metavar="N", help=help_)
    help_ = "of sampled tokens (1); 0 takes the likeliest"
    part.add_argument("--temperature", type=temperature, default=1.0, metavar="T", help=help_)
    help_ = f"tokens of a response at most ({TOKENS})"
    part.add_argument("--tokens", type=whole, default=TOKENS, metavar="N", help=help_)
    help_ = "texts of the training before each prompt (0)"
    part.add_argument("--examples", type=lambda x: whole(x, 0, 50), default=0, metavar="N", help=help_)
    help_ = "exit with 1 unless every threshold is passed"
    part.add_argument("--strict", action="store_true", help=help_)
    part.set_defaults(code=lambda given, result: int(given.strict and not result["baked"]))


def _measure(given: argparse.Namespace, run: LoadedRun) -> dict[str, Any]:
    problems = held_out_problems(given.problems, given.seed)
    written = responses(run, problems, given.tokens, given.temperature, given.examples)
    read_ = [read(response) for response in written]
    print(*heading([run.folder]), *_how(given), "", *table(problems, read_), "", sep="\n")
    shares = {x.words: share_of(x, problems, read_) for x in CRITERIA}
    print(*verdict(shares), sep="\n")
    return {
        "baked": all(shares[x.words].exceeds(x.needed) for x in CRITERIA),
        "shares": {
            x.words: {**shares[x.words]._asdict(), "interval": shares[x.words].interval, "needed": x.needed}
            for x in CRITERIA
        },
        "responses": [
            {"kind": problem.kind, "prompt": problem.prompt, "response": response, **_judged(problem, said)}
            for problem, response, said in zip(problems, written, read_, strict=True)
        ],
    }


def _judged(problem: Text, response: Response) -> dict[str, Any]:
    met = {x.words: x.holds(problem, response) for x in CRITERIA}
    return {**met, "equations": response.equations, "true equations": response.true_equations}


def _how(given: argparse.Namespace) -> list[str]:
    chosen = f"sampled at temperature {given.temperature:g}" if given.temperature else "the likeliest tokens"
    before = f", {given.examples} examples of its kind before each" if given.examples else ""
    return [
        f"{given.problems} held-out problems of each kind{before}; one response each, {chosen}, of "
        f"{given.tokens} tokens at most"
    ]


def share_of(criterion: Criterion, problems: Sequence[Text], read_: Sequence[Response]) -> Share:
    """Return the share of responses that meet a criterion."""
    met = [criterion.holds(problem, response) for problem, response in zip(problems, read_, strict=True)]
    return Share(sum(met), len(met))


def table(problems: Sequence[Text], read_: Sequence[Response]) -> list[str]:
    """Return the lines of a table: for each kind how many responses meet each criterion, and of all."""
    rows = [("", *(x.words for x in CRITERIA), "true equations")]
    for kind in (*KINDS, "all"):
        pairs = [x for x in zip(problems, read_, strict=True) if kind in (x[0].kind, "all")]
        cells = []
        for criterion in CRITERIA:
            share = share_of(criterion, *zip(*pairs, strict=True))
            cells.append(f"{share.met} of {share.total}")
        stated = sum(response.equations for _, response in pairs)
        cells.append(f"{sum(response.true_equations for _, response in pairs)} of {stated}")
        rows.append((kind.replace("_", " "), *cells))
    return aligned(list(zip(*rows, strict=True)), left=(0,))


def verdict(shares: dict[str, Share]) -> list[str]:
    """Return a line for each criterion: its share, what is needed, and whether it is passed."""
    lines = []
    for criterion in CRITERIA:
        share, needed = shares[criterion.words], criterion.needed
        if share.exceeds(needed):
            word = "passed"
        else:
            within = share.interval[1] > needed
            word = f"NOT PASSED, {'undecided' if within else 'below'}"
        lines.append(f"{criterion.words}: {share}, needs over {100 * needed:.0f} %: {word}")
    passed = all(shares[x.words].exceeds(x.needed) for x in CRITERIA)
    end = "Baked: every interval is above its threshold." if passed else "Not baked: see the lines above."
    return [*lines, end]
