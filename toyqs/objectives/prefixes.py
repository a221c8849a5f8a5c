"""What the prefixes of a thought are worth: credit for each symbol, and a loss of their own.

A prefix is a thought's first 0, 1, … L − 1 symbols. What it earns is the run's reward of the prediction with
these alone, which the interpreter reads as [start, prefix, end].
"""

from __future__ import annotations

import torch
from torch import Tensor

from toyqs.objectives.losses import position_mean
from toyqs.objectives.objective import Objective
from toyqs.objectives.rewards import discounted, log_q_of_prefixes
from toyqs.types import Batch, Trace


def earned_by_prefixes(objective: Objective, trace: Trace, batch: Batch) -> Tensor:
    """Compute what each prefix earns by the objective's reward, r(h_<l).

    Args:
        objective: whose reward it is.
        trace: with prefix_logits.
        batch: at the thinking positions, with the tokens' weights in a reward.

    Returns:
        (S, B, T, K, L), no gradient.

    Raises:
        ValueError: the trace has no predictions with prefixes.
    """
    if trace.prefix_logits is None:
        raise ValueError("credit=prefix needs trace.prefix_logits")
    each = [objective.earned_with(logits, trace, batch) for logits in trace.prefix_logits.unbind(4)]
    return torch.stack(each, -1)


def reward_to_go(reward: Tensor, of_prefixes: Tensor, trace: Trace) -> Tensor:
    """Compute what each symbol and those after it add to the reward.

        Σ_{l' ≥ l} (r(h_≤l') − r(h_<l')) = r(h) − r(h_<l)

    What a thought pays for its length or its divergence is all in r(h).

    Args:
        reward: (S, B, T, K) r(h).
        of_prefixes: (S, B, T, K, L) r(h_<l).
        trace: with log_prob (S, B, T, K, L), and the lengths of thoughts where they differ.

    Returns:
        (S, B, T, K, L), 0 for symbols that were not drawn, after the end of a thought.
    """
    return where_drawn(reward.unsqueeze(-1) - of_prefixes, trace)


def where_drawn(values: Tensor, trace: Trace) -> Tensor:
    """Return values (S, B, T, K, L) of the symbols that were drawn, a drawn end among them; 0 for padding."""
    if trace.length is None:
        return values
    count = trace.length if trace.unfinished is None else trace.length + 1
    drawn = torch.arange(values.shape[-1], device=values.device) < count.unsqueeze(-1)
    return values.where(drawn, 0.0)


def prefix_nll(trace: Trace, batch: Batch, decay: float = 1.0, later: float = 1.0) -> Tensor:
    """Compute the NLL of the predictions with the prefixes of thoughts.

        (1 / K) Σ_k mean_l −log q(y | h_k,≤l, x),    l = 0 … the thought's length − 1

    It trains the predictor to answer early, and the reasoner where its path is kept: another objective than
    the likelihood with whole thoughts.

    Args:
        trace: with prefix_logits.
        batch: at the thinking positions.
        decay: a token's weight relative to the one before; see `discounted`.
        later: see there.

    Returns:
        (S,), the weighted mean over positions; thoughts without symbols have no such prefix, and add 0.

    Raises:
        ValueError: the trace has no predictions with prefixes.
    """
    log_q = log_q_of_prefixes(trace, discounted(batch, decay, later))
    if trace.length is None:
        each = log_q.mean(-1)
    else:
        own = torch.arange(log_q.shape[-1], device=log_q.device) < trace.length.unsqueeze(-1)
        each = log_q.where(own, 0.0).sum(-1) / trace.length.clamp(min=1)
    return position_mean(-each.mean(-1), batch.weights)
