"""What answers are worth: exact match, choices by likelihood, gain token by token, the time a token takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from toyqs.answers.predictor import Predictor
from toyqs.answers.questions import Choice, NumberQuestion, plain_number, stated_number
from toyqs.assets.documents import put

ENDS = ("\nQuestion:", "\n\n")  # what comes after an answer


class Text(Protocol):
    """What turns text into tokens and back: a task that reads texts."""

    def encode(self, text: str) -> Tensor:
        """(n,) long."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids."""
        ...


class Attempts(NamedTuple):
    """At one question with a number for an answer."""

    texts: list[str]  # as written
    number: str | None  # the one most often stated; of equally frequent ones the first
    right: bool


class Picked(NamedTuple):
    """One question's choices."""

    log_probs: list[float]  # of each choice, in nats
    by_sum: bool  # the likeliest choice is the right one
    by_mean: bool  # the choice that is likeliest token by token is


def prompt(question: str, *, steps: bool = False) -> str:
    """How a question is put; `steps` asks for a chain of thought (Kojima et al. 2022)."""
    return put(question) + (" Let's think step by step." if steps else "")


def answer_number(
    predictor: Predictor,
    text: Text,
    asked: NumberQuestion,
    most: int,
    *,
    steps: bool = False,
    texts: int = 1,
    temperature: float = 0.0,
) -> Attempts:
    """Write answers to a question and take the number that most of them state.

    Args:
        speaker: writes.
        text: its tokens.
        asked: the question.
        most: tokens of an answer.
        steps: ask for a chain of thought.
        texts: answers, of which the majority counts (Wang et al. 2023, "Self-consistency").
        temperature: 0: each token is the likeliest, and all answers are alike but for their thoughts.
    """
    before = text.encode(prompt(asked.question, steps=steps))
    found = predictor.generate(
        before, most, texts=texts, temperature=temperature, stop=lambda ids: _ended(text.decode(ids))
    )
    said = [_until_end(text.decode(ids)) for ids in found]
    stated = [stated_number(x) if "####" in x else plain_number(x) for x in said]
    numbers = Counter(x for x in stated if x is not None)
    number = numbers.most_common(1)[0][0] if numbers else None
    return Attempts(said, number, number == asked.number)


def solution_log_probs(predictor: Predictor, text: Text, asked: NumberQuestion) -> Tensor:
    """Of the tokens of the written solution, (n,) in nats."""
    return predictor.score(text.encode(prompt(asked.question)), text.encode(f" {asked.solution}")).log_probs


def pick(predictor: Predictor, text: Text, asked: Choice) -> Picked:
    """Choose by log-likelihood, the whole choice's and the mean of its tokens."""
    before = text.encode(prompt(asked.question))
    scored = [predictor.score(before, text.encode(f" {choice}")).log_probs for choice in asked.choices]
    sums, means = [float(x.sum()) for x in scored], [float(x.mean()) for x in scored]
    return Picked(sums, _best(sums) == asked.right, _best(means) == asked.right)


class Decile(NamedTuple):
    """A tenth of the tokens, by the NLL that they have without a thought."""

    tokens: int
    without: float  # mean NLL, nats
    with_thoughts: float

    @property
    def gain(self) -> float:
        """Nats per token."""
        return self.without - self.with_thoughts


def by_decile(without: Tensor, with_thoughts: Tensor, parts: int = 10) -> list[Decile]:
    """NLL with and without thoughts, in groups of equally many tokens of rising NLL without.

    Args:
        without: (n,) nats.
        with_thoughts: (n,) nats, of the same tokens.
        parts: fewer where there are fewer tokens.
    """
    order = np.argsort(without.numpy(), kind="stable")
    groups = np.array_split(order, min(parts, len(order)))
    return [
        Decile(len(g), float(without[g].mean()), float(with_thoughts[g].mean()))
        for g in map(torch.from_numpy, groups)
    ]


class Latency(NamedTuple):
    """Seconds per token."""

    median: float
    p95: float


def latency(predictor: Predictor, before: Tensor, tokens: int, warm: int = 3) -> Latency:
    """The time that one token takes after another, the first `warm` of them not counted."""
    seconds: list[float] = []
    predictor.generate(before, tokens + warm + 1, seconds=seconds)
    median, p95 = np.percentile(seconds[warm:], [50, 95])
    return Latency(float(median), float(p95))


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _ended(said: str) -> bool:
    return any(end in said.lstrip() for end in ENDS)


def _until_end(said: str) -> str:
    start = len(said) - len(said.lstrip())
    places = [place for end in ENDS if (place := said.find(end, start)) >= 0]
    return said[: min(places, default=len(said))]
