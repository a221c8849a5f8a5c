"""The words of reasoning texts, numbered; the eight thinking tokens come last."""

from __future__ import annotations

from collections.abc import Iterable

from toyqs.tasks.reasoning.thinking_tokens import THINKING_TOKENS

LARGEST = 46  # number that a text may have
PAD, END = "pad", "<end>"

NAMES = ("ann", "bob", "eve", "ida", "leo", "max", "mia", "sam")
NOUNS = ("books", "coins", "eggs", "nuts", "pens", "shells", "stamps", "stones")
COLOURS = ("black", "blue", "green", "red", "white")
THINGS = ("bowls", "caps", "cups", "hats", "jars", "pots")

_LINES = (
    ", . : ? a after all also an and answer are bags bakes before below breaks broke buys cart claim clock",
    "cook cost driver drops each even false finds floor for from get gets gives go goes has high hour hours",
    "how in is it later left length like loaf loaves long loses low many marks mason miles minus none not",
    "number odd odds of off on over plus price prize rest right ring seat seats sells shop shows speed",
    "takes then things thinks tiles time times to too trader true try turns twice what wheel wide width you",
)
_OTHERS = [word for line in _LINES for word in line.split()]

WORDS = (
    *map(str, range(LARGEST + 1)),
    *dict.fromkeys((*_OTHERS, *NAMES, *NOUNS, *COLOURS, *THINGS)),
    *(PAD, END),
    *THINKING_TOKENS,
)
IDS = {word: index for index, word in enumerate(WORDS)}


def encode(text: str) -> list[int]:
    """Return the ids of a text's words.

    Raises:
        ValueError: one line with a word that no reasoning text has.
    """
    words = text.split()
    if unknown := [word for word in words if word not in IDS]:
        raise ValueError(
            f"task=reasoning: {unknown[0]!r} is no word of its texts; give words as they have, such as "
            "'a number times 3 , plus 4 , is 22 . what number ?'"
        )
    return [IDS[word] for word in words]


def decode(ids: Iterable[int]) -> str:
    """Return the text of ids, a blank between words."""
    return " ".join(WORDS[i] for i in ids)
