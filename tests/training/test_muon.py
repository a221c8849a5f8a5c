"""Muon against torch's own, matrix by matrix; which parameters it steps; Grokfast's filter."""

from __future__ import annotations

import math
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from tests import tiny
from toyqs.config.builders.model import build_model
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.training.optimizers import muon
from toyqs.training.optimizers.grokfast import Grokfast
from toyqs.training.optimizers.muon import ADJUSTMENTS, hidden_matrices, orthogonalised
from toyqs.training.optimizers.optimizer import Optimiser

SEEDS = 3
A, B, C = 3.4445, -4.7750, 2.0315


def transcribed(matrix: Tensor, *_: Any) -> Tensor:
    """Make torch's iteration on a plain matrix, in its own precision."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / max(float(x.norm()), 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = A * x + (B * gram + C * (gram @ gram)) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def plain_matrices(model: nn.Module) -> list[tuple[str, int, int, Tensor]]:
    """Copy every matrix of a GRU's and a critic's hidden layers: name, seed, gate, and (outputs, inputs)."""
    found = []
    for name, parameter in model.named_parameters():
        gates = 3 if name.endswith(("weight_ih", "weight_hh")) else 1
        if gates == 3 or name in ("critic.inner.weight", "mixer.projection.weight"):
            for seed in range(len(parameter)):
                parts = parameter.detach()[seed].chunk(gates, 1)
                found += [(name, seed, gate, part.T.clone()) for gate, part in enumerate(parts)]
    return found


def gradient(name: str, shape: torch.Size, step: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(100 * step + len(name))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def settings(**changes: Any) -> RunConfig:
    """Return a model of five shapes of matrices, among them wider and taller ones."""
    sizes = {"base_lm_hidden_dim": 4, "reasoner_hidden_dim": 6, "interpreter_hidden_dim": 5}
    return tiny.config(**sizes | {"mixing": "gate", "baseline": "value"} | changes)


@pytest.mark.parametrize("adjust", ADJUSTMENTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_each_matrix_is_stepped_as_torch_steps_it_alone(dtype: str, adjust: str) -> None:
    """Check it over five steps, with decay and a rate of its own: in float64 against a float64 iteration.

    torch's own is in bfloat16, of which 2⁻⁸ is the spacing: there the steps differ by a few of it.
    """
    model = tiny.model(settings(dtype=dtype), SEEDS).to(getattr(torch, dtype))
    plain = plain_matrices(model)
    leaves = [nn.Parameter(matrix.clone()) for *_, matrix in plain]
    fast = [leaf for (name, *_), leaf in zip(plain, leaves, strict=True) if name.endswith("weight_hh")]
    groups = [{"params": fast}, {"params": [leaf for leaf in leaves if all(leaf is not x for x in fast)]}]
    theirs = torch.optim.Muon(groups, lr=1.0, weight_decay=0.3, adjust_lr_fn=adjust)
    optimiser = Optimiser(model, {"*.weight_hh": 3.0}, "muon", adjust_lr_fn=adjust)
    for step, rate in enumerate([1e-2, 3e-2, 3e-2, 2e-2, 1e-3]):
        for name, parameter in model.named_parameters():
            parameter.grad.copy_(gradient(name, parameter.shape, step, parameter.dtype))
        for (name, seed, gate, _), leaf in zip(plain, leaves, strict=True):
            own = dict(model.named_parameters())[name].grad[seed]
            leaf.grad = own[:, gate * leaf.shape[0] : (gate + 1) * leaf.shape[0]].T.clone()
        for group, factor in zip(theirs.param_groups, (3.0, 1.0), strict=True):
            group["lr"] = factor * rate
        place = "torch.optim._muon._zeropower_via_newtonschulz"
        with mock.patch(place, transcribed) if dtype == "float64" else mock.MagicMock():
            theirs.step()
        optimiser.step(rate, weight_decay=0.3)
    for (name, seed, gate, before), (*_, ours), leaf in zip(
        plain, plain_matrices(model), leaves, strict=True
    ):
        if dtype == "float64":
            torch.testing.assert_close(ours, leaf.detach(), rtol=0, atol=1e-12)
        moved, wanted = ours - before, leaf.detach() - before
        off = float((moved - wanted).norm() / wanted.norm())
        assert off < (1e-12 if dtype == "float64" else 0.05), (name, seed, gate, off)


@pytest.mark.parametrize("shape", [(5, 5), (12, 12), (24, 24), (7, 24), (2, 40)])
def test_singular_values_go_where_the_polynomial_sends_them(shape: tuple[int, int]) -> None:
    """Check it on matrices whose singular values are from 1 down to 0.05: the made ones are in [0.5, 1.5]."""
    generator = torch.Generator().manual_seed(sum(shape))
    rows, columns = shape
    for _ in range(5):
        wide = torch.linalg.qr(torch.randn(columns, rows, generator=generator).double())[0].T
        square = torch.linalg.qr(torch.randn(rows, rows, generator=generator).double())[0]
        values = torch.linspace(1.0, 0.05, rows).double() * 10 ** (
            6 * torch.rand((), generator=generator) - 3
        )
        found = torch.linalg.svdvals(orthogonalised((square * values @ wide).unsqueeze(0))[0])
        wanted = values / values.norm()
        for _ in range(5):
            wanted = A * wanted + B * wanted**3 + C * wanted**5
        torch.testing.assert_close(found, wanted.sort(descending=True).values, rtol=1e-9, atol=0)
        assert float(found.min()) > 0.5 and float(found.max()) < 1.5


def test_a_gradient_of_zero_moves_nothing() -> None:
    assert not orthogonalised(torch.zeros(2, 3, 4)).any()


def alone_and_in_company(dtype: torch.dtype, sizes: dict[str, int], seeds: int) -> None:
    config = settings(**sizes)
    whole = tiny.model(config, seeds).to(dtype)
    for parameter in whole.parameters():
        parameter.data += 0.01 * torch.arange(seeds).view(-1, *(1 for _ in parameter.shape[1:]))
    alone = [tiny.model(config, 1).to(dtype) for _ in range(seeds)]
    for seed, model in enumerate(alone):
        for own, parameter in zip(model.parameters(), whole.parameters(), strict=True):
            own.data = parameter.data[seed : seed + 1].clone()
    models = [whole, *alone]
    optimisers = [Optimiser(model, {"head.*": 2.0}, "muon", grokfast=Grokfast(0.5, 0.9)) for model in models]
    for step in range(3):
        for number, (model, optimiser) in enumerate(zip(models, optimisers, strict=True)):
            for name, parameter in model.named_parameters():
                drawn = gradient(name, torch.Size((seeds, *parameter.shape[1:])), step, dtype)
                parameter.grad.copy_(drawn if number == 0 else drawn[number - 1 : number])
            optimiser.step(1e-2, 0.1, max_norm=1.0)
    for seed, optimiser in enumerate(optimisers[1:]):
        for name, value in optimisers[0].seed_state(seed).items():
            assert torch.equal(optimiser.seed_state(0)[name], value), (seed, name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"base_lm_hidden_dim": 12, "reasoner_hidden_dim": 24, "interpreter_hidden_dim": 24},
        {"base_lm_hidden_dim": 2, "reasoner_hidden_dim": 33, "interpreter_hidden_dim": 17},
    ],
)
def test_a_seed_makes_the_same_bits_alone_and_in_company(sizes: dict[str, int], dtype: torch.dtype) -> None:
    alone_and_in_company(dtype, sizes, 3)


@pytest.mark.slow
@pytest.mark.parametrize("width", [*range(2, 40), 64, 96, 130])
def test_a_seed_makes_the_same_bits_at_any_width(width: int) -> None:
    sizes = {"base_lm_hidden_dim": width, "reasoner_hidden_dim": width + 1}
    alone_and_in_company(torch.float32, sizes | {"interpreter_hidden_dim": 2 * width}, 5)


def test_matrices_taken_a_few_at_a_time_make_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    values = []
    for at_once in (2**22, 100):
        monkeypatch.setattr(muon, "AT_ONCE", at_once)
        model = tiny.model(settings(), SEEDS)
        optimiser = Optimiser(model, {}, "muon")
        for name, parameter in model.named_parameters():
            parameter.grad.copy_(gradient(name, parameter.shape, 0, parameter.dtype))
        optimiser.step(1e-2)
        values.append(optimiser.values)
    assert torch.equal(*values)


GATES = {f"cores.{letter}.backbone.weight_{kind}": 3 for letter in "ABCD" for kind in ("ih", "hh")}


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, GATES),
        ({"base_lm_hidden_dim": 1, "use_reasoner": False}, {}),  # a row or a column is a vector
        (
            {"mixing": "hidden", "baseline": "value", "linear_lm_head": False, "variable_len": True},
            GATES
            | dict.fromkeys(("head.weight_0", "head.rest.1.weight", "mixer.projection.weight"), 1)
            | dict.fromkeys(("mixer.opening.first.weight_0", "mixer.opening.first.weight_1"), 1)
            | dict.fromkeys(("mixer.opening.rest.1.weight", "critic.inner.weight"), 1),
        ),
        (
            {"interpreter_start": "onward", "interpreter_hidden_dim": 4, "thoughts": "gaussian"}
            | {"learned_reward": True, "lm_head_layers": 2, "mixing": "concat"},
            GATES
            | dict.fromkeys(("interpreter.handover.weight", "head.weight_0", "head.weight_1"), 1)
            | dict.fromkeys(("reward_model.inner.weight", "reward_model.vectors.weight"), 1),
        ),
    ],
)
def test_the_matrices_of_hidden_layers_and_nothing_else(changes: Any, wanted: dict[str, int]) -> None:
    model = tiny.model(tiny.config(**changes))
    assert {name: maps.number for name, maps in hidden_matrices(model).items()} == wanted


def test_the_matrices_of_transformers() -> None:
    pytest.importorskip("transformers")
    plain: dict[str, Any] = {
        "use_reasoner": False,
        "model_n_layer": 1,
        "base_lm_hidden_dim": 8,
        "max_steps": 1,
    }
    for backbone, wanted in {
        "gpt2": {"attn.c_attn": (3, 2), "attn.c_proj": (1, 2), "mlp.c_fc": (1, 2), "mlp.c_proj": (1, 2)},
        "llama": {f"self_attn.{x}_proj": (1, 1) for x in "qkvo"}
        | {f"mlp.{x}_proj": (1, 1) for x in ("gate", "up", "down")},
    }.items():
        model = build_model(resolved(RunConfig(backbone=backbone, **plain)), [0])
        found = hidden_matrices(model)
        assert {".".join(name.split(".")[-3:-1]): maps for name, maps in found.items()} == wanted


def test_all_else_is_stepped_by_adamw() -> None:
    """Check it to rounding: the buffers have another order."""
    ours, theirs = (tiny.model(settings(), SEEDS) for _ in range(2))
    optimisers = Optimiser(ours, {"head.*": 2.0}, "muon"), Optimiser(theirs, {"head.*": 2.0}, "adamw")
    for step in range(3):
        for model, optimiser in zip((ours, theirs), optimisers, strict=True):
            for name, parameter in model.named_parameters():
                parameter.grad.copy_(gradient(name, parameter.shape, step, parameter.dtype))
            optimiser.step(1e-2, 0.1)
    matrices = hidden_matrices(ours)
    for (name, own), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if name in matrices:
            assert not torch.allclose(own, other)
        else:
            torch.testing.assert_close(own, other, rtol=0, atol=1e-15)


def test_the_step_is_as_large_as_its_adjustment_says() -> None:
    """Check the root mean square of an orthogonal r × c matrix, √(1 / c) for r ≤ c, times the factor."""
    for outputs, inputs in ((6, 24), (24, 24), (24, 6)):
        rms = math.sqrt(1.0 / max(outputs, inputs))
        assert ADJUSTMENTS["match_rms_adamw"](outputs, inputs) * rms == pytest.approx(0.2)
        assert ADJUSTMENTS["original"](outputs, inputs) == math.sqrt(max(1.0, outputs / inputs))


@pytest.mark.parametrize("max_norm", [0.0, 1.0])
@pytest.mark.parametrize("method", ["sgd", "adamw"])
def test_the_filter_is_its_recurrence_after_clipping(method: str, max_norm: float) -> None:
    weight, decay, rate = 0.7, 0.8, 0.1
    ours, theirs = (tiny.model(tiny.config(use_reasoner=False), SEEDS) for _ in range(2))
    filtered = Optimiser(ours, {}, method, grokfast=Grokfast(weight, decay))
    plain = Optimiser(theirs, {}, method)  # given filtered gradients
    slow = torch.zeros(SEEDS, plain.used // SEEDS, dtype=torch.float64)
    shortened = []
    for step in range(5):
        drawn = {n: (step + 1) * gradient(n, p.shape, step, p.dtype) for n, p in ours.named_parameters()}
        for name, parameter in ours.named_parameters():
            parameter.grad.copy_(drawn[name])
        flat = tiny.flat(drawn)
        norms = flat.norm(dim=1, keepdim=True)
        shortened.append(bool((norms > max_norm).any()))
        flat = flat * (max_norm / (norms + 1e-6)).clamp(max=1.0) if max_norm else flat
        slow = decay * slow + (1.0 - decay) * flat
        begin = 0
        for parameter in theirs.parameters():
            size = parameter[0].numel()
            parameter.grad.copy_((flat + weight * slow)[:, begin : begin + size].view(parameter.shape))
            begin += size
        filtered.step(rate, max_norm=max_norm)
        plain.step(rate)
        torch.testing.assert_close(filtered.values, plain.values, rtol=0, atol=1e-12)
    assert all(shortened)
