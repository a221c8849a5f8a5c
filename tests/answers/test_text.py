"""A text and its continuation, as the tokens of one text."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from toyqs.answers.text import encode_context, encode_pair

WORDS = ("|", "\n", "a", "b", "c", "x", " ", "ab", "bc", " c", "abx", "cxa")


class Greedy:
    """A task on text whose token is always the longest word that fits."""

    def __init__(self, *ends: int) -> None:
        self.ends = ends

    def encode(self, text: str) -> Tensor:
        ids: list[int] = []
        while text:
            word = max((x for x in WORDS if text.startswith(x)), key=len)
            ids, text = [*ids, WORDS.index(word)], text[len(word) :]
        return torch.tensor(ids, dtype=torch.long)

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(WORDS[i] for i in ids)


@pytest.mark.parametrize(
    ("before", "after", "context", "given"),
    [
        ("x", "bc", ["x"], ["bc"]),
        ("xa", "x", ["x", "a"], ["x"]),
        ("x ", "c", ["x"], [" c"]),
        ("x \n", "c", ["x"], [" ", "\n", "c"]),
        ("xa", "bc", ["x"], ["ab", "c"]),  # "a" and "bc" by themselves, which no text is cut into
        ("xab", "xa", ["x"], ["abx", "a"]),
        ("ab", "x", ["|"], ["abx"]),
        ("cx", "ax", ["|"], ["cxa", "x"]),  # the second token is the context's too, by chance
        ("", "ab", ["|"], ["ab"]),
        (" ", "c", ["|"], [" c"]),
        ("x", "", ["x"], []),
    ],
)
def test_both_parts_are_cut_as_one_text(
    before: str, after: str, context: list[str], given: list[str]
) -> None:
    pair = encode_pair(Greedy(0), before, after)
    assert [[WORDS[i] for i in ids] for ids in pair] == [context, given]


def test_nothing_before_a_text_is_the_end_of_another() -> None:
    assert encode_context(Greedy(), "").tolist() == [WORDS.index("\n")]
    assert encode_context(Greedy(0, 3), "").tolist() == [0]
    assert encode_context(Greedy(0, 3), "ab").tolist() == [WORDS.index("ab")]
    assert encode_pair(Greedy(), "", "x")[0].tolist() == [WORDS.index("\n")]
