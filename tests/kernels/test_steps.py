"""A GRU's native steps and scan against torch's: values and gradients, at widths that leave remainders."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from tests.kernels.comparing import TOLERANCES, WIDTHS, cases, integers, off, random, results, scattered
from toyqs.model.backbones.gru import GRU, _Branch
from toyqs.model.backbones.gru_scan import Sequence
from toyqs.model.backbones.kernels.gru import BranchStep, Scan
from toyqs.model.layers import gather_rows

# Places (S, B, T, K) of 45 branches for each seed: 32 and 13 of them. Where S is 0 it is the number of seeds.
ROWS = 7  # of a table
STEPS: dict[str, tuple[tuple[int, ...], tuple[int, ...] | None, tuple[int, ...]]] = {
    # of x, or of its ids, and of the state
    "a row and a state each": ((0, 3, 5, 3), None, (0, 3, 5, 3)),
    "one marker": ((0, 1, 1, 1), None, (0, 3, 5, 3)),
    "one marker, one state for K": ((0, 1, 1, 1), None, (0, 3, 15, 1)),
    "one row for K": ((0, 3, 5, 1), None, (0, 3, 5, 3)),
    "one state for K": ((0, 3, 5, 3), None, (0, 3, 5, 1)),
    "one state for a seed": ((0, 1, 45, 1), None, (0, 1, 1, 1)),
    "one of each for a seed": ((0, 1, 1, 1), None, (0, 1, 1, 1)),
    "rows that repeat in the middle": ((0, 3, 1, 3), None, (0, 3, 5, 1)),
    "states that repeat in the middle": ((0, 3, 5, 3), None, (0, 1, 5, 3)),
    "ids": ((0, ROWS), (0, 3, 5, 3), (0, 3, 5, 3)),
    "ids, one state for K": ((0, ROWS), (0, 3, 5, 3), (0, 3, 5, 1)),
    "ids, many for a state": ((0, ROWS), (0, 1, 1, 45), (0, 1, 1, 1)),
    "one id for K": ((0, ROWS), (0, 3, 5, 1), (0, 3, 5, 3)),
    "one branch": ((0, 1, 1, 1), None, (0, 1, 1, 1)),
    "no sequence": ((0, 0, 5, 3), None, (0, 0, 5, 3)),
    "no sequence, one marker": ((0, 1, 1, 1), None, (0, 0, 5, 1)),
}


def weights(seeds: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return a recurrent weight and its bias."""
    weight = random(seeds, width, 3 * width, seed=7, dtype=dtype) / width**0.5
    return weight, random(seeds, 1, 3 * width, seed=8, dtype=dtype)


