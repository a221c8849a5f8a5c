"""The markers of a thought: what they start from, and how fast they learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.run_config import RunConfig
from toyqs.model.core import Core
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.objectives.policy.reinforce import Reinforce
from toyqs.positions import thinking_positions
from toyqs.training.batches import draw_batches
from toyqs.training.loop import train
from toyqs.training.optimizers.optimizer import Optimiser

SEEDS = [3, 8]
FASTER = {"meta_token_scale": 8.0}  # a power of two: reparameterised markers start with the same bits


def cores(settings: RunConfig) -> dict[str, Core]:
    return dict(build_model(settings, SEEDS).cores.items())


@pytest.mark.parametrize("mode", ["none", "reparameterise", "grad_scale"])
@pytest.mark.parametrize("vocab", [None, 4])
def test_both_start_as_the_symbol_in_their_own_core(vocab: int | None, mode: str) -> None:
    for groups in ("AAAA", "ABBC", "ABCD"):
        changes = {"weight_groups": groups, "thought_vocab": vocab, "meta_token_mode": mode, **FASTER}
        settings = tiny.config(**changes, meta_token_init=2)
        random = cores(tiny.config(**changes))
        found = {letter: core for letter, core in cores(settings).items() if core.markers is not None}
        assert found
        for letter, core in found.items():
            table = core.tokens if vocab is None else core.thoughts
            rows = core.markers.rows()
            for row in (0, 1):
                torch.testing.assert_close(rows[:, row], table.weight[:, 2], rtol=0, atol=1e-12)
            assert not torch.equal(rows[0], rows[1]), "seeds differ"
            assert not torch.equal(rows, random[letter].markers.rows())


def test_a_core_that_does_not_know_the_symbols_starts_at_random() -> None:
    """Check one symbol: a reasoner then reads none, and its token table serves another role."""
    changes = {"weight_groups": "ABBC", "thought_vocab": 9, "max_reasoning_len": 1}
    given, random = cores(tiny.config(**changes, meta_token_init=8)), cores(tiny.config(**changes))
    assert given["B"].thoughts is None
    assert torch.equal(given["B"].markers.weight, random["B"].markers.weight)
    assert not torch.equal(given["C"].markers.weight, random["C"].markers.weight)
    without = {"max_reasoning_len": 0, "weight_groups": "AAAA"}
    assert torch.equal(
        cores(tiny.config(**without, meta_token_init=1))["A"].markers.weight,
        cores(tiny.config(**without))["A"].markers.weight,
    )


def gradient(mode: str, groups: str = "ABBC") -> tuple[Tensor, tiny.Gradients]:
    """Return logits and gradients of a batch with forced thoughts, at the initial weights."""
    settings = tiny.config(weight_groups=groups, meta_token_mode=mode, **FASTER)
    model, batch = tiny.model(settings, scale=1.0), tiny.batch(3)
    forced = torch.randint(tiny.SYMBOLS, (1, 3, 2, 2, 2), generator=torch.Generator().manual_seed(1))
    trace = model(batch.inputs, thinking_positions(batch), torch.empty(0), forced)
    return trace.logits.detach(), tiny.gradients(trace.logits.square().sum() + trace.log_prob.sum(), model)


@pytest.mark.parametrize("mode", ["reparameterise", "grad_scale", "lr_multiplier"])
@pytest.mark.parametrize("groups", ["AAAA", "ABBC"])
def test_modes_change_the_markers_gradient_and_nothing_else(mode: str, groups: str) -> None:
    (logits, plain), (same, got) = gradient("none", groups), gradient(mode, groups)
    torch.testing.assert_close(same, logits, rtol=0, atol=1e-12)
    factor = 1.0 if mode == "lr_multiplier" else 8.0
    wanted = {name: g * (factor if name.endswith("markers.weight") else 1.0) for name, g in plain.items()}
    assert any(bool(g.any()) for name, g in plain.items() if name.endswith("markers.weight"))
    tiny.close(got, wanted, tolerance=1e-10)


@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", ["AAAA", "AABC", "ABCD"])
def test_the_expected_gradient_in_other_parameters(groups: str, start: str) -> None:
    settings = tiny.config(
        weight_groups=groups, interpreter_start=start, meta_token_mode="reparameterise", meta_token_scale=1.7
    )
    tiny.check_expected_gradient(settings, Reinforce(), 2)


def trained(mode: str, **changes: Any) -> dict[str, Tensor]:
    """Return parameters after some steps, markers as their embeddings."""
    settings = tiny.config(meta_token_mode=mode, base_lr=1e-3, max_steps=8, **FASTER, **changes)
    model, numbers = build_model(settings, SEEDS), build_training_params(settings)
    data = draw_batches(settings.task, SEEDS, numbers, next(model.parameters()))
    train(model, build_objective(settings), data, numbers, lambda step, values: None)
    found = {name: p.detach().clone() for name, p in model.named_parameters()}
    return found | {f"cores.{x}.markers.weight": c.markers.rows().detach() for x, c in marked(model).items()}


def marked(model: LatentReasoner) -> dict[str, Core]:
    return {letter: core for letter, core in model.cores.items() if core.markers is not None}


def test_under_adam_a_gradient_scale_does_nothing_and_the_others_do_the_same() -> None:
    plain, scaled, multiplied, other = map(trained, ("none", "grad_scale", "lr_multiplier", "reparameterise"))
    tiny.close(scaled, plain, tolerance=2e-6)
    tiny.close(multiplied, other, tolerance=2e-5)
    name = "cores.D.markers.weight"
    assert float((multiplied[name] - plain[name]).abs().max()) > 0.01


def test_a_gradient_scale_takes_the_others_share_of_the_clipped_norm() -> None:
    norms = {}
    for mode in ("none", "grad_scale"):
        _, grads = gradient(mode)
        others = tiny.flat({n: g for n, g in grads.items() if not n.endswith("markers.weight")})
        norms[mode] = float(others.norm() / tiny.flat(grads).norm())
    assert norms["grad_scale"] < norms["none"] - 0.02


def test_a_multiplied_rate_is_adamw_with_a_rate_of_its_own() -> None:
    model = tiny.model(tiny.config(), 2)
    named = {name: torch.nn.Parameter(p.detach().clone()) for name, p in model.named_parameters()}
    fast = [p for name, p in named.items() if name.endswith("markers.weight")]
    slow = [p for name, p in named.items() if not name.endswith("markers.weight")]
    groups = [{"params": fast, "lr": 0.03}, {"params": slow, "lr": 0.01}]
    plain = torch.optim.AdamW(groups, weight_decay=0.0, fused=False)
    optimiser = Optimiser(model, {"*markers.weight": 3.0})
    for step in range(4):
        optimiser.zero()
        plain.zero_grad()
        for ours, theirs in zip(model.parameters(), named.values(), strict=True):
            for parameter in (ours, theirs):
                (parameter - 0.1 * step).square().sum().backward()
        optimiser.step(0.01)
        plain.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, named[name], rtol=0, atol=1e-12)
