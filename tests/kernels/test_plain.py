"""The whole native step of a model without thoughts: torch's numbers, a seed's own bits, and its limits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.kernels.comparing import TOLERANCES, WIDTHS, integers, off, random, scattered
from tests.kernels.test_steps import weights
from toyqs.model.backbones.gru_scan import Sequence
from toyqs.model.backbones.kernels.plain import check_parameters, plain_step
from toyqs.model.layers import affine, gather_rows
from toyqs.positions import pick_positions

TOKENS = 7
Ids = tuple[Tensor, Tensor | None, Tensor, Tensor]  # inputs, places, targets, and their weights
Numbers = tuple[Tensor, ...]  # the tokens' embeddings, and three layers


def share(weights: Tensor) -> Tensor:
    """Return a factor of each seed's loss, the same for a seed of the same weights."""
    return weights.sum((1, 2)).sin().abs() + 0.5


def torchs(ids: Ids, numbers: Numbers) -> list[Tensor]:
    """Return loss and gradients by torch's scan and log_softmax."""
    inputs, places, targets, each = ids
    leaves = [x.detach().clone().requires_grad_() for x in numbers]
    tokens, w_ih, b_ih, w_hh, b_hh, w_head, b_head = leaves
    states = Sequence.apply(gather_rows(affine(tokens, w_ih, b_ih), inputs), w_hh, b_hh)
    states = states if places is None else pick_positions(states, places)
    log_p = affine(states, w_head, b_head).log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    loss = -share(each) * (log_p * each).sum((1, 2)) / each.sum((1, 2)).clamp(min=1e-12)
    return [loss.detach(), *torch.autograd.grad(loss.sum(), leaves)]


def native(ids: Ids, numbers: Numbers) -> list[Tensor]:
    gradients = [torch.zeros(x.shape, dtype=x.dtype) for x in numbers]
    check_parameters(numbers, gradients)
    return [plain_step(*ids, share(ids[3]), numbers, gradients), *gradients]


def drawn(
    seeds: int, batch: int, width: int, classes: int, dtype: torch.dtype, counted: int | None = None
) -> tuple[Ids, Numbers]:
    """Return a batch of sequences of 5 tokens, `counted` of which predict, some twice; and a model."""
    places = None if counted is None else integers(5, seeds, batch, counted, seed=4)
    shape = (seeds, batch, counted or 5)
    each = random(*shape, seed=5, dtype=dtype).abs() * (random(*shape, seed=6) > -0.5)
    ids = integers(TOKENS - 1, seeds, batch, 5), places, integers(classes, *shape, seed=3), each.to(dtype)
    head = (
        random(seeds, width, classes, seed=1, dtype=dtype),
        random(seeds, 1, classes, seed=2, dtype=dtype),
    )
    table = random(seeds, TOKENS, width, dtype=dtype)
    flipped = tuple(x.flip(-1) for x in weights(seeds, width, dtype))
    return ids, (table, *flipped, *weights(seeds, width, dtype), *head)


def of_seeds(chosen: list[int], ids: Ids, numbers: Numbers) -> tuple[Ids, Numbers]:
    return tuple(x if x is None else x[chosen] for x in ids), tuple(x[chosen] for x in numbers)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("counted", [None, 1, 3])
def test_loss_and_gradients(counted: int | None, dtype: torch.dtype) -> None:
    for width in WIDTHS:
        for batch, classes in ((1, 2), (7, TOKENS), (14, 1), (9, 37)):
            ids, numbers = drawn(2, batch, width, classes, dtype, counted)
            found, wanted = native(ids, numbers), torchs(ids, numbers)
            apart = tuple(x if x is None else scattered(x) for x in ids)
            again = native(apart, numbers)
            if classes == 1:  # nothing to learn: all numbers are 0
                assert all(float(x.abs().max()) < 1e-5 for x in found)
                continue
            error = max(off(found, wanted), off(again, wanted))
            assert error < TOLERANCES[dtype], f"width {width}, {batch} sequences, {classes}: {error:.1e}"


