"""Linear probes: their optimum by another solver, planted data, and no leak into what is scored."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import norm
from torch import Tensor

from toyqs.answers.thoughts.linear_probe import probe


def halves(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed)) < 0.5


def by_another_solver(
    x: np.ndarray, y: np.ndarray, classes: int, fitted: np.ndarray, ridge: float
) -> np.ndarray:
    """The log-probabilities of the scored rows, by Newton's method with the full Hessian."""
    varies = [i for i in range(x.shape[1]) if len(set(x[fitted, i])) > 1]
    z = (x[:, varies] - x[fitted][:, varies].mean(0)) / x[fitted][:, varies].std(0)
    z = np.concatenate([z, np.ones((len(z), 1))], 1)
    rows, labels = z[fitted], np.eye(classes)[y[fitted]]
    width = z.shape[1]

    def log_probs(flat: np.ndarray, rows: np.ndarray) -> np.ndarray:
        logits = rows @ flat.reshape(width, classes)
        return logits - logsumexp(logits, axis=1, keepdims=True)

    def loss(flat: np.ndarray) -> float:
        return float(-(labels * log_probs(flat, rows)).sum() + 0.5 * ridge * flat @ flat)

    def gradient(flat: np.ndarray) -> np.ndarray:
        return (rows.T @ (np.exp(log_probs(flat, rows)) - labels)).ravel() + ridge * flat

    def hessian(flat: np.ndarray) -> np.ndarray:
        p = np.exp(log_probs(flat, rows))
        spread = np.einsum("nc,cd->ncd", p, np.eye(classes)) - np.einsum("nc,nd->ncd", p, p)
        blocks = np.einsum("ni,nj,ncd->icjd", rows, rows, spread)
        return blocks.reshape(len(flat), len(flat)) + ridge * np.eye(len(flat))

    found = minimize(
        loss, np.zeros(width * classes), jac=gradient, hess=hessian, method="trust-exact", tol=1e-9
    )
    assert np.abs(gradient(found.x)).max() < 1e-7
    return log_probs(found.x, z[~fitted])


@pytest.mark.parametrize(
    ("width", "classes", "kind"),
    [(3, 2, "plain"), (4, 5, "correlated"), (5, 3, "one_hot"), (2, 4, "absent"), (3, 3, "separable")],
)
def test_the_optimum_is_that_of_another_solver(width: int, classes: int, kind: str) -> None:
    generator = torch.Generator().manual_seed(width)
    x = torch.randn(300, width, generator=generator, dtype=torch.float64)
    if kind == "correlated":
        x[:, 1] = x[:, 0] + 1e-3 * x[:, 1]
        x = x * torch.tensor([1.0, 100.0, 1e-3, 1.0]) + 50.0
    if kind == "one_hot":
        x = torch.eye(width, dtype=torch.float64)[x.argmax(-1)]
    y = (2 * x[:, :1] * torch.arange(classes) + torch.randn(300, classes, generator=generator)).argmax(-1)
    if kind == "separable":
        y = x.argmax(-1)
    fitted = halves(300)
    if kind == "absent":  # a class that no fitted row has, and an input that is constant there
        y[fitted & (y == 3)] = 0
        x = torch.cat([x, (~fitted).double().unsqueeze(-1)], 1)
    ridge = 1.0 if kind == "plain" else 7.5
    scores = probe(x, y, classes, fitted, ridge)
    wanted = by_another_solver(x.numpy(), y.numpy(), classes, fitted.numpy(), ridge)
    labels = y[~fitted].numpy()
    assert scores.nll.numpy() == pytest.approx(-wanted[np.arange(len(labels)), labels], abs=1e-5)
    assert np.array_equal(scores.hits.numpy(), wanted.argmax(1) == labels)


def test_classes_apart_are_all_found_and_independent_ones_are_not() -> None:
    generator = torch.Generator().manual_seed(1)
    y = torch.randint(4, (4000,), generator=generator)
    planted = torch.eye(4)[y] + 0.01 * torch.randn(4000, 4, generator=generator)
    assert bool(probe(planted, y, 4, halves(4000)).hits.all())
    scores = probe(torch.randn(4000, 8, generator=generator), y, 4, halves(4000))
    error = math.sqrt(0.25 * 0.75 / len(scores.hits))
    assert abs(float(scores.hits.mean()) - 0.25) < 3 * error
    assert float(scores.nll.mean()) == pytest.approx(math.log(4), abs=0.02)


@pytest.mark.parametrize("distance", [0.5, 1.0, 3.0])
def test_two_normal_classes_are_told_apart_as_well_as_they_can_be(distance: float) -> None:
    """The best accuracy is Φ(d / 2); linear is best, for both have one covariance."""
    generator = torch.Generator().manual_seed(2)
    y = torch.randint(2, (20_000,), generator=generator)
    x = torch.randn(20_000, 3, generator=generator)
    x[:, 0] += distance * y
    mixed = x @ torch.randn(3, 3, generator=generator)
    scores = probe(mixed, y, 2, halves(20_000))
    best = float(norm.cdf(distance / 2))
    assert abs(float(scores.hits.mean()) - best) < 3 * math.sqrt(best * (1 - best) / len(scores.hits))


def test_reading_nothing_gives_the_majority_and_its_frequency() -> None:
    y = torch.tensor([0] * 500 + [1] * 300 + [2] * 200)[torch.randperm(1000)]
    fitted = halves(1000)
    scores = probe(torch.empty(1000, 0), y, 3, fitted)
    assert torch.equal(scores.hits, (y[~fitted] == 0).double())
    shares = torch.bincount(y[fitted]) / int(fitted.sum())
    assert torch.allclose(scores.nll, -shares[y[~fitted]].log().double(), atol=0.02)


def test_what_is_scored_is_not_fitted_on() -> None:
    """With as many inputs as rows any labels can be learnt by heart, but not those of other rows."""
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(200, 150, generator=generator), torch.randint(2, (200,), generator=generator)
    fitted = halves(200)
    twice = torch.cat([fitted, torch.zeros(int(fitted.sum()), dtype=torch.bool)])
    again = probe(torch.cat([x, x[fitted]]), torch.cat([y, y[fitted]]), 2, twice)
    others = int((~fitted).sum())
    assert float(again.hits[others:].mean()) > 0.99, "the fitted rows themselves"
    assert abs(float(again.hits[:others].mean()) - 0.5) < 0.15


def test_copies_count_once_with_a_ridge_of_their_number() -> None:
    generator = torch.Generator().manual_seed(4)
    x, y = torch.randn(60, 5, generator=generator), torch.randint(3, (60,), generator=generator)
    fitted = halves(60)
    once = probe(x, y, 3, fitted)
    copies = [
        torch.cat([part[fitted].repeat(9, *[1] * (part.dim() - 1)), part[~fitted]]) for part in (x, y, fitted)
    ]
    for found, wanted in zip(probe(copies[0], copies[1], 3, copies[2], 9.0), once, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
