"""Held-out problems put to a finished run, and what it responds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor

from toyqs.answers.loaded.load import LoadedRun
from toyqs.answers.loaded.predictor import Predictor
from toyqs.answers.text import Text as Tokens
from toyqs.config.errors import Refusal
from toyqs.tasks.reasoning.corpus import MIXED, STRATEGIES, Text, corpus, draw

KINDS = (*STRATEGIES, MIXED)
TRIES = 1000  # draws after which there are taken to be no more prompts


def held_out_problems(count: int, seed: int) -> list[Text]:
    """Draw `count` held-out texts of each kind, with different prompts.

    Raises:
        Refusal: there are not so many.
    """
    found: list[Text] = []
    for kind in KINDS:
        rng, different = Random(f"{seed}/{kind}/asked"), dict[str, Text]()
        for _ in range(TRIES + 10 * count):
            text = draw(rng, kind, held_out=True)
            different.setdefault(text.prompt, text)
            if len(different) == count:
                break
        if len(different) < count:
            raise Refusal(
                f"--problems {count}: there are about {len(different)} held-out problems of {kind}; give less"
            )
        found += different.values()
    return found


def responses(
    run: LoadedRun, problems: Sequence[Text], most: int, temperature: float, examples: int = 0
) -> list[str]:
    """Let a run respond to each problem, up to an end of its text; prompts of one length side by side.

    Args:
        run: on a text whose tokens can write the problems.
        problems: their prompts are asked.
        most: tokens of a response at most.
        temperature: of sampled tokens; 0 takes the likeliest.
        examples: texts of the training, of the problem's kind, that stand before each prompt.

    Raises:
        ValueError: a prompt is longer than the model can read, or has words that the run does not know.
    """
    predictor, text = Predictor(run.model, run.sizes, seed=run.seed), run.text
    alike: dict[int, dict[int, Tensor]] = defaultdict(dict)  # length -> place of a problem -> what it follows
    for place, problem in enumerate(problems):
        before = torch.cat([*_examples(text, problem.kind, examples), text.encode(problem.prompt)])
        alike[len(before)][place] = before
    found: dict[int, str] = {}
    for length, group in alike.items():
        written = predictor.generate(
            torch.stack([*group.values()]),
            _room(predictor, length, most),
            texts=len(group),
            temperature=temperature,
            ends=text.ends,
        )
        found |= dict(zip(group, map(text.decode, written), strict=True))
    return [found[place] for place in range(len(problems))]


def _examples(text: Tokens, kind: str, count: int) -> list[Tensor]:
    """Return texts of the training as ids, each with the end of a document after it."""
    shown = [x for x in corpus(50, 50, 0) if x.kind == kind][:count] if count else []
    end = torch.tensor(text.ends[:1], dtype=torch.long)
    return [torch.cat([text.encode(f"{x.prompt} {x.response}"), end]) for x in shown]


def _room(predictor: Predictor, length: int, most: int) -> int:
    """Return how many tokens may follow a prompt, `most` at most.

    Raises:
        Refusal: there is no room for one.
    """
    if predictor.room is None:
        return most
    if length >= predictor.room:
        raise Refusal(
            f"a prompt has {length} tokens, and this model has room for {predictor.room - 1}; give a run "
            "with more positions, or fewer --examples"
        )
    return min(most, predictor.room - length)
