"""The strategy of a response, recognised by rule."""

from __future__ import annotations

import re

import pytest

from tests.tasks.solved import some
from toyqs.tasks.reasoning import strategies
from toyqs.tasks.reasoning.corpus import MIXED, STRATEGIES
from toyqs.tasks.reasoning.strategies import read
from toyqs.tasks.reasoning.thinking_tokens import THINKING_TOKENS


@pytest.mark.parametrize("kind", [*STRATEGIES, MIXED])
def test_the_strategy_of_each_text_is_recognised(kind: str) -> None:
    for text in some(kind):
        found = read(text.response)
        assert found.strategies == text.strategies and found.thinks and found.answer == text.answer
        assert found.equations == found.true_equations
        assert kind == "falsification" or found.equations >= 1
        closed = text.response.replace(" <", "<").replace("> ", ">")
        assert read(closed) == found, "a tokeniser may leave no blanks around thinking tokens"


@pytest.mark.parametrize("kind", STRATEGIES)
def test_part_of_a_form_is_not_the_strategy(kind: str) -> None:
    """Without its tokens, without its ending, or outside of the thinking it is none, nor another."""
    text = some(kind, 2)[0].response
    reasoning, answer = text.removeprefix("<think> ").split(" </think> ")
    for token in THINKING_TOKENS[2:]:
        if token in reasoning:
            assert read(text.replace(f"{token} ", "")).strategies == ()
    begins = {"chain_of_thought": 6, "mece": 16, "expert": 8, "analogy": 13, "bayes": 18}
    cut = " ".join(reasoning.split()[: begins.get(kind, 5)])
    assert read(f"<think> {cut} </think> {answer}").strategies == ()
    assert read(f"{reasoning} <think> </think> {answer}").strategies == ()
    unfinished = read(f"<think> {reasoning}")
    assert unfinished.strategies == (kind,) and not unfinished.thinks and unfinished.answer is None
    assert not read(f"{reasoning} {answer}").thinks and not read(f"<think> </think> {answer}").thinks


def test_a_wrong_equation_is_not_counted_as_true() -> None:
    found = read("<think> <step> 3 plus 4 is 8 <step> 8 minus 1 is 7 </think> answer 7 of them")
    assert found == (True, ("chain_of_thought",), 2, 1, "7 of them")
    assert read("<think> <step> 3 plus 4 is 7 </think> so answer 7").answer is None
    assert read("answer 7").answer is None and read("").strategies == ()


def test_a_mutant_of_each_form_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one strategy's form also took another's text, that text would have two."""
    loose = re.compile(r"<reason>|<step>|<mece>|<falsify>|<expert>|<doubt>")
    for kind in STRATEGIES:
        with monkeypatch.context() as patch:
            patch.setitem(strategies._FORMS, kind, loose)
            other = next(x for x in STRATEGIES if x != kind)
            assert read(some(other, 2)[0].response).strategies != (other,)
