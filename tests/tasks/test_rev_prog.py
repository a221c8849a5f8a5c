from __future__ import annotations

import doctest
import itertools
import math
from collections import Counter

import pytest
import torch
from omegaconf import OmegaConf

from toyqs.tasks import rev_prog
from toyqs.tasks.rev_prog import RevProg
from toyqs.tasks.task import Task

SMALL = {"p": 3, "m": 2, "k": 2, "queries": 2}


def draw(task, num, split, seed=0):
    return task.sample(torch.Generator().manual_seed(seed), num, 0, split)


def naive_answers(task, row):
    tables = task.permutations.tolist()
    answers = []
    for query in row[task.k :]:
        answer = query
        for token in row[: task.k]:
            answer = tables[token - task.p][answer]
        answers.append(answer)
    return answers


def every_sequence(task):
    operators = itertools.product(range(task.p, task.p + task.m), repeat=task.k)
    queries = list(itertools.product(range(task.p), repeat=task.queries))
    return [program + query for program in operators for query in queries]


def naive_held_out_query(task, row):
    number = task.seed
    for digit in [token - task.p for token in row[: task.k]] + list(row[task.k : -1]):
        number = (number * 1103515245 + 12345 + digit * 2654435761) % 2**31
        number ^= number >> 15
    return (number >> 3) % task.p


