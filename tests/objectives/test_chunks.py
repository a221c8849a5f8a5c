"""Positions taken one by one add up to the exact gradient of the expected reward, over all thoughts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import reference, tiny
from toyqs.config.builders.training import build_training_params
from toyqs.config.run_config import RunConfig
from toyqs.objectives.policy.reinforce import Reinforce
from toyqs.training import pieces
from toyqs.training.batches import prepare
from toyqs.training.loop import accumulate
from toyqs.types import Batch

WEIGHTS = {"nll": 1.0, "policy": 1.0, "entropy": 0.0}
PAIRS = torch.cartesian_prod(*[torch.arange(len(tiny.THOUGHTS))] * 2)  # a thought at each of two positions
TOLERANCE = 1e-12


def one_sequence() -> Batch:
    """Draw a sequence of which two positions think and count, each by a weight of its own."""
    drawn = tiny.batch(1, seed=5)
    return drawn._replace(weights=drawn.weights * drawn.think)


def expected(settings: RunConfig) -> tuple[tiny.Gradients, tiny.Gradients]:
    """Return the mean over all pairs of thoughts of what the loop adds up; and the exact gradient."""
    batch = one_sequence()
    built = tiny.model(settings, len(PAIRS))
    drawn = prepare(tiny.repeated(batch, len(PAIRS)), torch.empty(len(PAIRS), 1, 2, 1, 2))
    drawn = drawn._replace(forced=tiny.THOUGHTS[PAIRS][:, None, :, None])
    running = torch.zeros(len(PAIRS)).double()
    params = build_training_params(settings)
    assert params.chunk_positions == 1
    accumulate(built, Reinforce(baseline="none"), drawn, WEIGHTS, params, running)
    alone = tiny.model(settings)
    value, probability = torch.zeros(()).double(), torch.ones(1).double()
    weights, places = batch.weights[0, 0], batch.think[0, 0].nonzero()[:, 0].tolist()
    for t in places:
        told = reference.predict(alone, settings, batch.inputs[0, 0, : t + 1], tiny.THOUGHTS)
        of_thought = told.log_prob.sum(-1).exp()
        value = value + weights[t] * (of_thought * told.log_q[:, batch.targets[0, 0, t]]).sum()
        probability = (probability.unsqueeze(-1) * of_thought.detach()).flatten()
    exact = tiny.gradients(-value / weights.sum(), alone)
    found = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in built.named_parameters()}
    mean = {n: torch.tensordot(probability, x, 1).unsqueeze(0) for n, x in found.items()}
    return mean, {name: x.view(mean[name].shape) for name, x in exact.items()}


def settings_of(**changes: Any) -> RunConfig:
    return tiny.config(trice_samples=1, baseline="none", chunk_positions=1, **changes)


@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", ["AAAA", "ABAC", "ABCD"])
def test_chunks_add_up_to_the_exact_gradient(start: str, groups: str) -> None:
    tiny.close(*expected(settings_of(interpreter_start=start, weight_groups=groups)), tolerance=TOLERANCE)


def wrongly_shared(descend: Callable[..., None]) -> Callable[..., None]:
    return lambda self, loss, share, values: descend(self, loss, torch.full_like(share, 0.5), values)


def test_chunks_that_count_alike_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces.MicroBatches, "_descend", wrongly_shared(pieces.MicroBatches._descend))
    with pytest.raises(AssertionError):
        tiny.close(*expected(settings_of()), tolerance=1e-6)


def test_a_context_without_its_gradient_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(value: Any, leaves: list[tuple[Tensor, Tensor]]) -> Any:
        found: list[tuple[Tensor, Tensor]] = []
        return detached(value, found)

    detached = pieces._detached
    monkeypatch.setattr(pieces, "_detached", cut)
    with pytest.raises(AssertionError):
        tiny.close(*expected(settings_of()), tolerance=1e-6)
