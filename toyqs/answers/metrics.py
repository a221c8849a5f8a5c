"""Measures of a run's answers: exact match, choice by likelihood."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

from toyqs.answers.loaded.predictor import Predictor
from toyqs.answers.questions import ChoiceQuestion, NumberQuestion, stated_number
from toyqs.answers.text import Text, encode_context, encode_pair
from toyqs.assets.documents import put

ENDS = ("\nQuestion:", "\n\n")  # each ends an answer, as an end of the text's documents does


class Attempts(NamedTuple):
    """The answers to one question about a number."""

    texts: list[str]  # as written
    number: str | None  # the most frequent; of equally frequent ones the first
    right: bool


class Picked(NamedTuple):
    """The likelihoods of one question's choices."""

    log_probs: list[float]  # of each choice, in nats
    by_sum: bool  # whether the right choice is the likeliest
    by_mean: bool  # whether it is, by the mean over each choice's tokens


def prompt(question: str, *, steps: bool = False) -> str:
    """Write the prompt of a question; `steps` asks for a chain of thought (Kojima et al. 2022)."""
    return put(question) + (" Let's think step by step." if steps else "")


def answer_number(
    predictor: Predictor,
    text: Text,
    question: NumberQuestion,
    most: int,
    *,
    steps: bool = False,
    texts: int = 1,
    temperature: float = 0.0,
) -> Attempts:
    """Write answers to a question and take the number that most of them state.

    Args:
        predictor: writes the answers.
        text: maps text to tokens.
        question: whose answer is a number.
        most: tokens of an answer at most.
        steps: ask for a chain of thought.
        texts: number of answers, of which the majority counts (Wang et al. 2023, "Self-consistency").
        temperature: of sampled tokens; at 0 each is the likeliest, and answers differ only by their thoughts.
    """
    answers = predictor.generate(
        encode_context(text, prompt(question.question, steps=steps)),
        most,
        texts=texts,
        temperature=temperature,
        ends=text.ends,
        stop=lambda ids: _has_ended(text.decode(ids)),
    )
    written = [_until_end(text.decode(ids)) for ids in answers]
    stated = map(stated_number, written)
    numbers = Counter(x for x in stated if x is not None)
    number = numbers.most_common(1)[0][0] if numbers else None
    return Attempts(written, number, number == question.number)


def solution_log_probs(predictor: Predictor, text: Text, question: NumberQuestion) -> Tensor:
    """Return the log-probabilities (n,), in nats, of the tokens of a question's written solution."""
    before, solution = encode_pair(text, prompt(question.question), f" {question.solution}")
    return predictor.score(before, solution).log_probs


def pick(predictor: Predictor, text: Text, question: ChoiceQuestion) -> Picked:
    """Choose by log-likelihood: by each choice's sum over its tokens, and by its mean."""
    pairs = [encode_pair(text, prompt(question.question), f" {choice}") for choice in question.choices]
    scores = [predictor.score(*pair).log_probs for pair in pairs]
    sums, means = [float(x.sum()) for x in scores], [float(x.mean()) for x in scores]
    return Picked(sums, _best(sums) == question.right, _best(means) == question.right)


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _has_ended(answer: str) -> bool:
    return any(end in answer.lstrip() for end in ENDS)


def _until_end(answer: str) -> str:
    return cut_before(answer, ENDS, len(answer) - len(answer.lstrip()))


def cut_before(text: str, ends: Iterable[str], start: int = 0) -> str:
    """Cut a text before the first of some strings found at `start` or later."""
    places = [place for end in ends if (place := text.find(end, start)) >= 0]
    return text[: min(places, default=len(text))]
