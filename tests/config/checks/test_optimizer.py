"""What the optimiser's settings refuse, and what they say of a GRU."""

from __future__ import annotations

from typing import Any

import pytest

from tests.config.checks.checking import accepted, refused
from tests.keys import OTHER
from toyqs.assets import pretrained
from toyqs.config.checks import backbone


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the package transformers and a checkpoint's weights were there."""
    monkeypatch.setattr(backbone, "find_spec", lambda name: name)


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("grokfast_alpha=1.0: is not less than 1; give for example 0.98", {"grokfast_alpha": 1.0}),
    ("grokfast_lambda=-0.1: is too small", {"grokfast_lambda": -0.1}),
    ("qk_clip=-1.0: is too small", {"qk_clip": -1.0}),
    (
        "optimizer=lion: is not a choice; give one of adamw, adam, sgd, muon, muon_grokfast",
        {"optimizer": "lion"},
    ),
    ("adjust_lr_fn=none: is not a choice; give one of match_rms_adamw, original", {"adjust_lr_fn": "none"}),
    (
        "qk_clip=30.0: scales weights of queries and keys, which backbone=qwen3 normalises afterwards; give "
        "qk_clip=0 or another backbone",
        {"qk_clip": 30.0, "backbone": "qwen3"},
    ),
    (
        "qk_clip=30.0: measures the attention's logits, which branch_attention=flex",
        {"qk_clip": 30.0, "backbone": "gpt2", "use_reasoner": False, "branch_attention": "flex"},
    ),
]


@pytest.mark.parametrize(("said", "settings"), REFUSED, ids=lambda x: str(x)[:24])
def test_what_cannot_work_is_one_line(said: str, settings: dict[str, Any]) -> None:
    refused(said, **settings)


def test_frozen_weights_cannot_be_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "identity", lambda name: f"content of {name}")
    given = {"pretrained": OTHER["pretrained"], "thought_vocab": None, "qk_clip": 30.0}
    refused("qk_clip=30.0: scales a decoder's weights, which lora_rank=4 keeps frozen", **given, lora_rank=4)


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "qwen2"])
def test_a_transformer_that_trains_its_weights_is_accepted(family: str) -> None:
    assert accepted(backbone=family, qk_clip=30.0, optimizer="muon_grokfast") == []


def test_on_a_gru_the_clip_is_idle_and_says_so() -> None:
    assert accepted(qk_clip=30.0) == ["qk_clip=30 has no effect: a GRU has no attention"]
