from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch

from toyqs.tasks.group import S5, Group


def draw(task, num, split, seed=0):
    return task.sample(torch.Generator().manual_seed(seed), num, 0, split)


def naive_products(group, row):
    """The element read first acts first: each in turn is applied to where the points are by then."""
    elements = list(itertools.permutations(range({"s3": 3, "s5": 5}[group])))
    where, products = elements[0], []
    for token in row:
        where = tuple(elements[token][point] for point in where)
        products.append(elements.index(where))
    return products


def test_worked_examples():
    task = S5(group="s3", positions=3)
    lines = Group.__doc__.split("targets\n")[1].split("\n\n")[0].splitlines()
    assert len(lines) == 2
    for line in lines:
        words = line.split()
        inputs, targets = ([int(word) for word in words[i : i + 3]] for i in (3, 9))
        assert targets == naive_products("s3", inputs)
        assert task.symbols(inputs) == words[:3] and task.symbols(targets) == words[6:9]


@pytest.mark.parametrize(
    ("group", "order", "involutions"),
    [("s3", 6, 4), ("a4", 12, 4), ("s4", 24, 10), ("a5", 60, 16), ("s5", 120, 26)],
)
def test_group(group, order, involutions):
    task = S5(group=group)
    table, identity = task.table, torch.arange(order)
    assert task.vocab_size == order and table.shape == (order, order)
    assert torch.equal(table[0], identity) and torch.equal(table[:, 0], identity)
    assert torch.equal(table.sort(0).values, identity[:, None].expand(-1, order))
    assert torch.equal(table.sort(1).values, identity.expand(order, -1))
    a, b, c = torch.randint(order, (3, 500), generator=torch.Generator().manual_seed(0))
    assert torch.equal(table[table[a, b], c], table[a, table[b, c]])
    assert not torch.equal(table, table.T)
    assert int((table.diagonal() == 0).sum()) == involutions, "elements whose square is the identity"


@pytest.mark.parametrize(
    ("group", "orders"),
    [("s3", [6, 3, 1]), ("a4", [12, 4, 1]), ("s4", [24, 12, 4, 1]), ("a5", [60, 60]), ("s5", [120, 60, 60])],
)
def test_which_groups_are_solvable(group, orders):
    """The subgroup that the commutators of one generate, and of that one, down to 1 element if solvable."""
    table = Group(group=group).table
    inverse, members, found = (table == 0).long().argmax(1), torch.arange(len(table)), [len(table)]
    while len(found) < len(orders):
        a, b = torch.cartesian_prod(members, members).unbind(1)
        generated = table[table[inverse[a], inverse[b]], table[a, b]].unique()
        while len(more := table[generated[:, None], generated].unique()) > len(generated):
            generated = more
        members = generated
        found.append(len(members))
    assert found == orders


def test_swaps_move_two_points_and_generate_the_group():
    for group, points, order in (("s3", 3, 6), ("s5", 5, 120)):
        task = S5(group=group, drawn_from="swaps", positions=8)
        task.check(0)
        elements = list(itertools.permutations(range(points)))
        swaps = [i for i, e in enumerate(elements) if sum(e[p] != p for p in range(points)) == 2]
        assert task.letters.tolist() == swaps and len(swaps) == math.comb(points, 2)
        train, held_out = (draw(task, 3000, split) for split in ("train", "held_out"))
        assert set(train.inputs.unique().tolist()) == set(swaps) == set(held_out.inputs.unique().tolist())
        assert torch.equal(train.targets, task.products(train.inputs))
        assert len(train.targets.unique()) == order
    pair = S5(group="s3", drawn_from="swaps", positions=2)
    seen = {s: set(map(tuple, draw(pair, 2000, s).inputs[0].tolist())) for s in ("train", "held_out")}
    assert len(seen["train"]) == 6 and len(seen["held_out"]) == 3 and not seen["train"] & seen["held_out"]


@pytest.mark.parametrize("group", ["s3", "s5"])
@pytest.mark.parametrize("asked", ["every", "end"])
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_targets_are_python_composition(group, asked, split):
    task = S5(group=group, positions=5, asked=asked)
    task.check(0)
    batch = draw(task, 200, split)
    for row, target in zip(batch.inputs[0].tolist(), batch.targets[0].tolist(), strict=True):
        products = naive_products(group, row)
        assert target == (products if asked == "every" else [0] * 4 + products[-1:])
    counted = [True] * 5 if asked == "every" else [False] * 4 + [True]
    assert bool((batch.think == torch.tensor(counted)).all())


def naive_last(row, order):
    number = 0
    for digit in (*row, 0):
        number = (number * 1103515245 + 12345 + digit * 2654435761) % 2**31
        number ^= number >> 15
    return (number >> 3) % order


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_each_split_is_uniform_over_its_definition(split):
    task = S5(group="s3", positions=3)
    everything = itertools.product(range(6), repeat=3)
    rows = [row for row in everything if (row[-1] == naive_last(row[:-1], 6)) == (split == "held_out")]
    assert len(rows) == (36 if split == "held_out" else 180)
    counts = Counter(map(tuple, draw(task, 1000 * len(rows), split).inputs[0].tolist()))
    assert set(counts) == set(rows)
    chi_square = sum((count - 1000) ** 2 / 1000 for count in counts.values())
    assert abs(chi_square - (len(rows) - 1)) < 5 * math.sqrt(2 * len(rows))


def test_splits_of_the_whole_group_are_disjoint():
    task = S5(positions=2)
    seen = {s: set(map(tuple, draw(task, 100_000, s).inputs[0].tolist())) for s in ("train", "held_out")}
    assert len(seen["held_out"]) == 120 and len(seen["train"]) > 14_000
    assert not seen["train"] & seen["held_out"]
    assert len({last for _, last in seen["held_out"]}) > 60, "scattered over the elements"
    products = task.products(torch.tensor(sorted(seen["held_out"])))[:, -1]
    assert len(products.unique()) > 60, "and over the answers"
    # from one beginning to the next, the held-out element moves on by any number of places
    last = torch.tensor([last for _, last in sorted(seen["held_out"])])
    assert len((last.diff() % 120).unique()) > 60


@pytest.mark.parametrize(
    ("knobs", "key", "remedy"),
    [
        ({"group": "s2"}, "task.group=s2", "s3, a4, s4, a5, s5"),
        ({"asked": "always"}, "task.asked=always", "every, end"),
        ({"drawn_from": "cycles"}, "task.drawn_from=cycles", "all, swaps"),
        ({"positions": 1}, "task.positions=1", "task.positions=2"),
    ],
)
def test_refusals(knobs, key, remedy):
    with pytest.raises(ValueError) as error:
        S5(**knobs).check(128)
    message = str(error.value)
    assert key in message and remedy in message and "\n" not in message


def test_floor():
    assert S5().floor() == 0.0


def test_the_vocabulary_can_be_asked_for_where_nothing_is_allocated() -> None:
    """Parameters are counted on torch's meta device; sequences must be drawn on the CPU afterwards."""
    task = S5()
    with torch.device("meta"):
        assert task.vocab_size == 120
    assert not task.sample(torch.Generator().manual_seed(0), 2, 0, "train").inputs.is_meta
