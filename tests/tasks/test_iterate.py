from __future__ import annotations

from collections import Counter

import pytest
import torch

from toyqs.tasks.iterate import Iterate

TASKS = [
    *(Iterate(seed=seed) for seed in range(3)),
    *(Iterate(kind="map", seed=seed) for seed in range(8)),
    Iterate(n=7, k=6, held_out=0.5),
    Iterate(n=24, k=3, kind="map", held_out=0.9),
]


def draw(task, num, split, seed=0, **more):
    return task.sample(torch.Generator().manual_seed(seed), num, 0, split, **more)


def iterated(task, x, k):
    """f^k(x), one step after the other, f read off the task's first iterate."""
    after = task.powers[1].tolist()
    for _ in range(k):
        x = after[x]
    return x


def of(batch, task):
    """The batch as tuples (x, k, answer)."""
    x, k = batch.inputs[0].unbind(1)
    return list(zip(x.tolist(), (k - task.n + 1).tolist(), batch.targets[0, :, 1].tolist(), strict=True))


def test_worked_examples():
    task = Iterate(n=6, k=3, seed=1)
    lines = Iterate.__doc__.split("split\n")[1].split("\n\n")[0].splitlines()
    assert len(lines) == 4
    for line in lines:
        x, k, *inputs = (int(word) for word in line.split()[:4])
        filler, target, split = line.split()[4:]
        assert task.symbols(inputs) == [str(x), f"k{k}"]
        assert (filler, int(target)) == ("-", iterated(task, x, k))
        assert [x, k] in task.pairs[split].tolist()


@pytest.mark.parametrize("task", TASKS, ids=repr)
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_answers_are_explicit_iteration(task, split):
    task.check(0)
    drawn = of(draw(task, 1000, split), task)
    assert all(y == iterated(task, x, k) for x, k, y in drawn)
    assert {(x, k) for x, k, _ in drawn} == set(map(tuple, task.pairs[split].tolist()))


@pytest.mark.parametrize("task", TASKS, ids=repr)
def test_a_function(task):
    after = task.powers[1].tolist()
    if task.kind == "cycle":
        assert [iterated(task, 0, k) for k in range(task.n)] != sorted(after)
        assert {iterated(task, 0, k) for k in range(task.n)} == set(range(task.n))
        assert iterated(task, 0, task.n) == 0
    else:
        assert len(after) == task.n > len(set(after)), "these maps merge symbols"


@pytest.mark.parametrize("task", TASKS, ids=repr)
def test_splits_share_no_pair_and_no_answer(task):
    pairs = {split: list(map(tuple, each.tolist())) for split, each in task.pairs.items()}
    everything = sorted((x, k) for x in range(task.n) for k in range(1, task.k + 1))
    assert sorted(pairs["train"] + pairs["held_out"]) == everything
    assert all((x, 1) in pairs["train"] for x in range(task.n))
    for x, k in pairs["held_out"]:
        answer = iterated(task, x, k)
        assert answer != x
        others = [j for j in range(1, task.k + 1) if j != k]
        assert all(iterated(task, x, j) != answer for j in others), "the same x at another k"
        twins = [a for a, j in pairs["train"] if j == k]
        assert all(iterated(task, a, k) != answer for a in twins), "another x at the same k"
    for k in range(2, task.k + 1):
        answers = {split: {iterated(task, x, j) for x, j in each if j == k} for split, each in pairs.items()}
        assert len(answers["held_out"]) >= 2 and answers["train"]


def test_the_share_is_of_each_ks_answers():
    task = Iterate(n=20, k=5, held_out=0.3)
    assert Counter(k for _, k in task.pairs["held_out"].tolist()) == {2: 6, 3: 6, 4: 6, 5: 6}
    assert len(Iterate().pairs["held_out"]) == 18
    held_out = [Iterate(seed=seed).pairs["held_out"] for seed in (0, 0, 1)]
    assert torch.equal(held_out[0], held_out[1]) and not torch.equal(held_out[0], held_out[2])


def test_held_out_pairs_come_equally_often_in_any_order():
    task = Iterate()
    drawn = of(draw(task, 1000, "held_out"), task)
    counts = Counter(drawn)
    assert set(counts.values()) == {1000 // 18, 1000 // 18 + 1}
    assert drawn[:18] != sorted(drawn[:18]) and len(set(drawn[:200:4])) > 14


def test_few_held_out_pairs_are_of_all_depths():
    """Fewer sequences than pairs, which are listed in the order of k, are drawn from all of them."""
    task = Iterate(n=24, reach=2)
    few = draw(task, 60, "held_out")
    assert len(task.pairs["held_out"]) > 120
    assert set(task.depth(few.inputs).amax(-1).flatten().tolist()) == set(range(2, 9))
    assert len(set(map(tuple, few.inputs[0].tolist()))) == 60


def test_training_pairs_are_uniform():
    task = Iterate()
    pairs = task.pairs["train"]
    counts = Counter(of(draw(task, 1000 * len(pairs), "train"), task))
    chi_square = sum((count - 1000) ** 2 / 1000 for count in counts.values())
    assert len(counts) == len(pairs)
    assert abs(chi_square - (len(pairs) - 1)) < 5 * (2 * len(pairs)) ** 0.5


def test_curriculum():
    task = Iterate(k=4, curriculum=0.6)
    stages = {0.0: 1, 0.19: 1, 0.21: 2, 0.39: 2, 0.41: 3, 0.59: 3, 0.6: 4, 1.0: 4}
    assert {progress: task.largest_depth(progress) for progress in stages} == stages
    for progress, largest in stages.items():
        seen = {k for _, k, _ in of(draw(task, 500, "train", progress=progress), task)}
        assert seen == set(range(1, largest + 1))
    for off in (Iterate(curriculum=0.0), Iterate(curriculum=1.0)):
        assert off.largest_depth(1.0) == 4
    assert Iterate(curriculum=0.0).largest_depth(0.0) == 4
    held_out = [draw(task, 100, "held_out", progress=progress) for progress in (0.0, 1.0)]
    assert torch.equal(held_out[0].inputs, held_out[1].inputs)


def test_only_the_last_position_counts():
    batch = draw(Iterate(), 10, "train")
    assert batch.think.tolist() == [[[False, True]] * 10]
    assert Iterate().floor() == 0.0


@pytest.mark.parametrize(
    ("knobs", "key", "remedy"),
    [
        ({"kind": "tree"}, "task.kind=tree", "cycle, map"),
        ({"n": 2}, "task.n=2", "task.n=3"),
        ({"k": 1}, "task.k=1", "task.k=2 to 15"),
        ({"k": 16}, "task.k=16", "larger task.n"),
        ({"held_out": 0.0}, "task.held_out=0.0", "more than 0"),
        ({"held_out": 1.0}, "task.held_out=1.0", "less than 1"),
        ({"held_out": float("nan")}, "task.held_out=nan", "less than 1"),
        ({"held_out": 0.05}, "task.held_out=0.05", "another share"),
        ({"held_out": 0.99}, "task.held_out=0.99", "another share"),
        ({"curriculum": -0.1}, "task.curriculum=-0.1", "0 to 1"),
        ({"curriculum": 1.1}, "task.curriculum=1.1", "0 to 1"),
        ({"kind": "map", "n": 6, "k": 5}, "task.held_out=0.4", "a map with task.n=6 and task.k=5"),
    ],
)
def test_refusals(knobs, key, remedy):
    with pytest.raises(ValueError) as error:
        Iterate(**knobs).check(128)
    message = str(error.value)
    assert key in message and remedy in message and "\n" not in message
