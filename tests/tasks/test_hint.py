"""What tasks tell in a hint, each against a computation of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests.tasks.test_task import VARIANTS, draw
from toyqs.tasks.depo import Depo
from toyqs.tasks.rev_prog import RevProg
from toyqs.tasks.task import SPLITS, Task
from toyqs.tasks.texts import token_text
from toyqs.tasks.texts.char_text import CharText
from toyqs.tasks.texts.token_text import TokenText

HINTED = [
    *(x for x in VARIANTS if x.hint is not None),
    RevProg(reach=2, queries=2),
    Depo(n=9, k=2, queries=3),
]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("task", HINTED, ids=repr)
def test_a_hint_is_the_values_before_the_answer(task: Task, split: str) -> None:
    assert task.hint is not None and task.hint_length is not None and task.features is not None
    batch = draw(task, 60, split)
    hint = task.hint(batch, split)
    assert hint.shape == (1, 60, task.hint_length(0)) and hint.dtype == torch.int64
    steps = task.trained_depth - 1
    marker = isinstance(task, Depo)
    assert not marker or (hint[..., 0] == task.vocab_size - 1).all()
    told = hint[..., marker:].unflatten(-1, (-1, steps))
    named = [x.values for name, x in task.features(batch).items() if "op" in name and "(" in name]
    named = named or [x.values for name, x in task.features(batch).items() if name[:3] in ("hop", "val")]
    for place in range(steps):
        wanted = named[place][batch.think].view(told.shape[:-1])
        answers = batch.targets[batch.think].view(told.shape[:-1])
        there = wanted >= 0
        if (
            isinstance(task, RevProg) and task.mixes_lengths
        ):  # there the last value has a name too: the answer
            there &= task.depth(batch.inputs)[batch.think].view(told.shape[:-1]) > place + 1
        assert torch.equal(told[..., place][there], wanted[there])
        assert (told[..., place][~there] == task.vocab_size - 1).all(), "pads"
        assert not torch.equal(told[..., place], answers)


def test_the_values_of_a_program() -> None:
    task = RevProg(p=4, m=2, k=3, queries=2)
    one, two = task.permutations.tolist()
    batch = draw(task, 1, "train")._replace(inputs=torch.tensor([[[4, 5, 5, 2, 3]]]))
    assert task.hint(batch, "train").tolist() == [[[one[2], two[one[2]], one[3], two[one[3]]]]]
    assert RevProg(k=1).hint_length(0) == Depo(k=1).hint_length(0) == 0


def test_the_hops_of_a_cycle() -> None:
    """In the docstring's example 1 → 3 → 0 → 2: one hop from 3 has no step before, two from 1 have 3."""
    task = Depo(n=4, k=3, queries=2, reach=1)
    row = torch.tensor([[[1, 3, 0, 2, 3, 0, 2, 1, 4, 3, 4, 4, 1, 5, 5, 5]]])
    think = torch.zeros_like(row, dtype=torch.bool)
    think[..., [9, 12]] = True
    batch = draw(task, 1, "train")._replace(inputs=row, think=think)
    assert task.hint(batch, "train").tolist() == [[[5, 5, 5, 3, 5]]]


TEXT = "ab\ncde\n\nf g\nhi jk\nlm\n" * 3


def line_before(text: str, place: int, length: int) -> str:
    """Return the text from the beginning of the line before, runs of line feeds counted once; padded."""
    ends = [run.end() for run in re.finditer("\n+", text[: place + 1]) if run.end() <= place]
    start = ends[-2] if len(ends) > 1 else 0
    return text[start:place][-length:].rjust(length, "\n")


@pytest.mark.parametrize("split", SPLITS)
def test_a_text_tells_the_line_before(tmp_path: Path, split: str) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    task = CharText(path=str(tmp_path / "text.txt"), held_out_fraction=0.5)
    batch = task.sample(torch.Generator().manual_seed(1), 40, 6, split)
    part = TEXT[: task.border] if split == "train" else TEXT[task.border :]
    hint = task.hint(batch, split)
    assert hint.shape == (1, 40, task.hint_length(6)) == (1, 40, 6)
    seen = set()
    for start, row, told in zip(batch.start[0].tolist(), batch.inputs[0], hint[0], strict=True):
        assert task.decode(row.tolist()) == part[start : start + 6], "start is where it begins"
        got, wanted = task.decode(told.tolist()), line_before(part, start, 6)
        assert got == wanted
        seen.add(got)
    assert len(seen) > 5


def test_a_text_of_one_line_tells_what_stands_before(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("abcdefghijklmnopqrstuvwxyz" * 2)
    task = CharText(path=str(tmp_path / "text.txt"))
    batch = task.sample(torch.Generator().manual_seed(1), 30, 4, "train")
    for start, told in zip(batch.start[0].tolist(), task.hint(batch, "train")[0].tolist(), strict=True):
        letters = ("aaaa" + "abcdefghijklmnopqrstuvwxyz" * 2)[start : start + 4]
        assert task.decode(told) == letters


def test_tokens_that_hold_a_line_feed_end_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["<end>", "a", "\\n", ".\\n\\n", "\\\\", "n"]
    monkeypatch.setattr(token_text, "_names", lambda *_: names)
    monkeypatch.setattr(TokenText, "vocab_size", 6)
    monkeypatch.setattr(TokenText, "ends", (0,))
    monkeypatch.setattr(TokenText, "_folder", Path())
    assert TokenText().line_ends.tolist() == [True, False, True, True, False, False]


def test_which_tasks_have_hints() -> None:
    assert {type(x).__name__ for x in HINTED} == {"Depo", "RevProg"}
