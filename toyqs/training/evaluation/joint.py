"""The loss of predictions of several tokens from what was read before all of them (ahead=joint)."""

from __future__ import annotations

import torch
from torch import Tensor

from toyqs.objectives.losses import log_mean_exp
from toyqs.objectives.rewards import over_tokens, token_log_prob, tokens
from toyqs.positions import thinking_positions
from toyqs.training.evaluation.reading import Part, each
from toyqs.types import Batch, Context, Model, Thoughts, Trace

MOST_SUMMED = 256  # different thoughts that a loss is summed over; of more, as many as there are are sampled


def joint_losses(
    model: Model,
    part: Part,
    context: Context,
    batch: Batch,
    thoughts: Thoughts | None,
    trace: Trace,
    full: bool,
) -> dict[str, Tensor]:
    """Compute the loss of the N tokens of each position together, nats per position.

        nll_joint = −log Σ_h π(h | x) Π_j q(y_j | h, x)

    the sum over all V^L thoughts where those are at most MOST_SUMMED; else its estimate from the K sampled
    ones, −log (1/K) Σ_k Π_j q(y_j | h_k, x), which is too high on average, the less the larger K. Without
    thoughts it is −Σ_j log q(y_j | x). Tokens beyond the end of a sequence count in none of them.

    `joint_samples` is K where it is estimated, 0 where it is exact. With `full` also the same

        nll_joint_shuffled      with the thoughts of another sequence: π(h | x′)
        nll_joint_no_thought    with no thought, where the model can do that

    Args:
        model: of any kind.
        part: of the held-out sequences.
        context: read there, at the thinking positions.
        batch: likewise.
        thoughts: sampled there.
        trace: of these.
        full: see above.

    Returns:
        Name -> (S, B, T); nothing of a model that predicts otherwise.
    """
    if not model.predicts_jointly:
        return {}
    found = {}
    every = _every_thought(model, thoughts)
    if every is None:
        samples = _number_drawn(thoughts, part.noise)
        found["nll_joint"] = -log_mean_exp(_log_q(trace, batch))
    else:
        samples = 0
        log_prob, log_q = _scored(model, context, batch, every, trace.logits.shape[3])
        found["nll_joint"] = -(log_prob + log_q).logsumexp(-1)
    found["joint_samples"] = torch.full_like(found["nll_joint"], samples)
    if not full or thoughts is None:
        return found
    if model.predicts_without_thought:
        found["nll_joint_no_thought"] = -_log_q(model.talk(context, None), batch).squeeze(-1)
    if every is not None:
        there = model.read(part.before.inputs, thinking_positions(part.before))
        log_prob = _log_policy(model, there, batch, every)
        found["nll_joint_shuffled"] = -(log_prob + log_q).logsumexp(-1)
    elif thoughts.symbols.shape[4]:
        given = (thoughts.symbols, thoughts.given_length)
        symbols, lengths = part.others or each(lambda x: x.roll(1, 1), given)
        other = model.talk(context, model.think(context, part.noise, symbols, lengths))
        found["nll_joint_shuffled"] = -log_mean_exp(_log_q(other, batch))
    return found


def _every_thought(model: Model, thoughts: Thoughts | None) -> Tensor | None:
    """Return all thoughts (H, L) long; None where they cannot be counted, are too many or have no symbol."""
    if thoughts is None or model.num_symbols is None or thoughts.length is not None:
        return None
    length, countable = thoughts.symbols.shape[4], not thoughts.symbols.is_floating_point()
    if not (countable and length) or model.num_symbols**length > MOST_SUMMED:
        return None
    symbols = torch.arange(model.num_symbols, device=thoughts.symbols.device)
    return torch.cartesian_prod(*[symbols] * length).view(-1, length)


def _number_drawn(thoughts: Thoughts | None, noise: Tensor) -> int:
    """Return K; 0 where no noise decides what a thought is: without any, or with deterministic vectors."""
    if thoughts is None or not thoughts.symbols.shape[4]:
        return 0
    vectors_without_noise = thoughts.symbols.is_floating_point() and noise.dim() == 5
    return 0 if vectors_without_noise else thoughts.symbols.shape[3]


def _scored(
    model: Model, context: Context, batch: Batch, every: Tensor, at_once: int
) -> tuple[Tensor, Tensor]:
    """Return log π(h | x) and Σ_j log q(y_j | h, x) of given thoughts, (S, B, T, H) each.

    Args:
        model: scores them.
        context: at positions.
        batch: likewise.
        every: (H, L) long.
        at_once: thoughts of a position that are held in memory.
    """
    log_prob, log_q = [], []
    for some in every.split(at_once):
        thoughts = _forced(model, context, batch, some)
        assert thoughts.log_prob is not None
        log_prob.append(thoughts.log_prob.sum(-1))
        log_q.append(_log_q(model.talk(context, thoughts), batch))
    return torch.cat(log_prob, -1), torch.cat(log_q, -1)


def _log_policy(model: Model, context: Context, batch: Batch, every: Tensor) -> Tensor:
    thoughts = _forced(model, context, batch, every)
    assert thoughts.log_prob is not None
    return thoughts.log_prob.sum(-1)


def _forced(model: Model, context: Context, batch: Batch, some: Tensor) -> Thoughts:
    symbols = some.expand(*batch.targets.shape, *some.shape)
    thoughts = model.think(context, torch.empty(0), symbols)
    assert thoughts is not None
    return thoughts


def _log_q(trace: Trace, batch: Batch) -> Tensor:
    return over_tokens(token_log_prob(trace.logits, tokens(batch)), batch)
