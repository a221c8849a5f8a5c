"""A small text of sums, questions about it, and untrained models for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import thought_sizes
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.rng import ThoughtSizes
from toyqs.tasks.texts.char_text import CharText

SUMS = [
    {"question": f"What is {a}+{b}?", "answer": f"{a}+{b}={a + b}\n#### {a + b}"}
    for a, b in [(1, 2), (3, 4), (9, 9)]
]
STEM = {"stem": "Which is 3?", "choices": [{"label": "A", "text": "1+2"}, {"label": "B", "text": "9"}]}
PLAIN = {"label": ["A", "B", "C"], "text": ["1", "2", "3+4"]}
CHOICES = [
    {"question": STEM, "answerKey": "A"},
    {"question": "Which is 7?", "choices": PLAIN, "answerKey": "C"},
]
WORDS = "Let's think step by step. Which is Question: Answer: What 0123456789+=?#\n"


def corpus(folder: Path) -> CharText:
    path = folder / "text.txt"
    path.write_text(
        WORDS + "".join(f"Question: {x['question']}\nAnswer: {x['answer']}\n\n" for x in SUMS * 20),
        encoding="utf-8",
    )
    return CharText(path=str(path))


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return str(path)


def config(task: CharText, **changes: Any) -> RunConfig:
    plain: dict[str, Any] = {
        **{"task": task, "dtype": "float64", "seq_len": 24, "max_steps": 4, "controls": "none"},
        **{"base_lm_hidden_dim": 8, "reasoner_hidden_dim": 8, "max_reasoning_len": 2, "trice_samples": 3},
    }
    return resolved(RunConfig(**(plain | changes)))


def model(settings: RunConfig) -> tuple[LatentReasoner, ThoughtSizes]:
    """Build an untrained model, its initial weights doubled so that predictions differ."""
    built = build_model(settings, [0])
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.mul_(2)
    return built, thought_sizes(settings)
