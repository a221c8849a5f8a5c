"""Linear probes: multinomial logistic regression with a ridge, fitted on some rows and scored on others."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

STEPS = 200  # of L-BFGS at most; a few tens reach its tolerance
TOLERANCE = 1e-6  # of the gradient's largest entry, in the coordinates of the search


class Scores(NamedTuple):
    """A probe's predictions of rows that it was not fitted on."""

    hits: Tensor  # (n,) 1 where the likeliest class is the row's, else 0
    nll: Tensor  # (n,) −log p(class), nats


def probe(x: Tensor, classes: Tensor, count: int, fitted: Tensor, ridge: float = 1.0) -> Scores:
    """Fit a linear probe on some rows, and score it on the others.

        p(c | x) ∝ exp(w_c · z + b_c),   z = (x − mean) / deviation
        W, b = argmin  Σ_{rows fitted on} −log p(c | x) + ½ ridge (‖W‖² + ‖b‖²)

    Mean and deviation are those of the rows fitted on; inputs that are constant there are dropped. The ridge
    is a normal prior on every weight, of deviation 1 where it is 1, which weighs the less, the more rows
    there are; where there are n copies of each row, a ridge of n lets each count once. The problem is
    strictly convex, so the probe does not depend on where the search for it starts.

    Args:
        x: (n, D) what is read; D = 0: nothing, so that only the classes' frequencies are learnt.
        classes: (n,) long, 0 … count − 1.
        count: number of classes.
        fitted: (n,) bool, the rows to fit on; the others are scored.
        ridge: above 0.

    Returns:
        One entry per scored row, in their order.
    """
    z = _standardised(x.double(), fitted)
    weights = _fit(z[fitted], classes[fitted], count, ridge)
    log_probs = (z[~fitted] @ weights).log_softmax(-1)
    wanted = classes[~fitted]
    hits = (log_probs.argmax(-1) == wanted).double()
    return Scores(hits, -log_probs.gather(-1, wanted.unsqueeze(-1)).squeeze(-1))


def _standardised(x: Tensor, fitted: Tensor) -> Tensor:
    """Return the columns that vary in the rows fitted on, standardised by these, and a column of ones."""
    rows = x[fitted]
    varies = (rows != rows[:1]).any(0)
    centred = x[:, varies] - rows[:, varies].mean(0)
    deviation = centred[fitted].square().mean(0).sqrt()
    return torch.cat([centred / deviation, x.new_ones(len(x), 1)], 1)


def _fit(z: Tensor, classes: Tensor, count: int, ridge: float) -> Tensor:
    """Return the weights (D + 1, count) of the optimum.

    The search runs in coordinates v, w = L⁻ᵀ v with L Lᵀ = ½ zᵀ z + ridge, in which no direction is much
    steeper than another, whatever the inputs' correlations (that sum bounds the Hessian: Böhning 1992).
    """
    scale = torch.linalg.cholesky(
        0.5 * z.T @ z + ridge * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    )
    inputs = torch.linalg.solve_triangular(scale, z.T, upper=False).T
    v = torch.zeros(z.shape[1], count, dtype=z.dtype, device=z.device, requires_grad=True)
    search = torch.optim.LBFGS(
        [v], max_iter=STEPS, tolerance_grad=TOLERANCE, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def weights() -> Tensor:
        return torch.linalg.solve_triangular(scale.T, v, upper=True)

    def loss() -> float:
        search.zero_grad()
        value = torch.nn.functional.cross_entropy(inputs @ v, classes, reduction="sum")
        value = value + 0.5 * ridge * weights().square().sum()
        value.backward()
        return float(value.detach())

    search.step(loss)
    return weights().detach()
