"""What every generated task keeps to, whatever it asks."""

from __future__ import annotations

import doctest
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from toyqs.tasks.group import S5
from toyqs.tasks.hidden_markov import HiddenMarkov
from toyqs.tasks.iterate import Iterate
from toyqs.tasks.registry import registry
from toyqs.tasks.rev_prog import RevProg
from toyqs.tasks.task import Task, scatter
from toyqs.tasks.texts.windows import Windows
from toyqs.types import Batch


def documented() -> type[Task]:
    """The task that docs/adding-a-task.md adds, by its code there."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "adding-a-task.md").read_text()
    module = ModuleType("toyqs.tasks.documented")
    sys.modules[module.__name__] = module  # where dataclasses and doctest look a class's module up
    exec(text.split("```python\n")[1].split("```")[0], vars(module))
    kind: type[Task] = module.Sums
    return kind


GENERATED = [*(kind for kind in registry().values() if not issubclass(kind, Windows)), documented()]
VARIANTS = [
    *(kind() for kind in GENERATED),
    Iterate(kind="map", curriculum=0.0),
    S5(group="s3", asked="end"),
    HiddenMarkov(states=3, vocab=2, positions=5),
]


def draw(task: Any, num: int, split: str, seed: int = 0, **more: float) -> Batch:
    return task.sample(torch.Generator().manual_seed(seed), num, 0, split, **more)


@pytest.mark.parametrize("kind", GENERATED)
def test_docstring_shows_what_the_code_does(kind: type) -> None:
    results = doctest.testmod(sys.modules[kind.__module__])
    assert results.failed == 0 and results.attempted >= 3


@pytest.mark.parametrize("task", VARIANTS, ids=repr)
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_a_batch(task: Task, split: str) -> None:
    task.check(128)
    batch = draw(task, 100, split)
    length = task.length if split == "train" else task.held_out_length
    shape = (1, 100, length(7))
    assert {x.shape for x in batch[:4]} == {shape} and length(7) == length(128)
    assert batch.inputs.dtype == batch.targets.dtype == torch.int64
    assert batch.weights.dtype == torch.float32 and batch.think.dtype == torch.bool
    if task.encode is not None:  # a text may end sooner than as many positions think as in the longest
        assert bool((batch.weights <= batch.think).all()) and bool(batch.weights.any(-1).all())
    elif task.joint_floor is None:
        assert torch.equal(batch.weights, batch.think.float())
    else:  # the tokens ahead of a position that thinks count, too
        assert bool((batch.weights >= batch.think).all()) and bool((batch.weights[..., -1] == 1).all())
    if length(7) == task.length(7):
        assert bool((batch.think.sum(-1) == task.thinking(7)).all())
    for ids in (batch.inputs, batch.targets):
        assert int(ids.min()) >= 0 and int(ids.max()) < task.vocab_size
    assert not batch.targets[batch.weights == 0].any(), "a filler 0 where a position does not count"
    if batch.oracle is not None:
        assert batch.oracle.shape == (*shape, task.vocab_size)
    assert task.steps(64, 128, 50) == task.num_steps and task.held_out_size(128) is None
    names = task.symbols(range(task.vocab_size))
    assert len(set(names)) == task.vocab_size and all(isinstance(name, str) for name in names)


@pytest.mark.parametrize("task", VARIANTS, ids=repr)
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_same_generator_same_batch(task: Any, split: str) -> None:
    again = type(task)(**vars(OmegaConf.to_object(OmegaConf.structured(task))))
    one, two, other = draw(task, 64, split, 5), draw(again, 64, split, 5), draw(task, 64, split, 6)
    for x, y in zip(one, two, strict=True):
        assert (x is None and y is None) or torch.equal(x, y)
    assert not torch.equal(one.inputs, other.inputs)


@pytest.mark.parametrize("kind", [RevProg, Iterate, HiddenMarkov])
def test_the_seed_of_a_task_decides_what_is_learnt(kind: Any) -> None:
    one, two = (draw(kind(seed=seed), 64, "train", 5) for seed in (0, 1))
    assert not torch.equal(one.targets, two.targets)


@pytest.mark.parametrize("kind", GENERATED)
def test_unknown_split(kind: Any) -> None:
    with pytest.raises(ValueError, match="train and held_out"):
        draw(kind(), 2, "test")


@pytest.mark.parametrize("kind", [RevProg, S5, HiddenMarkov])
def test_only_a_curriculum_asks_how_far_the_training_is(kind: Any) -> None:
    start, end = (draw(kind(), 64, "train", 5, progress=progress) for progress in (0.0, 1.0))
    assert torch.equal(start.inputs, end.inputs) and torch.equal(start.targets, end.targets)


def test_every_task_has_a_line_for_help() -> None:
    assert {
        "rev_prog",
        "iterate",
        "s5",
        "group",
        "depo",
        "mano",
        "reasoning",
        "hidden_markov",
        "char_text",
        "token_text",
    } <= registry().keys()
    assert all(kind.summary and len(kind.summary) < 92 for kind in registry().values())


def test_scattered_numbers_are_as_by_chance() -> None:
    """The number tells none of the digits, nor how far the digit before the last has moved on."""
    digits = torch.cartesian_prod(torch.arange(120), torch.arange(120), torch.zeros(1, dtype=torch.long))
    for seed in (0, 1, 2**40 + 3):
        numbers = scatter(digits.unbind(1), seed)
        assert int(numbers.min()) >= 0 and 2**27 < int(numbers.max()) < 2**28
        pairs = [(numbers % 6) * 6 + digits[:, i] % 6 for i in (0, 1)]
        steps = numbers.view(120, 120).diff() % 120
        for values, kinds in ((numbers % 120, 120), (pairs[0], 36), (pairs[1], 36), (steps.flatten(), 120)):
            expected = len(values) / kinds
            counts = torch.bincount(values, minlength=kinds)
            chi_square = float(((counts - expected) ** 2 / expected).sum())
            assert abs(chi_square - kinds) < 5 * (2 * kinds) ** 0.5
    assert not torch.equal(scatter(digits.unbind(1), 0), scatter(digits.unbind(1), 1))


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (RevProg(k=10**6), "task.k=1000000 and task.queries=4: makes sequences of 1000004 positions"),
        (RevProg(queries=10**6), "task.k=3 and task.queries=1000000: makes sequences of 1000003 positions"),
        (RevProg(p=10**9), "task.p=1000000000 and task.m=3: the task has to compute 3000000000 numbers"),
        (RevProg(p=12, m=10**7), "task.p=12 and task.m=10000000: the task has to compute 120000000 numbers"),
        (S5(positions=10**6), "task.positions=1000000: makes sequences of 1000000 positions"),
        (HiddenMarkov(positions=10**6), "task.positions=1000000: makes sequences of 1000000 positions"),
        (HiddenMarkov(states=10**4), "task.states=10000 and task.vocab=8: the task has to compute 100080000"),
        (
            HiddenMarkov(vocab=10**6),
            "task.states=16 and task.vocab=1000000: the task has to compute 16000256",
        ),
        (Iterate(n=10**5, k=10**4), "task.n=100000 and task.k=10000: the task has to compute 1000000000"),
    ],
    ids=repr,
)
def test_what_would_take_minutes_in_silence_is_refused_at_once(task: Task, says: str) -> None:
    begun = time.process_time()
    with pytest.raises(ValueError, match=r"give less$") as caught:
        task.check(0)
    assert str(caught.value).startswith(says) and time.process_time() - begun < 1


def test_the_longest_and_largest_that_there_may_be() -> None:
    RevProg(k=9996).check(0)
    with pytest.raises(ValueError, match="10001 positions"):
        RevProg(k=9997).check(0)
    Iterate(n=300, k=299).check(0)
    HiddenMarkov(states=996, vocab=8).check(0)
