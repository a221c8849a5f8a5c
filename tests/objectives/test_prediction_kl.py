"""The divergence of predictions from a reference's, beside the NLL: by torch's own, and by differences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.config.checks.checking import NO_REASONER, accepted, refused
from toyqs.config.builders import training as builder
from toyqs.config.builders.model import assemble
from toyqs.config.builders.recording import build_recorded
from toyqs.config.builders.reference_model import build_reference_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.controls import unmatched_controls
from toyqs.config.identity import run_key
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.objectives import losses
from toyqs.tasks.hidden_markov import HiddenMarkov
from toyqs.training.batches import TrainingBatch, prepare
from toyqs.training.loop import accumulate
from toyqs.training.reference_model import ReferenceModel
from toyqs.types import Batch, Trace

KL = {"prediction_kl_beta": 0.7, "reference": "initial"}
PLAIN = {"use_reasoner": False}


def drawn(settings: RunConfig) -> tuple[LatentReasoner, TrainingBatch]:
    """Build a model with another batch for each of two copies, its thoughts forced to given symbols."""
    model, batch, noise = tiny.sampled(settings, size=4, copies=2)
    ready = prepare(batch, noise, settings.num_ahead)
    if settings.has_thoughts and settings.symbol_kind == "token":  # at other weights the same thoughts
        ready = ready._replace(forced=(noise * tiny.SYMBOLS).long())
    return model, ready


def frozen(settings: RunConfig) -> ReferenceModel | None:
    """Return a reference that is another model than the one in training; None: it is no model."""
    other = replace(settings, reference="initial") if settings.reference == "checkpoint" else settings
    return build_reference_model(other, tiny.model(settings, 2, scale=0.5 * tiny.SCALE))


Values = tuple[dict[str, Tensor], tiny.Gradients]


def parts(
    settings: RunConfig, model: LatentReasoner, ready: TrainingBatch, part: str = "prediction_kl"
) -> Values:
    """Compute all parts of the loss, and one's gradient."""
    numbers = build_training_params(settings)
    weights = dict.fromkeys(numbers.weights, 0.0) | {part: 1.0}
    running = torch.zeros(2).double()
    for parameter in model.parameters():
        parameter.grad = None
    values = accumulate(
        *(model, build_objective(settings), ready, weights, numbers, running),
        reference_model=frozen(settings),
    )
    named = model.named_parameters()
    return values, {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in named}


def by_hand(settings: RunConfig, model: LatentReasoner, ready: TrainingBatch, log_ref: Tensor) -> Tensor:
    """Compute the mean divergence (S,) of all thoughts and tokens, by torch's own."""
    lengths, counted = ready.counted.lengths, ready.counted
    trace = model(ready.inputs, ready.positions, ready.noise, ready.forced, None, 0.0, lengths)
    log_q = trace.logits.log_softmax(-1)
    given = log_ref.unsqueeze(3).expand_as(log_q)
    each = torch.nn.functional.kl_div(given, log_q, log_target=True, reduction="none").sum(-1)
    weights = torch.ones_like(each[:, :, :, 0]) if counted.ahead is None else counted.ahead.weights.clone()
    for place in range(weights.shape[-1]):
        later = settings.teacher_forcing_weight * settings.ahead_decay**place if place else 1.0
        weights[..., place] *= later
    each = (each.mean(3) * weights).sum(-1)
    return (each * counted.weights).sum((1, 2)) / counted.weights.sum((1, 2))


def log_probs_of_reference(settings: RunConfig, model: LatentReasoner, ready: TrainingBatch) -> Tensor:
    if settings.reference == "no_thought":
        return (
            model.talk(model.read(ready.inputs, ready.positions), None).logits[..., 0, :, :].log_softmax(-1)
        )
    other = frozen(settings)
    assert other is not None
    logits = other.model.talk(other.read(ready.inputs, ready.positions), None).logits
    return logits.squeeze(3).log_softmax(-1)