def test_gradients_are_added_to_those_there_are() -> None:
    """Two batches give the sum of their gradients; one without sequences, or of weight 0, adds nothing."""
    numbers = drawn(2, 3, 5, 4, torch.float64)[1]
    gradients, wanted = [torch.zeros_like(x) for x in numbers], []
    for batch in (3, 8):
        ids = drawn(2, batch, 5, 4, torch.float64)[0]
        plain_step(*ids, share(ids[3]), numbers, gradients)
        wanted.append(native(ids, numbers)[1:])
    assert off(gradients, [a + b for a, b in zip(*wanted, strict=True)]) < 1e-15
    (inputs, places, targets, each), _ = drawn(2, 3, 5, 4, torch.float64)
    each[1] = 0
    loss, *found = native((inputs, places, targets, each), numbers)
    assert loss[1] == 0 and all(not x[1].any() and bool(x[0].any()) for x in found)
    assert not any(bool(x.any()) for x in native(drawn(2, 0, 5, 4, torch.float64)[0], numbers))


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_a_seed_at_every_place_of_a_stack(dtype: torch.dtype) -> None:
    """Check the bits, also beside a seed that is no number."""
    for width in WIDTHS[::3]:
        for batch in (1, 9):
            given = drawn(4, batch, width, 6, dtype, 3)
            whole = native(*given)
            for chosen in ([0], [2], [1, 3], [3, 0, 2]):
                found = native(*of_seeds(chosen, *given))
                assert all(torch.equal(x, y[chosen]) for x, y in zip(found, whole, strict=True))
            for place in range(len(given[1])):
                broken = [x.clone() for x in given[1]]
                broken[place][1, ..., -1:] = torch.nan
                broken[place][1, :1] = torch.nan  # a token that is read
                found = native(given[0], tuple(broken))
                others = [0, 2, 3]
                assert all(torch.equal(x[others], y[others]) for x, y in zip(found, whole, strict=True))
                assert bool(found[0][1].isnan())


def test_what_it_does_not_take_is_refused() -> None:
    ids, numbers = drawn(2, 3, 4, 5, torch.float64, 2)
    for place, end in ((0, TOKENS), (1, 5), (2, 5)):
        for wrong in (-1, end):
            changed = [x.clone() for x in ids]
            changed[place].view(-1)[-1] = wrong
            with pytest.raises(IndexError, match="row"):
                native(tuple(changed), numbers)
        changed = [x.int() if i == place else x for i, x in enumerate(ids)]
        with pytest.raises(TypeError, match="kernels=torch"):
            native(tuple(changed), numbers)
    for place in range(len(numbers)):
        changed = [x.float() if i == place else x for i, x in enumerate(numbers)]
        with pytest.raises(TypeError, match="kernels=torch"):
            native(ids, tuple(changed))


def test_shapes_that_do_not_fit_are_refused() -> None:
    """Cut each input in each of its axes, but for the length and the rows of the table; and each gradient."""
    ids, numbers = drawn(2, 3, 4, 5, torch.float64, 2)
    given = [*ids, *numbers]
    for place, tensor in enumerate(given):
        for axis, size in enumerate(tensor.shape):
            if size == 1 or (place, axis) in ((0, 2), (4, 1)):
                continue
            changed = [x.narrow(axis, 0, size - 1) if i == place else x for i, x in enumerate(given)]
            with pytest.raises(ValueError, match="shape"):
                native(tuple(changed[:4]), tuple(changed[4:]))
    for place in range(len(numbers)):
        gradients = [x[:, :, 1:] if i == place else torch.zeros_like(x) for i, x in enumerate(numbers)]
        with pytest.raises(ValueError, match="shape"):
            check_parameters(numbers, gradients)
        apart = [scattered(x) if i == place else x for i, x in enumerate(numbers)]
        for given in ((apart, numbers), (numbers, apart)):
            with pytest.raises(ValueError, match="one number after another"):
                check_parameters(*given)
