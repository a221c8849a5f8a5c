"""Reasoning texts solved anew from their prompts, by other code than that which wrote them."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

from toyqs.tasks.reasoning.corpus import Text, draw

Solved = tuple[list[str], str]  # the steps that a prompt has, and its answer


def numbers(text: str) -> list[int]:
    return [int(x) for x in re.findall(r"\d+", text)]


def equations(a: int, *steps: tuple[str, int]) -> tuple[list[str], int]:
    """Return the steps of a chain of operations from a, by Python's own arithmetic, and where it ends."""
    said = []
    for word, b in steps:
        sign = {"plus": "+", "minus": "-", "times": "*"}[word]
        value = eval(f"{a} {sign} {b}")
        said.append(f"{a} {word} {b} is {value}")
        a = value
    return said, a


def solved_chain(prompt: str) -> Solved:
    gains = {"gets": "plus", "finds": "plus", "buys": "plus"}
    losses = {"loses": "minus", "drops": "minus", "sells": "minus"}
    told = re.findall(r"(\w+) (\d+) \.", prompt)
    said, value = equations(numbers(prompt)[0], *(((gains | losses)[word], int(n)) for word, n in told))
    return said, str(value)


def solved_mece(prompt: str) -> Solved:
    lots = re.findall(r"(\d+) (\w+) (\w+)", prompt)
    assert len({(colour, kind) for _, colour, kind in lots}) == 4, "no lot stands there twice"
    groups: dict[str, list[int]] = {}
    for n, _, kind in lots:
        groups.setdefault(kind, []).append(int(n))
    sums = [equations(a, ("plus", b)) for a, b in groups.values()]
    total, value = equations(sums[0][1], ("plus", sums[1][1]))
    assert value == sum(int(n) for n, _, _ in lots), "none twice, none left"
    named = [f"{kind} : {each[0][0]}" for kind, each in zip(groups, sums, strict=True)]
    return [*named, f"left : {total[0]}"], str(value)


def solved_falsification(prompt: str) -> Solved:
    listed, words = re.fullmatch(r"claim : all of ([\d ]+) are (.+) \. true \?", prompt).groups()
    word, bound = words.split()[0], (numbers(words) or [0])[0]
    rule: dict[str, Callable[[int], bool]] = {
        "below": lambda n: n < bound,
        "over": lambda n: n > bound,
        "even": lambda n: n in (0, 2, 4, 6, 8),
        "odd": lambda n: n in (1, 3, 5, 7, 9),
    }
    said = []
    for n in numbers(listed):
        said.append(f"{n} is {'' if rule[word](n) else 'not '}{words}")
        if not rule[word](n):
            return [*said, f"{n} breaks it"], "false"
    return [*said, "none breaks it"], "true"


def solved_expert(prompt: str) -> Solved:
    a, b, rest = numbers(prompt)
    less = "off" in prompt or "broke" in prompt
    said, value = equations(a, ("times", b), ("minus" if less else "plus", rest))
    trades = {"cart": "driver", "loaf": "cook", "cost": "trader", "floor": "mason"}
    (trade,) = (trades[word] for word in prompt.split() if word in trades)
    return [f"<expert> {trade}", *said], str(value)


def solved_analogy(prompt: str) -> Solved:
    size, zero, now, more = numbers(prompt)
    assert zero == 0
    wraps = (now + more) // size
    said, value = equations(now, ("plus", more), *[("minus", size)] * wraps)
    assert value == (now + more) % size
    moves = [f"like {size} seats", f"from seat {now} go {more}"]
    return [*moves, *said, f"seat {value} is {value}"], str(value)


def solved_doubt(prompt: str) -> Solved:
    times, more, said_ = numbers(prompt)
    low, high, steps = 2, 8, list[str]()
    while True:
        tried = (low + high) // 2
        found = tried * times + more
        steps += [f"try {tried}"] + equations(tried, ("times", times), ("plus", more))[0]
        if found == said_:
            return steps, str(tried)
        low, high = (tried + 1, high) if found < said_ else (low, tried - 1)


def solved_bayes(prompt: str) -> Solved:
    bags, others, gives, nine, give, again = numbers(prompt)
    assert nine == again == 9
    first, second = equations(bags, ("times", gives)), equations(others, ("times", give))
    odds = f"{first[1]} to {second[1]}"
    return [f"before : {bags} to {others}", *first[0], *second[0], f"after : {odds}"], odds


SOLVED = {
    "chain_of_thought": solved_chain,
    "mece": solved_mece,
    "falsification": solved_falsification,
    "expert": solved_expert,
    "analogy": solved_analogy,
    "self_doubt": solved_doubt,
    "bayes": solved_bayes,
}


def steps_of(response: str) -> list[str]:
    """Return what a response states: whatever has a number in it, and whose expert it asks."""
    forms = (
        r"(?:\w+ : )?\d+ (?:plus|minus|times) \d+ is \d+",
        r"\d+ is (?:not )?(?:below \d|over \d|even|odd)|\S+ breaks it",
        r"like \d+ seats|from seat \d+ go \d+|seat \d+ is \d+|try \d+",
        r"(?:before|after) : \d+ to \d+|<expert> \w+",
    )
    reasoning, form = response.partition(" </think> ")[0], "|".join(forms)
    return [*re.findall(form, reasoning), *numbers_left(re.sub(form, "", reasoning))]


def numbers_left(text: str) -> list[str]:
    """Return the numbers that stand in no step, as steps that no prompt has."""
    return [f"{n} in no step" for n in re.findall(r"\d+", text)]


def some(kind: str, count: int = 300) -> list[Text]:
    """Draw texts of both splits."""
    rng = Random(kind)
    return [draw(rng, kind, held) for held in (False, True) for _ in range(count // 2)]


def is_true(text: Text) -> bool:
    """Tell whether a text's steps and answers are those that its prompts have."""
    found = [
        SOLVED[x.strategy](prompt)
        for x, prompt in zip(text.problems, text.prompt.split(" also "), strict=True)
    ]
    answers = " and ".join(answer for _, answer in found)
    steps = [step for steps, _ in found for step in steps]
    return steps_of(text.response) == steps and text.response.endswith(f"</think> answer {answers}")
