"""Continuous and relaxed thoughts in a model: what reaches what, and the plain model beside it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests import latents, tiny
from tests.model.test_structure import core, linear, silent, start_state
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.run_config import RunConfig
from toyqs.positions import focus, thinking_positions
from toyqs.training.batches import prepare
from toyqs.training.loop import accumulate
from toyqs.types import Trace

BACKBONES = pytest.mark.usefixtures("backbone")
KINDS = ["gaussian", "gaussian on a path", "state", "state on a path", "gumbel", "deterministic"]
FORWARD = ["gaussian", "state", "gumbel", "deterministic"]  # a path changes the gradient alone
ALL_KINDS = pytest.mark.parametrize("kind", KINDS)
PATTERNS = pytest.mark.parametrize("groups", tiny.PATTERNS)
SOME_PATTERNS = pytest.mark.parametrize("groups", ["AAAA", "AABB", "ABBA", "ABBC", "ABCD"])
STARTS = pytest.mark.parametrize("start", tiny.STARTS)
HEADS = {
    "gaussian": linear("thought_head.mean") | linear("thought_head.spread"),
    "state": {"thought_head.spread"},
    "gumbel": linear("thought_head.projection"),
    "deterministic": set(),
}
ROWS = {"gaussian": ["thoughts"], "state": ["thoughts"], "gumbel": ["tokens"], "deterministic": []}


def config(kind: str, groups: str = "ABCD", start: str = "afresh", **changes: object) -> RunConfig:
    name, *path = kind.split(" on ")
    objective = "pathwise" if path or name in ("gumbel", "deterministic") else "reinforce"
    given = {"thoughts": name, "objective": objective, "weight_groups": groups, "interpreter_start": start}
    return tiny.config(**(given | {"latent_dim": 2, "trice_samples": 3} | changes))


def thinking(settings: RunConfig, with_outputs: bool = True) -> set[str]:
    """Return what the symbols' distributions depend on next to the head; a sampled state is not embedded."""
    rows = [] if settings.thoughts == "state" else ROWS[settings.thoughts]
    read = core(settings, "base_reasoner", "tokens", with_outputs=False)
    return read | core(settings, "reasoner", "markers", *rows, with_outputs=with_outputs)


def reading(settings: RunConfig) -> set[str]:
    """Return what the prediction depends on, given the symbols."""
    found = {"head.weight_0", "head.weight_1", "head.bias"} | core(settings, "base_lm", "tokens")
    if settings.interpreter_start == "afresh":
        rows = ROWS[settings.thoughts]
        return found | core(settings, "interpreter", "markers", *rows) | start_state(settings)
    found |= core(settings, "interpreter", "markers")
    # A drawn state cuts what lies before it off.
    return found | (
        core(settings, "reasoner", "markers")
        if settings.thoughts == "state"
        else thinking(settings, with_outputs=False)
    )


def expected(settings: RunConfig) -> dict[str, set[str]]:
    """Derive from the letters which parameters each part of the loss reaches."""
    kind, head = settings.thoughts, HEADS[settings.thoughts]
    path = settings.objective == "pathwise"
    parts = {"nll": reading(settings) | (thinking(settings) | head if path else set())}
    if not path:
        parts["policy"] = thinking(settings) | head
    if kind in ("gaussian", "state"):
        parts["prior"] = thinking(settings) | head
    if kind == "state":
        parts["entropy"] = head
    elif kind == "gaussian":  # the means move later entropies along the path alone
        parts["entropy"] = thinking(settings) | (head if path else linear("thought_head.spread"))
    elif kind == "gumbel":
        parts["entropy"] = thinking(settings) | head
    return parts


@ALL_KINDS
@STARTS
@PATTERNS
@BACKBONES
def test_each_part_of_the_loss_reaches_just_its_parameters(groups: str, start: str, kind: str) -> None:
    settings = config(kind, groups, start)
    model, batch, noise = tiny.sampled(settings, size=4)
    positions = thinking_positions(batch)
    parts = build_objective(settings)(model(batch.inputs, positions, noise), focus(batch, positions)).parts
    found = {
        name: {n for n, g in tiny.gradients(loss.sum(), model).items() if bool(g.any())}
        for name, loss in parts.items()
    }
    assert found == expected(settings)
    assert set().union(*found.values()) == {n for n, _ in model.named_parameters()} - silent(settings)


def test_nothing_shared_nothing_crossed() -> None:
    """Check with ABCD, afresh, that only a kept path lets the prediction's loss reach the reasoner."""
    for kind in ("gaussian", "state"):
        found = expected(config(kind))
        assert not any(name.startswith(("cores.B", "cores.C", "thought_head")) for name in found["nll"])
        assert all(name.startswith(("cores.B", "cores.C", "thought_head")) for name in found["policy"])
        assert expected(config(f"{kind} on a path"))["nll"] > found["policy"]


def fields(trace: Trace) -> dict[str, torch.Tensor]:
    names = ("logits", "log_prob", "entropy", "prior_divergence")
    return {name: value for name in names if (value := getattr(trace, name)) is not None}


