"""A learning rate per role: whose parameters it moves, and what the roles of one core ask of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.config.checks.checking import NO_REASONER, ONE_GRU, accepted, refused
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.model.roles import ROLES
from toyqs.training.batches import draw_batches
from toyqs.training.loop import train

RATES = {"base_lm_lr": 0.02, "reasoner_lr": 0.005, "interpreter_lr": 0.04}
OF_ROLE = dict(zip(ROLES, (2.0, 0.5, 0.5, 4.0), strict=True))  # as factors of base_lr
WIDTHS = {"reasoner_hidden_dim": 3, "clip_gradients": 0.0, "use_scheduler": False, "base_lr": 0.01}


def moved(**changes: Any) -> dict[str, Tensor]:
    """Return how far one step of SGD moves each parameter."""
    settings = tiny.config(**WIDTHS, **{"optimizer": "sgd", "max_steps": 1} | changes)
    model, numbers = build_model(settings, [3]), build_training_params(settings)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    data = draw_batches(settings.task, [3], numbers, next(model.parameters()))
    train(model, build_objective(settings), data, numbers, lambda step, values: None)
    return {name: p.detach() - before[name] for name, p in model.named_parameters()}


def factor_of(name: str, groups: str) -> float:
    """Return the factor of a parameter's rate; its core's is that of the core's first role."""
    if name.startswith("cores."):
        return OF_ROLE[ROLES[groups.index(name.split(".")[1])]]
    parts = {"thought_head.": "reasoner", "interpreter.": "interpreter"}
    return next((OF_ROLE[role] for part, role in parts.items() if name.startswith(part)), 1.0)


@pytest.mark.parametrize("mixing", ["concat", "gate"])
@pytest.mark.parametrize("groups", ["ABCD", "ABBC"])
def test_each_parameter_moves_at_its_roles_rate(groups: str, mixing: str) -> None:
    changes = {"weight_groups": groups, "mixing": mixing}
    plain, apart = moved(**changes), moved(**changes, **RATES)
    factors = {name: factor_of(name, groups) for name in plain}
    assert set(factors.values()) == {0.5, 1.0, 2.0, 4.0} and any(
        name.startswith("mixer") for name in plain
    ) == (mixing == "gate")
    tiny.close(apart, {name: factors[name] * step for name, step in plain.items()}, tolerance=1e-12)


def test_a_head_that_thoughts_share_is_not_the_reasoners() -> None:
    plain, apart = (moved(share_lm_head=True, mixing="add", reasoner_lr=rate) for rate in (None, 0.1))
    assert bool(plain["head.bias"].any()) and torch.equal(plain["head.bias"], apart["head.bias"])


def test_a_markers_rate_is_a_multiple_of_its_roles() -> None:
    fast = {"meta_token_mode": "lr_multiplier", "meta_token_scale": 3.0}
    plain, apart = moved(), moved(reasoner_lr=0.005, **fast)
    torch.testing.assert_close(
        apart["cores.C.markers.weight"], 1.5 * plain["cores.C.markers.weight"], rtol=1e-12, atol=0
    )


def test_without_thoughts_only_the_bases_rate_is_there() -> None:
    plain, apart = moved(use_reasoner=False), moved(use_reasoner=False, **RATES)
    for name, step in plain.items():
        factor = 2.0 if name.startswith("cores.A.") else 1.0
        torch.testing.assert_close(apart[name], factor * step, rtol=0, atol=1e-15)


def test_a_cores_roles_have_one_rate() -> None:
    refused(
        "weight_groups=AAAA: base_lm and base_reasoner share A but learn at 0.02 and 0.001; ",
        **ONE_GRU,
        reasoner_lr=1e-3,
    )
    refused(
        "base_reasoner and interpreter share B but learn at 0.02 and 3e-05",
        weight_groups=list("ABCB"),
        interpreter_lr=3e-5,
    )
    refused("interpreter_lr=0.0: is not above 0", interpreter_lr=0.0)
    one = dict.fromkeys(RATES, 1e-3)
    assert accepted(**ONE_GRU, **one) == [] and accepted(weight_groups=list("ABBC"), **RATES) == []
    assert accepted(reasoner_lr=1e-3, base_lm_hidden_dim=24, weight_groups=list("ABCA")) == []


def test_a_role_that_is_not_there_asks_for_nothing() -> None:
    shared = {"weight_groups": list("ABBB"), "reasoner_lr": 1e-3}
    refused("share B", **shared)
    assert accepted(**shared, max_reasoning_len=0) == [] and accepted(**shared, **NO_REASONER) == []


def test_what_adam_divides_out_is_not_remarked_on_under_sgd() -> None:
    assert accepted(policy_loss_beta=100.0, meta_token_mode="grad_scale", optimizer="sgd") == []
    assert len(accepted(policy_loss_beta=100.0, meta_token_mode="grad_scale", optimizer="adam")) == 2
