"""Curricula of texts and lengths of their thoughts: by counts' loss, and of problems by the solution."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from toyqs.config.builders.held_out import draw_held_out
from toyqs.config.builders.training import build_training_params
from toyqs.config.identity import run_key
from toyqs.tasks.difficulty import quantile_of
from toyqs.tasks.texts.char_text import CharText
from toyqs.tasks.texts.counts import Counts
from toyqs.tasks.texts.token_text import TokenText
from toyqs.training.batches import draw_batches
from toyqs.types import Batch

# "ab" for a long while, then what follows is drawn
EVEN = "ab" * 150
ODD = "".join("abcdefgh"[i * i * 7 % 61 % 8] for i in range(300))


@pytest.fixture
def text(tmp_path: Path) -> Callable[..., CharText]:
    def make(content: str = EVEN + ODD, **knobs: Any) -> CharText:
        file = tmp_path / "text.txt"
        file.write_text(content)
        return CharText(path=str(file), held_out_fraction=0.2, **knobs)

    return make


def starts(task: Any, batch: Batch, seq_len: int) -> list[int]:
    """Where the windows of a batch begin, by their characters."""
    whole = task.ids.tolist()
    found = []
    for row, targets in zip(batch.inputs[0].tolist(), batch.targets[0].tolist(), strict=True):
        window = [*row, targets[-1]]
        found.append(next(i for i in range(len(whole)) if whole[i : i + seq_len + 1] == window))
    return found


def test_counts_are_what_pure_python_finds(text: Callable[..., CharText]) -> None:
    task = text(ODD)
    training, size = task.ids[: task.border].tolist(), task.vocab_size
    single = [(training.count(y) + 1) / (len(training) + size) for y in range(size)]
    pairs = list(itertools.pairwise(training))
    counts = Counts(task.ids[: task.border], size)
    for x in range(size):
        follow = sum(a == x for a, _ in pairs)
        p = [(pairs.count((x, y)) + single[y]) / (follow + 1) for y in range(size)]
        assert sum(p) == pytest.approx(1)
        found = counts.prob(torch.full((size,), x), torch.arange(size))
        assert found.tolist() == pytest.approx(p)
        assert float(counts.entropy()[x]) == pytest.approx(-sum(q * math.log(q) for q in p))
    losses = [-float(counts.prob(torch.tensor(a), torch.tensor(b)).log()) for a, b in pairs]
    assert task.difficulty().tolist() == pytest.approx([losses[0], *losses])


def test_a_curriculum_begins_with_the_windows_of_least_loss(text: Callable[..., CharText]) -> None:
    task, seq_len = text(curriculum=0.5), 10
    losses = task.difficulty().tolist()
    count = task.border - seq_len
    means = [sum(losses[i + 1 : i + 1 + seq_len]) for i in range(count)]
    for progress, share in ((0.0, 0.25), (0.25, 0.625), (0.49, 0.985)):
        batch = task.sample(torch.Generator().manual_seed(1), 400, seq_len, "train", progress)
        highest = sorted(means)[round(share * count) - 1]
        drawn = [
            sum(losses[i + 1 : i + 1 + seq_len]) for i in starts(task, batch, seq_len)
        ]  # equal windows have equal means
        assert max(drawn) <= highest + 1e-9 and max(drawn) > 0.8 * highest
    whole = task.sample(torch.Generator().manual_seed(1), 50, seq_len, "train", 0.5)
    plain = text().sample(torch.Generator().manual_seed(1), 50, seq_len, "train", 0.0)
    assert torch.equal(whole.inputs, plain.inputs), "after it, and without one, windows are uniform"
    held_out = [task.sample(torch.Generator(), 20, seq_len, "held_out", x).inputs for x in (0.0, 1.0)]
    assert torch.equal(*held_out)


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_thoughts_are_longer_where_more_loss_is_to_be_expected(
    text: Callable[..., CharText], levels: int
) -> None:
    task = text(ODD, levels=levels)
    entropy = task.counts.entropy()
    lengths = task.thought_length(torch.arange(task.vocab_size).view(1, 1, -1))[0, 0]
    assert set(lengths.tolist()) <= set(range(1, levels + 1)) and int(lengths.max()) == levels
    order = entropy.argsort()
    assert lengths[order].tolist() == sorted(lengths.tolist())
    training = task.ids[: task.border].long()
    share = [float((lengths[training] == level).float().mean()) for level in range(1, levels + 1)]
    largest = max(float((training == x).float().mean()) for x in range(task.vocab_size))
    assert all(abs(x - 1 / levels) <= largest for x in share), "but for tokens that are one level"


def test_quantiles() -> None:
    values = torch.tensor([5.0, 1.0, 3.0, 2.0, 4.0, 6.0, 7.0, 8.0])
    assert quantile_of(values, values, 4).tolist() == [2, 0, 1, 0, 1, 2, 3, 3]
    assert quantile_of(torch.tensor([0.0, 9.0]), values, 4).tolist() == [0, 3]
    assert quantile_of(values, values, 1).tolist() == [0] * 8


PROBLEMS = [("a b", "c"), ("a", "b b b b b"), ("c c c", "a a a"), ("b", "c c c c c c c c c")]
PROBLEMS = PROBLEMS * 9 + PROBLEMS[1:] * 4  # so that the end is not as the beginning


@pytest.fixture
def problems(tmp_path: Path) -> TokenText:
    tokenizers = pytest.importorskip("tokenizers")
    words = {x: i for i, x in enumerate(("<end>", "a", "b", "c"))}
    cut = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<end>"))
    cut.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    cut.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 4, "eos_token_id": 0}))
    lines = [json.dumps({"question": q, "answer": a}) for q, a in PROBLEMS]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    return TokenText(path=str(tmp_path / "x.jsonl"), tokenizer=str(tmp_path), held_out_fraction=0.25)


def solution_at(task: TokenText) -> list[int]:
    """The length of the solution at each token of the corpus."""
    found: list[int] = []
    for question, answer in PROBLEMS:
        text = f"Question: {question}\nAnswer: {answer}"
        found += [len(answer.split())] * (len(task.encode(text)) + 1)
    return found


def test_problems_go_by_the_length_of_their_solution(problems: TokenText) -> None:
    task, seq_len = problems, 4
    solution = solution_at(task)
    assert len(solution) == len(task.ids)
    assert task.difficulty().tolist() == solution[: task.border]
    edges = sorted(solution[: task.border])
    edges = [edges[len(edges) * part // 4] for part in (1, 2, 3)]
    for split, first in (("train", 0), ("held_out", task.border)):
        part = task.ids[first : None if first else task.border].tolist()
        batch = task.sample(torch.Generator().manual_seed(2), 9, seq_len, split)
        assert batch.thought_length is not None and batch.thought_length.shape == batch.inputs.shape
        for row, lengths in zip(batch.inputs[0].tolist(), batch.thought_length[0].tolist(), strict=True):
            places = [i for i in range(len(part)) if part[i : i + seq_len] == row]
            wanted = [
                [1 + sum(edge <= solution[first + i + t] for edge in edges) for t in range(seq_len)]
                for i in places
            ]
            assert lengths in wanted
    easy = TokenText(path=task.path, tokenizer=task.tokenizer, held_out_fraction=0.25, curriculum=1.0)
    batch = easy.sample(torch.Generator().manual_seed(2), 60, seq_len, "train", 0.0)
    assert batch.thought_length is not None
    everywhere = task.sample(torch.Generator().manual_seed(2), 60, seq_len, "train", 0.0).thought_length
    assert everywhere is not None and batch.thought_length.float().mean() < everywhere.float().mean() - 0.5


def test_a_problem_is_its_question_as_far_as_it_has_been_read(problems: TokenText) -> None:
    task, seq_len, read = problems, 4, []
    for question, answer in PROBLEMS:
        asked = len(task.encode(f"Question: {question}\nAnswer:"))
        count = len(task.encode(f"Question: {question}\nAnswer: {answer}")) + 1
        read += [min(place + 1, asked) for place in range(count)]
    whole = task.ids.tolist()
    for split in ("train", "held_out"):
        batch = task.sample(torch.Generator().manual_seed(2), 9, seq_len, split)
        assert batch.problem_length is not None and batch.problem_length.shape == batch.inputs.shape
        for row, lengths in zip(batch.inputs[0].tolist(), batch.problem_length[0].tolist(), strict=True):
            places = [i for i in range(len(whole)) if whole[i : i + seq_len] == row]
            assert lengths in [read[i : i + seq_len] for i in places]
    settings = tiny.config(
        **{"task": task, "adaptive_len": True, "adaptive_by": "problem", "problem_per_symbol": 3},
        **{"seq_len": 4, "max_reasoning_len": 4, "max_steps": 4},
    )
    like = torch.zeros(1, dtype=torch.float64)
    batch = next(draw_batches(task, [1, 2], build_training_params(settings), like)).counted
    held_out = draw_held_out(settings, 2, like, 12)
    own = task.sample(torch.Generator(), held_out.inputs.shape[1], 4, "held_out").problem_length
    assert own is not None and held_out.thought_length is not None and batch.thought_length is not None
    assert torch.equal(held_out.thought_length, (own // 3).expand(2, -1, -1))
    assert batch.thought_length.shape == batch.inputs.shape and set(
        batch.thought_length.unique().tolist()
    ) > {1}


def test_a_texts_problem_is_what_has_been_read(text: Callable[..., CharText]) -> None:
    settings = tiny.config(
        **{"task": text(), "adaptive_len": True, "adaptive_by": "problem", "problem_per_symbol": 2},
        **{"seq_len": 5, "max_reasoning_len": 2, "max_steps": 4},
    )
    batch = next(
        draw_batches(settings.task, [1], build_training_params(settings), torch.zeros(1).double())
    ).counted
    assert batch.thought_length is not None
    assert torch.equal(batch.thought_length, torch.tensor([0, 1, 1, 2, 2]).expand(batch.inputs.shape))


def test_batches_have_the_lengths_that_their_task_gives(
    problems: TokenText, text: Callable[..., CharText]
) -> None:
    for task in (problems, text()):
        settings = tiny.config(task=task, adaptive_len=True, seq_len=4, max_reasoning_len=4, max_steps=4)
        like = torch.zeros(1, dtype=torch.float64)
        held_out = draw_held_out(settings, 2, like, 12)
        assert held_out.thought_length is not None and held_out.thought_length.shape == held_out.inputs.shape
        if task is problems:  # which has fewer windows than asked for
            own = task.sample(torch.Generator(), held_out.inputs.shape[1], 4, "held_out").thought_length
            assert own is not None and torch.equal(held_out.thought_length, own.expand(2, -1, -1))
            assert not torch.equal(held_out.thought_length, task.thought_length(held_out.inputs))
        else:
            assert torch.equal(held_out.thought_length, task.thought_length(held_out.inputs))
        batch = next(draw_batches(task, [1, 2], build_training_params(settings), like)).counted
        assert batch.thought_length is not None and batch.thought_length.shape == batch.inputs.shape
        assert set(batch.thought_length.unique().tolist()) <= {1, 2, 3, 4}
        off = tiny.config(task=task, seq_len=4)
        assert draw_held_out(off, 2, like, 12).thought_length is None


def test_keys_of_earlier_runs_stay_and_what_matters_changes_them(text: Callable[..., CharText]) -> None:
    assert text().identity().keys() == {"sha256", "held_out_fraction"}

    def key(**knobs: Any) -> str:
        return run_key(tiny.config(task=text(**knobs), seq_len=4), 1)

    assert len({key(), key(curriculum=0.5), key(levels=2)}) == 3 and key(curriculum=0.0, levels=4) == key()


def test_refusals(text: Callable[..., CharText]) -> None:
    with pytest.raises(ValueError, match=r"task.curriculum=2: is a share of the training; give 0 to 1"):
        text(curriculum=2).check(5)
    with pytest.raises(ValueError, match=r"task.levels=0: is a number of lengths; give task.levels=1"):
        text(levels=0).check(5)
