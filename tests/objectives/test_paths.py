"""Deterministic and straight-through thoughts: what they compute, and what their gradient is worth."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests import tiny
from toyqs.config.builders.model import build_model
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_heads import GumbelHead
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.objectives.policy.pathwise import Pathwise
from toyqs.positions import focus, thinking_positions
from toyqs.types import Batch

BACKBONES = pytest.mark.usefixtures("backbone")
PATH = Pathwise()
STARTS = pytest.mark.parametrize("start", tiny.STARTS)


def coconut(**changes: object) -> RunConfig:
    return tiny.config(thoughts="deterministic", objective="pathwise", **changes)


def gumbel(**changes: object) -> RunConfig:
    return tiny.config(thoughts="gumbel", objective="pathwise", **changes)


def nll(model: LatentReasoner, batch: Batch, noise: Tensor) -> Tensor:
    positions = thinking_positions(batch)
    return PATH(model(batch.inputs, positions, noise), focus(batch, positions)).parts["nll"].sum()


# Deterministic


@STARTS
@pytest.mark.parametrize("kind", ["deterministic", "gaussian", "gumbel", "state"])
@BACKBONES
def test_zero_length_is_the_control_whatever_the_kind(kind: str, start: str) -> None:
    changes = {"max_reasoning_len": 0, "interpreter_start": start}
    model, batch, noise = tiny.sampled(tiny.config(thoughts=kind, objective="pathwise", **changes))
    control, _, _ = tiny.sampled(tiny.config(**changes))
    ours, theirs = (dict(x.named_parameters()) for x in (model, control))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert noise.shape == (1, 3, 2, 1, 0)
    traces = [x(batch.inputs, thinking_positions(batch), noise) for x in (model, control)]
    assert torch.equal(traces[0].logits, traces[1].logits) and traces[0].log_prob is None


@STARTS
@pytest.mark.parametrize("groups", ["AAAA", "ABBC", "ABCD"])
@BACKBONES
def test_finite_differences(groups: str, start: str) -> None:
    """Along a random direction of all parameters."""
    settings = coconut(weight_groups=groups, interpreter_start=start)
    model, batch, noise = tiny.sampled(settings)
    grads, generator = tiny.gradients(nll(model, batch, noise), model), torch.Generator().manual_seed(3)
    way = {name: torch.randn(g.shape, generator=generator, dtype=g.dtype) for name, g in grads.items()}
    slope, step, values = sum(float((grads[name] * way[name]).sum()) for name in way), 1e-6, []
    for sign in (1, -1):
        moved, _, _ = tiny.sampled(settings)
        with torch.no_grad():
            for name, parameter in moved.named_parameters():
                parameter.add_(way[name], alpha=sign * step)
            values.append(float(nll(moved, batch, noise)))
    assert abs(slope) > 1e-2
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, abs=1e-7)


@STARTS
@pytest.mark.parametrize("groups", ["AAAA", "AABB", "ABCD"])
def test_gaussian_thoughts_without_noise_that_feed_the_mean_back(groups: str, start: str) -> None:
    """Maps set to the identity, and the noise to the law's middle: the same numbers and gradients."""
    shared = {"weight_groups": groups, "interpreter_start": start, "trice_samples": 1}
    settings = tiny.config(thoughts="gaussian", objective="pathwise", latent_dim=3, **shared)
    model, batch, noise = tiny.sampled(settings)
    plain, _, silence = tiny.sampled(coconut(**shared))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in ("thought_head.mean.weight",) or name.endswith("thoughts.weight"):
                parameter.copy_(torch.eye(3))
            if name == "thought_head.mean.bias":
                parameter.zero_()
    losses = nll(model, batch, torch.full_like(noise, 0.5)), nll(plain, batch, silence)
    torch.testing.assert_close(*losses, rtol=0, atol=1e-13)
    wanted = tiny.gradients(losses[1], plain)
    got = tiny.gradients(losses[0], model)
    tiny.close({name: got[name] for name in wanted}, wanted, 1e-12)


# Straight-through


@STARTS
@pytest.mark.parametrize("groups", tiny.PATTERNS)
@BACKBONES
def test_forward_is_sampling_at_every_temperature(groups: str, start: str) -> None:
    """One-hot symbols, the same for all τ; their prediction and entropy are those of the ids."""
    shared = {"weight_groups": groups, "interpreter_start": start, "trice_samples": 3}
    tokens, batch, _ = tiny.sampled(tiny.config(**shared))
    positions, first = thinking_positions(batch), None
    for temperature in (0.01, 1.0, 100.0):
        model, _, noise = tiny.sampled(gumbel(gumbel_temperature=temperature, **shared))
        symbols = model.think(model.read(batch.inputs, positions), noise).symbols
        first = symbols if first is None else first
        assert torch.equal(symbols, first)
        assert torch.equal(symbols, torch.nn.functional.one_hot(symbols.argmax(-1), tiny.SYMBOLS).double())
        ours = model(batch.inputs, positions, noise)
        theirs = tokens(batch.inputs, positions, torch.empty(0), symbols.argmax(-1))
        torch.testing.assert_close(ours.logits, theirs.logits, rtol=0, atol=1e-12)
        torch.testing.assert_close(ours.entropy, theirs.entropy, rtol=0, atol=1e-12)
    assert len(first.argmax(-1).unique()) == tiny.SYMBOLS


