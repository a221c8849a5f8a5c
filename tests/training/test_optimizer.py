"""The flat optimiser against torch's own on separate parameters."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from tests import tiny
from tests.killing import ROOT
from toyqs.positions import thinking_positions
from toyqs.training.optimizers import optimizer
from toyqs.training.optimizers.grokfast import Grokfast
from toyqs.training.optimizers.optimizer import METHODS, Optimiser

SEEDS = 3


def leaf_losses(parameters: list[Tensor], step: int) -> Tensor:
    """Return a loss whose gradient is clipped in some seeds and not in others."""
    scale = torch.tensor([0.01, 1.0, 5.0]).double()
    total = torch.zeros(SEEDS, dtype=torch.float64)
    for index, parameter in enumerate(parameters):
        total = total + ((parameter - 0.1 * (step + index)).square()).flatten(1).sum(1)
    return total * scale


TORCH = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}


@pytest.mark.parametrize("method", TORCH)
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("max_norm", [0.0, 1.0])
def test_equals_torchs_own_seed_by_seed(max_norm: float, weight_decay: float, method: str) -> None:
    """Check it with weights that decay too, and with one parameter that learns faster."""
    model = tiny.model(tiny.config(mixing="gate"), SEEDS)
    names = [name for name, _ in model.named_parameters()]
    fast = names.index("head.bias")
    apart = [[nn.Parameter(p.detach()[s : s + 1].clone()) for p in model.parameters()] for s in range(SEEDS)]
    plain = [
        TORCH[method](
            [{"params": [own[fast]]}, {"params": own[:fast] + own[fast + 1 :]}],
            lr=1.0,
            weight_decay=weight_decay,
            fused=False,
        )
        for own in apart
    ]
    optimiser = Optimiser(model, {"head.bias": 7.0}, method)
    for step, rate in enumerate([1e-3, 3e-3, 3e-3, 2e-3, 1e-4]):
        optimiser.zero()
        leaf_losses(list(model.parameters()), step).sum().backward()
        norms = optimiser.clip(max_norm)
        optimiser.step(rate, weight_decay)
        for s in range(SEEDS):
            plain[s].zero_grad()
            leaf_losses([p.expand(SEEDS, *p.shape[1:]) for p in apart[s]], step)[s].backward()
            norm = nn.utils.clip_grad_norm_(apart[s], max_norm or torch.inf)
            assert abs(float(norm) - float(norms[s])) < 1e-10 * float(norm)
            for group, factor in zip(plain[s].param_groups, (7.0, 1.0), strict=True):
                group["lr"] = factor * rate
            plain[s].step()
            for ours, theirs in zip(model.parameters(), apart[s], strict=True):
                torch.testing.assert_close(ours[s], theirs[0], rtol=0, atol=1e-12)
    assert bool((norms > 1).any()) and bool((norms < 1).any()), "the case needs both"


def stepped(optimiser: Optimiser, model: nn.Module, step: int) -> None:
    """Take a clipped step along the gradient of some loss, the same for a seed in any stack."""
    optimiser.zero()
    for name, parameter in model.named_parameters():
        parameter.grad.copy_(3.0 * (parameter.detach() - 0.1 * (step + len(name))))
    optimiser.clip(1.0)
    optimiser.step(1e-2, weight_decay=0.1)


@pytest.mark.parametrize("grokfast", [None, Grokfast(0.5, 0.9)])
@pytest.mark.parametrize("method", METHODS)
def test_a_seeds_saved_state_resumes_alone_and_in_a_stack(method: str, grokfast: Grokfast | None) -> None:
    faster = {"*.bias_hh": 3.0, "head.weight_0": 10.0, "*.weight_hh": 2.0}
    config = tiny.config(use_reasoner=False)
    whole = tiny.model(config, SEEDS)
    optimiser = Optimiser(whole, faster, method, grokfast=grokfast)
    assert len(optimiser.faster) == len(faster)
    for step in range(2):
        stepped(optimiser, whole, step)
    reference_model = [optimiser.seed_state(index) for index in range(SEEDS)]
    stepped(optimiser, whole, 2)
    for seeds in ([1], [2, 0]):
        model = tiny.model(config, len(seeds))
        again = Optimiser(model, faster, method, grokfast=grokfast)
        again.restore([reference_model[seed] for seed in seeds])
        for index, seed in enumerate(seeds):
            for name, value in reference_model[seed].items():
                assert torch.equal(again.seed_state(index)[name], value), name
        stepped(again, model, 2)
        for index, seed in enumerate(seeds):
            for name, value in optimiser.seed_state(seed).items():
                assert torch.equal(again.seed_state(index)[name], value), name


def test_a_step_never_loads_the_compiler() -> None:
    """Check it because that import takes as long as torch's own, in every process that trains.

    sympy, a part of it, is loaded by a backward pass that is given a gradient.
    """
    code = (
        "import sys, torch; from toyqs.training.optimizers.optimizer import Optimiser\n"
        "from tests.training.test_loop import quick, trained\n"
        f"for method in {METHODS}:\n"
        "    optimiser = Optimiser(torch.nn.Linear(2, 3), None, method)\n"
        "    optimiser.clip(1.0); optimiser.step(1e-2)\n"
        "trained(quick(max_steps=1), [0, 1]); trained(quick(max_steps=1, use_reasoner=False), [0])\n"
        "sys.exit(bool({'torch._dynamo', 'sympy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_factors_of_one_parameter_are_multiplied() -> None:
    moved = []
    for factors in ({"head.*": 3.0, "*.bias": 0.5}, {"head.bias": 1.5, "head.weight_0": 3.0}):
        model = tiny.model(tiny.config(use_reasoner=False), SEEDS)
        stepped(Optimiser(model, factors), model, 1)
        moved.append(tiny.flat(dict(model.named_parameters())).detach())
    torch.testing.assert_close(*moved, rtol=0, atol=1e-15)


def test_without_decay_adam_is_adamw_to_the_bit() -> None:
    weights = []
    for method in ("adam", "adamw"):
        model = tiny.model(tiny.config(use_reasoner=False), SEEDS)
        optimiser = Optimiser(model, {}, method)
        for step in range(3):
            leaf_losses(list(model.parameters()), step).sum().backward()
            optimiser.step(1e-2)
        weights.append(optimiser.values)
    assert torch.equal(*weights)


def test_clipping_is_each_seeds_own() -> None:
    model = tiny.model(tiny.config(use_reasoner=False), SEEDS)
    optimiser = Optimiser(model)
    leaf_losses(list(model.parameters()), 0).sum().backward()
    before = tiny.flat({n: p.grad.clone() for n, p in model.named_parameters()})
    norms = optimiser.clip(2.0)
    after = tiny.flat({n: p.grad for n, p in model.named_parameters()})
    torch.testing.assert_close(norms, before.norm(dim=1), rtol=1e-12, atol=0)
    for s in range(SEEDS):
        scale = min(1.0, 2.0 / (float(norms[s]) + 1e-6))
        torch.testing.assert_close(after[s], before[s] * scale, rtol=1e-12, atol=0)
    assert bool((after.norm(dim=1) < 2.0 + 1e-9).all())


def test_parameters_stay_the_models_own() -> None:
    """Check that the model computes with the buffer, and that every step's gradients are written there."""
    model, batch, noise = tiny.sampled(tiny.config())
    optimiser = Optimiser(model)
    outputs = []
    for _ in range(2):
        optimiser.zero()
        logits = model(batch.inputs, thinking_positions(batch), noise).logits
        outputs.append(logits.detach())
        logits.square().sum().backward()
        assert bool(optimiser.grads.any())
        optimiser.step(1e-2)
    assert not torch.equal(*outputs)
    optimiser.zero()
    assert all(not p.grad.any() for p in model.parameters())


