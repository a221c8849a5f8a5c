"""The training step of a model without thoughts, by one native function."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from toyqs.model.backbones.gru import GRU
from toyqs.model.backbones.kernels.plain import check_parameters, plain_step
from toyqs.model.core import Core
from toyqs.model.layers import Embedding, FeatureHead


class PlainStep:
    """The NLL of a batch under a GRU whose head is one linear layer: the model's own, to rounding."""

    def __init__(self, core: Core, head: FeatureHead) -> None:
        """Take the base LM's core, its backbone a GRU, and a head of one layer."""
        gru, tokens = cast(GRU, core.backbone), cast(Embedding, core.tokens)
        layers = (gru.weight_ih, gru.bias_ih, gru.weight_hh, gru.bias_hh)
        self.checked: list[int] = []  # where in memory the parameters and gradients lie that were found right
        self.parameters = (tokens.weight, *layers, head.get_parameter("weight_0"), head.bias)

    def __call__(
        self,
        inputs: Tensor,
        positions: Tensor | None,
        targets: Tensor,
        weights: Tensor,
        share: Tensor | None = None,
    ) -> Tensor:
        """Compute the weighted mean of −log q(y | x) over the positions, times a share.

        Its gradients are added to the parameters'.

        Args:
            inputs: (S, B, T) long, all positions.
            positions: (S, B, T') long, those that predict; None: all.
            targets: (S, B, T') long.
            weights: (S, B, T').
            share: (S,); None: 1.

        Returns:
            (S,).
        """
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [cast(Tensor, parameter.grad) for parameter in self.parameters]
        where = [x.data_ptr() for x in (*self.parameters, *gradients)]
        if where != self.checked:
            check_parameters(self.parameters, gradients)
            self.checked = where
        return plain_step(inputs, positions, targets, weights, share, self.parameters, gradients)