@pytest.mark.parametrize("kind", FORWARD)
@STARTS
@SOME_PATTERNS
@BACKBONES
def test_nothing_before_a_token_knows_of_it(groups: str, start: str, kind: str) -> None:
    model, batch, noise = tiny.sampled(config(kind, groups, start))
    noise = torch.cat([noise, noise.flip(2)], 2)  # all four positions think
    before = fields(model(batch.inputs, None, noise))
    changed = batch.inputs.clone()
    changed[:, :, 2] = (changed[:, :, 2] + 1) % tiny.SYMBOLS
    after = fields(model(changed, None, noise))
    for name, old in before.items():
        assert torch.equal(old[:, :, :2], after[name][:, :, :2]), name
    assert not torch.equal(before["logits"][:, :, 2], after["logits"][:, :, 2])


@pytest.mark.parametrize("kind", FORWARD[:3])
@STARTS
@SOME_PATTERNS
@BACKBONES
def test_thoughts_have_no_order_and_noise_of_their_own(groups: str, start: str, kind: str) -> None:
    model, batch, noise = tiny.sampled(config(kind, groups, start))
    positions, order = thinking_positions(batch), torch.tensor([2, 0, 1])
    before = fields(model(batch.inputs, positions, noise))
    after = fields(model(batch.inputs, positions, noise[:, :, :, order]))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value[:, :, :, order], rtol=0, atol=1e-12)
    other = noise.clone()
    other[0, 1, 1, 2] = 1 - other[0, 1, 1, 2]
    elsewhere = torch.ones(1, 3, 2, 3, dtype=torch.bool)
    elsewhere[0, 1, 1, 2] = False
    moved = fields(model(batch.inputs, positions, other))
    assert torch.equal(moved["logits"][elsewhere], before["logits"][elsewhere])
    assert not torch.equal(moved["logits"], before["logits"])


@ALL_KINDS
@STARTS
@BACKBONES
def test_scoring_forced_symbols_equals_sampling_them(start: str, kind: str) -> None:
    model, batch, noise = tiny.sampled(config(kind, start=start), copies=2)
    positions = thinking_positions(batch)
    symbols = model.think(model.read(batch.inputs, positions), noise).symbols
    drawn = fields(model(batch.inputs, positions, noise))
    scored = fields(model(batch.inputs, positions, torch.empty(0), symbols))
    assert drawn.keys() == scored.keys()
    assert all(torch.equal(drawn[name], scored[name]) for name in drawn)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "gumbel"])
@STARTS
@PATTERNS
@BACKBONES
def test_the_trace_equals_the_plain_reference(groups: str, start: str, kind: str) -> None:
    settings = config(kind, groups, start)
    model, _, noise = tiny.sampled(settings, size=2)
    one, at = tiny.one_position(), (0, *tiny.AT)
    trace = model(one.inputs, thinking_positions(one), noise)
    points = torch.special.ndtri(noise[at])
    plain = latents.Plain(model, settings, points)
    log_q = trace.logits[at].squeeze(-2).log_softmax(-1)[:, plain.target]
    torch.testing.assert_close(log_q, plain.log_q, rtol=0, atol=1e-12)
    if trace.entropy is not None:
        torch.testing.assert_close(trace.entropy[at].sum(-1), plain.entropy, rtol=0, atol=1e-12)
        torch.testing.assert_close(trace.prior_divergence[at].sum(-1), plain.divergence, rtol=0, atol=1e-12)


@pytest.mark.parametrize("parts", [2, 4])
@ALL_KINDS
@BACKBONES
def test_gradient_accumulation_gives_the_same_gradient(kind: str, parts: int) -> None:
    settings = config(kind, "ABBC")
    model, batch, noise = tiny.sampled(settings, size=4, copies=2)
    weights = batch.weights * torch.tensor([0.1, 1.0, 3.0, 0.7]).view(1, 4, 1)
    drawn, found = prepare(batch._replace(weights=weights), noise), []
    shares = {"nll": 1.0, "policy": 0.7, "entropy": 0.3, "prior": 0.2}
    for grad_acc in (1, parts):
        model.zero_grad()
        numbers = replace(build_training_params(settings), grad_acc=grad_acc)
        values = accumulate(model, build_objective(settings), drawn, shares, numbers, torch.zeros(2).double())
        found.append((values, {name: p.grad.clone() for name, p in model.named_parameters()}))
    (whole, grads), (summed, grads_in_parts) = found
    tiny.close(grads_in_parts, grads, tolerance=1e-12)
    tiny.close(summed, whole, tolerance=1e-12)


@pytest.mark.parametrize("kind", ["gaussian", "state"])
def test_sigma_starts_near_its_key_and_stays_within_ten_times(kind: str) -> None:
    settings = config(kind, sigma=0.3)
    model, batch, noise = tiny.sampled(settings)
    context = model.read(batch.inputs, thinking_positions(batch))

    def sigmas() -> torch.Tensor:
        """Compute σ from the symbols at two noises that are one standard deviation apart."""
        up, middle = (torch.full_like(noise, p) for p in (float(latents.uniform(torch.ones(1))), 0.5))
        at = [model.think(context, x).symbols[..., 0, :] for x in (up, middle)]
        return at[0] - at[1]

    assert bool(((sigmas() / 0.3).log().abs() < 1.0).all())
    for huge, bound in ((1e6, 3.0), (-1e6, 0.03)):
        with torch.no_grad():
            for name, parameter in model.thought_head.named_parameters():
                if name in ("spread", "spread.bias"):
                    parameter.fill_(huge)
        torch.testing.assert_close(sigmas(), torch.full_like(sigmas(), bound), rtol=1e-6, atol=0)
