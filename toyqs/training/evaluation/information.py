"""The information of thoughts about their contexts, estimated from the densities of sampled thoughts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from toyqs.positions import rows
from toyqs.rng import ThoughtSizes, stream, thought_noise
from toyqs.training.evaluation.reading import Forced, each, pieces, read_positions
from toyqs.types import Batch, Context, Model, Thoughts

CONTEXTS = 64  # contexts and thoughts that are compared


def information(model: Model, context: Context, thoughts: Thoughts | None) -> dict[str, Tensor]:
    """Estimate the information of thoughts about their contexts, in nats per thought, at the last position.

        I = mean_i [ log π(h_i | x_i) − log (1/M) Σ_j π(h_i | x_j) ],   at most log M

    and the same with every h_i replaced by another context's: about 0 where thoughts do not depend on the
    context, below 0 where they do.

    Args:
        model: S seeds.
        context: (S, M, T, ...).
        thoughts: sampled in that context; the first of each position is used, with its length where the
            task set it.

    Returns:
        "information" and "information_shuffled", (S,) float64.
    """
    assert thoughts is not None
    return _compared(_crossed(model, context, thoughts.symbols.shape, _last(thoughts)))


def information_of(
    model: Model, some: Batch, seeds: Sequence[int], sizes: ThoughtSizes, most: int
) -> dict[str, Tensor]:
    """Estimate the `information` of thoughts that are sampled here.

    Args:
        model: S seeds.
        some: (S, M, T), the sequences whose contexts are compared.
        seeds: S of them; the noise comes from each one's own stream.
        sizes: of the thoughts.
        most: sequences computed at a time.
    """
    streams = [stream(seed, "information noise") for seed in seeds]
    noise = thought_noise(streams, some.think, sizes._replace(number=1)).to(some.weights)
    places = pieces(some.inputs.shape[1], most)
    own: list[Forced] = []
    shapes: list[Sequence[int]] = []
    for place in places:
        context, batch, _ = read_positions(model, rows(some, place), sizes)
        thoughts = model.think(context, noise[:, place].contiguous(), None, batch.lengths)
        assert thoughts is not None
        own.append(_last(thoughts))
        shapes.append(thoughts.symbols.shape)
    last = each(lambda *parts: torch.cat(parts, 1), *own)
    if len(places) == 1:
        return _compared(_crossed(model, context, shapes[0], last))
    again = (read_positions(model, rows(some, place), sizes)[0] for place in places)
    scores = [_crossed(model, context, shape, last) for context, shape in zip(again, shapes, strict=True)]
    return _compared(torch.cat(scores, 1))


def _last(thoughts: Thoughts) -> Forced:
    """Return the first thought of each last position, (S, M, L) or (S, M, L, Z), and its length (S, M)."""
    return each(lambda x: x[:, :, -1, 0], (thoughts.symbols, thoughts.given_length))


def _crossed(model: Model, context: Context, shape: Sequence[int], last: Forced) -> Tensor:
    """Return the log-density of each thought at the last position of each context, (S, contexts, thoughts).

    The context's shape is (S, contexts, T).
    """
    num_seeds, num_contexts, positions = shape[:3]
    index = last[0].new_full((num_seeds, num_contexts, 1), positions - 1, dtype=torch.long)
    crossed = each(lambda x: x[:, None, None].expand(-1, num_contexts, 1, *x.shape[1:]), last)
    scored = model.think(model.at(context, index), torch.empty(0), *crossed)
    assert scored is not None and scored.log_prob is not None
    return scored.log_prob.sum(-1)[:, :, 0].double()


def _compared(log_prob: Tensor) -> dict[str, Tensor]:
    """Return what `information` does, of the log-densities (S, M contexts, M thoughts)."""
    marginal = log_prob.logsumexp(1) - math.log(log_prob.shape[1])
    own, other = log_prob.diagonal(dim1=1, dim2=2), log_prob.roll(1, 1).diagonal(dim1=1, dim2=2)
    return {
        "information": (own - marginal).mean(-1),
        "information_shuffled": (other - marginal).mean(-1),
    }
