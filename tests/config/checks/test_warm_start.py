"""A warm start is refused in one line where there are no right thoughts, or a run cannot think them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.config.checks.checking import NO_REASONER, accepted, refused
from toyqs.tasks.group import Group
from toyqs.tasks.hidden_markov import HiddenMarkov
from toyqs.tasks.iterate import Iterate
from toyqs.tasks.rev_prog import RevProg

ITERATED = {"task": Iterate(), "max_reasoning_len": 4, "thought_vocab": 16, "warm_start": 10}
LABELS = {"warm_start": 10, "warm_start_as": "labels"}


@pytest.mark.parametrize(
    ("said", "changes"),
    [
        ("task=hidden_markov does not say", {"task": HiddenMarkov()}),
        ("the training has 5 steps; give warm_start=5 or fewer", {"max_steps": 5}),
        ("the training has 450 steps", {"warm_start": 451}),
        (
            "made of 6 different symbols, and thought_vocab=5 has fewer; give thought_vocab=6",
            {"thought_vocab": 5},
        ),
        (
            "made of 30 different symbols, and thought_vocab=20 has fewer",
            {"task": Iterate(n=30, k=2), "thought_vocab": 20},
        ),
        ("tokens of right thoughts with thoughts=gaussian", {"thoughts": "gaussian"}),
        ("with thoughts=gumbel", {"thoughts": "gumbel", "objective": "pathwise"}),
        ("with random_thoughts=true", {"random_thoughts": True}),
        ("up to 3 symbols, and max_reasoning_len=2; give max_reasoning_len=3", {"max_reasoning_len": 2}),
        ("have 3 symbols, and all thoughts 4; give max_reasoning_len=3", {"max_reasoning_len": 4}),
        ("have 1 to 4 symbols, and all thoughts 4; give adaptive_len=true", ITERATED),
        ("a thought is one of a chain; give thought_into=prediction", {"thought_into": "state"}),
        ("have up to 65 symbols, and may have 64; give a task=group of less", {"task": Group(positions=65)}),
        ("think_at=all takes others", {"think_at": "all"}),
        ("think_at=hard takes others", {"think_at": "hard"}),
        ("cuts right thoughts off; give length_schedule=constant", {"length_schedule": "short_to_long"}),
        ("learned_reward=true is fitted on halves", {"learned_reward": True}),
        ("a graph replays one; give cuda_graphs=false", {"cuda_graphs": True, "device": "cuda"}),
        ("up to 3 symbols, and max_reasoning_len=2", LABELS | {"max_reasoning_len": 2}),
    ],
)
def test_refused(said: str, changes: dict[str, Any]) -> None:
    refused(f"warm_start=.*{said}.*, or warm_start=0$", **{"warm_start": 10} | changes)


def test_a_run_without_thoughts_says_labels_or_has_none() -> None:
    for run in (NO_REASONER, {"max_reasoning_len": 0}):
        refused(
            "warm_start=10: this run has no thoughts, which could be right ones; give warm_start_as=labels",
            warm_start=10,
            **run,
        )
        assert accepted(**LABELS, **run) == []


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"warm_start": 450, "thought_vocab": None},
        {"variable_len": True, "max_reasoning_len": 5},
        ITERATED | {"adaptive_len": True},
        ITERATED | {"variable_len": True},
        {"task": RevProg(k=2), "max_reasoning_len": 2},
        {"task": Group(positions=5), "adaptive_len": True, "max_reasoning_len": 5},
        LABELS | {"thoughts": "gaussian"},
        LABELS | {"thought_vocab": 1, "max_reasoning_len": 5},
    ],
)
def test_accepted(changes: dict[str, Any]) -> None:
    assert accepted(**{"warm_start": 10} | changes) == []
