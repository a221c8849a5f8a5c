"""References that rewards and thoughts are compared with: the task's law, or a model that is not trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from toyqs.numerics import log_softmax
from toyqs.types import Batch, Context, Model, Trace


def with_reference(trace: Trace, counted: Batch, reference: str | None) -> Trace:
    """Add the log-probabilities of the task's own law, or of the model without a thought, to a trace.

    Args:
        trace: of the trained model.
        counted: at the thinking positions.
        reference: oracle or no_thought; any other leaves the trace unchanged.
    """
    if reference == "oracle":
        assert counted.oracle is not None
        oracle = counted.oracle.unsqueeze(3) if counted.ahead is None else counted.ahead.oracle
        return trace._replace(reference_log_probs=oracle)
    if reference == "no_thought" and trace.base_logits is not None:
        return trace._replace(reference_log_probs=trace.base_logits.detach().log_softmax(-1))
    return trace


class ReferenceModel:
    """A model that no gradient trains: a frozen copy, a moving average, or another run's.

    Its parameters p̄ average those of the trained model, p, and stay as they are where the decay is 1:

        p̄ ← d · p̄ + (1 − d) · p        after each step

    Source: Hatamizadeh et al. 2025, "RLP: Reinforcement as a pretraining objective", whose reference is
    an average that does not think.
    """

    def __init__(
        self, model: Model, *, decay: float = 1.0, predicts: bool = True, thought_kl_beta: float = 0.0
    ) -> None:
        """Take over a model.

        Args:
            model: S seeds; not used elsewhere.
            decay: d.
            predicts: add its prediction to traces; it must then predict without a thought.
            thought_kl_beta: β of the KL from the policy to this model's; 0: it scores no thought.
        """
        assert isinstance(model, nn.Module)
        self.model: Model = model.requires_grad_(False)
        self.parameters = list(model.parameters())
        self.decay, self.predicts, self.thought_kl_beta = decay, predicts, thought_kl_beta

    @torch.no_grad()
    def update_average(self, model: nn.Module) -> None:
        """Move towards the trained model, which has the same parameters (S, ...)."""
        if self.decay == 1.0:
            return
        for average, parameter in zip(self.parameters, model.parameters(), strict=True):
            # Each product is rounded by itself: a fused one would depend on its index in the vector.
            average.mul_(self.decay).add_(parameter * (1.0 - self.decay))

    @torch.no_grad()
    def read(self, inputs: Tensor, positions: Tensor | None, first: int = 0) -> Context:
        """Read a batch for `annotate`; see `Model.read`."""
        return self.model.read(inputs, positions, first)

    @torch.no_grad()
    def annotate(self, trace: Trace, context: Context) -> Trace:
        """Add this model's outputs on the same batch to a trace, without gradient.

            reference_log_probs    log p̄(y | x) with no thought
            penalty                increased by β (log π(h | x) − log π̄(h | x)), π̄ this model's policy

        The penalty is one sample of β KL(π ‖ π̄) per thought. Its own gradient, ∇ log π, has mean 0 over
        the policy, so that none is needed.

        Args:
            trace: of the trained model, with its thoughts' symbols where this model scores them.
            context: from `read`, at the trace's positions.
        """
        if self.predicts:
            logits = self.model.talk(context, None).logits.squeeze(3)
            trace = trace._replace(reference_log_probs=log_softmax(logits))
        if not self.thought_kl_beta:
            return trace
        assert trace.symbols is not None and trace.log_prob is not None
        lengths = trace.length if trace.unfinished is None else None  # else they follow from the symbols
        scored = self.model.think(context, torch.empty(0), trace.symbols.detach(), lengths)
        assert scored is not None and scored.log_prob is not None
        divergence = self.thought_kl_beta * (trace.log_prob - scored.log_prob).sum(-1)
        return trace._replace(penalty=divergence if trace.penalty is None else trace.penalty + divergence)
