"""Problems that a rule solves: a generator names the strategy that fits, and writes its steps by the rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple, TypeVar

from toyqs.tasks.reasoning.thinking_tokens import DOUBT, EXPERT, FALSIFY, MECE, REASON, STEP
from toyqs.tasks.reasoning.vocabulary import COLOURS, NAMES, NOUNS, THINGS

Item = TypeVar("Item")

MOST = 18  # that somebody ever has in a chain of gains and losses


class Problem(NamedTuple):
    """A question, the reasoning that answers it, and the answer, in words of `vocabulary`."""

    strategy: str
    content: tuple[int | str, ...]  # what decides the reasoning; names and nouns do not
    prompt: str
    reasoning: str
    answer: str


def chain_of_thought(rng: Random) -> Problem:
    """Draw three gains or losses in a row, one step each; nobody has less than 0 or more than `MOST`."""
    gain, loss = pick(rng, (("gets", "loses"), ("finds", "drops"), ("buys", "sells")))
    name, noun = pick(rng, NAMES), pick(rng, NOUNS)
    has = first = between(rng, 0, 12)
    told, steps, changes = [f"{name} has {has} {noun} ."], [], list[int]()
    for _ in range(3):
        amount = between(rng, 1, 6)
        rises = has < amount or (has + amount <= MOST and rng.random() < 0.5)
        after = has + amount if rises else has - amount
        told.append(f"{gain if rises else loss} {amount} .")
        steps.append(f"{STEP} {has} {'plus' if rises else 'minus'} {amount} is {after}")
        changes.append(after - has)
        has = after
    prompt = f"{' '.join(told)} how many {noun} ?"
    return Problem("chain_of_thought", (first, *changes), prompt, " ".join(steps), str(has))


def mece(rng: Random) -> Problem:
    """Draw four lots of things of two kinds and two colours; kinds are groups without overlap or rest."""
    kinds, colours = distinct(rng, THINGS, 2), distinct(rng, COLOURS, 2)
    lots = shuffled(rng, [(kind, colour) for kind in range(2) for colour in range(2)])
    counts = [between(rng, 1, 4) for _ in lots]
    kinds = kinds if lots[0][0] == 0 else kinds[::-1]  # the first kind is the one that is named first
    lots = [(kind ^ lots[0][0], colour) for kind, colour in lots]
    groups = [[n for n, (kind, _) in zip(counts, lots, strict=True) if kind == k] for k in range(2)]
    told = [f"{n} {colours[c]} {kinds[k]}" for n, (k, c) in zip(counts, lots, strict=True)]
    parts = [f"{MECE} {kinds[k]} : {a} plus {b} is {a + b}" for k, (a, b) in enumerate(groups)]
    first, second = map(sum, groups)
    check = f"{REASON} none twice none left : {first} plus {second} is {first + second}"
    content = (*counts, *(kind for kind, _ in lots))
    prompt = f"a shop has {' , '.join(told)} . how many things ?"
    return Problem("mece", content, prompt, " ".join([*parts, check]), str(first + second))


def falsification(rng: Random) -> Problem:
    """Draw a claim about four numbers, true of half of them all; one number after another may break it."""
    word, holds = pick(rng, CLAIMS)
    bound = between(rng, 3, 6)
    words = f"{word} {bound}" if word in ("below", "over") else word
    good = [n for n in range(10) if holds(n, bound)]
    bad = [n for n in range(10) if not holds(n, bound)]
    numbers = [pick(rng, good) for _ in range(4)]
    if rng.random() < 0.5:
        numbers[between(rng, 0, 3)] = pick(rng, bad)
    tried, broken = [], None
    for n in numbers:
        right = holds(n, bound)
        tried.append(f"{FALSIFY} {n} is {'' if right else 'not '}{words}")
        if not right:
            broken = n
            break
    end = f"{REASON} {'none' if broken is None else broken} breaks it"
    prompt = f"claim : all of {' '.join(map(str, numbers))} are {words} . true ?"
    answer = "true" if broken is None else "false"
    return Problem("falsification", (words, *numbers), prompt, " ".join([*tried, end]), answer)


CLAIMS: tuple[tuple[str, Callable[[int, int], bool]], ...] = (
    ("below", lambda n, bound: n < bound),
    ("over", lambda n, bound: n > bound),
    ("even", lambda n, bound: n % 2 == 0),
    ("odd", lambda n, bound: n % 2 == 1),
)


def expert(rng: Random) -> Problem:
    """Draw a question of one of four trades; the expert's rule is a product and something added or taken."""
    a, b, rest = between(rng, 2, 5), between(rng, 2, 5), between(rng, 1, 6)
    name, noun = pick(rng, NAMES), pick(rng, NOUNS)
    trade, adds = pick(rng, (("driver", True), ("cook", True), ("trader", False), ("mason", False)))
    if not adds:
        rest = between(rng, 1, 3)
    prompt, rule = {
        "driver": (
            f"a cart goes {a} miles an hour for {b} hours , then {rest} miles . how many miles ?",
            "speed times time plus rest",
        ),
        "cook": (
            f"a loaf takes {a} eggs . {name} bakes {b} loaves and has {rest} eggs over . how many eggs ?",
            "eggs times loaves plus rest",
        ),
        "trader": (
            f"{noun} cost {a} coins each . {name} buys {b} , {rest} coins off . how many coins ?",
            "price times number minus off",
        ),
        "mason": (
            f"a floor is {a} long and {b} wide , {rest} tiles broke . how many tiles left ?",
            "length times width minus broke",
        ),
    }[trade]
    product, sign = a * b, "plus" if adds else "minus"
    value = product + rest if adds else product - rest
    steps = f"{REASON} {a} times {b} is {product} {REASON} {product} {sign} {rest} is {value}"
    return Problem("expert", (trade, a, b, rest), prompt, f"{EXPERT} {trade} : {rule} {steps}", str(value))


