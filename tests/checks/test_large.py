"""What is refused of the settings for large models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from toyqs.checks import backbone
from toyqs.checks.backbone import check_backbone
from toyqs.checks.settings import check
from toyqs.config import RunConfig
from toyqs.config_key import resolved
from toyqs.refusal import Refusal


@pytest.mark.parametrize("changes", [{"autocast": True}, {"gradient_checkpointing": True}])
def test_a_gru_has_no_layers(changes: dict[str, Any]) -> None:
    (name,) = changes
    with pytest.raises(Refusal, match=f"{name}=true: is for a transformer's layers; give {name}=false"):
        check(replace(RunConfig(), **changes))


def test_coarse_products_of_fine_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "find_spec", lambda name: name)
    large = resolved(replace(RunConfig(), backbone="gpt2", autocast=True, gradient_checkpointing=True))
    check_backbone(large)
    with pytest.raises(Refusal, match=r"autocast=true: .* dtype=float64 is in vain; give dtype=float32"):
        check_backbone(replace(large, dtype="float64"))


def test_a_negative_number_of_steps() -> None:
    with pytest.raises(Refusal, match="checkpoint_every=-1: is too small"):
        check(replace(RunConfig(), checkpoint_every=-1))
