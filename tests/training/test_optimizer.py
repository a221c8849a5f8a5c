"""The flat optimiser against torch's AdamW on separate parameters."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests import tiny
from tests.side_by_side import Exchange, side_by_side
from toyqs.model.backbones.sharding import part_of
from toyqs.training import flat_buffer
from toyqs.training.flat_buffer import Sharing
from toyqs.training.optimizer import Optimiser
from toyqs.types import thinking_positions

SEEDS = 3


def leaf_losses(parameters: list[Tensor], step: int) -> Tensor:
    """Some loss whose gradient is large enough to be clipped in some seeds and not in others."""
    scale = torch.tensor([0.01, 1.0, 5.0]).double()
    total = torch.zeros(SEEDS, dtype=torch.float64)
    for index, parameter in enumerate(parameters):
        total = total + ((parameter - 0.1 * (step + index)).square()).flatten(1).sum(1)
    return total * scale


@pytest.mark.parametrize("max_norm", [0.0, 1.0])
def test_equals_adamw_seed_by_seed(max_norm: float) -> None:
    model = tiny.model(tiny.config(mixing="gate"), SEEDS)
    apart = [[nn.Parameter(p.detach()[s : s + 1].clone()) for p in model.parameters()] for s in range(SEEDS)]
    plain = [torch.optim.AdamW(own, lr=1.0, weight_decay=0.0, fused=False) for own in apart]
    optimiser = Optimiser(model)
    for step, rate in enumerate([1e-3, 3e-3, 3e-3, 2e-3, 1e-4]):
        optimiser.zero()
        leaf_losses(list(model.parameters()), step).sum().backward()
        norms = optimiser.clip(max_norm)
        optimiser.step(rate)
        for s in range(SEEDS):
            plain[s].zero_grad()
            leaf_losses([p.expand(SEEDS, *p.shape[1:]) for p in apart[s]], step)[s].backward()
            norm = nn.utils.clip_grad_norm_(apart[s], max_norm or torch.inf)
            assert abs(float(norm) - float(norms[s])) < 1e-10 * float(norm)
            plain[s].param_groups[0]["lr"] = rate
            plain[s].step()
            for ours, theirs in zip(model.parameters(), apart[s], strict=True):
                torch.testing.assert_close(ours[s], theirs[0], rtol=0, atol=1e-12)
    assert bool((norms > 1).any()) and bool((norms < 1).any()), "the case needs both"


class Kinds(nn.Module):
    """Parameters of sizes that do not go evenly to two or three."""

    def __init__(self, num_seeds: int) -> None:
        super().__init__()
        for name, size in (("first", 5), ("large", 101), ("last", 7), ("wide", 34)):
            self.register_parameter(
                name, nn.Parameter(torch.linspace(-1, 2, size).repeat(num_seeds, 1).double())
            )
        self.used = {name: torch.ones_like(p) for name, p in self.named_parameters()}

    def cut(self, name: str, rank: int, ranks: int) -> None:
        """Keep a part of a parameter alone; what fills it up is not used and has no gradient."""
        self.used[name] = part_of(self.used[name], rank, ranks).unsqueeze(0)
        part = part_of(self.get_parameter(name).detach(), rank, ranks)
        setattr(self, name, nn.Parameter(part.unsqueeze(0)))


def stepped(model: Kinds, optimiser: Optimiser, step: int) -> Tensor:
    """A clipped step along the gradient of some loss, the same for an element wherever it is; its norm."""
    for name, parameter in model.named_parameters():
        slope = 3.0 * (parameter.detach() - 0.1 * (step + len(name)))
        parameter.grad.copy_(slope * model.used[name])
    norm = optimiser.clip(1.0)
    optimiser.step(1e-2)
    return norm


@pytest.mark.parametrize("ranks", [2, 3])
def test_parts_of_the_moments_make_up_the_step_of_all(ranks: int) -> None:
    faster = {"large": 10.0}
    whole = Kinds(SEEDS)
    alone = Optimiser(whole, faster)
    norms = [stepped(whole, alone, step) for step in range(3)]

    def work(exchange: Exchange) -> None:
        model = Kinds(SEEDS)
        shared = Optimiser(model, faster, Sharing(exchange.rank, ranks, exchange.whole, exchange.total))
        for step in range(3):
            assert torch.equal(stepped(model, shared, step), norms[step])
        assert shared.faster and shared.means[0].numel() * ranks == len(shared.values)
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, whole.get_parameter(name))
        for name, value in alone.of_seed(1).items():
            assert torch.equal(shared.of_seed(1)[name], value), name

    side_by_side(ranks, work)


@pytest.mark.parametrize("ranks", [2, 3])
def test_parts_of_the_parameters_make_up_the_step_of_all(ranks: int) -> None:
    """Also clipped, since the norm is that of all; what one process keeps another number goes on from."""
    faster, cut = {"wide": 10.0, "first": 2.0}, ("wide", "large")
    whole = Kinds(1)
    alone = Optimiser(whole, faster)
    norms = [stepped(whole, alone, step) for step in range(2)]
    kept = alone.of_seed(0)
    norms.append(stepped(whole, alone, 2))

    def work(exchange: Exchange) -> None:
        model = Kinds(1)
        shapes = {name: model.get_parameter(name).shape for name in cut}
        for name in cut:
            model.cut(name, exchange.rank, ranks)
        shared = Optimiser(
            model, faster, Sharing(exchange.rank, ranks, exchange.whole, exchange.total, shapes)
        )
        for step in range(2):
            torch.testing.assert_close(stepped(model, shared, step), norms[step])
        for name, value in kept.items():
            torch.testing.assert_close(shared.of_seed(0)[name], value, rtol=1e-13, atol=1e-15)
        shared.restore([kept])
        torch.testing.assert_close(stepped(model, shared, 2), norms[2])
        for name, value in alone.of_seed(0).items():
            torch.testing.assert_close(shared.of_seed(0)[name], value, rtol=1e-13, atol=1e-15)
        held = sum(moment.numel() for moment in shared.means)
        assert held < alone.means[0].numel() / ranks + 2 * 64

    side_by_side(ranks, work)


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
    """The model computes with the buffer, and its gradients land there again after every step."""
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
        monkeypatch.setattr(flat_buffer, "LARGE", large)
        model = tiny.model(tiny.config(use_reasoner=False), 1)
        optimiser = Optimiser(model)
        assert (optimiser.layout.seed_of is None) == (large == 1)
        leaf_losses(list(model.parameters()), 0).sum().backward()
        norms = optimiser.clip(2.0)
        optimiser.step(1e-2)
        after.append(torch.cat([norms, optimiser.values]))
    torch.testing.assert_close(*after, rtol=1e-12, atol=0)


def test_the_norm_of_a_large_model_does_not_stand_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Summed one by one in float32, 1 + 2⁻²⁴ + 2⁻²⁴ + … stays 1."""
    norms = {}
    for large in (2**22, 2**10):
        monkeypatch.setattr(flat_buffer, "LARGE", large)
        model = nn.Module()
        model.first = nn.Parameter(torch.zeros(2, 1))
        model.rest = nn.Parameter(torch.zeros(2, 2**14))
        optimiser = Optimiser(model)
        model.first.grad.fill_(1.0)
        model.rest.grad.fill_(2.0**-12)
        norms[large] = optimiser.clip(0.0)
    assert torch.equal(norms[2**22], torch.ones(2))
    torch.testing.assert_close(norms[2**10], torch.full((2,), (1 + 2.0**-10) ** 0.5))
