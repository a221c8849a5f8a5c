"""Whole thoughts by native functions, against torch's steps and draws one by one; readings by one scan."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
import torch
from torch import Tensor

from tests.kernels.comparing import TOLERANCES, cases, integers, off, random, results, scattered
from tests.kernels.test_steps import weights
from toyqs.model.backbones.gru import _Branch
from toyqs.model.backbones.kernels.draw import Draw
from toyqs.model.backbones.kernels.few_columns import COLUMNS, FewColumns
from toyqs.model.backbones.kernels.gru import BranchStep, LastState
from toyqs.model.backbones.kernels.think import Think
from toyqs.model.layers import affine
from toyqs.model.thoughts import _Draw

WIDTHS = (1, 3, 8, 17, 32, 70)  # the last keeps recurrent rows
SYMBOLS = 5
Numbers = Sequence[Tensor]


def numbers(seeds: int, width: int, dtype: torch.dtype, batch: int = 3) -> list[Tensor]:
    """Return the inputs of `Think` before the symbols, at T = 4 positions."""
    table = random(seeds, 1 + SYMBOLS, 3 * width, dtype=dtype)
    states = random(seeds, batch, 4, 1, width, seed=1, dtype=dtype)
    head = 2 * random(seeds, width, SYMBOLS, seed=2, dtype=dtype) / width**0.5
    layers = (*weights(seeds, width, dtype), head, random(seeds, 1, SYMBOLS, seed=3, dtype=dtype))
    return [table[:, :1], table[:, 1:], states, *layers]


def joined(log_prob: Tensor, entropy: Tensor, state: Tensor) -> Tensor:
    """Return all outputs as one tensor (S, ...)."""
    return torch.cat([x.flatten(1) for x in (log_prob, entropy, state)], 1)


def native(given: Tensor, *inputs: Tensor) -> Tensor:
    return joined(*Think.apply(*inputs, given, True)[1:])


def torchs(given: Tensor, *inputs: Tensor) -> Tensor:
    """Compute the outputs symbol by symbol."""
    start, table, states, weight, bias, head, head_bias = inputs
    state = (
        _Branch.apply(start[:, :, None, None], None, states, states, weight, bias) + 0 * table.sum()
    )  # also where L = 1
    drawn = []
    for index, symbols in enumerate(given.unbind(4)):
        if index:
            ids = given[..., index - 1].contiguous()
            state = _Branch.apply(table, ids, state, state, weight, bias)
        logits = affine(state, head, head_bias)
        if index:
            _, log_prob, entropy = _Draw.apply(logits, symbols.unsqueeze(-1), True)
            drawn.append((log_prob.squeeze(-1), entropy))
        else:
            _, log_prob, entropy = _Draw.apply(logits.squeeze(3), symbols.contiguous(), True)
            drawn.append((log_prob, entropy.unsqueeze(-1).expand_as(log_prob)))
    return joined(*(torch.stack(x, 4) for x in zip(*drawn, strict=True)), state)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("length", [1, 2, 4])
def test_values_and_gradients(length: int, dtype: torch.dtype) -> None:
    for seeds, width in cases(dtype, WIDTHS):
        for batch in (1, 3):
            inputs = numbers(seeds, width, dtype, batch)
            given = integers(SYMBOLS, seeds, batch, 4, 2, length)
            count = 2 * batch * 4 * 2 * length + batch * 4 * (2 if length > 1 else 1) * width
            pull = random(seeds, count, seed=4, dtype=dtype)
            found = results(partial(native, given), inputs, pull)
            again = results(partial(native, scattered(given)), [scattered(x) for x in inputs], pull)
            true = results(partial(torchs, given), inputs, pull)
            error = max(off(found, true), off(again, true))
            assert error < TOLERANCES[dtype], f"{seeds} seeds, width {width}: {error:.1e}"


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_symbols_are_those_drawn_one_by_one(dtype: torch.dtype) -> None:
    """Sample, and repeat it with native steps and draws apart: the same bits."""
    for width in WIDTHS:
        start, table, states, weight, bias, head, head_bias = inputs = numbers(2, width, dtype)
        noise = torch.rand(2, 3, 4, 6, 3, generator=torch.Generator().manual_seed(5), dtype=dtype)
        symbols, log_prob, entropy, state = Think.apply(*inputs, noise, False)
        assert symbols.unique().tolist() == list(range(SYMBOLS)), "or little is tested"
        now = BranchStep.apply(start[:, :, None, None], None, states, weight, bias)
        for index in range(3):
            if index:
                ids = symbols[..., index - 1].contiguous()
                now = BranchStep.apply(table, ids, now, weight, bias)
            each = noise[..., index].unsqueeze(-1) if index else noise[..., index]
            drawn = Draw.apply(now if index else now.squeeze(3), head, head_bias, each, False)
            for ours, theirs in zip((symbols, log_prob, entropy), drawn, strict=True):
                assert torch.equal(ours[..., index], theirs.view(2, 3, 4, -1).expand(2, 3, 4, 6))
        assert torch.equal(state, now)


def test_an_output_that_nobody_uses_has_no_gradient() -> None:
    """Compare with a gradient of zero at it; an interpreter that starts afresh uses no state."""
    inputs, given = numbers(2, 5, torch.float64), integers(SYMBOLS, 2, 3, 4, 2, 3)
    leaves = [x.clone().requires_grad_() for x in inputs]
    outputs = Think.apply(*leaves, given, True)[1:]
    for used in outputs:
        alone = torch.autograd.grad(used.sum(), leaves, retain_graph=True, materialize_grads=True)
        both = used.sum() + sum(0 * x.sum() for x in outputs)
        assert off(alone, torch.autograd.grad(both, leaves, retain_graph=True)) == 0
    (last,) = torch.autograd.grad(outputs[2].sum(), leaves[-1], allow_unused=True)
    assert not last.any(), "the last state is before the last draw, whose layer moves it through no symbol"


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_the_last_state_is_that_of_steps_one_by_one(dtype: torch.dtype) -> None:
    for seeds, width in cases(dtype, WIDTHS):
        for length in (1, 2, 5):
            table, ids = random(seeds, 6, 3 * width, dtype=dtype), integers(6, seeds, 9, length)
            inputs = [table, random(seeds, 9, width, seed=1, dtype=dtype), *weights(seeds, width, dtype)]
            pull = random(seeds, 9, width, seed=4, dtype=dtype)

            def steps(ids: Tensor, table: Tensor, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
                state = h[:, None, :, None]
                for now in ids.unbind(2):
                    state = _Branch.apply(table, now[:, None, :, None], state, state, weight, bias)
                return state[:, 0, :, 0]

            def last(ids: Tensor, table: Tensor, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
                return LastState.apply(table, ids, h, weight, bias)

            true = results(partial(steps, ids), inputs, pull)
            found = results(partial(last, ids), inputs, pull)
            again = results(partial(last, scattered(ids)), [scattered(x) for x in inputs], scattered(pull))
            assert max(off(found, true), off(again, true)) < TOLERANCES[dtype], (seeds, width, length)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_few_columns(dtype: torch.dtype) -> None:
    for seeds in (1, 3):
        for columns in (2, 9, COLUMNS):
            inputs = [random(seeds, 4, 3, 7, dtype=dtype), random(seeds, 7, columns, seed=1, dtype=dtype)]
            pull = random(seeds, 4, 3, columns, seed=3, dtype=dtype)
            for bias in ((), (random(seeds, 1, columns, seed=2, dtype=dtype),)):
                true = results(affine, [*inputs, *bias], pull)
                ours = partial(FewColumns.apply) if bias else lambda x, w: FewColumns.apply(x, w, None)
                assert off(results(ours, [*inputs, *bias], pull), true) < TOLERANCES[dtype]
