"""A learned reward: which sequences it is fitted on, by what loss, and how well it tells thoughts apart."""

from __future__ import annotations

from torch import Tensor

from toyqs.objectives.rewards import require_shape
from toyqs.types import Batch, Trace

TINY = 1e-12  # of a spread that divides: where all thoughts earn the same, nothing is told apart


def learned(trace: Trace) -> Tensor:
    """r_ψ(h, x), (S, B, T, K), with its gradient.

    Raises:
        ValueError: the trace has none.
    """
    if trace.learned_reward is None:
        raise ValueError("learned_reward needs trace.learned_reward")
    return trace.learned_reward


def split_to_fit_and_pay(batch: Batch) -> tuple[Batch, Batch]:
    """Where a learned reward is fitted, and where it pays the policy: two batches with no sequence in common.

    The first half of the sequences counts in the one, the others in the other; a middle one pays. A reward
    that was fitted on the very targets of a thought knows what it should only expect.

    Args:
        batch: weights (S, B, T), B ≥ 2.

    Returns:
        The batch with weight 0 outside the first half, and inside it.

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
    """What a learned reward learns from: its squared error, a mean over the thoughts.

        (1 / K) Σ_i ½ (sg t_i − r_ψ(h_i, x))²

    Least where r_ψ(h, x) = E[t | h, x], the mean over the targets. `apart` takes t and r_ψ less their means
    over the position's thoughts: what is left is what tells the thoughts apart, without the far larger
    spread of what a position earns whatever it thinks.

    Args:
        expected: (S, B, T, K) r_ψ.
        earned: (S, B, T, K) t, what the thoughts earned in fact.
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
    """Whether a learned reward tells the thoughts of a position apart: its correlation with what they earned.

        Σ (r − r̄)(t − t̄) / √(Σ (r − r̄)² Σ (t − t̄)²),    r̄ and t̄ the means over a position's thoughts

    Its square is the share of the variance of t among the thoughts of a position that r explains. 0 where
    there is none.

    Args:
        expected: (S, B, T, K).
        earned: (S, B, T, K).
        weights: (S, B, T) of the positions.

    Returns:
        (S,), no gradient.
    """
    r, t = (x.detach() - x.detach().mean(-1, keepdim=True) for x in (expected, earned))
    weights = weights.unsqueeze(-1)
    together, of_r, of_t = ((weights * x).sum((1, 2, 3)) for x in (r * t, r * r, t * t))
    return together / (of_r * of_t).sqrt().clamp(min=TINY)
