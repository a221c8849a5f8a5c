"""The training step of a model without thoughts, by one native function."""

from __future__ import annotations

from torch import Tensor

from toyqs.model.backbones.gru import GRU
from toyqs.model.backbones.kernels.plain import PlainLoss
from toyqs.model.core import Core
from toyqs.model.layers import FeatureHead


class PlainStep:
    """The NLL of a batch under a GRU whose head is one linear layer: the model's own, to rounding."""

    def __init__(self, core: Core, head: FeatureHead) -> None:
        """Take the base LM's core, its backbone a GRU, and a head of one layer."""
        assert isinstance(core.backbone, GRU)
        self.core, self.gru, self.head = core, core.backbone, head

    def __call__(self, inputs: Tensor, positions: Tensor | None, targets: Tensor, weights: Tensor) -> Tensor:
        """Compute the weighted mean of −log q(y | x) over the positions.

        Args:
            inputs: (S, B, T) long, all positions.
            positions: (S, B, T') long, those that predict; None: all.
            targets: (S, B, T') long.
            weights: (S, B, T').

        Returns:
            (S,), with its gradients already computed.
        """
        layers = (self.gru.weight_hh, self.gru.bias_hh, self.head.get_parameter("weight_0"), self.head.bias)
        rows = self.core.token_rows()
        return PlainLoss.apply(rows, inputs, positions, targets, weights, *layers)
