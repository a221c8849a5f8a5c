"""Native kernels' attention of a branch, against one plain softmax over all that it sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model.test_branch_attention import (
    NUM_BRANCHES,
    PREFIX,
    SIDE_BY_SIDE,
    Given,
    given,
    worst,
)
from toyqs.model.backbones import branch_attention, fused_attention
from toyqs.model.backbones.fused_attention import attend, seen_by


def fused(of: Given, visible: Tensor | None = None) -> Tensor:
    """Attend with scores that are scaled by a half, of queries that are twice as large."""
    prefix = None
    if of.prefix is not None:
        visible = of.visible if visible is None else visible
        prefix = (*of.prefix, seen_by(visible, NUM_BRANCHES, PREFIX, torch.float64))
    return attend(2 * of.query, of.symbols, of.consumed, prefix, 0.5)


def channels_first(of: Given) -> Given:
    """Let the queries lie in memory as gpt2.py makes them, and one symbol's keys and values."""

    def turned(x: Tensor) -> Tensor:
        flat = x.detach().permute(1, 5, 2, 0, 3, 4).contiguous()
        return flat.permute(3, 0, 2, 4, 5, 1).requires_grad_()

    last = (turned(of.symbols[-1][0]), turned(of.symbols[-1][1]))
    return of._replace(query=turned(of.query), symbols=[*of.symbols[:-1], last])


@pytest.mark.parametrize("block", [1, 2, 128])
@pytest.mark.parametrize("turn", [lambda of: of, channels_first], ids=["rows", "channels first"])
@pytest.mark.parametrize(
    "of",
    [
        given(group=1),
        given(SIDE_BY_SIDE, group=1),
        given(SIDE_BY_SIDE[:1], batch=1, group=1),
        given(torch.tensor([[4]]), group=1),
        given(None, group=1),
        given(scale=300.0, group=1),
    ],
    ids=["any order", "side by side", "one prefix", "one place", "no prefix", "large scores"],
)
def test_outputs_and_gradients(of: Given, turn: Any, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branch_attention, "POSITIONS", block)
    assert worst(turn(of), fused) < (1e-12 if of.query.abs().max() < 100 else 1e-10)


def test_a_prefix_without_weight_leaves_no_trace() -> None:
    """Check it where the weight is too small for a number: its logarithm is -inf, no gradient is NaN."""
    of = given(group=1)
    assert of.prefix is not None
    far = of._replace(prefix=(1e6 * of.prefix[0].detach().abs().neg(), of.prefix[1]))
    far = far._replace(query=of.query.detach().abs().requires_grad_())
    leaves = [far.query, far.prefix[1], *(x for symbol in far.symbols for x in symbol)]
    found = torch.autograd.grad(fused(far).sum(), leaves)
    wanted = torch.autograd.grad(fused(far._replace(prefix=None)).sum(), [far.query, *leaves[2:]])
    assert not found[1].any()
    for mine, theirs in zip([found[0], *found[2:]], wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_key_too_many_or_too_few_is_noticed(change: int) -> None:
    of = given(SIDE_BY_SIDE, group=1)
    assert worst(of, lambda x: fused(x, (x.visible + change).clamp(min=1))) > 1e-3


def test_the_log_sum_exp_of_the_prefix_alone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, totals = fused_attention._to_prefix, []

    def kept(*given: Any) -> tuple[Tensor, Tensor]:
        totals.append(kernel(*given)[1])
        return kernel(*given)

    right = fused_attention._from_prefix
    monkeypatch.setattr(fused_attention, "_to_prefix", kept)
    assert worst(given(group=1), fused) < 1e-12
    monkeypatch.setattr(
        fused_attention, "_from_prefix", lambda rows, *rest: right((*rows[:3], totals[-1]), *rest)
    )
    assert worst(given(group=1), fused) > 1e-3
