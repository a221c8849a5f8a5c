"""The loss of the prediction without a thought: that of a plain model with the same weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.config.checks.checking import NO_REASONER, accepted, refused
from toyqs.config.builders import training as builder
from toyqs.config.builders.training import build_objective, build_training_params, thought_sizes
from toyqs.config.controls import unmatched_controls
from toyqs.config.identity import run_key
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.model.mixing import MIXERS
from toyqs.objectives import losses
from toyqs.training.batches import prepare
from toyqs.training.evaluation.metrics import evaluate
from toyqs.training.loop import accumulate
from toyqs.types import Batch, Trace

BASE = {"base_nll_beta": 0.7}


Found = tuple[LatentReasoner, tiny.Gradients, dict[str, Tensor]]


def gradient(settings: RunConfig, part: str, like: LatentReasoner | None = None) -> Found:
    """Compute the gradient of one part of the loss and all parts' values, with another model's weights."""
    model, batch, noise = tiny.sampled(settings, size=4, copies=2)
    if like is not None:
        tiny.lend(like, model)
    numbers = build_training_params(settings)
    weights = dict.fromkeys(numbers.weights, 0.0) | {part: 1.0}
    drawn, running = prepare(batch, noise, settings.num_ahead), torch.zeros(2).double()
    values = accumulate(model, build_objective(settings), drawn, weights, numbers, running)
    named = model.named_parameters()
    return model, {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in named}, values


def check(**changes: Any) -> None:
    """Raise an AssertionError unless the loss is the plain model's, and moves what that model has alone."""
    settings = tiny.config(**BASE, **changes)
    model, found, values = gradient(settings, "base_nll")
    _, plain, wanted = gradient(replace(settings, use_reasoner=False), "nll", model)
    torch.testing.assert_close(values["base_nll"], wanted["nll"], rtol=0, atol=1e-12)
    tiny.close({name: found[name] for name in plain}, plain, tolerance=1e-12)
    moved = {name for name, values in found.items() if float(values.abs().max()) > 0}
    assert moved and moved <= plain.keys()


KINDS: dict[str, dict[str, Any]] = {
    **{name: {"mixing": name} for name in MIXERS if name != "base"},
    "handed on": {"thought_into": "state"},
    "base": {"thought_into": "state", "mixing": "base"},
    "onward": {"interpreter_start": "onward"},
    "mlp": {"linear_lm_head": False, "mixing": "add"},
    "zero length": {"max_reasoning_len": 0},
    "a path": {"thoughts": "gaussian", "objective": "pathwise"},
    "two tokens": {"n_tokens_ahead": 2},
    "a baseline": {"baseline": "null_thought"},
    "parts": {"grad_acc": 2},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", ["AAAA", "AABC"])
def test_it_is_the_loss_of_a_plain_model(kind: str, groups: str) -> None:
    check(weight_groups=groups, **KINDS[kind])


def with_a_thought(trace: Trace, batch: Batch) -> Tensor:
    return losses.base_nll(trace._replace(base_logits=trace.logits[..., 0, :, :]), batch)


def of_equal_positions(trace: Trace, batch: Batch) -> Tensor:
    return losses.base_nll(trace, batch._replace(weights=torch.ones_like(batch.weights)))


def summed_over_tokens(trace: Trace, batch: Batch) -> Tensor:
    log_q = trace.base_logits.log_softmax(-1).gather(-1, batch.ahead.targets.unsqueeze(-1)).squeeze(-1)
    return losses.position_mean(-log_q.sum(-1), batch.weights)


@pytest.mark.parametrize("mutant", [with_a_thought, of_equal_positions, summed_over_tokens])
def test_another_loss_is_found(mutant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = {"n_tokens_ahead": 2} if mutant is summed_over_tokens else {}
    check(**kind)
    monkeypatch.setattr(builder, "base_nll", mutant)
    with pytest.raises(AssertionError):
        check(**kind)


@pytest.mark.parametrize("changes", [{}, {"max_reasoning_len": 0}, {"mixing": "gate"}])
def test_what_is_trained_is_what_is_measured(changes: dict[str, Any]) -> None:
    settings = tiny.config(**BASE, **changes)
    model, batch, _ = tiny.sampled(settings, size=4, copies=2)
    measured = evaluate(model, batch, [0, 1], thought_sizes(settings), full=True)["nll_no_thought"]
    trained = gradient(settings, "base_nll")[2]["base_nll"]
    torch.testing.assert_close(measured, trained, rtol=0, atol=1e-12)


@pytest.mark.parametrize("part", ["nll", "policy"])
def test_the_other_parts_stay_as_they_are(part: str) -> None:
    _, with_it, values = gradient(tiny.config(**BASE), part)
    _, without, others = gradient(tiny.config(), part)
    tiny.close(with_it, without, tolerance=1e-12)
    assert values.keys() == others.keys() | {"base_nll"}


def test_where_it_counts() -> None:
    """Every control that thinks has it too; a plain model is trained by that loss alone."""
    config = replace(RunConfig(), **BASE)
    controls = unmatched_controls(config)
    assert controls["zero_length"].trains_without_thought and controls["policy_off"].trains_without_thought
    assert run_key(controls["no_reasoner"], 0) == run_key(replace(RunConfig(), use_reasoner=False), 0)


def test_a_prediction_that_is_not_there_cannot_be_trained() -> None:
    for changes in ({"use_base_lm": False}, {"mixing": "thought"}):
        refused("base_nll_beta=0.7: .*no prediction without a thought", **BASE, **changes)
    same_width = {"mixing": "thought", "base_lm_hidden_dim": 8, "reasoner_hidden_dim": 8}
    refused("base_nll_beta=0.7: ", **BASE, **same_width)  # nothing else reads base_lm
    for changes in ({}, {"max_reasoning_len": 0}, NO_REASONER, same_width | {"weight_groups": list("AABC")}):
        assert accepted(**BASE, **changes) == []
    refused("base_nll_beta=-1", base_nll_beta=-1.0)
    assert accepted(**BASE, nll_loss_beta=0.0, max_reasoning_len=0, controls="none") == []
    with pytest.raises(ValueError, match=r"needs trace\.base_logits"):
        losses.base_nll(Trace(torch.zeros(1)), tiny.batch())
