"""What a kept model adds to a trace: rewards against its prediction, and the thoughts' divergence from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import backbones, latents, reference, tiny
from tests.run_folders import written
from toyqs.config import keys as config_module
from toyqs.config.builders.reference_model import build_reference_model
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.objectives import rewards
from toyqs.objectives.objective import nll
from toyqs.objectives.policy.reinforce import Reinforce
from toyqs.positions import focus, thinking_positions
from toyqs.training.reference_model import ReferenceModel
from toyqs.types import Batch, Trace

BACKBONES = pytest.mark.usefixtures("backbone")
PATTERNS = pytest.mark.parametrize("groups", tiny.PATTERNS)
BETA = 0.3


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, RunConfig, LatentReasoner]:
    """The folder of a plain run of the toy task, its settings and its model."""
    monkeypatch.setitem(config_module.TASKS, "toy", tiny.Toy)
    settings = tiny.config(use_reasoner=False, base_lm_hidden_dim=5)
    model = tiny.model(settings)
    return written(tmp_path / "run", settings, model), settings, model


def moved(model: LatentReasoner, seed: int = 6) -> None:
    """Other weights, the same in every copy, as if it had been trained."""
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.data = p.data + 0.3 * torch.randn(p.shape[1:], generator=generator, dtype=p.dtype)


def beside(kept: ReferenceModel, every: tiny.Enumeration, num_ahead: int = 1) -> Trace:
    """The enumeration's trace with what a kept model says of the same sequences."""
    copies = tiny.repeated(tiny.one_position(num_ahead), len(every.probability))
    if isinstance(every.built, backbones.Folded):
        backbones.folded(kept.model, len(every.probability))
    return kept.annotate(every.trace, kept.read(copies.inputs, thinking_positions(copies)))


@PATTERNS
@pytest.mark.parametrize("kind", ["ema", "initial", "checkpoint"])
@BACKBONES
def test_log_ratio_is_the_likelihood_under_a_group_baseline(groups: str, kind: str, plain: Any) -> None:
    run = plain[0] if kind == "checkpoint" else None
    settings = tiny.config(weight_groups=groups, reward="log_ratio", reference=kind, reference_run=run)
    every = tiny.enumerate_tuples(settings, 2)
    kept = build_reference_model(settings, every.built)
    moved(kept.model)
    kept.update_average(every.built)
    trace = beside(kept, every)
    found, likelihood = (Reinforce(reward=r)(trace, every.batch) for r in ("log_ratio", "likelihood"))
    total = [every.expected(loss.parts["policy"] + loss.parts["nll"]) for loss in (found, likelihood)]
    tiny.close(*total, tolerance=1e-12)
    assert not torch.allclose(found.reward, likelihood.reward)


@pytest.mark.parametrize("mixing", [mixing for mixing in tiny.MIXERS if mixing != "thought"])
@BACKBONES
def test_an_average_that_has_not_moved_says_what_the_model_says_without_a_thought(mixing: str) -> None:
    settings = tiny.config(mixing=mixing, reward="log_ratio", reference="ema", baseline="null_thought")
    every = tiny.enumerate_tuples(settings, 1)
    found = beside(build_reference_model(settings, every.built), every).reference_log_probs
    torch.testing.assert_close(found, every.trace.base_logits.log_softmax(-1), rtol=0, atol=1e-12)
    assert not found.requires_grad


def spelled_out(settings: RunConfig, model: LatentReasoner, batch: Batch, num_ahead: int) -> Tensor:
    """log LM(y | x) (B, T', N, V) of a plain model, token by token."""
    weights = reference.Weights(model, settings)
    found = torch.zeros(*batch.think.shape[1:], num_ahead, tiny.SYMBOLS).double()
    for b, tokens in enumerate(batch.inputs[0]):
        for t in range(len(tokens)):
            for n in range(num_ahead):
                state = weights.read("base_lm", tokens[: t + n + 1])
                found[b, t, n] = weights.head(state)[0].log_softmax(-1)
    positions = thinking_positions(batch)[0]
    return torch.stack([rows[at] for rows, at in zip(found, positions, strict=True)])