def test_a_seed_that_is_not_a_number_stays_alone() -> None:
    model = tiny.model(tiny.config(use_reasoner=False), SEEDS)
    optimiser = Optimiser(model)
    leaf_losses(list(model.parameters()), 0).sum().backward()
    next(model.parameters()).grad[1] = torch.nan
    optimiser.clip(1.0)
    optimiser.step(1e-2)
    for parameter in model.parameters():
        assert bool(parameter[[0, 2]].isfinite().all()) and bool(parameter[1].isnan().all())


def test_a_large_model_of_one_seed_is_clipped_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    after = []
    for large in (2**30, 1):
        monkeypatch.setattr(optimizer, "LARGE", large)
        model = tiny.model(tiny.config(use_reasoner=False), 1)
        optimiser = Optimiser(model)
        assert (optimiser.seed_of is None) == (large == 1)
        leaf_losses(list(model.parameters()), 0).sum().backward()
        norms = optimiser.clip(2.0)
        optimiser.step(1e-2)
        after.append(torch.cat([norms, optimiser.values]))
    torch.testing.assert_close(*after, rtol=1e-12, atol=0)


def test_the_norm_of_a_large_model_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check it where summing one by one in float32 fails: 1 + 2⁻²⁴ + 2⁻²⁴ + … stays 1."""
    norms = {}
    for large in (2**22, 2**10):
        monkeypatch.setattr(optimizer, "LARGE", large)
        model = nn.Module()
        model.first = nn.Parameter(torch.zeros(2, 1))
        model.rest = nn.Parameter(torch.zeros(2, 2**14))
        optimiser = Optimiser(model)
        model.first.grad.fill_(1.0)
        model.rest.grad.fill_(2.0**-12)
        norms[large] = optimiser.clip(0.0)
    assert torch.equal(norms[2**22], torch.ones(2))
    torch.testing.assert_close(norms[2**10], torch.full((2,), (1 + 2.0**-10) ** 0.5))