def analogy(rng: Random) -> Problem:
    """Draw a move on something that comes back to its beginning, and make it on a ring of seats."""
    what, unit = pick(rng, (("clock", "hours"), ("wheel", "marks"), ("ring", "turns")))
    size = between(rng, 5, 9)
    now, more = between(rng, 0, size - 1), between(rng, 1, 6)
    total, after = now + more, now + more
    steps = [f"{REASON} like {size} seats in a ring : from seat {now} go {more} on"]
    steps.append(f"{REASON} {now} plus {more} is {total}")
    while after >= size:
        steps.append(f"{REASON} {after} minus {size} is {after - size}")
        after -= size
    steps.append(f"{REASON} seat {after} is {after} {unit}")
    prompt = f"a {what} has {size} {unit} from 0 on . it shows {now} . what {more} {unit} later ?"
    return Problem("analogy", (size, now, more), prompt, " ".join(steps), str(after))


LEAST, GREATEST = 2, 8  # numbers that somebody may think of


def self_doubt(rng: Random) -> Problem:
    """Draw a number that somebody thinks of; each try is doubted and checked, the next halves the rest."""
    wanted, times, more = between(rng, LEAST, GREATEST), between(rng, 2, 5), between(rng, 1, 6)
    said, low, high, steps = wanted * times + more, LEAST, GREATEST, []
    while True:
        tried = (low + high) // 2
        product = tried * times
        found = product + more
        verdict = "right" if found == said else "too low" if found < said else "too high"
        check = f"{tried} times {times} is {product} , {product} plus {more} is {found}"
        steps.append(f"{REASON} try {tried} {DOUBT} {check} , {verdict}")
        if found == said:
            break
        low, high = (tried + 1, high) if found < said else (low, tried - 1)
    name = pick(rng, NAMES)
    prompt = f"{name} thinks of a number . times {times} , plus {more} , it is {said} . what number ?"
    return Problem("self_doubt", (wanted, times, more), prompt, " ".join(steps), str(wanted))


def bayes(rng: Random) -> Problem:
    """Draw bags of two colours and how often each gives a prize, which multiplies the odds.

    P(first | prize) / P(second | prize) = n_first p(prize | first) / (n_second p(prize | second))
    """
    one, two = distinct(rng, COLOURS, 2)
    bags, gives = [between(rng, 1, 5) for _ in range(2)], [between(rng, 1, 5) for _ in range(2)]
    prompt = (
        f"{bags[0]} {one} bags , {bags[1]} {two} bags . {one} gives a prize {gives[0]} times in 9 , {two} "
        f"{gives[1]} times in 9 . you get a prize . odds of {one} to {two} ?"
    )
    after = [n * times for n, times in zip(bags, gives, strict=True)]
    products = [f"{REASON} {n} times {times} is {n * times}" for n, times in zip(bags, gives, strict=True)]
    odds = f"{after[0]} to {after[1]}"
    ends = f"{REASON} before : {bags[0]} to {bags[1]}", f"{REASON} after : {odds}"
    return Problem("bayes", (*bags, *gives), prompt, " ".join([ends[0], *products, ends[1]]), odds)


GENERATORS: dict[str, Callable[[Random], Problem]] = {
    "chain_of_thought": chain_of_thought,
    "mece": mece,
    "falsification": falsification,
    "expert": expert,
    "analogy": analogy,
    "self_doubt": self_doubt,
    "bayes": bayes,
}


def between(rng: Random, least: int, most: int) -> int:
    """Draw a whole number, uniformly; `random` alone is the same in all versions of Python."""
    return least + int(rng.random() * (most - least + 1))


def pick(rng: Random, items: Sequence[Item]) -> Item:
    """Draw one of some items, uniformly."""
    return items[between(rng, 0, len(items) - 1)]


def shuffled(rng: Random, items: Sequence[Item]) -> list[Item]:
    """Return the items in an order drawn uniformly."""
    return sorted(items, key=lambda item: rng.random())


def distinct(rng: Random, items: Sequence[Item], count: int) -> list[Item]:
    """Draw several different items, in any order."""
    return shuffled(rng, items)[:count]
