"""A learned reward: the sequences it is fitted on, its loss, and how well it separates thoughts."""

from __future__ import annotations

from torch import Tensor

from toyqs.objectives.rewards import differ, require_shape
from toyqs.types import Batch, Trace

TINY = 1e-12  # least divisor of a correlation, where all thoughts earn the same


def learned(trace: Trace) -> Tensor:
    """Return r_ψ(h, x), (S, B, T, K), with its gradient.

    Raises:
        ValueError: the trace has none.
    """
    if trace.learned_reward is None:
        raise ValueError("learned_reward needs trace.learned_reward")
    return trace.learned_reward


def split_to_fit_and_pay(batch: Batch) -> tuple[Batch, Batch]:
    """Split a batch into the sequences that a learned reward is fitted on and those where it pays the policy.

    The first half of the sequences counts in the one, the others, with the middle one, in the other. They
    are disjoint because a reward model that is fitted on a thought's own targets knows them by heart.

    Args:
        batch: weights (S, B, T), B ≥ 2.

    Returns:
        Two batches: weight 0 outside the first half, and weight 0 inside it.

    Raises:
        ValueError: B = 1, which has no halves.
    """
    size = batch.weights.shape[1]
    if size < 2:
        raise ValueError("learned_reward needs at least 2 sequences: one to be fitted on, one to pay for")
    fitting = batch.weights.clone()
    fitting[:, size // 2 :] = 0.0
    return batch._replace(weights=fitting), batch._replace(weights=batch.weights - fitting)


def squared_error(expected: Tensor, earned: Tensor, *, apart: bool = False) -> Tensor:
    """Compute the loss of a learned reward: its squared error, a mean over the thoughts.

        (1 / K) Σ_i ½ (sg t_i − r_ψ(h_i, x))²

    Minimal where r_ψ(h, x) = E[t | h, x], the mean over the targets. With `apart` the means over the
    position's thoughts are subtracted from t and r_ψ. The differences between thoughts remain, without the
    far larger differences between positions.

    Args:
        expected: (S, B, T, K) r_ψ.
        earned: (S, B, T, K) t, what the thoughts earned.
        apart: see above.

    Returns:
        (S, B, T).
    """
    require_shape("learned reward", expected, earned.shape)
    error = expected - earned.detach()
    if apart:
        error = error - error.mean(-1, keepdim=True)
    return 0.5 * error.square().mean(-1)


def correlation(expected: Tensor, earned: Tensor, weights: Tensor) -> Tensor:
    """Compute the correlation of a learned reward with what the thoughts of a position earned.

        Σ (r − r̄)(t − t̄) / √(Σ (r − r̄)² Σ (t − t̄)²),    r̄ and t̄ the means over a position's thoughts

    Its square is the share of the variance of t among the thoughts of a position that r explains. 0 where
    t has no variance, or that of rounding.

    Args:
        expected: (S, B, T, K).
        earned: (S, B, T, K).
        weights: (S, B, T) of the positions.

    Returns:
        (S,), no gradient.
    """
    r, t = (
        (x - x.mean(-1, keepdim=True)).where(differ(x), 0.0) for x in (expected.detach(), earned.detach())
    )
    weights = weights.unsqueeze(-1)
    covariance, variance_r, variance_t = ((weights * x).sum((1, 2, 3)) for x in (r * t, r * r, t * t))
    return covariance / (variance_r * variance_t).sqrt().clamp(min=TINY)
