"""The coherence of thoughts: how well each fits its context, its symbols, and the true token."""

from __future__ import annotations

import torch
from torch import Tensor

from toyqs.numerics import log_prob_of
from toyqs.types import Batch, Trace


def scores(trace: Trace, batch: Batch) -> dict[str, Tensor]:
    """Compute the scores of each thought, on one scale, from 0 to 1.

        semantic     (1 + cos) / 2 of the directions of the thought's reading and the base state
        syntactic    (Π_l p(s_l | x, s_<l))^(1/L), the mean probability of its symbols under base_lm: the
                     exponential of the mean log-probability per symbol
        predictive   q(y | h, x) / (q(y | h, x) + q(y | x)), the logistic function of
                     log q(y | h, x) − log q(y | x), with this thought alone and without any
        coherence    Σ_i w_i score_i / Σ_i w_i over those that exist, w the shares in the trace

    Args:
        trace: with `coherence`.
        batch: of the first token that a position predicts.

    Returns:
        Those that exist, (S, B, T, K) each, no gradient; nothing where the trace has no scores.
    """
    given = trace.coherence
    if given is None:
        return {}
    found = {"semantic": given.semantic, "syntactic": given.syntactic, "predictive": None}
    if given.alone is not None and given.none is not None:
        targets = batch.targets.unsqueeze(-1)
        log_q = [log_prob_of(x.contiguous(), targets.expand(x.shape[:-1])) for x in (given.alone, given.none)]
        found["predictive"] = 0.5 + 0.5 * torch.tanh(0.5 * (log_q[0] - log_q[1]))
    exist = {name: x.detach() for name, x in found.items() if x is not None}
    return exist | {"coherence": given.mean(exist.get("predictive")).detach()}


def added(earned: Tensor, trace: Trace, batch: Batch, beta: float) -> Tensor:
    """Return what each thought of a position earns, with its coherence times β.

    Args:
        earned: (S, B, T, K), or (S, B, T, 1) where all thoughts give one prediction.
        trace: with `coherence` where β is not 0.
        batch: as in `scores`.
        beta: β.

    Returns:
        (S, B, T, K).

    Raises:
        ValueError: β is not 0, and the trace has no scores.
    """
    if trace.attention is not None:
        earned = earned.expand_as(trace.attention)
    if not beta:
        return earned
    if trace.coherence is None:
        raise ValueError("coherence_beta needs trace.coherence")
    return earned + beta * scores(trace, batch)["coherence"]
