"""Reweighted wake-sleep: thoughts from an inference network that knows the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from toyqs.objectives.objective import Allowed, ThoughtObjective
from toyqs.objectives.policy.tempered import effective_samples, sampling_density
from toyqs.types import Batch, Trace


@dataclass(frozen=True)
class WakeSleep(ThoughtObjective):
    """Climb a bound on log q(y | x), the marginal over thoughts, that an inference network tightens.

        h_i ~ ρ(· | x, y),    w̄ = softmax_i(log π(h_i | x) + log q(y | h_i, x) − log ρ(h_i | x, y))
        policy:     −Σ_i sg (w̄_i − π(h_i | x) / (K ρ(h_i | x, y))) log π(h_i | x)
        nll:        −Σ_i sg w̄_i log q(y | h_i, x)
        inference:  −Σ_i sg (w̄_i − 1 / K) log ρ(h_i | x, y)

    Policy and nll have the expected gradient of −E_ρ log (1/K) Σ_i π(h_i | x) q(y | h_i, x) / ρ(h_i | x, y)
    with ρ held fast: K and a better ρ tighten it to −log q(y | x). ρ follows the posterior π q / Σ π q by the
    same weights (the wake phase's update of ρ; there is no sleep phase, in which it would learn from dreamed
    targets): biased at finite K, and at rest where ρ is the posterior. What is subtracted from w̄ are
    control variates of ours, 0 in expectation: without them no seed learns to think.

    Source: Bornschein and Bengio 2015, "Reweighted wake-sleep".
    """

    name: ClassVar[str] = "wake_sleep"
    least_thoughts: ClassVar[int] = 2
    changes_prediction_loss: ClassVar[bool] = True
    off_policy: ClassVar[bool] = True
    needs_density: ClassVar[bool] = True
    sees_target: ClassVar[bool] = True
    allowed_values: ClassVar[dict[str, Allowed]] = {
        "sampler": Allowed(("inference",), "learns the network that draws its thoughts"),
        "reward": Allowed(("likelihood",), "weighs thoughts by a likelihood"),
        "coherence_beta": Allowed((0.0,), "weighs thoughts by a likelihood"),
        "learned_reward": Allowed((False,), "weighs thoughts by a likelihood"),
    }

    def policy_loss(self, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
        """Compute the weighted NLL of the thoughts, (S, B, T)."""
        assert trace.log_prob is not None
        log_prob = trace.log_prob.sum(-1)
        ratio = (log_prob - sampling_density(log_prob, trace)).detach().exp()
        return -(_weights(reward, trace) * log_prob).sum(-1) + (ratio * log_prob).mean(-1)

    def predictor_loss(self, score: Tensor, trace: Trace) -> Tensor:
        """Compute the weighted NLL of the targets, (S, B, T)."""
        return -(_weights(score.detach(), trace) * score).sum(-1)

    def _auxiliary_losses(
        self, reward: Tensor, earned: Tensor, trace: Trace, batch: Batch
    ) -> dict[str, Tensor]:
        """Compute the loss of the inference network, (S, B, T)."""
        log_rho = self._from(trace, "inference_log_prob").sum(-1)
        return {"inference": -(_weights(reward, trace) * log_rho).sum(-1) + log_rho.mean(-1)}

    def meters(self, reward: Tensor, trace: Trace, batch: Batch) -> dict[str, Tensor]:
        """Compute the effective number of thoughts by their weights."""
        return {"effective_samples": effective_samples(_weights(reward, trace))}


def _weights(log_q: Tensor, trace: Trace) -> Tensor:
    """Return w̄ of the first thoughts, as many as log q has, no gradient."""
    assert trace.log_prob is not None
    log_prob = trace.log_prob.detach().sum(-1)
    ratio = log_prob - sampling_density(log_prob, trace)
    return (ratio[..., : log_q.shape[-1]] + log_q.detach()).softmax(-1)
