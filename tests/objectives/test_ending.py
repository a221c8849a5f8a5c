"""Thoughts of variable length: every one of them summed exactly, broken versions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from toyqs.model import interpreter, latent_reasoner, thoughts
from toyqs.model.core import advance
from toyqs.model.gru import GRU
from toyqs.model.thoughts import Symbols
from toyqs.objectives.reinforce import Reinforce
from toyqs.types import Thoughts

EXTRAS: list[dict[str, Any]] = [
    {},
    {"share_lm_head": True, "mixing": "add"},
    {"thought_vocab": 2},
    {"thought_vocab": 2, "max_reasoning_len": 1},
]


def world(**changes: Any) -> tuple[Any, Tensor]:
    """Settings of variable length, and all thoughts."""
    settings = tiny.config(variable_len=True, **changes)
    return settings, tiny.ending(settings.thought_vocab or tiny.SYMBOLS, settings.max_reasoning_len)


def check(**changes: Any) -> None:
    """The probabilities add up to 1, and E[∇ reinforce] = ∇ Σ_h π(h) log q(y | h)."""
    settings, every = world(**changes)
    total = float(tiny.enumerate_tuples(settings, 1, every).probability.sum())
    assert abs(total - 1.0) < 1e-12, f"off by {total - 1.0:.3g}"
    tiny.check_expected_gradient(settings, Reinforce(), 2, every)


def test_the_thoughts_are_all_there_are_each_once() -> None:
    assert tiny.ending(2).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [2, 2]]
    assert len(tiny.ending(3)) == 1 + 3 + 9 and tiny.ending(2, 1).tolist() == [[0], [1], [2]]


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", tiny.PATTERNS)
def test_reinforce_is_unbiased(groups: str, start: str, extra: dict[str, Any]) -> None:
    check(weight_groups=groups, interpreter_start=start, **extra)


# Broken versions: each must fail the oracle.


def caught(start: str) -> None:
    for groups in ("AAAA", "AABB", "ABCD"):
        with pytest.raises(AssertionError, match="off by"):
            check(weight_groups=groups, interpreter_start=start)


@pytest.mark.parametrize("start", tiny.STARTS)
def test_a_state_that_is_not_held(monkeypatch: pytest.MonkeyPatch, start: str) -> None:
    """After the end the reasoner goes on (onward), the interpreter reads on (afresh)."""
    monkeypatch.setattr(GRU, "hold", lambda self, new, old, live: new)
    caught(start)


def on_padding(core: Any, symbols: Tensor, rows: Tensor, state: Any, live: Tensor) -> Any:
    return advance(core, torch.where(live, symbols, 0), rows, state, None)


@pytest.mark.parametrize("where", [interpreter, thoughts], ids=["interpreter", "reasoner"])
def test_padding_that_is_consumed(monkeypatch: pytest.MonkeyPatch, where: Any) -> None:
    def careless(core: Any, symbols: Tensor, rows: Tensor, state: Any, live: Tensor | None) -> Any:
        return (advance if live is None else on_padding)(core, symbols, rows, state, live)

    monkeypatch.setattr(where, "advance", careless)
    caught("onward")


@pytest.mark.parametrize("start", tiny.STARTS)
def test_padding_that_counts(monkeypatch: pytest.MonkeyPatch, start: str) -> None:
    right = thoughts._draw

    def counting(
        head: Any, hidden: Tensor, given: Tensor, drawing: Tensor | None, *, forced: bool
    ) -> Symbols:
        found = right(head, hidden, given, drawing, forced=forced)
        if drawing is None:
            return found
        return found._replace(log_prob=head.draw(hidden, found.values, forced=True).log_prob)

    monkeypatch.setattr(thoughts, "_draw", counting)
    caught(start)


@pytest.mark.parametrize("start", tiny.STARTS)
def test_a_forced_end_that_counts(monkeypatch: pytest.MonkeyPatch, start: str) -> None:
    right = latent_reasoner.think

    def charging(core: Any, head: Any, *args: Any, **kwargs: Any) -> Thoughts:
        found = right(core, head, *args, **kwargs)
        last = found.symbols.select(4, -1)
        hidden, _ = advance(core, last, core.thought_rows(), found.branches, found.live(tiny.LENGTH - 1))
        end = head(hidden).log_softmax(-1)[..., -1] * found.unfinished
        return found._replace(log_prob=torch.cat([found.log_prob, end.unsqueeze(-1)], -1))

    monkeypatch.setattr(latent_reasoner, "think", charging)
    caught(start)
