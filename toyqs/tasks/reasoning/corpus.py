"""Reasoning texts: a finite corpus to train on, and problems held out from it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import NamedTuple

from toyqs.tasks.reasoning.problems import GENERATORS, Problem, distinct, pick
from toyqs.tasks.reasoning.thinking_tokens import END_OF_THINK, REASON, THINK

STRATEGIES = tuple(GENERATORS)
TWICE = "chain_of_thought"  # has twice as many texts as the others
MIXABLE = ("chain_of_thought", "falsification", "expert")  # whose texts are short enough for two in one
MIXED = "mixed"  # what texts of two problems are counted as

HELD_OUT = 5  # one of so many contents is never trained on
TRIES = 200  # draws without a new text after which there are taken to be no more


class Text(NamedTuple):
    """A prompt and its response, in words of `vocabulary`."""

    problems: tuple[Problem, ...]  # one, or the two that are mixed
    prompt: str
    response: str

    @property
    def strategies(self) -> tuple[str, ...]:
        """Return the strategies that fit, as the problems' generators name them."""
        return tuple(problem.strategy for problem in self.problems)

    @property
    def kind(self) -> str:
        """Return the strategy, or `MIXED`."""
        return self.strategies[0] if len(self.problems) == 1 else MIXED

    @property
    def answer(self) -> str:
        """Return the final answer."""
        return " and ".join(problem.answer for problem in self.problems)


def text_of(*problems: Problem) -> Text:
    """Write the text of one problem, or of two: both prompts, both reasonings, both answers."""
    reasoning = f" {REASON} also ".join(problem.reasoning for problem in problems)
    text = Text(problems, " also ".join(problem.prompt for problem in problems), "")
    return text._replace(response=f"{THINK} {reasoning} {END_OF_THINK} answer {text.answer}")


def is_held_out(problem: Problem) -> bool:
    """Tell whether a problem is never trained on: by its content alone, scattered as by chance."""
    content = f"{problem.strategy} {problem.content}".encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") % HELD_OUT == 0


def draw(rng: Random, kind: str, held_out: bool) -> Text:
    """Draw a text of a strategy, or a mixed one of two different strategies, with problems of one split."""
    names = distinct(rng, MIXABLE, 2) if kind == MIXED else [kind]
    return text_of(*(_draw_problem(rng, name, held_out) for name in names))


def _draw_problem(rng: Random, strategy: str, held_out: bool) -> Problem:
    while True:
        problem = GENERATORS[strategy](rng)
        if is_held_out(problem) == held_out:
            return problem


def sizes(texts: int, mixed: int) -> dict[str, int]:
    """Return how many texts of each kind a corpus has, `texts` of a strategy and `mixed` of two problems."""
    return {name: texts * (2 if name == TWICE else 1) for name in STRATEGIES} | {MIXED: mixed}


@functools.lru_cache(maxsize=4)
def corpus(texts: int, mixed: int, seed: int) -> tuple[Text, ...]:
    """Write the texts to train on, all different, by kind.

    Args:
        texts: of each strategy; of `TWICE` twice as many.
        mixed: of two problems.
        seed: of the draw.

    Raises:
        ValueError: one line; there are not so many different ones.
    """
    found: list[Text] = []
    for kind, count in sizes(texts, mixed).items():
        new = list(islice(_different(Random(f"{seed}/{kind}"), kind), count))
        if len(new) < count:
            key = "mixed" if kind == MIXED else "texts"
            given = mixed if kind == MIXED else texts
            raise ValueError(
                f"task.{key}={given}: asks for {count} different texts of {kind}, and there are about "
                f"{len(new)}; give less"
            )
        found += new
    return tuple(found)


def _different(rng: Random, kind: str) -> Iterator[Text]:
    """Draw texts to train on, each once, until no new ones come."""
    seen: set[str] = set()
    repeated = 0
    while repeated < TRIES:
        text = draw(rng, kind, held_out=False)
        repeated = repeated + 1 if text.prompt in seen else 0
        if not repeated:
            seen.add(text.prompt)
            yield text


def held_out(rng: Random, texts: int, mixed: int) -> Text:
    """Draw a held-out text, of each kind as often as a corpus of these sizes has it."""
    counted = [name for name, count in sizes(texts, mixed).items() for _ in range(count)]
    return draw(rng, pick(rng, counted), held_out=True)