def grid(points: int, axes: int) -> Tensor:
    """Midpoints of a grid on the unit cube, (points^axes, axes)."""
    line = (torch.arange(points).double() + 0.5) / points
    return torch.cartesian_prod(*[line] * axes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_symbols_come_with_their_probabilities_and_the_ends_stay_finite(dtype: torch.dtype) -> None:
    model = build_model(gumbel(), [0]).to(dtype)
    head, hidden = model.thought_head, torch.tensor([0.9, -1.0, 0.4], dtype=dtype).view(1, 1, 1, 1, 3)
    assert isinstance(head, GumbelHead)
    drawn = head.draw(hidden, grid(40, 3).to(dtype).view(1, 1, 1, -1, 3), forced=False)
    frequency = drawn.values.double().mean(3).flatten()
    torch.testing.assert_close(frequency, head(hidden).double().softmax(-1).flatten(), rtol=0, atol=2e-3)
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 0.5, 1.0], dtype=dtype)] * 3).view(1, 1, 1, -1, 3)
    extreme = head.draw(hidden, corners, forced=False)
    assert bool(extreme.values.isfinite().all()) and bool((extreme.values.sum(-1) == 1).all())
    (slope,) = torch.autograd.grad(extreme.values[..., 0].sum(), head.projection.weight)
    assert bool(slope.isfinite().all())


def compared(temperature: float, scale: float) -> tuple[float, float]:
    """Cosine and relative length of the head's E[∇], over a grid of noise, against the enumerated one."""
    shared = {"max_reasoning_len": 1, "weight_groups": "ABCD"}
    settings = gumbel(gumbel_temperature=temperature, trice_samples=24**3, **shared)
    model, one = tiny.model(settings, 1, scale), tiny.one_position()
    noise = torch.full((1, 2, 2, 24**3, 1, 3), 0.5).double()
    noise[0, tiny.AT[0], tiny.AT[1], :, 0] = grid(24, 3)
    got = {name: g[0] for name, g in tiny.gradients(nll(model, one, noise), model).items()}
    truth = tiny.exact(tiny.config(**shared), torch.arange(3).view(3, 1), scale)
    wanted = truth.gradient(-(truth.probability * truth.log_q).sum())
    predictor = ("cores.A", "cores.D", "head")
    for name in (name for name in wanted if name.startswith(predictor)):  # exact, up to the grid
        torch.testing.assert_close(got[name], wanted[name], rtol=0, atol=3e-3)
    ours, exact = (torch.cat([g[n].flatten() for n in g if "thought_head" in n]) for g in (got, wanted))
    return float(torch.cosine_similarity(ours, exact, dim=0)), float(ours.norm() / exact.norm())


def test_the_bias_against_enumeration() -> None:
    """A smooth reader: the direction is right, and shorter the hotter. A strongly curved one: it is wrong."""
    smooth = [compared(temperature, 0.5) for temperature in (0.3, 1.0, 3.0)]
    assert all(0.998 < cosine < 0.99999 for cosine, _ in smooth)
    assert [round(length, 1) for _, length in smooth] == [1.0, 0.7, 0.3]
    for temperature in (0.3, 1.0, 3.0):
        cosine, length = compared(temperature, 2.0)
        assert cosine < -0.5 and 0.1 < length < 0.8


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_a_reader_that_is_linear_in_two_symbols(temperature: float) -> None:
    """r = c s_1: the gradient at the logits' difference d is c E_x σ'((d + x) / τ) / τ, x logistic.

    At τ → 0 that is c σ'(d), the exact one.
    """
    difference, points = 0.7, 300
    logits = torch.tensor([difference, 0.0]).double().view(1, 1, 1, 1, 2).requires_grad_()
    head = build_model(gumbel(thought_vocab=2, gumbel_temperature=temperature), [0]).thought_head
    head.projection = torch.nn.Identity()
    drawn = head.draw(logits, grid(points, 2).view(1, 1, 1, -1, 2), forced=False)
    (got,) = torch.autograd.grad(drawn.values[..., 0].mean(), logits)
    x = torch.linspace(-40, 40, 400_001, dtype=torch.float64)

    def slope(at: Tensor) -> Tensor:
        return torch.sigmoid(at) * torch.sigmoid(-at)

    wanted = float(torch.trapezoid(slope((difference + x) / temperature) / temperature * slope(x), x))
    assert got.flatten().tolist() == pytest.approx([wanted, -wanted], abs=1e-3)
    exact = float(slope(torch.tensor(difference)))
    assert abs(wanted / exact - 1) < 0.1 if temperature < 1 else wanted / exact < 0.8
