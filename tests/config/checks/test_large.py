"""What is refused of the settings for large models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from toyqs.config.checks import backbone
from toyqs.config.checks.backbone import check_backbone
from toyqs.config.checks.values import check
from toyqs.config.errors import Refusal
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig


@pytest.mark.parametrize(
    ("name", "value", "given", "remedy"),
    [
        ("autocast", True, "true", "false"),
        ("gradient_checkpointing", True, "true", "false"),
        ("branch_attention", "flex", "flex", "dense"),
    ],
)
def test_a_gru_has_no_layers(name: str, value: Any, given: str, remedy: str) -> None:
    with pytest.raises(Refusal, match=f"{name}={given}: is for a transformer's layers; give {name}={remedy}"):
        check(replace(RunConfig(), **{name: value}))


@pytest.mark.parametrize(
    ("said", "changes"),
    [
        ("torch's FlexAttention has no gradient on device=cpu; give device=cuda or", {"device": "cpu"}),
        ("adds up in float32, which makes dtype=float64 useless; give", {"dtype": "float64"}),
        ("takes heads 16 wide or wider, and model_n_head=3 makes them 8; give", {"model_n_head": 3}),
    ],
)
def test_what_the_kernels_cannot_do(
    said: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone, "find_spec", lambda name: name)
    fits = {"backbone": "gpt2", "device": "cuda", "branch_attention": "flex", "model_n_head": 1}
    plain = replace(RunConfig(), **fits)
    check_backbone(resolved(plain))
    with pytest.raises(Refusal, match=f"branch_attention=flex: {said}"):
        check_backbone(resolved(replace(plain, **changes)))
    check_backbone(resolved(replace(plain, **changes, use_reasoner=False)))  # nothing branches


def test_coarse_products_of_fine_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "find_spec", lambda name: name)
    large = resolved(replace(RunConfig(), backbone="gpt2", autocast=True, gradient_checkpointing=True))
    check_backbone(large)
    with pytest.raises(Refusal, match=r"autocast=true: .* dtype=float64 useless; give dtype=float32"):
        check_backbone(replace(large, dtype="float64"))


def test_a_negative_number_of_steps() -> None:
    with pytest.raises(Refusal, match="checkpoint_every=-1: is too small"):
        check(replace(RunConfig(), checkpoint_every=-1))
