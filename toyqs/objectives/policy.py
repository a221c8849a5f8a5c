"""The score-function part of a loss, and the scale of its advantages."""

from __future__ import annotations

from torch import Tensor

from toyqs.objectives.rewards import require_shape

STD_FLOOR = 1e-3  # added to the standard deviation: equal rewards give advantages near 0, not NaN


def batch_std(advantages: Tensor, weights: Tensor) -> Tensor:
    """Advantages divided by their standard deviation over the counted thoughts, seed by seed.

        A ← A / (std(A) + 10⁻³)

    One factor per seed: the gradient's direction is unchanged.

    Args:
        advantages: (S, B, T, K).
        weights: (S, B, T), 0 where a position does not count.

    Returns:
        (S, B, T, K).
    """
    share = (weights / weights.sum((1, 2), keepdim=True).clamp(min=1e-12)).unsqueeze(-1) / advantages.shape[
        -1
    ]
    mean = (advantages * share).sum((1, 2, 3), keepdim=True)
    variance = ((advantages - mean).square() * share).sum((1, 2, 3), keepdim=True)
    return advantages / (variance.sqrt() + STD_FLOOR)


def score_function_loss(advantages: Tensor, log_prob: Tensor) -> Tensor:
    """A loss whose gradient is the score-function (REINFORCE) estimate.

        −(1 / K) Σ_k sg(A_k) · log π(h_k | x),    log π(h_k | x) = Σ_l log π(s_kl | ·)

    The gradient descends −E[r]; the value itself means nothing.

    Args:
        advantages: (S, B, T, K).
        log_prob: (S, B, T, K, L) of each symbol.

    Returns:
        (S, B, T), per position.

    Raises:
        ValueError: the shapes disagree.

    Source: Williams 1992, "Simple statistical gradient-following algorithms".
    """
    thought_log_prob = log_prob.sum(-1)
    require_shape("advantages", advantages, thought_log_prob.shape)
    return -(advantages.detach() * thought_log_prob).mean(-1)


def position_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over a seed's positions: the one place where losses are normalised.

    Args:
        values: (S, B, T).
        weights: (S, B, T).

    Returns:
        (S,), 0 where no position counts.

    Raises:
        ValueError: the shapes disagree.
    """
    require_shape("values", values, weights.shape)
    return (values * weights).sum((1, 2)) / weights.sum((1, 2)).clamp(min=1e-12)


def no_scale(advantages: Tensor, weights: Tensor) -> Tensor:
    """Advantages as they are, (S, B, T, K)."""
    return advantages


ADVANTAGE_SCALES = {"none": no_scale, "batch_std": batch_std}
