"""What is refused of the settings for large models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from toyqs.config.checks import backbone
from toyqs.config.checks.backbone import check_backbone
from toyqs.config.checks.training.distributed import check_parallel
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


def test_graphs_are_of_a_gru_on_a_gpu() -> None:
    on_gpu = resolved(replace(RunConfig(), cuda_graphs=True, device="cuda"))
    check_backbone(on_gpu)
    for changes, remedy in (({"device": "cpu"}, "device=cuda"), ({"backbone": "gpt2"}, "backbone=gru")):
        with pytest.raises(Refusal, match=f"cuda_graphs=true: .*; give {remedy} or cuda_graphs=false"):
            check_backbone(resolved(replace(on_gpu, **changes)))
    with pytest.raises(Refusal, match="there are 2; give cuda_graphs=false or one process"):
        check_parallel(on_gpu, 2)


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
