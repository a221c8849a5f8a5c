"""The right steps of a thought, each against a computation of its own."""

from __future__ import annotations

import pytest
import torch

from tests.tasks.test_task import VARIANTS, draw
from toyqs.tasks.depo import Depo
from toyqs.tasks.group import Group
from toyqs.tasks.iterate import Iterate
from toyqs.tasks.mano import Mano
from toyqs.tasks.rev_prog import RevProg
from toyqs.tasks.task import Task

DEEPER = [RevProg(reach=2), RevProg(m=2, curriculum=0.5), Iterate(n=20, reach=2)]  # than they train
MIXED = Group(asked="end", positions=3)  # lengths, with pads


@pytest.mark.parametrize("task", [*(x for x in VARIANTS if x.gold is not None), *DEEPER, MIXED], ids=repr)
def test_gold_ends_in_the_answer_after_as_many_steps_as_the_task_says(task: Task) -> None:
    assert task.gold is not None and task.gold_sizes is not None
    batch, sizes = draw(task, 200, "train"), task.gold_sizes()
    gold = task.gold(batch.inputs)
    assert gold.shape == (*batch.inputs.shape, sizes.longest) and gold.dtype == torch.int64
    assert int(gold.max()) == sizes.symbols - 1 and int(gold.min()) >= -1
    lengths = (gold >= 0).sum(-1)
    assert torch.equal(lengths > 0, batch.think)
    assert torch.equal(gold >= 0, torch.arange(sizes.longest) < lengths.unsqueeze(-1)), "none after the end"
    asked = lengths[batch.think]
    assert (int(asked.min()), int(asked.max())) == (sizes.shortest, sizes.longest)
    if task.thought_length is not None:
        assert torch.equal(task.thought_length(batch.inputs), lengths)
    answers = gold.gather(-1, (lengths - 1).clamp(min=0).unsqueeze(-1)).squeeze(-1)
    assert torch.equal(answers[batch.think], batch.targets[batch.think])


def test_the_steps_of_a_program() -> None:
    task = RevProg(p=4, m=2, k=3, queries=2)
    one, two = task.permutations.tolist()
    gold = task.gold(torch.tensor([[[4, 5, 5, 2, 3]]]))
    steps = [[one[x], two[one[x]], two[two[one[x]]]] for x in (2, 3)]
    assert gold.tolist() == [[[[-1] * 3] * 3 + steps]]


def test_the_steps_of_an_iteration() -> None:
    task = Iterate(n=6, k=3, seed=1)
    f = task.powers[1].tolist()
    gold = task.gold(torch.tensor([[[2, 6], [2, 7], [5, 8]]]))
    wanted = [[f[2], -1, -1], [f[2], f[f[2]], -1], [f[5], f[f[5]], f[f[f[5]]]]]
    assert gold.tolist() == [[[[-1] * 3, steps] for steps in wanted]]


def test_the_steps_of_a_product() -> None:
    """After "021" and "102" of the docstring's example: 021, 120."""
    assert Group(positions=3).gold(torch.tensor([[[1, 2, 5]]]))[0, 0].tolist() == [
        [1, -1, -1],
        [1, 3, -1],
        [1, 3, 2],
    ]
    assert MIXED.gold(torch.tensor([[[1, 2, 6]]]))[0, 0].tolist() == [[-1] * 3, [1, 3, -1], [-1] * 3]


def test_which_tasks_have_gold() -> None:
    assert {type(x).__name__ for x in VARIANTS if x.gold is not None} == {
        *("Depo", "Group", "Iterate"),
        *("Mano", "RevProg", "S5"),
    }


@pytest.mark.parametrize(
    "task", [Depo(n=6, k=3), Mano(k=3), Depo(n=9, k=2, reach=2), Group(positions=4)], ids=repr
)
def test_the_steps_are_the_features_in_order(task: Task) -> None:
    assert task.gold is not None and task.features is not None
    batch = draw(task, 50, "train")
    features = {name: x.values for name, x in task.features(batch).items() if name != "k"}
    answers, gold = features.pop("answer"), task.gold(batch.inputs)
    for j, values in enumerate(list(features.values())[: gold.shape[-1]]):
        there = values >= 0
        assert torch.equal(gold[..., j][there], values[there])
    last = gold.gather(-1, ((gold >= 0).sum(-1, keepdim=True) - 1).clamp(min=0)).squeeze(-1)
    assert torch.equal(last[batch.think], answers[batch.think])
