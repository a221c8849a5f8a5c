"""Muon: the momentum of a matrix is made nearly orthogonal, and the step is along that."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from toyqs.types import Maps

# As in torch.optim.Muon: momentum, coefficients of the iteration, how often it is made, the least norm.
MOMENTUM = 0.95
COEFFICIENTS, ITERATIONS, EPSILON = (3.4445, -4.7750, 2.0315), 5, 1e-7

# By how much the rate is multiplied for a matrix with so many outputs and inputs; torch's adjust_lr_fn.
ADJUSTMENTS: dict[str, Callable[[int, int], float]] = {
    "match_rms_adamw": lambda outputs, inputs: 0.2 * math.sqrt(max(outputs, inputs)),
    "original": lambda outputs, inputs: math.sqrt(max(1.0, outputs / inputs)),
}

AT_ONCE = 2**22  # numbers of the matrices that are orthogonalised at a time


def orthogonalised(x: Tensor) -> Tensor:
    """Push all singular values of matrices towards 1, by five steps of a Newton-Schulz iteration.

        X ← X / ‖X‖_F, then five times        X ← a X + (b A + c A²) X with A = X Xᵀ

    A singular value s becomes φ⁵(s / ‖X‖_F) with φ(s) = a s + b s³ + c s⁵: about 0.7 to 1.2 where it was
    0.003 ‖X‖_F or more. torch does this in bfloat16; here it is done in the matrices' own precision.

    Args:
        x: (n, r, c) with 2 ≤ r ≤ c. What becomes of one matrix does not depend on the others.
    """
    a, b, c = COEFFICIENTS
    norms = x.flatten(1).square().sum(-1).sqrt().clamp(min=EPSILON)
    x = x / norms.view(-1, 1, 1)
    for _ in range(ITERATIONS):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def hidden_matrices(model: nn.Module) -> dict[str, Maps]:
    """Return the parameters that Muon steps, by name: the matrices of hidden layers; see `Muon`.

    They are those that a module has in its `matrices`, but for matrices of a single row or column.
    """
    declared = {
        f"{path}.{name}".lstrip("."): maps
        for path, module in model.named_modules()
        for name, maps in getattr(module, "matrices", {}).items()
    }
    sizes = {name: parameter.shape for name, parameter in model.named_parameters() if name in declared}
    return {name: declared[name] for name, shape in sizes.items() if min(_sizes(shape, declared[name])) > 1}


class _Member(NamedTuple):
    """A parameter's matrices among those of one shape."""

    span: slice  # of the parameter in the buffer
    shape: torch.Size  # (S, rows, columns)
    maps: Maps
    factor: float  # of the rate

    def matrices(self, buffer: Tensor) -> Tensor:
        """Return the matrices in a buffer as a view, (S, count, r, c) with r ≤ c."""
        num_seeds, rows, columns = self.shape
        parameter, count = buffer[self.span], self.maps.number
        if self.maps.outputs == 2:
            view = parameter.view(num_seeds, rows, count, columns // count).transpose(1, 2)
        else:
            view = parameter.view(num_seeds, count, rows // count, columns)
        return view.mT if view.shape[2] > view.shape[3] else view


class Muon:
    """Muon on the matrices at the beginning of an optimiser's buffers.

        B ← μ B + (1 − μ) g        O = orthogonalised((1 − μ) g + μ B)        θ ← θ − η λ θ − η f O

    with rate η, weight decay λ, μ = 0.95, and f by the matrix's shape (`ADJUSTMENTS`): with match_rms_adamw
    the step's elements are as large as AdamW's usually are, so that one rate serves both; with original an
    orthogonal O is enlarged where a matrix has more outputs than inputs.

    Muon is for the matrices of hidden layers. Token and symbol embeddings, learned positions and markers,
    output layers (the LM head, the heads of symbols, the last layer of critics), biases, norms and learned
    vectors are stepped by AdamW, at the same rate. A parameter that holds several matrices side by side is
    taken apart: the three gates of a GRU, and GPT-2's queries, keys and values. The matrices of equal shape
    of all seeds and parameters are orthogonalised in one batched product.

    Sources: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks" (the post
    kellerjordan.github.io/posts/muon: which parameters; queries, keys and values apart); Liu et al. 2025,
    "Muon is scalable for LLM training" (2502.16982: match_rms_adamw); torch.optim.Muon.
    """

    def __init__(
        self,
        spans: Mapping[str, slice],
        shapes: Mapping[str, torch.Size],
        maps: Mapping[str, Maps],
        adjust_lr_fn: str,
    ) -> None:
        """Sort the matrices by shape.

        Args:
            spans: each parameter's part of the buffers.
            shapes: (S, rows, columns) of each.
            maps: the parameters to step, see `hidden_matrices`; they are the first in the buffers.
            adjust_lr_fn: one of ADJUSTMENTS.
        """
        self.by_shape: dict[tuple[int, int], list[_Member]] = {}
        for name, own in maps.items():
            outputs, inputs = _sizes(shapes[name], own)
            member = _Member(spans[name], shapes[name], own, ADJUSTMENTS[adjust_lr_fn](outputs, inputs))
            self.by_shape.setdefault((min(outputs, inputs), max(outputs, inputs)), []).append(member)

    def prepare(self, grads: Tensor, momentum: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new momentum B and the step for a rate of 1 without decay, f O; change nothing.

        Products and sums are made one by one, since a fused one would round the last elements of a buffer
        differently, by what else is in it.
        """
        new = momentum * MOMENTUM + grads * (1.0 - MOMENTUM)
        ahead = new * MOMENTUM + grads * (1.0 - MOMENTUM)
        step = torch.empty_like(ahead)
        for (rows, columns), members in self.by_shape.items():
            found = torch.cat([member.matrices(ahead).flatten(0, 1) for member in members])
            parts = found.split(max(1, AT_ONCE // (rows * columns)))
            made = torch.cat([orthogonalised(part) for part in parts])
            counts = [member.shape[0] * member.maps.number for member in members]
            for member, own in zip(members, made.split(counts), strict=True):
                place = member.matrices(step)
                place.copy_((own * member.factor).view(place.shape))
        return new, step


def apply_(values: Tensor, step: Tensor, lr: float | Tensor, weight_decay: float) -> None:
    """Step matrices: θ ← θ − η λ θ − η · step, in place; the step is overwritten."""
    rate = lr.to(values.dtype) if isinstance(lr, Tensor) else lr
    if weight_decay:
        values.mul_(1.0 - rate * weight_decay)
    values.sub_(step.mul_(rate))


def _sizes(shape: torch.Size, maps: Maps) -> tuple[int, int]:
    """Return the outputs and inputs of each matrix of a parameter (S, rows, columns)."""
    return shape[maps.outputs] // maps.number, shape[3 - maps.outputs]
