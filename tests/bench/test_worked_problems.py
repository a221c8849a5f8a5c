"""A corpus of worked problems: every step is true, and the task reads it as questions with answers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from bench.worked_problems import WORDS, draw_problems, main
from toyqs.tasks.texts.token_text import TokenText


def test_every_step_is_true() -> None:
    problems = draw_problems(600, 4, 0)
    for question, answer in problems:
        words, said = question.split(), answer.split()
        assert len(words) == 2 * len(said) + 1
        for step, value in enumerate(said, 1):
            assert int(value) == eval(" ".join(words[: 2 * step + 1])) % 10
    counts = Counter(len(answer.split()) for _, answer in problems)
    assert set(counts) == {1, 2, 3, 4} and min(counts.values()) > 110
    assert len({question.split()[0] for question, _ in problems}) == 10
    assert draw_problems(3, 4, 0) == problems[:3] != draw_problems(3, 4, 1)


def test_the_corpus_is_read_as_questions_with_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tokenizers")
    folder = tmp_path / "problems"
    assert main([str(folder), "--number", "50", "--steps", "3"]) == 0
    assert capsys.readouterr().out == f"50 problems {folder / 'problems.jsonl'}\n"
    task = TokenText(path=str(folder / "problems.jsonl"), tokenizer=str(folder), levels=3)
    task.check(8)
    assert task.vocab_size == len(WORDS) and task.ends == (0,)
    question, answer = draw_problems(50, 3, 0)[0]
    text = f"Question: {question} Answer: {answer}".replace(":", " :").split()
    count = len(text)
    assert task.symbols(task.ids[: count + 1].tolist()) == [*text, WORDS[0]]
    solution = task._solution(torch.arange(count + 1))
    assert solution is not None and set(solution.tolist()) == {len(answer.split())}


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / "file")]) == 1
    assert "cannot be written" in capsys.readouterr().err
    assert main([str(tmp_path), "--steps", "0"]) == 2
    assert "--steps" in capsys.readouterr().err
