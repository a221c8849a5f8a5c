"""Tasks with depths: answers, depths, marked positions and splits, against brute force."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from tests.tasks.deep import TASKS, draw, read_of_problem, solved
from toyqs.tasks.depo import Depo
from toyqs.tasks.difficulty import joined
from toyqs.tasks.group import S5, Group
from toyqs.tasks.iterate import Iterate
from toyqs.tasks.mano import Mano
from toyqs.tasks.rev_prog import RevProg


@pytest.mark.parametrize("task", TASKS, ids=repr)
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_every_position_asks_what_brute_force_says(task: Any, split: str) -> None:
    task.check(0)
    batch = draw(task, 120, split)
    length = task.length(0) if split == "train" else task.held_out_length(0)
    assert batch.inputs.shape == (1, 120, length) and int(batch.inputs.max()) < task.vocab_size
    depth, needed, features = (
        task.depth(batch.inputs),
        task.thought_length(batch.inputs),
        task.features(batch),
    )
    assert depth.dtype == torch.int64 and torch.equal(depth, needed) and task.floor() == 0
    last = list(features)[-1]
    for row, tokens in enumerate(batch.inputs[0].tolist()):
        asked = solved(task, task.symbols(tokens))
        wanted = {each.position: each for each in asked}
        for position in range(length):
            target, here = int(batch.targets[0, row, position]), wanted.get(position)
            assert bool(batch.think[0, row, position]) == (here is not None)
            assert float(batch.weights[0, row, position]) == (here is not None)
            assert int(depth[0, row, position]) == (here.depth if here else 0)
            assert task.symbols([target]) == [here.answer] if here else target == 0
            values = {name: int(x.values[0, row, position]) for name, x in features.items()}
            if here is None:
                assert set(values.values()) == {-1}
                continue
            steps = [x for name, x in values.items() if name not in ("k", last) and "operator" not in name]
            steps = steps[: len(here.steps)] + [x for x in steps[len(here.steps) :] if x >= 0]
            assert task.symbols(steps) == here.steps and task.symbols([values[last]]) == [here.answer]


@pytest.mark.parametrize("task", [*TASKS, Iterate(n=8, k=3)], ids=repr)
def test_a_problem_is_as_long_as_the_tokens_that_say_it(task: Any) -> None:
    for split in ("train", "held_out"):
        batch = draw(task, 60, split)
        found = task.problem_length(batch.inputs)
        assert found.dtype == torch.int64 and found.shape == batch.inputs.shape
        for row, tokens in enumerate(batch.inputs[0].tolist()):
            words = task.symbols(tokens)
            asked = batch.think[0, row].tolist()
            wanted = [there and read_of_problem(task, words, i) for i, there in enumerate(asked)]
            assert found[0, row].tolist() == wanted


@pytest.mark.parametrize("task", TASKS, ids=repr)
def test_splits_share_no_sequence_and_training_no_larger_depth(task: Any) -> None:
    seen, depths = {}, {}
    for split in ("train", "held_out"):
        batch = draw(task, 4000, split)
        pad = "pad" if isinstance(task, Mano) else "-"
        rows = [task.symbols(row) for row in batch.inputs[0].tolist()]
        names = [tuple(x for x in row if x != pad) for row in rows]
        seen[split] = set(names)
        depths[split] = Counter(task.depth(batch.inputs)[batch.think].tolist())
    assert not seen["train"] & seen["held_out"]
    every = getattr(task, "asked", "") == "every"
    assert set(depths["train"]) == set(range(1 if every else task.least_depth, task.trained_depth + 1))
    assert max(depths["held_out"]) == task.deepest == task.reach * task.trained_depth
    if not isinstance(task, Iterate):  # which has more pairs of some depths than of others
        each = getattr(task, "queries", 1)
        assert max(depths["held_out"].values()) - min(depths["held_out"].values()) <= each
        assert set(depths["held_out"]) == set(range(task.least_held_out, task.deepest + 1))


@pytest.mark.parametrize(
    ("task", "every"),
    [
        (Mano(modulus=3, k=2, operators="+*", curriculum=0.0), 2 * 3 * 3),
        (Group(group="s3", positions=3, asked="end", curriculum=0.0), 36),
        (RevProg(p=4, m=2, k=2, queries=1, reach=2), 2 * 4),
    ],
    ids=repr,
)
def test_all_of_the_smallest_depth_is_trained_on_where_it_is_a_small_table(task: Any, every: int) -> None:
    batch = draw(task, 6000, "train")
    smallest = task.depth(batch.inputs).amax(-1)[0] == task.least_depth
    counts = Counter(map(tuple, batch.inputs[0, smallest].tolist()))
    mean = sum(counts.values()) / every
    assert len(counts) == every
    assert abs(sum((x - mean) ** 2 / mean for x in counts.values()) - every + 1) < 5 * (2 * every) ** 0.5


@pytest.mark.parametrize("task", [x for x in TASKS if x.reach > 1], ids=repr)
def test_every_token_of_a_larger_depth_was_read_in_training(task: Any) -> None:
    read = {split: set(draw(task, 4000, split).inputs.unique().tolist()) for split in ("train", "held_out")}
    assert read["held_out"] <= read["train"] | {task.vocab_size - 1}, (
        "but for a pad, which nothing depends on"
    )


@pytest.mark.parametrize("task", [x for x in TASKS if x.curriculum], ids=repr)
def test_a_curriculum_lets_the_largest_depth_rise(task: Any) -> None:
    least, most, share = task.least_depth, task.trained_depth, task.curriculum
    stages = most - least + 1
    for stage in range(stages):
        for place in (0.02, 0.98):
            progress = share * min(1.0, (stage + place) / max(1, stages - 1))
            batch = draw(task, 300, "train", progress=progress)
            counted = task.depth(batch.inputs)[batch.weights > 0]
            largest = min(most, least + stage)
            assert int(counted.max()) == task.largest_depth(progress) == largest
    start, end = (draw(task, 50, "held_out", progress=x) for x in (0.0, 1.0))
    assert torch.equal(start.inputs, end.inputs), "the curriculum is of training alone"


@pytest.mark.parametrize(
    "task", [Depo(n=3, k=1, queries=1, reach=2), Mano(modulus=3, k=1, reach=1)], ids=repr
)
def test_each_split_is_uniform_given_its_depth(task: Any) -> None:
    """Of all sequences each has one value of the last symbol held out; the others are trained on."""
    rows = {split: draw(task, 30_000, split) for split in ("train", "held_out")}
    kept = {}
    for split, batch in rows.items():
        depth = task.depth(batch.inputs).amax(-1)[0]
        counts = Counter(map(tuple, batch.inputs[0][depth == 1, : task.length(0)].tolist()))
        kept[split] = counts
        mean = sum(counts.values()) / len(counts)
        chi_square = sum((count - mean) ** 2 / mean for count in counts.values())
        assert abs(chi_square - (len(counts) - 1)) < 5 * (2 * len(counts)) ** 0.5
    values = task.n if isinstance(task, Depo) else task.modulus
    assert len(kept["train"]) == (values - 1) * len(kept["held_out"])
    # of Depo: 2 cycles of 3 symbols, 6 orders of the pairs, 3 queries; of Mano: 3 operators and 2 numbers
    assert sum(map(len, kept.values())) == (36 if isinstance(task, Depo) else 27)


def test_shapes_of_expressions_have_the_stated_law() -> None:
    """Of 3 operators the first operand has 0, 1 or 2, equally often."""
    task = Mano(modulus=3, k=3, curriculum=0.0, reach=1)
    words = [task.symbols(row) for row in draw(task, 20_000, "train").inputs[0].tolist()]
    counts: Counter[int] = Counter()
    for each in words:
        if sum(x in "+-*" for x in each) == 3:
            open_, inside = 1, 0
            for word in each[1:]:
                if word in "+-*":
                    open_, inside = open_ + 1, inside + 1
                else:
                    open_ -= 1
                if not open_:
                    break
            counts[inside] += 1
    total = sum(counts.values())
    assert set(counts) == {0, 1, 2} and all(abs(x / total - 1 / 3) < 0.03 for x in counts.values())


def test_held_out_programs_of_every_length_are_never_trained_on() -> None:
    task = RevProg(p=4, m=4, k=4, queries=2, reach=2, held_out_programs=0.25)
    programs: dict[str, dict[int, set[tuple[str, ...]]]] = {"train": {}, "held_out": {}}
    for split, found in programs.items():
        for row in draw(task, 12_000, split).inputs[0].tolist():
            program = tuple(word for word in task.symbols(row) if word.startswith("op"))
            found.setdefault(len(program), set()).add(program)
    assert {length: len(x) for length, x in programs["train"].items()} == {1: 4, 2: 12, 3: 48, 4: 192}
    known = {length: len(x) for length, x in programs["held_out"].items() if length <= 4}
    assert known == {2: 4, 3: 16, 4: 64}
    assert not any(
        programs["train"][length] & programs["held_out"].get(length, set()) for length in range(1, 5)
    )


def test_s5_is_group_by_other_defaults() -> None:
    given: dict[str, Any] = {"group": "s3", "positions": 5, "reach": 1, "curriculum": 0.0}
    one, two = (draw(kind(**given), 50, "held_out") for kind in (S5, Group))
    assert torch.equal(one.inputs, two.inputs) and torch.equal(one.targets, two.targets)
    with torch.device("meta"):
        assert [Group(group=name).order for name in ("s3", "a4", "s4", "a5", "s5")] == [6, 12, 24, 60, 120]


@pytest.mark.parametrize("asked", ["every", "end"])
def test_a_longer_product_begins_with_one_that_is_held_out(asked: str) -> None:
    task = Group(group="s3", positions=3, asked=asked, curriculum=0.0)
    trained = {tuple(row[:3]) for row in draw(task, 6000, "train").inputs[0].tolist()}
    rows = draw(task, 1000, "held_out").inputs[0].tolist()
    begun = {tuple(row[:3]) for row in rows if row[3] != task.order}
    assert len(begun) == 36 and not begun & trained


def test_500_elements() -> None:
    task = Group(group="a5", positions=250)
    task.check(0)
    batch = draw(task, 3, "held_out")
    assert batch.inputs.shape == (1, 3, 500)
    for row, targets in zip(batch.inputs[0].tolist(), batch.targets[0].tolist(), strict=True):
        assert task.symbols(targets) == [each.answer for each in solved(task, task.symbols(row))]
    assert len(task.features(batch)) == 33


def test_joined() -> None:
    front, back = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[7, 8], [9, 9]])
    assert joined(front, torch.tensor([2, 3]), back, 0).tolist() == [[1, 2, 7, 8, 0], [4, 5, 6, 9, 9]]
    assert joined(front, torch.tensor([0, 1]), back, 0).tolist() == [[7, 8, 0, 0, 0], [4, 9, 9, 0, 0]]


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (Iterate(reach=0), "task.reach=0: is a multiple .*give 1"),
        (Iterate(reach=4), "task.reach=4: with task.k=4 it asks for 16 iterations.*larger task.n"),
        (Iterate(reach=10**9, n=10**10), "compute .* numbers first"),
        (RevProg(curriculum=1.5), "task.curriculum=1.5: .*0 to 1"),
        (RevProg(reach=5000), "task.k=3 and task.queries=4: makes sequences of 15004 positions"),
        (
            RevProg(k=1, reach=2, held_out_programs=0.3),
            "task.held_out_programs=0.3: .*larger task.m or task.k",
        ),
        (Depo(n=2), "task.n=2: is too small; give task.n=3"),
        (Depo(k=0), "task.k=0: is too small"),
        (Depo(queries=0), "task.queries=0: is too small"),
        (Depo(k=4), "task.k=4 and task.reach=2: 8 hops go round a cycle of task.n=8"),
        (Depo(n=6000), "task.n=6000, .*: makes sequences of 12014 positions"),
        (Mano(modulus=1), "task.modulus=1: is too small"),
        (Mano(k=0), "task.k=0: is too small"),
        *((Mano(operators=x), "task.operators=.*: is not some of") for x in ("", "++", "/")),
        (Mano(curriculum=float("nan")), "task.curriculum=nan"),
        (Mano(modulus=10**7), "task.modulus=10000000: the task has to compute"),
        (Mano(k=2600), "makes sequences of 10402 positions"),
        (Group(group="a5", drawn_from="swaps"), "task.drawn_from=swaps: task.group=a5 has only even"),
        (Group(positions=6000), "task.positions=6000 and task.reach=2: makes sequences of 12000"),
        (Group(group="a3"), "task.group=a3: .*s3, a4, s4, a5, s5"),
    ],
    ids=repr,
)
def test_refusals(task: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        task.check(0)
    assert "\n" not in str(error.value)
