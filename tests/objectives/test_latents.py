"""Gaussian thoughts, score function and path: the expected gradient by quadrature, against a plain model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import latents, tiny
from toyqs.config.run_config import RunConfig
from toyqs.model import latent_heads
from toyqs.model.latent_heads import gaussian_symbols, normals
from toyqs.model.thoughts import Symbols
from toyqs.objectives import advantages, losses
from toyqs.objectives.objective import ThoughtObjective
from toyqs.objectives.policy.pathwise import Pathwise
from toyqs.objectives.policy.reinforce import MultiSample, Reinforce
from toyqs.objectives.registry import registry

BACKBONES = pytest.mark.usefixtures("backbone")
NONE, LEAVE_ONE_OUT, PATH = Reinforce(baseline="none"), Reinforce(), Pathwise()
BETA = 0.4
FAMILY = registry()
NEAR = 1e-8
PATTERNS = pytest.mark.parametrize("groups", tiny.PATTERNS)
STARTS = pytest.mark.parametrize("start", tiny.STARTS)
SMALL = {"reasoner_hidden_dim": 2, "base_lm_hidden_dim": 2}  # a drawn state has as many numbers as its width


def expected(settings: RunConfig, objective: ThoughtObjective | Pathwise, *names: str) -> tiny.Gradients:
    """E[∇ of some parts]; all that train by default."""
    every = latents.enumerate_nodes(settings)
    parts = objective(every.trace, every.batch).parts
    chosen = names or [name for name in ("policy", "nll") if name in parts]
    return every.expected(sum(parts[name] for name in chosen))


def check(settings: RunConfig, objective: ThoughtObjective | Pathwise) -> None:
    """E[∇ loss] = −∇ ∫ π(h) log q(y | h) dh, for all parameters."""
    truth = latents.Integral(settings)
    wanted = truth.gradient(-truth.log_q)
    drawn_from = max(float(wanted[name].abs().max()) for name in wanted if "thought_head" in name)
    assert drawn_from > 100 * NEAR, "nothing to compare"
    tiny.close(expected(settings, objective), wanted, NEAR)


def table(count: int, baseline: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """E[∇] of the score-function loss at μ and log σ of one number, for r(s) = 0.7 s² − 1.3 s + 0.4."""
    mean, log_std = (torch.tensor(x, dtype=torch.float64).requires_grad_() for x in (0.6, -0.9))
    points, probability = latents.nodes(count, 12)
    given = latents.uniform(points)[:, None, None, :, None]
    spread = log_std.expand(len(points), 1, 1, 1, 1)
    drawn = gaussian_symbols(mean.expand_as(spread), spread, given, forced=False, path=False)
    s = drawn.values[..., 0]
    reward = 0.7 * s.square() - 1.3 * s + 0.4
    loss = losses.score_function_loss(reward - baseline(reward), drawn.log_prob.unsqueeze(-1))
    at = torch.autograd.grad((probability * loss.flatten()).sum(), (mean, log_std))
    return at[0], at[1]


@pytest.mark.parametrize(("count", "baseline"), [(1, advantages.none), (2, advantages.leave_one_out)])
def test_a_quadratic_reward_in_closed_form(count: int, baseline: Callable[[Tensor], Tensor]) -> None:
    """E r = 0.7 (μ² + σ²) − 1.3 μ + 0.4, so ∂E/∂μ = 1.4 μ − 1.3 and ∂E/∂log σ = 1.4 σ²."""
    at_mean, at_log_std = table(count, baseline)
    assert float(at_mean) == pytest.approx(-(1.4 * 0.6 - 1.3), abs=1e-10)
    assert float(at_log_std) == pytest.approx(-1.4 * math.exp(-1.8), abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_numbers_from_uniform_ones(dtype: torch.dtype) -> None:
    points = torch.linspace(-5, 5, 41, dtype=torch.float64)
    made = normals(latents.uniform(points).to(dtype)).double()
    far = {torch.float32: 3.0, torch.float64: 5.0}[dtype]
    tolerance = {torch.float32: 1e-4, torch.float64: 1e-9}[dtype]
    near = points.abs() <= far
    torch.testing.assert_close(made[near], points[near], rtol=0, atol=tolerance)
    ends = normals(torch.tensor([0.0, 0.5, 1.0], dtype=dtype))
    assert bool(ends.isfinite().all()) and float(ends[1]) == 0.0 and float(ends[0]) == -float(ends[2])


@STARTS
@PATTERNS
@BACKBONES
def test_leave_one_out_is_unbiased(groups: str, start: str) -> None:
    settings = latents.config("gaussian", weight_groups=groups, interpreter_start=start, trice_samples=2)
    check(settings, LEAVE_ONE_OUT)


@STARTS
@PATTERNS
@BACKBONES
def test_the_path_has_the_same_expected_gradient(groups: str, start: str) -> None:
    check(latents.config("gaussian", "pathwise", weight_groups=groups, interpreter_start=start), PATH)


SHAPES = {
    "two numbers": ("gaussian", {"latent_dim": 2}),
    "two symbols": ("gaussian", {"max_reasoning_len": 2}),
    "a state": ("state", SMALL),
    "two states of one number": ("state", {"reasoner_hidden_dim": 1, "max_reasoning_len": 2}),
}


@STARTS
@pytest.mark.parametrize("shape", SHAPES)
@BACKBONES
def test_the_same_for_other_shapes(shape: str, start: str) -> None:
    kind, changes = SHAPES[shape]
    alike = changes.get("reasoner_hidden_dim", 3) != 1
    for groups in ("AAAA", "AABC", "ABCD") if alike else ("ABCD", "ABBB"):
        settings = latents.config(kind, weight_groups=groups, interpreter_start=start, **changes)
        check(settings, NONE)
        check(replace(settings, objective="pathwise"), PATH)


def test_leave_one_out_of_drawn_states_is_unbiased() -> None:
    check(
        latents.config("state", interpreter_start="onward", reasoner_hidden_dim=1, trice_samples=2),
        LEAVE_ONE_OUT,
    )


@pytest.mark.parametrize("kind", ["gaussian", "state"])
def test_the_path_has_far_lower_variance(kind: str) -> None:
    settings = latents.config(kind, trice_samples=2, reasoner_hidden_dim=3 if kind == "gaussian" else 1)
    spreads = []
    for objective, chosen in ((LEAVE_ONE_OUT, settings), (PATH, replace(settings, objective="pathwise"))):
        every = latents.enumerate_nodes(chosen)
        parts = objective(every.trace, every.batch).parts
        spreads.append(every.variance(sum(parts[n] for n in ("policy", "nll") if n in parts)))
    assert spreads[1] < 0.2 * spreads[0]


@pytest.mark.parametrize("groups", ["AAAA", "AABC", "ABCD"])
@pytest.mark.parametrize("method", ["maxent", "vargrad"])
@BACKBONES
def test_reward_and_entropy_together(method: str, groups: str) -> None:
    settings = latents.config("gaussian", weight_groups=groups, trice_samples=2)
    truth = latents.Integral(settings)
    wanted = truth.gradient(-(truth.log_q + BETA * truth.mean(truth.plain.entropy)))
    tiny.close(expected(settings, FAMILY[method](temperature=BETA)), wanted, NEAR)


@BACKBONES
def test_the_bound_of_several_samples() -> None:
    settings = latents.config("gaussian", weight_groups="AABC", trice_samples=2)
    truth = latents.Integral(settings)
    pairs = torch.cartesian_prod(*[torch.arange(latents.NODES)] * 2)
    bound = losses.log_mean_exp(truth.plain.log_q[pairs])
    # The law itself moves too: along the path it does so in the plain model.
    value = (truth.probability[pairs].prod(-1) * bound).sum()
    tiny.close(expected(settings, MultiSample()), truth.gradient(-value), NEAR)


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("name", ["entropy", "prior"])
@BACKBONES
def test_entropy_and_prior_are_exact_on_the_path_and_myopic_beside_a_score(name: str, length: int) -> None:
    settings = latents.config("gaussian", "pathwise", weight_groups="AABC", max_reasoning_len=length)
    truth = latents.Integral(settings)
    values = -truth.plain.entropy if name == "entropy" else truth.plain.divergence
    wanted = truth.gradient(truth.mean(values))
    tiny.close(expected(settings, PATH, name), wanted, NEAR)
    scored = expected(replace(settings, objective="reinforce"), NONE, name)
    if length == 1:
        tiny.close(scored, wanted, NEAR)
    else:
        with pytest.raises(AssertionError, match="off by"):
            tiny.close(scored, wanted, 1e-5)


RIGHT = gaussian_symbols


def undetached(mean: Tensor, log_std: Tensor, given: Tensor, *, forced: bool, path: bool) -> Symbols:
    """The density is that of the moving sample."""
    drawn = RIGHT(mean, log_std, given, forced=forced, path=path)
    z = (mean + log_std.exp() * normals(given) - mean) / log_std.exp()
    moving = (-0.5 * z.square() - log_std - latent_heads.HALF_LOG_2PI).sum(-1)
    torch.testing.assert_close(moving, drawn.log_prob)
    return drawn._replace(log_prob=moving)


def leaking(mean: Tensor, log_std: Tensor, given: Tensor, *, forced: bool, path: bool) -> Symbols:
    """The prediction's loss goes along the path beside the score function: the gradient counts twice."""
    return RIGHT(mean, log_std, given, forced=forced, path=True)