def allowed(task, split):
    """The split by its definition, sequence by sequence."""
    held_out_programs = set()
    if task.held_out_programs > 0:
        for number in task.programs["held_out"].tolist():
            digits = [number // task.m**i % task.m for i in reversed(range(task.k))]
            held_out_programs.add(tuple(task.p + digit for digit in digits))
    rows = []
    for row in every_sequence(task):
        if task.held_out_programs > 0:
            held_out = row[: task.k] in held_out_programs
        else:
            held_out = row[-1] == naive_held_out_query(task, row)
        if held_out == (split == "held_out"):
            rows.append(row)
    return rows


def test_docstring_shows_what_the_code_does():
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder().find(RevProg, "RevProg", globs=vars(rev_prog)):
        runner.run(example)
    results = runner.summarize(verbose=False)
    assert (results.failed, results.attempted) == (0, 6)


def test_worked_examples():
    task = RevProg(p=4, m=2, k=3, queries=2)
    lines = [line.split() for line in RevProg.__doc__.splitlines() if line.strip().startswith("op")]
    assert len(lines) == 3
    for words in lines:
        names, inputs, targets = words[:5], [int(w) for w in words[5:10]], words[10:]
        assert task.symbols(inputs) == names
        assert targets == ["-"] * 3 + [str(y) for y in naive_answers(task, inputs)]


@pytest.mark.parametrize("held_out_programs", [0.0, 0.3])
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_sample(held_out_programs, split):
    task: Task = RevProg(p=5, m=3, k=4, queries=3, held_out_programs=held_out_programs)
    task.check(0)
    batch = draw(task, 200, split)
    assert batch.inputs.shape == (1, 200, task.length(0)) == (1, 200, 7)
    assert batch.inputs.dtype == batch.targets.dtype == torch.int64
    assert batch.weights.dtype == torch.float32 and batch.think.dtype == torch.bool
    assert task.vocab_size == 8 and int(batch.inputs.max()) == 7
    counted = [False] * 4 + [True] * 3
    for row, target in zip(batch.inputs[0].tolist(), batch.targets[0].tolist(), strict=True):
        assert all(token >= 5 for token in row[:4]) and all(token < 5 for token in row[4:])
        assert target == [0] * 4 + naive_answers(task, row)
    assert bool((batch.think == torch.tensor(counted)).all())
    assert torch.equal(batch.weights, batch.think.float())


def test_same_generator_same_batch():
    task = RevProg(label_noise=0.3)
    one, two, other = (draw(task, 64, "train", seed) for seed in (5, 5, 6))
    again = draw(RevProg(label_noise=0.3), 64, "train", 5)
    for name in ("inputs", "targets"):
        assert torch.equal(getattr(one, name), getattr(two, name))
        assert torch.equal(getattr(one, name), getattr(again, name))
        assert not torch.equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("held_out_programs", [0.0, 0.5])
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_each_split_is_uniform_over_its_definition(held_out_programs, split):
    # this seed holds out a set of programs that changes when they are read backwards
    task = RevProg(**SMALL, held_out_programs=held_out_programs, seed=1)
    rows = allowed(task, split)
    each = 1000
    counts = Counter(map(tuple, draw(task, each * len(rows), split).inputs[0].tolist()))
    assert set(counts) == set(rows)
    # chi-square: mean and variance of its normal approximation
    degrees = len(rows) - 1
    chi_square = sum((counts[row] - each) ** 2 / each for row in rows)
    assert abs(chi_square - degrees) < 5 * math.sqrt(2 * degrees)


def test_the_held_out_queries_follow_no_simple_rule():
    task = RevProg(queries=3)
    rows = {tuple(row) for row in draw(task, 6000, "held_out").inputs[0].tolist()}
    values = Counter(row[-1] for row in rows)
    assert all(abs(values[x] / len(rows) - 1 / task.p) < 0.05 for x in range(task.p))
    # no checksum of the digits tells them: each residue is as likely as any other
    for weights in itertools.product(range(1, 3), repeat=3):
        sums = Counter(
            (sum(row[:3]) * weights[0] + row[3] * weights[1] + row[4] * weights[2] + row[5]) % task.p
            for row in rows
        )
        assert max(sums.values()) / len(rows) < 0.25


def test_held_out_programs_are_never_trained_on():
    task = RevProg(p=5, m=3, k=3, held_out_programs=0.25)
    seen = {
        split: set(map(tuple, draw(task, 3000, split).inputs[0, :, :3].tolist()))
        for split in ("train", "held_out")
    }
    assert (len(seen["train"]), len(seen["held_out"])) == (20, 7)
    assert not seen["train"] & seen["held_out"]
    numbers = [RevProg(p=5, held_out_programs=0.25, seed=seed).programs["held_out"] for seed in (0, 0, 1)]
    assert torch.equal(numbers[0], numbers[1]) and not torch.equal(numbers[0], numbers[2])


@pytest.mark.parametrize(("p", "m"), [(3, 1), (3, 2), (3, 5), (4, 23), (6, 3)])
def test_operators(p, m):
    tables = [RevProg(p=p, m=m, seed=seed).permutations for seed in range(20)]
    for table in tables:
        rows = table.tolist()
        assert all(sorted(row) == list(range(p)) != row for row in rows)
        assert len(set(map(tuple, rows))) == m
        if m > 1:
            composed = table[:, table]
            assert bool((composed != composed.transpose(0, 1)).any())
    assert torch.equal(tables[3], RevProg(p=p, m=m, seed=3).permutations)
    assert any(not torch.equal(table, tables[0]) for table in tables)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_floor_is_the_mean_oracle_nll_over_the_whole_sample_space(noise):
    task = RevProg(**SMALL, label_noise=noise)
    for split in ("train", "held_out"):
        total, num = 0.0, 0
        for row in allowed(task, split):
            log_prob = task.oracle(torch.tensor(row).view(1, 1, -1))[0, 0].double()
            assert torch.allclose(log_prob.exp().sum(-1), torch.ones(4, dtype=torch.float64), atol=1e-6)
            for i, answer in enumerate(naive_answers(task, row)):
                for y in range(task.vocab_size):
                    prob = (1 - noise) * (y == answer) + noise / task.p * (y < task.p)
                    given = float(log_prob[task.k + i, y])
                    assert math.isclose(math.exp(given), prob, rel_tol=1e-6)
                    total -= prob * given if prob > 0 else 0.0
                num += 1
        assert math.isclose(total / num, task.floor(), rel_tol=1e-6, abs_tol=1e-12)


def test_observed_answers_follow_the_oracle():
    task = RevProg(p=4, label_noise=0.4)
    batch = draw(task, 20_000, "held_out")
    counted = batch.targets[..., task.k :]
    correct = float((counted == task.answers(batch.inputs)).double().mean())
    assert abs(correct - 0.7) < 5 * math.sqrt(0.7 * 0.3 / counted.numel())
    nll = -task.oracle(batch.inputs).gather(-1, batch.targets.unsqueeze(-1))[..., task.k :, 0].double()
    assert abs(float(nll.mean()) - task.floor()) < 5 * float(nll.std()) / math.sqrt(nll.numel())


@pytest.mark.parametrize(
    ("knobs", "key", "remedy"),
    [
        ({"p": 2}, "task.p=2", "task.p=3"),
        ({"p": 3, "m": 6}, "task.m=6", "task.m=5"),
        ({"m": 0}, "task.m=0", "task.m=1"),
        ({"k": 0}, "task.k=0", "task.k=1"),
        ({"queries": 0}, "task.queries=0", "task.queries=1"),
        ({"label_noise": 1.0}, "task.label_noise=1.0", "less than 1"),
        ({"label_noise": -0.1}, "task.label_noise=-0.1", "less than 1"),
        ({"label_noise": math.nan}, "task.label_noise=nan", "less than 1"),
        ({"held_out_programs": 1.0}, "task.held_out_programs=1.0", "less than 1"),
        ({"held_out_programs": 0.001}, "task.held_out_programs=0.001", "another fraction"),
        ({"held_out_programs": 0.999}, "task.held_out_programs=0.999", "another fraction"),
        ({"k": 13, "held_out_programs": 0.1}, "task.k=13", "smaller task.m or task.k"),
        ({"k": 10**9, "held_out_programs": 0.1}, "task.k=1000000000", "smaller task.m or task.k"),
    ],
)
def test_refusals(knobs, key, remedy):
    with pytest.raises(ValueError) as error:
        RevProg(**knobs).check(128)
    message = str(error.value)
    assert key in message and remedy in message and "\n" not in message


def test_the_edges_of_the_knobs_are_allowed():
    for knobs in ({}, {"p": 3, "m": 5}, {"k": 1, "queries": 1}, {"k": 30}, {"label_noise": 0.999}):
        task = RevProg(**knobs)
        task.check(128)
        assert draw(task, 2, "held_out").inputs.shape == (1, 2, task.k + task.queries)
    RevProg(m=10, k=6, held_out_programs=0.5).check(128)


def test_unknown_split():
    with pytest.raises(ValueError, match="train and held_out"):
        draw(RevProg(), 2, "test")


def test_is_a_config_node():
    node = OmegaConf.merge(OmegaConf.structured(RevProg), {"p": 5, "label_noise": 0.1})
    task = OmegaConf.to_object(node)
    assert task == RevProg(p=5, label_noise=0.1)
    names = {"p", "m", "k", "queries", "label_noise", "held_out_programs", "seed", "reach", "curriculum"}
    assert set(node) == names
    assert task.steps(128, 128, 50) == RevProg.num_steps
    assert draw(task, 2, "train").oracle is None