@pytest.mark.parametrize("num_ahead", [1, 2])
@BACKBONES
def test_a_checkpoint_is_the_language_model_that_was_trained(num_ahead: int, plain: Any) -> None:
    """kl_forward is −KL(LM ‖ q) with the LM of the folder, spelled out from its parameters."""
    folder, plain_settings, model = plain
    settings = tiny.config(
        reward="kl_forward", reference="checkpoint", reference_run=folder, n_tokens_ahead=num_ahead
    )
    seeds = 2 if settings.backbone == "gru" else 1
    thinker, batch, noise = tiny.sampled(settings, copies=seeds)
    positions = thinking_positions(batch)
    trace = thinker(batch.inputs, positions, noise)
    kept = build_reference_model(settings, thinker)
    trace = kept.annotate(trace, kept.read(batch.inputs, positions))
    there = focus(batch, positions, num_ahead)
    reward = rewards.kl_forward(torch.zeros(0), trace, there)
    for s in range(seeds):
        one = Batch(*(x[s : s + 1] for x in batch[:4]))
        log_lm = spelled_out(plain_settings, model, one, num_ahead)
        log_q = trace.logits[s].log_softmax(-1)  # (B, T, K, N, V)
        wanted = -(log_lm.exp() * (log_lm - log_q.movedim(2, 0))).sum(-1).movedim(0, 2)
        counts = torch.ones(wanted.shape).double() if num_ahead == 1 else there.ahead.weights[s].unsqueeze(2)
        torch.testing.assert_close(reward[s], (wanted * counts).sum(-1), rtol=0, atol=1e-12)


@BACKBONES
def test_a_plain_model_learns_from_a_checkpoint_too(plain: Any) -> None:
    folder, _, model = plain
    settings = tiny.config(
        use_reasoner=False, reward="kl_forward", reference="checkpoint", reference_run=folder
    )
    other, batch, noise = tiny.sampled(settings, copies=1)
    positions = thinking_positions(batch)
    kept = build_reference_model(settings, other)
    trace = kept.annotate(other(batch.inputs, positions, noise), kept.read(batch.inputs, positions))
    taught = model(batch.inputs, positions, noise).logits.squeeze(3).log_softmax(-1)
    torch.testing.assert_close(trace.reference_log_probs, taught, rtol=0, atol=1e-12)
    assert "nll" in nll(trace, focus(batch, positions)).parts


def charged(every: tiny.Enumeration, settings: RunConfig) -> tuple[ReferenceModel, Trace]:
    """A kept model that has gone another way, and the trace with the penalty."""
    kept = build_reference_model(settings, every.built)
    moved(kept.model)
    return kept, beside(kept, every)


def soft_gradient(settings: RunConfig, kept: ReferenceModel) -> tiny.Gradients:
    """∇ −Σ_h π(h) (log q(y | h) − β log π(h) / π̄(h)), both policies by the plain reference."""
    truth, other = tiny.exact(settings), tiny.exact_of(kept.model, settings)
    nearer = truth.log_prob.sum(-1) - other.log_prob.sum(-1).detach()
    assert float(nearer.abs().max().detach()) > 0.1, "nothing to compare"
    return truth.gradient(-(truth.probability * (truth.log_q - BETA * nearer)).sum())


def stays_near(groups: str, start: str = "afresh") -> RunConfig:
    return tiny.config(
        weight_groups=groups, interpreter_start=start, thought_kl_beta=BETA, reference="initial"
    )


@PATTERNS
@pytest.mark.parametrize("start", tiny.STARTS)
@BACKBONES
def test_reward_less_divergence_of_the_thoughts(groups: str, start: str) -> None:
    settings = stays_near(groups, start)
    every = tiny.enumerate_tuples(settings, 2)
    kept, trace = charged(every, settings)
    assert trace.reference_log_probs is None and not trace.penalty.requires_grad
    for baseline in ("leave_one_out", "none"):
        parts = Reinforce(baseline=baseline)(trace, every.batch).parts
        tiny.close(every.expected(parts["policy"] + parts["nll"]), soft_gradient(settings, kept))