def averaged(mean: Tensor, log_std: Tensor, given: Tensor, *, forced: bool, path: bool) -> Symbols:
    """The log-density is a mean over Z."""
    drawn = RIGHT(mean, log_std, given, forced=forced, path=path)
    return drawn._replace(log_prob=drawn.log_prob / given.shape[-1])


def cut_off(mean: Tensor, log_std: Tensor, given: Tensor, *, forced: bool, path: bool) -> Symbols:
    """No path."""
    return RIGHT(mean, log_std, given, forced=forced, path=False)


@pytest.mark.parametrize(
    ("mutant", "objective"),
    [(undetached, NONE), (leaking, NONE), (averaged, NONE), (cut_off, PATH)],
    ids=lambda x: getattr(x, "__name__", ""),
)
@pytest.mark.parametrize("groups", ["AAAA", "ABCD"])
def test_mutants_are_caught(
    monkeypatch: pytest.MonkeyPatch, mutant: Any, objective: Any, groups: str
) -> None:
    kind = "pathwise" if objective is PATH else "reinforce"
    settings = latents.config("gaussian", kind, weight_groups=groups, latent_dim=2)
    check(settings, objective)
    monkeypatch.setattr(latent_heads, "gaussian_symbols", mutant)
    with pytest.raises(AssertionError, match="off by"):
        check(settings, objective)


def test_without_the_inner_stop_the_means_gradient_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = latents.config("gaussian", weight_groups="ABCD")
    assert bool(expected(settings, NONE, "policy")["thought_head.mean.bias"].any())
    monkeypatch.setattr(latent_heads, "gaussian_symbols", undetached)
    every = latents.enumerate_nodes(settings)
    for name, gradient in tiny.gradients(
        NONE(every.trace, every.batch).parts["policy"].sum(), every.built
    ).items():
        if "thought_head.mean" in name:
            assert float(gradient.abs().max()) < 1e-12, name


def test_a_trace_without_a_density_is_named() -> None:
    settings = tiny.config(thoughts="deterministic", objective="pathwise")
    model, batch, noise = tiny.sampled(settings)
    with pytest.raises(ValueError, match="sampled thoughts"):
        Reinforce()(model(batch.inputs, None, noise.repeat(1, 1, 2, 1, 1)), batch)
