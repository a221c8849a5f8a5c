"""Critics: who learns from what, and what they are told."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests import tiny
from toyqs.config.builders.training import build_objective
from toyqs.model.latent_reasoner import _average_of_others
from toyqs.types import Trace, focus, thinking_positions

SEES = ("context", "target", "base_prediction", "average_thought", "greedy_thought")
VALUED = [{"baseline": "value", "value_sees": sees} for sees in SEES]


def traced(settings: Any, **changes: Any) -> tuple[Any, Trace, Any]:
    model, batch, noise = tiny.sampled(settings, size=4, copies=2)
    positions = thinking_positions(batch)
    counted = focus(batch, positions)
    targets = changes.get("targets", counted.targets)
    return model, model(batch.inputs, positions, noise, None, targets), counted


@pytest.mark.parametrize("changes", VALUED, ids=SEES)
@pytest.mark.parametrize("groups", tiny.PATTERNS)
def test_a_critic_trains_itself_alone(groups: str, changes: dict[str, str]) -> None:
    settings = tiny.config(weight_groups=groups, trice_samples=3, **changes)
    model, trace, counted = traced(settings)
    parts = build_objective(settings)(trace, counted).parts
    own = {f"critic.{layer}.{name}" for layer in ("inner", "outer") for name in ("weight", "bias")}
    for name, part in parts.items():
        found = {n for n, g in tiny.gradients(part.sum(), model).items() if bool(g.any())}
        assert found == own if name == "critic" else not found & own, name
    assert set(parts) == {"policy", "nll", "entropy", "critic"}


def test_a_learned_log_z_is_trained_by_the_policys_loss() -> None:
    settings = tiny.config(objective="logz_learned", trice_samples=3)
    model, trace, counted = traced(settings)
    part = build_objective(settings)(trace, counted).parts["policy"]
    reached = {n for n, g in tiny.gradients(part.sum(), model).items() if bool(g.any())}
    assert {"critic.outer.bias", "thought_head.projection.weight"} <= reached
    assert not any(name.startswith(("cores.A", "cores.D", "head")) for name in reached)


@pytest.mark.parametrize("sees", SEES)
def test_only_the_plain_value_is_blind_to_the_target(sees: str) -> None:
    settings = tiny.config(baseline="value", value_sees=sees)
    _, trace, counted = traced(settings)
    _, other, _ = traced(settings, targets=(counted.targets + 1) % tiny.SYMBOLS)
    assert torch.equal(trace.value, other.value) == (sees == "context")


def test_the_average_reading_is_of_all_other_positions() -> None:
    reading = torch.randn(2, 3, 2, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = _average_of_others(reading)
    for s in range(2):
        for b in range(3):
            for t in range(2):
                others = [reading[s, i, j] for i in range(3) for j in range(2) if (i, j) != (b, t)]
                torch.testing.assert_close(got[s, b, t, 0], torch.cat(others).mean(0), rtol=0, atol=1e-12)


def test_a_model_without_a_critic_is_asked_in_vain() -> None:
    _, trace, _ = traced(tiny.config())
    assert trace.value is None and trace.base_logits is None and trace.average_logits is None