def without_the_reference(self: ReferenceModel, trace: Trace, *args: Any) -> Trace:
    """An entropy bonus in the divergence's place."""
    return trace._replace(penalty=self.thought_kl_beta * trace.log_prob.detach().sum(-1))


def of_another_thought(self: ReferenceModel, trace: Trace, *args: Any) -> Trace:
    """The kept model scores the next thought of the position."""
    right = RIGHT(self, trace._replace(penalty=None), *args).penalty
    own = self.thought_kl_beta * trace.log_prob.detach().sum(-1)
    return trace._replace(penalty=own + (right - own).roll(1, -1))


def of_the_first_symbol(self: ReferenceModel, trace: Trace, *args: Any) -> Trace:
    cut = trace._replace(log_prob=trace.log_prob[..., :1], symbols=trace.symbols[..., :1])
    return trace._replace(penalty=RIGHT(self, cut, *args).penalty)


def of_the_wrong_sign(self: ReferenceModel, trace: Trace, *args: Any) -> Trace:
    return trace._replace(penalty=-RIGHT(self, trace, *args).penalty)


RIGHT = ReferenceModel.annotate
MUTANTS = [without_the_reference, of_another_thought, of_the_first_symbol, of_the_wrong_sign]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_wrong_divergence_is_caught(mutant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReferenceModel, "annotate", mutant)
    for groups in ("AAAA", "ABCD"):
        settings = stays_near(groups)
        every = tiny.enumerate_tuples(settings, 2)
        kept, trace = charged(every, settings)
        parts = Reinforce()(trace, every.batch).parts
        with pytest.raises(AssertionError, match="off by"):
            tiny.close(every.expected(parts["policy"] + parts["nll"]), soft_gradient(settings, kept))


def test_the_penalty_is_added_to_what_is_there() -> None:
    settings = stays_near("ABCD")
    every = tiny.enumerate_tuples(settings, 1)
    kept, trace = charged(every, settings)
    before = torch.full_like(trace.penalty, 0.7)
    more = beside(kept, every._replace(trace=every.trace._replace(penalty=before)))
    torch.testing.assert_close(more.penalty, trace.penalty + 0.7, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["token", "gaussian", "state"])
@pytest.mark.parametrize("which", ["ema", "initial"])
@BACKBONES
def test_no_divergence_from_the_model_itself(kind: str, which: str) -> None:
    settings = latents.config(kind, thought_kl_beta=BETA, reference=which, trice_samples=2)
    model, batch, noise = tiny.sampled(settings, copies=2)
    kept, positions = build_reference_model(settings, model), thinking_positions(batch)
    trace = model(batch.inputs, positions, noise)
    at_first = kept.annotate(trace, kept.read(batch.inputs, positions)).penalty
    torch.testing.assert_close(at_first, torch.zeros_like(at_first), rtol=0, atol=1e-12)
    moved(model)
    trace = model(batch.inputs, positions, noise)
    later = kept.annotate(trace, kept.read(batch.inputs, positions)).penalty
    assert float(later.abs().min()) > 0
    scored = kept.model(batch.inputs, positions, noise, trace.symbols)
    wanted = BETA * (trace.log_prob - scored.log_prob).sum(-1)
    torch.testing.assert_close(later, wanted.detach(), rtol=0, atol=1e-12)


@BACKBONES
def test_a_checkpoint_that_thinks_scores_thoughts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(config_module.TASKS, "toy", tiny.Toy)
    past = tiny.config(weight_groups="AAAA")
    other = tiny.model(past)
    moved(other)
    run = written(tmp_path / "run", past, other)
    settings = tiny.config(thought_kl_beta=BETA, reference="checkpoint", reference_run=run)
    every = tiny.enumerate_tuples(settings, 1)
    trace = beside(build_reference_model(settings, every.built), every)
    ours, theirs = tiny.exact(settings), tiny.exact_of(other, past)
    wanted = BETA * (ours.log_prob - theirs.log_prob).sum(-1)
    at = trace.penalty[:, tiny.AT[0], tiny.AT[1], 0]
    torch.testing.assert_close(at, wanted.detach(), rtol=0, atol=1e-12)