def torch_step(ids: Tensor | None, x: Tensor, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _Branch.apply(x, ids, h, h, weight, bias)


def native_step(ids: Tensor | None, x: Tensor, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return BranchStep.apply(x, ids, h, weight, bias)


def torch_scan(ids: Tensor | None, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return Sequence.apply(x if ids is None else gather_rows(x, ids), weight, bias)


def native_scan(ids: Tensor | None, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return Scan.apply(x, ids, weight, bias)


def compare(
    torch_way: Callable[..., Tensor],
    native_way: Callable[..., Tensor],
    ids: Tensor | None,
    inputs: tuple[Tensor, ...],
    where: str,
) -> None:
    """Compare two ways, also with inputs and gradients that do not lie one after another."""
    shape = torch_way(ids, *inputs).shape
    pull = random(*shape, seed=9, dtype=inputs[0].dtype)
    wanted = results(partial(torch_way, ids), inputs, pull)
    for apart in (False, True):
        given = inputs
        if apart:
            given, pull = tuple(map(scattered, inputs)), scattered(pull)
            ids = None if ids is None else scattered(ids)
        found = results(partial(native_way, ids), given, pull)
        error = off(found, wanted)
        assert error < TOLERANCES[pull.dtype], f"{where}, scattered {apart}: off by {error:.1e}"
        assert all(bool(x.isfinite().all()) for x in found)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", STEPS)
def test_a_step_of_branches(name: str, dtype: torch.dtype) -> None:
    of_x, of_ids, of_h = STEPS[name]
    for seeds, width in cases(dtype, WIDTHS):
        shape, *others = ((seeds, *sizes[1:]) for sizes in (of_x, of_h, *([of_ids] if of_ids else [])))
        x, h = random(*shape, 3 * width, dtype=dtype), random(*others[0], width, seed=1, dtype=dtype)
        ids = integers(ROWS - 1, *others[1]) if of_ids else None  # one row is not used, others often
        inputs = (x, h, *weights(seeds, width, dtype))
        compare(torch_step, native_step, ids, inputs, f"{seeds} seeds, width {width}")


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("count", [1, 4])
def test_every_branch_steps_by_each_row_of_a_table(count: int, dtype: torch.dtype) -> None:
    """Compare with steps of one branch by one row, from the table's row 2 on."""
    weight, bias = weights(2, 5, dtype)
    rows, state = random(2, ROWS, 15, dtype=dtype), random(2, 1, count, 1, 5, seed=1, dtype=dtype)

    def by_each(native: bool, rows: Tensor, state: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        gru = GRU(2, 5, native)
        del gru.weight_hh, gru.bias_hh
        gru.weight_hh, gru.bias_hh = weight, bias
        return gru.step_by_each(rows, 2, count, state)

    def one_by_one(rows: Tensor, state: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        branches, ids = state.split(1, 2), range(2, ROWS)
        steps = [
            torch_step(None, rows[:, i, None, None, None], h, weight, bias) for h in branches for i in ids
        ]
        return torch.cat(steps, 2)

    inputs, pull = (rows, state, weight, bias), random(2, 1, count * (ROWS - 2), 1, 5, seed=9, dtype=dtype)
    wanted = results(one_by_one, inputs, pull)
    for native in (True, False):
        assert off(results(partial(by_each, native), inputs, pull), wanted) < TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("time", [1, 2, 6])
@pytest.mark.parametrize("batch", [0, 1, 7, 34])
def test_a_scan_of_sequences(batch: int, time: int, dtype: torch.dtype) -> None:
    """Compare scans of rows, and of rows in a table, which some positions share."""
    for seeds, width in cases(dtype, WIDTHS):
        given, where = weights(seeds, width, dtype), f"{seeds} seeds, width {width}"
        x = random(seeds, batch, time, 3 * width, dtype=dtype)
        compare(torch_scan, native_scan, None, (x, *given), where)
        table, ids = random(seeds, ROWS, 3 * width, dtype=dtype), integers(ROWS - 1, seeds, batch, time)
        compare(torch_scan, native_scan, ids, (table, *given), f"{where}, ids")


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_wide_states_over_more_than_a_block_of_rows(dtype: torch.dtype) -> None:
    """Compare 150 sequences: from width 128 on a block has 128 rows, and 130 fills no whole vectors."""
    table, ids = random(1, ROWS, 3 * 130, dtype=dtype), integers(ROWS - 1, 1, 150, 2)
    compare(torch_scan, native_scan, ids, (table, *weights(1, 130, dtype)), "width 130")


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("size", [1e-6, 1e-3, 30.0, 300.0])
def test_gates_far_from_the_middle(size: float, dtype: torch.dtype) -> None:
    """Compare with float64 on the same numbers, where states are tiny and where all gates are closed."""
    for width in (5, 8):
        x, h = size * random(2, 3, 5, 3, 3 * width), size * random(2, 3, 5, 1, width, seed=1)
        bias = size * weights(2, width, torch.float64)[1]
        given = [y.to(dtype) for y in (x, h, weights(2, width, torch.float64)[0], bias)]
        pull = random(2, 3, 5, 3, width, seed=9).to(dtype)
        truth = results(partial(torch_step, None), [y.double() for y in given], pull.double())
        for ours, true in zip(results(partial(native_step, None), given, pull), truth, strict=True):
            limit = TOLERANCES[dtype] * max(1.0, size) * max(float(true.abs().max()), min(1.0, size))
            assert float((ours - true).abs().max()) < limit
