"""The whole step of a GRU language model without thoughts, by one native function: plain.h."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from toyqs.model.backbones.kernels.calls import call, check, check_shapes


@torch.no_grad()
def plain_step(
    inputs: Tensor,
    places: Tensor | None,
    targets: Tensor,
    weights: Tensor,
    share: Tensor | None,
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
) -> Tensor:
    """Compute the weighted mean of −log p(target), times a share, of a GRU with a linear head on its states.

    Args:
        inputs: (S, B, T) long.
        places: (S, B, T') long, the positions that predict; None: all.
        targets: (S, B, T') long.
        weights: (S, B, T').
        share: (S,); None: 1.
        parameters: as `check_parameters` takes them; it has to be asked once.
        gradients: see there; those of the result are added.

    Returns:
        (S,).
    """
    tokens, classes = parameters[0], parameters[-1].shape[-1]
    seeds, vocab, width = tokens.shape
    check(inputs, tokens, weights)
    check(targets, tokens, *(() if share is None else (share,)))
    each = (*inputs.shape[:2], targets.shape[2] if places is None else places.shape[2])
    pairs = [(inputs, (seeds, *inputs.shape[1:])), (targets, each), (weights, each)]
    if places is None:
        pairs.append((inputs, each))
    else:
        check(places, tokens)
        pairs.append((places, each))
    if share is not None:
        pairs.append((share, (seeds,)))
    check_shapes(*pairs)
    given = [None if x is None else x.contiguous() for x in (inputs, places, targets, weights, share)]
    loss = tokens.new_empty(seeds)
    layers = zip(parameters[1::2], parameters[2::2], gradients[1::2], gradients[2::2], strict=True)
    sizes = (*inputs.shape, targets.shape[2], vocab, width, classes)
    fields = [x for layer in layers for x in layer]
    call("plain_step", tokens.dtype, *given, tokens, gradients[0], loss, *fields, *sizes)
    return loss


def check_parameters(parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    """Check the parameters of a plain model.

    Args:
        parameters: the tokens' embeddings (S, V, D); weight (S, D, E) and bias (S, 1, E) of the input, the
            recurrent layer and the head, E = 3 D, 3 D and the number of classes.
        gradients: as the parameters.

    Raises:
        TypeError: see `check`.
        ValueError: shapes do not fit, or numbers do not lie one after another.
    """
    check(None, *parameters, *gradients)
    tokens, *layers = parameters
    seeds, _, width = tokens.shape
    wide, classes = 3 * width, layers[-1].shape[-1]
    shapes = [(width, wide), (1, wide), (width, wide), (1, wide), (width, classes), (1, classes)]
    check_shapes(
        *zip(layers, ((seeds, *shape) for shape in shapes), strict=True),
        *zip(gradients, (x.shape for x in parameters), strict=True),
    )
    if not all(x.is_contiguous() for x in (*parameters, *gradients)):
        raise ValueError("parameters and gradients of native kernels lie one number after another")