def check(**changes: Any) -> None:
    """Raise an AssertionError unless value and gradient are those by hand, the reference held fast."""
    settings = tiny.config(**KL | changes)
    model, ready = drawn(settings)
    values, grads = parts(settings, model, ready)
    with torch.no_grad():
        reference = log_probs_of_reference(settings, model, ready)
        torch.testing.assert_close(
            values["prediction_kl"], by_hand(settings, model, ready, reference), rtol=0, atol=1e-12
        )
        assert float(values["prediction_kl"].min()) > 1e-3
        generator = torch.Generator().manual_seed(3)
        named = dict(model.named_parameters())
        step = {
            name: torch.randn(p.shape, generator=generator, dtype=torch.float64) for name, p in named.items()
        }
        found = []
        for sign in (1e-5, -1e-5):
            for name, parameter in named.items():
                parameter.add_(sign * step[name])
            found.append(by_hand(settings, model, ready, reference))
            for name, parameter in named.items():
                parameter.sub_(sign * step[name])
    slope = (found[0] - found[1]) / 2e-5
    along = sum((grads[name] * step[name]).flatten(1).sum(1) for name in grads)
    torch.testing.assert_close(along, slope, rtol=0, atol=1e-7)


KINDS: dict[str, dict[str, Any]] = {
    "initial": {},
    "an average": {"reference": "ema"},
    "no thought": {"reference": "no_thought"},
    "plain": PLAIN,
    "zero length": {"max_reasoning_len": 0},
    "zero length, no thought": {"max_reasoning_len": 0, "reference": "no_thought"},
    "handed on": {"thought_into": "state"},
    "onward": {"interpreter_start": "onward"},
    "two tokens": {"n_tokens_ahead": 2, "ahead_decay": 0.6, "teacher_forcing_weight": 0.5},
    "a path": {"thoughts": "gaussian", "objective": "pathwise"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", ["AAAA", "ABCD"])
def test_value_and_gradient_are_those_by_hand(kind: str, groups: str) -> None:
    check(weight_groups=groups, **KINDS[kind])


def forward(trace: Trace, batch: Batch, decay: float, later: float) -> Tensor:
    log_q, log_p = trace.logits.log_softmax(-1), trace.reference_log_probs.unsqueeze(3)
    each = (log_p.exp() * (log_p - log_q)).sum(-1)
    return losses.position_mean(each.mean(-1).sum(-1), batch.weights)


def summed_over_thoughts(trace: Trace, batch: Batch, decay: float, later: float) -> Tensor:
    return trace.logits.shape[3] * losses.prediction_kl(trace, batch, decay, later)


def of_equal_positions(trace: Trace, batch: Batch, decay: float, later: float) -> Tensor:
    return losses.prediction_kl(trace, batch._replace(weights=torch.ones_like(batch.weights)), decay, later)


def without_the_inner_gradient(trace: Trace, batch: Batch, decay: float, later: float) -> Tensor:
    log_q, log_p = trace.logits.log_softmax(-1), trace.reference_log_probs.unsqueeze(3)
    each = (log_q.exp().detach() * (log_q - log_p)).sum(-1)
    return losses.position_mean(each.mean(-1).sum(-1), batch.weights)


def undecayed(trace: Trace, batch: Batch, decay: float, later: float) -> Tensor:
    return losses.prediction_kl(trace, batch)


@pytest.mark.parametrize(
    "mutant", [forward, summed_over_thoughts, of_equal_positions, without_the_inner_gradient, undecayed]
)
def test_another_divergence_is_found(mutant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = KINDS["two tokens"] if mutant is undecayed else {}
    monkeypatch.setattr(builder, "prediction_kl", mutant)
    with pytest.raises(AssertionError):
        check(**kind)


def test_a_reference_that_moves_along_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def moving(trace: Trace, batch: Batch, decay: float, later: float) -> Tensor:
        log_p = trace.base_logits.log_softmax(-1)
        each = (trace.logits.softmax(-1) * (trace.logits.log_softmax(-1) - log_p.unsqueeze(3))).sum(-1)
        return losses.position_mean(each.mean(-1).sum(-1), batch.weights)

    monkeypatch.setattr(builder, "prediction_kl", moving)
    with pytest.raises(AssertionError):
        check(**KINDS["no thought"])


@pytest.mark.parametrize("groups", ["AAAA", "AABC", "ABCD"])
@pytest.mark.parametrize("kind", ["initial", "plain", "onward", "a path", "handed on"])
def test_it_reaches_what_the_nll_reaches(kind: str, groups: str) -> None:
    settings = tiny.config(**KL | KINDS[kind], weight_groups=groups)
    model, ready = drawn(settings)

    def reached(part: str) -> set[str]:
        return {name for name, grad in parts(settings, model, ready, part)[1].items() if grad.abs().max() > 0}

    assert reached("prediction_kl") == reached("nll") != set()


@pytest.mark.parametrize("backbone", ["gru", "gpt2", "llama"], indirect=True)
def test_it_works_on_every_backbone_and_in_parts(backbone: str) -> None:
    settings = tiny.config(**KL)
    model, batch, noise = tiny.sampled(settings, size=4, copies=1)
    ready = prepare(batch, noise, 1)._replace(forced=(noise * tiny.SYMBOLS).long())
    found = []
    for given in (settings, replace(settings, grad_acc=2), replace(settings, chunk_positions=1)):
        numbers = build_training_params(given)
        weights = dict.fromkeys(numbers.weights, 0.0) | {"prediction_kl": 1.0}
        for parameter in model.parameters():
            parameter.grad = None
        other = build_reference_model(given, tiny.model(settings, 1, scale=0.5 * tiny.SCALE))
        arguments = (model, build_objective(given), ready, weights, numbers, torch.zeros(1).double())
        values = accumulate(*arguments, reference_model=other)
        named = model.named_parameters()
        found.append((values["prediction_kl"], {n: p.grad for n, p in named if p.grad is not None}))
    for value, grads in found[1:]:
        torch.testing.assert_close(value, found[0][0], rtol=0, atol=1e-12)
        tiny.close(grads, found[0][1], 1e-12)


def test_where_it_begins_it_is_at_its_own_reference() -> None:
    settings = tiny.config(**KL, **PLAIN)
    model, ready = drawn(settings)
    numbers, own = build_training_params(settings), build_reference_model(settings, tiny.model(settings, 2))
    weights = dict.fromkeys(numbers.weights, 0.0) | {"prediction_kl": 1.0}
    arguments = (model, build_objective(settings), ready, weights, numbers, torch.zeros(2).double())
    values = accumulate(*arguments, reference_model=own)
    assert float(values["prediction_kl"].abs().max()) < 1e-12
    assert all(float(p.grad.abs().max()) < 1e-12 for p in model.parameters())


def test_the_other_parts_stay_as_they_are() -> None:
    for part in ("nll", "policy"):
        (values, with_it), (others, without) = (
            parts(given, *drawn(given), part)
            for given in (tiny.config(**KL), tiny.config(reward="log_ratio", reference="initial"))
        )
        tiny.close(with_it, without, 1e-12)
        assert values.keys() == others.keys() | {"prediction_kl"}


def test_all_arms_have_it_and_a_plain_one_no_divergence_from_itself() -> None:
    config = replace(RunConfig(), **KL)
    for name, control in unmatched_controls(config).items():
        assert control.penalises_prediction_kl and control.has_reference_model, name
    of_itself = unmatched_controls(replace(config, reference="no_thought"))
    plain = of_itself.pop("no_reasoner")
    assert run_key(plain, 0) == run_key(replace(RunConfig(), use_reasoner=False), 0)
    assert all(control.penalises_prediction_kl for control in of_itself.values())
    assert run_key(replace(config, reference="ema"), 0) != run_key(config, 0)


def test_native_kernels_have_no_whole_step_without_it() -> None:
    native = tiny.config(dtype="float32", kernels="native", **PLAIN)
    assert assemble(native, 1).plain_step is not None
    assert assemble(replace(native, **KL), 1).plain_step is None


def test_rewards_that_no_reference_pays_are_recorded() -> None:
    assert build_recorded(tiny.config(**KL)).objective is not None
    assert build_recorded(tiny.config(reward="log_ratio", reference="initial")).objective is None


def test_what_cannot_be_compared_is_refused() -> None:
    beta = {"prediction_kl_beta": 0.1}
    refused("prediction_kl_beta=0.1: needs a reference; ", **beta)
    refused("prediction_kl_beta=-1", prediction_kl_beta=-1.0)
    refused("prediction_kl_beta=0.1: task=rev_prog holds some tokens impossible", **beta, reference="oracle")
    refused("reference=checkpoint: no run is given", **beta, reference="checkpoint")
    for reference in ("no_thought", "ema", "initial"):
        refused("no prediction without a thought", **beta, reference=reference, use_base_lm=False)
        assert accepted(**beta, reference=reference) == []
    assert accepted(**beta, reference="ema", **NO_REASONER) == []
    assert accepted(**beta, reference="oracle", task=HiddenMarkov()) == []
    alone = {"nll_loss_beta": 0.0, "max_reasoning_len": 0}
    assert accepted(**KL, **alone) == []
    refused("nll_loss_beta=0: leaves the controls", **beta, reference="no_thought", **alone)
