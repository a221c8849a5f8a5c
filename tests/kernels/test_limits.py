"""What native functions do not take is one clear error, never memory that is read as something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from tests.kernels.comparing import integers, random
from toyqs.model.backbones.kernels.draw import Draw
from toyqs.model.backbones.kernels.gru import BranchStep, LastState, Scan
from toyqs.model.backbones.kernels.think import Think

WIDTH, ROWS = 5, 4


def inputs(name: str) -> tuple[Any, ...]:
    """Return a function's arguments, of two seeds; ids are valid."""
    weights = random(2, WIDTH, 3 * WIDTH, seed=1), random(2, 1, 3 * WIDTH, seed=2)
    table, ids = random(2, ROWS, 3 * WIDTH), integers(ROWS, 2, 3, 4, 2)
    match name:
        case "step":
            return table, ids, random(2, 3, 4, 1, WIDTH, seed=3), *weights
        case "scan":
            return table, ids[..., 0], *weights
        case "last":
            return table, ids[:, :, :, 0], random(2, 3, WIDTH, seed=3), *weights
        case "think":
            head = random(2, WIDTH, ROWS), random(2, 1, ROWS)
            states = random(2, 3, 4, 1, WIDTH, seed=3)
            return table[:, :1], table, states, *weights, *head, ids.unsqueeze(-1).repeat(1, 1, 1, 1, 3), True
        case _:
            return (
                random(2, 3, 4, 1, WIDTH, seed=3),
                random(2, WIDTH, ROWS),
                random(2, 1, ROWS),
                ids[:, :, :, None],
                True,
            )


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "step": BranchStep.apply,
    "scan": Scan.apply,
    "draw": Draw.apply,
    "last": LastState.apply,
    "think": Think.apply,
}
EACH = pytest.mark.parametrize("name", FUNCTIONS)


def first(output: Any) -> Tensor:
    """Return the differentiable output, or the first of those."""
    return output[1] if isinstance(output, tuple) else output


def floats(given: tuple[Any, ...]) -> list[int]:
    return [i for i, x in enumerate(given) if isinstance(x, Tensor) and x.is_floating_point()]


@EACH
def test_an_id_that_is_no_row_is_refused(name: str) -> None:
    """torch refuses it too; here it would read or, worse, write what lies beyond the table."""
    given = inputs(name)
    (place,) = (i for i, x in enumerate(given) if isinstance(x, Tensor) and not x.is_floating_point())
    for wrong in (-1, ROWS, 2**40):
        ids = given[place].clone()
        ids.view(-1)[-1] = wrong
        with pytest.raises(IndexError, match="row"):
            FUNCTIONS[name](*given[:place], ids, *given[place + 1 :])


@EACH
def test_other_numbers_and_devices_are_refused(name: str) -> None:
    """Check each input alone in another precision or on another device, and all of them together."""
    given = inputs(name)
    each = floats(given)
    for change in (torch.bfloat16, torch.float16, torch.float32, "meta"):
        for places in ([i] for i in each):
            with pytest.raises(TypeError, match="kernels=torch"):
                FUNCTIONS[name](*(x.to(change) if i in places else x for i, x in enumerate(given)))
        if change is not torch.float32:
            with pytest.raises(TypeError, match="kernels=torch"):
                FUNCTIONS[name](*(x.to(change) if i in each else x for i, x in enumerate(given)))


@EACH
def test_short_ids_are_refused(name: str) -> None:
    given = inputs(name)
    with pytest.raises(TypeError, match="kernels=torch"):
        FUNCTIONS[name](*(x.int() if isinstance(x, Tensor) and x.dtype == torch.long else x for x in given))


@EACH
def test_a_second_derivative_is_refused(name: str) -> None:
    given = inputs(name)
    leaves = [x.requires_grad_() if i in floats(given) else x for i, x in enumerate(given)]
    wanted = [x for i, x in enumerate(leaves) if i in floats(given)]
    with pytest.raises(RuntimeError, match="first derivatives"):  # not a gradient that looks like a constant
        torch.autograd.grad(first(FUNCTIONS[name](*leaves)).sum(), wanted, create_graph=True)


@EACH
def test_a_forward_derivative_is_refused(name: str) -> None:
    given = inputs(name)
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward mode"):
        dual = forward_ad.make_dual(given[0], torch.ones_like(given[0]))
        FUNCTIONS[name](dual, *given[1:])


@EACH
def test_values_are_the_same_without_gradients(name: str) -> None:
    given = inputs(name)
    wanted = first(
        FUNCTIONS[name](*(x.requires_grad_() if i in floats(given) else x for i, x in enumerate(given)))
    )
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found = first(FUNCTIONS[name](*given))
            assert torch.equal(found, wanted) and not found.requires_grad
    with torch.inference_mode():  # tensors of its own kind too
        copies = [x.clone() if isinstance(x, Tensor) else x for x in given]
        assert torch.equal(first(FUNCTIONS[name](*copies)), wanted)


@EACH
def test_a_gradient_alone_is_that_of_all_and_comes_twice(name: str) -> None:
    """Check inputs that need none, and two backward passes through one graph: no state is used up."""
    given = inputs(name)
    leaves = [x.requires_grad_() if i in floats(given) else x for i, x in enumerate(given)]
    wanted = [leaves[i] for i in floats(given)]
    output = first(FUNCTIONS[name](*leaves)).square().sum()
    both = [torch.autograd.grad(output, wanted, retain_graph=True) for _ in range(2)]
    assert all(map(torch.equal, *both))
    for place, grad in zip(floats(given), both[0], strict=True):
        alone = [
            x.detach().requires_grad_(i == place) if isinstance(x, Tensor) and i in floats(given) else x
            for i, x in enumerate(given)
        ]
        (found,) = torch.autograd.grad(first(FUNCTIONS[name](*alone)).square().sum(), [alone[place]])
        assert torch.equal(found, grad)


def test_shapes_that_do_not_fit_are_refused() -> None:
    """Cut each input in each of its axes, but for those that may be of any size or that broadcast."""
    free = {
        "step": {0: (1,), 1: (0, 3), 2: (0,)},
        "scan": {0: (1,), 1: (1, 2)},
        "draw": {3: (4,)},
        "last": {0: (1,), 1: (2,)},
        "think": {7: (3, 4)},
    }
    for name, function in FUNCTIONS.items():
        given = inputs(name)
        for place, tensor in enumerate(given):
            if not isinstance(tensor, Tensor):
                continue
            for axis, size in enumerate(tensor.shape):
                if size == 1 or axis in free[name].get(place, ()):
                    continue
                with pytest.raises((ValueError, RuntimeError), match=r"[Ss]hape"):
                    function(*given[:place], tensor.narrow(axis, 0, size - 1), *given[place + 1 :])
