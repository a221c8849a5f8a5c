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
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
) -> Tensor:
    """Compute the weighted sum of −log p(target) of a GRU with a linear head on its states.

    Args:
        inputs: (S, B, T) long.
        places: (S, B, T') long, the positions that predict; None: all.
        targets: (S, B, T') long.
        weights: (S, B, T').
        parameters: the tokens' embeddings (S, V, D); weight (S, D, E) and bias (S, 1, E) of the input, the
            recurrent layer and the head, E = 3 D, 3 D and the number of classes.
        gradients: contiguous tensors as the parameters, to which the sum's gradients are added.

    Returns:
        (S,).
    """
    for ids in (inputs, places, targets):
        check(ids, weights, *parameters, *gradients)
    tokens, *layers = parameters
    seeds, classes = len(tokens), layers[-1].shape[-1]
    vocab, width = tokens.shape[1:]
    wide, each = 3 * width, (*inputs.shape[:2], (inputs if places is None else places).shape[2])
    shapes = [(width, wide), (1, wide), (width, wide), (1, wide), (width, classes), (1, classes)]
    check_shapes(
        *((inputs, (seeds, *inputs.shape[1:])), (targets, each), (weights, each)),
        *zip(layers, ((seeds, *shape) for shape in shapes), strict=True),
        *zip(gradients, (x.shape for x in parameters), strict=True),
        *(() if places is None else ((places, each),)),
    )
    assert all(x.is_contiguous() for x in gradients)
    given = [None if x is None else x.contiguous() for x in (inputs, places, targets, weights, *parameters)]
    loss = tokens.new_empty(seeds)
    pairs = zip(given[5::2], given[6::2], gradients[1::2], gradients[2::2], strict=True)
    sizes = (*inputs.shape, targets.shape[2], vocab, width, classes)
    at_layers = [x for layer in pairs for x in layer]
    call("plain_step", tokens.dtype, *given[:5], gradients[0], loss, *at_layers, *sizes)
    return loss
