"""Exact match, majority, choices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

from toyqs.answers.loaded.predictor import Scored
from toyqs.answers.metrics import answer_number, pick, prompt, solution_log_probs
from toyqs.answers.questions import ChoiceQuestion, NumberQuestion

ASKED = NumberQuestion("What is 9+9?", "9+9=18\n#### 18", "18")


class Letters:
    """A task on text whose tokens are code points; | ends a document."""

    ends = (ord("|"),)

    def encode(self, text: str) -> Tensor:
        return torch.tensor([ord(x) for x in text])

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(map(chr, ids))


class Scripted:
    """A predictor that writes given texts, and scores texts from a table, evenly over their tokens."""

    def __init__(self, *texts: str, **scores: float) -> None:
        self.texts, self.scores, self.prompt = texts, scores, ""

    def generate(
        self, before: Tensor, most: int, *, texts: int = 1, ends: Any, stop: Any, **_: Any
    ) -> list[list[int]]:
        self.prompt = Letters().decode(before.tolist())
        assert texts == len(self.texts) and ends == Letters.ends
        found = []
        for text in self.texts:
            ids = []
            for letter in text[:most]:
                ids.append(ord(letter))
                if stop(ids):
                    break
            found.append(ids)
        return found

    def score(self, before: Tensor, given: Tensor) -> Scored:
        self.prompt = Letters().decode(before.tolist())
        text = Letters().decode(given.tolist()).strip()
        return Scored(torch.full((len(given),), self.scores[text] / len(given)), given > 0)


def attempt(*texts: str, **more: Any) -> tuple[str | None, bool, list[str]]:
    found = answer_number(Scripted(*texts), Letters(), ASKED, 99, texts=len(texts), **more)
    return found.number, found.right, found.texts


def test_the_number_that_is_stated() -> None:
    assert attempt(" 9+9=18\n#### 18") == ("18", True, [" 9+9=18\n#### 18"])
    assert attempt(" it is 17 or 18.")[:2] == ("18", True)
    assert attempt(" 18\n#### 17")[:2] == ("17", False)
    assert attempt(" I do not know")[:2] == (None, False)
    assert attempt(" 18\n#### none")[:2] == (None, False)


def test_an_answer_ends_before_the_next_question() -> None:
    assert attempt(" 18\nQuestion: What is 2+2?\nAnswer: 4") == ("18", True, [" 18"])
    assert attempt("\n\n 18\n\n17")[:2] == ("18", True)


def test_the_majority_counts_and_the_first_of_equals() -> None:
    assert attempt(" 18", " 17", " 17")[:2] == ("17", False)
    assert attempt(" 18", " 17", " none")[:2] == ("18", True)


def test_a_chain_of_thought_is_asked_for() -> None:
    assert prompt("Why?") == "Question: Why?\nAnswer:"
    predictor = Scripted(" 18")
    answer_number(predictor, Letters(), ASKED, 9, steps=True)
    assert predictor.prompt == "Question: What is 9+9?\nAnswer: Let's think step by step."


def test_choices_and_solutions_are_cut_as_one_text_with_their_question() -> None:
    class Merging(Letters):
        """Cuts ": 9" into one token."""

        def encode(self, text: str) -> Tensor:
            return super().encode(text.replace(": 9", "\u00a7"))

    class Asked(Scripted):
        def score(self, before: Tensor, given: Tensor) -> Scored:
            whole.append("".join(map(chr, [*before.tolist(), *given.tolist()])))
            return Scored(torch.zeros(len(given)), given > 0)

    whole: list[str] = []
    solution_log_probs(Asked(), Merging(), ASKED)
    pick(Asked(), Merging(), ChoiceQuestion("?", ["9", "8"], 0))
    assert whole == [
        "Question: What is 9+9?\nAnswer\u00a7+9=18\n#### 18",
        "Question: ?\nAnswer\u00a7",
        "Question: ?\nAnswer: 8",
    ]


def test_choices_by_the_sum_and_by_the_mean() -> None:
    """The long choice has the lower sum and the higher mean."""
    question = ChoiceQuestion("?", ["ab", "abcdefgh"], 1)
    predictor = Scripted(ab=-3.0, abcdefgh=-4.0)
    found = pick(predictor, Letters(), question)
    assert predictor.prompt == prompt("?")
    assert found.log_probs == [pytest.approx(-3.0), pytest.approx(-4.0)]
    assert (found.by_sum, found.by_mean) == (False, True)
