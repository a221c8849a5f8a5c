"""Tasks with depths, small, and their answers by brute force: token by token, from `symbols` alone."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import torch

from toyqs.tasks.depo import Depo
from toyqs.tasks.group import Group
from toyqs.tasks.iterate import Iterate
from toyqs.tasks.mano import Mano
from toyqs.tasks.rev_prog import RevProg
from toyqs.types import Batch

TASKS: list[Any] = [
    *(Depo(), Depo(n=5, k=2, queries=3), Depo(n=4, k=3, queries=1, reach=1, curriculum=0.0)),
    *(Mano(), Mano(modulus=2, k=1, reach=5), Mano(modulus=5, k=4, operators="-*", reach=1)),
    *(Group(), Group(group="a4", positions=3, asked="end"), Group(group="s4", positions=4, curriculum=0.0)),
    Group(group="a5", positions=3, reach=3, asked="end"),
    *(Iterate(reach=2), Iterate(n=12, k=3, reach=3, seed=3), Iterate(n=24, k=2, reach=2, kind="map", seed=1)),
    *(RevProg(p=4, m=2, k=3, queries=2, reach=2), RevProg(p=4, m=3, k=2, queries=1, curriculum=0.4)),
    RevProg(p=4, m=3, k=3, queries=3, reach=2, held_out_programs=0.2),
]


class Asked(NamedTuple):
    """What one position asks, and the true answer."""

    position: int
    depth: int
    answer: str
    steps: list[str]  # the values before the answer


def draw(task: Any, num: int, split: str, seed: int = 0, progress: float = 1.0) -> Batch:
    batch: Batch = task.sample(torch.Generator().manual_seed(seed), num, 0, split, progress)
    return batch


def read_of_problem(task: Any, words: list[str], position: int) -> int:
    """How many tokens that say what is asked stand up to a position, by their names."""
    before = words[: position + 1]
    if isinstance(task, RevProg):
        return sum(word.startswith("op") for word in before) + 1
    if isinstance(task, Depo):
        ticks = itertools.takewhile(lambda word: word == "tick", reversed(before[:-1]))
        return 2 * task.n + len(list(ticks)) + 1
    return sum(word != "=" for word in before)


def solved(task: Any, words: list[str]) -> list[Asked]:
    """What a sequence asks, by the names of its tokens, computed step by step."""
    solve = {Depo: _hops, Mano: _expression, Group: _products, Iterate: _iterated, RevProg: _programs}
    return solve[type(task)](task, words)


def _hops(task: Any, words: list[str]) -> list[Asked]:
    after = {words[i]: words[i + 1] for i in range(0, 2 * task.n, 2)}
    found, ticks = [], 0
    for position, word in enumerate(words[2 * task.n :], 2 * task.n):
        if word == "tick":
            ticks += 1
        elif word != "-":
            path = [word]
            for _ in range(ticks):
                path.append(after[path[-1]])
            found.append(Asked(position, ticks, path[-1], path[1:-1]))
            ticks = 0
    return found


def _expression(task: Any, words: list[str]) -> list[Asked]:
    end = words.index("=")
    assert set(words[end + 1 :]) <= {"pad"}
    steps: list[str] = []

    def value(i: int) -> tuple[int, int]:
        if words[i] not in "+-*":
            return int(words[i]), i + 1
        a, j = value(i + 1)
        b, j = value(j)
        return eval(f"({a} {words[i]} {b}) % {task.modulus}"), j

    answer, after = value(0)
    assert after == end
    for i in reversed(range(1, end)):
        if words[i] in "+-*":
            steps.append(str(value(i)[0]))
    return [Asked(end, len(steps) + 1, str(answer), steps)]


def _products(task: Any, words: list[str]) -> list[Asked]:
    own = [word for word in words if word != "-"]
    assert words == own + ["-"] * (len(words) - len(own))
    points = len(own[0])
    where, found = list(range(points)), []
    for word in own:
        where = [int(word[i]) for i in where]
        found.append("".join(map(str, where)))
    asked = range(len(own)) if task.asked == "every" else [len(own) - 1]
    return [Asked(t, t + 1, found[t], found[:t]) for t in asked]


def _iterated(task: Any, words: list[str]) -> list[Asked]:
    k = words.count("tick")
    assert words[:k] == ["tick"] * k and set(words[k + 1 :]) <= {"-"}
    after, path = task.powers[1].tolist(), [int(words[k])]
    for _ in range(k):
        path.append(after[path[-1]])
    return [Asked(k, k, str(path[-1]), [str(x) for x in path[1:-1]])]


def _programs(task: Any, words: list[str]) -> list[Asked]:
    operators = list(itertools.takewhile(lambda word: word.startswith("op"), words))
    k = len(operators)
    assert set(words[k + task.queries :]) <= {"-"}
    found = []
    for position in range(k, k + task.queries):
        path = [int(words[position])]
        for operator in operators:
            path.append(task.permutations[int(operator[2:]), path[-1]].item())
        found.append(Asked(position, k, str(path[-1]), [str(x) for x in path[1:-1]]))
    return found
