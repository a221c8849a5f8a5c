"""One AdamW step for all parameters of all seeds, with gradients clipped seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from toyqs.training.flat_buffer import Layout, Sharing

BETAS, EPSILON = (0.9, 0.999), 1e-8  # torch's own defaults


class Optimiser:
    """AdamW (no weight decay) over one flat buffer that holds every parameter.

    A model of small parameters costs one kernel instead of dozens. The parameters and their
    gradients become views of the buffers. The kernel is torch's own, called without torch.optim's
    class around it, which takes longer than the kernel on models of this size.
    """

    def __init__(
        self,
        model: nn.Module,
        lr_multipliers: Mapping[str, float] | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        """Move the model's parameters, each of shape (S, ...), into one buffer.

        Args:
            model: keeps its parameters, as views of the buffer.
            lr_multipliers: how a parameter's name ends -> factor of its learning rate.
            sharing: moments, with other processes; None: all are here.
        """
        self.layout = layout = Layout(model, sharing)
        first = next(model.parameters()).detach()
        self.values, self.grads = first.new_zeros(layout.size), first.new_zeros(layout.size)
        self.common_grads = self.grads[layout.common]  # to be added up; those of parts are sums already
        self.stepped = [self.values[part] for part in layout.stepped]
        self.slopes = [self.grads[part] for part in layout.stepped]
        self.means = [torch.zeros_like(part) for part in self.stepped]
        self.squares = [torch.zeros_like(part) for part in self.stepped]
        self.count = torch.zeros((), device=first.device)
        self.num_seeds = layout.num_seeds
        for name, parameter in model.named_parameters():
            span = layout.spans[name]
            self.values[span] = parameter.detach().flatten()
            parameter.data = self.values[span].view(parameter.shape)
            parameter.grad = self.grads[span].view(parameter.shape)
        self.faster = [
            (span, factor)
            for name, span in layout.spans.items()
            for ending, factor in (lr_multipliers or {}).items()
            if name.endswith(ending)
        ]

    def of_seed(self, index: int) -> dict[str, Tensor]:
        """A seed's parameters and moments, flat, and the number of steps behind them, copied.

        They are those of one process; processes that share moments call this together.
        """
        fetched = self.layout.fetched
        buffers = {"values": self.values, "means": fetched(self.means), "squares": fetched(self.squares)}
        taken = {name: self.layout.of_seed(each, index) for name, each in buffers.items()}
        return taken | {"count": self.count.clone()}

    def restore(self, parts: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on from what `of_seed` gave, one part per seed."""
        self.count.copy_(parts[0]["count"])
        stepped = self.layout.stepped
        buffers = [("values", [self.values], [slice(None)])]
        buffers += [("means", self.means, stepped), ("squares", self.squares, stepped)]
        for name, kept, spans in buffers:
            whole = torch.zeros_like(self.values)
            for index, part in enumerate(parts):
                self.layout.fill(whole, index, part[name].to(whole.device))
            for each, span in zip(kept, spans, strict=True):
                each.copy_(whole[span])

    def zero(self) -> None:
        """Forget the gradients."""
        self.grads.zero_()

    def clip(self, max_norm: float) -> Tensor:
        """Scale each seed's gradient down to a norm of at most max_norm (0: leave it).

        Returns:
            (S,) the norms before.
        """
        norms = self.layout.sums(self.grads.square()).sqrt()
        if max_norm:
            scale = (norms + 1e-6).reciprocal_().mul_(max_norm).clamp_(max=1.0)
            self.grads.mul_(self.layout.each(scale))
        return norms

    def step(self, lr: float) -> None:
        """Update the parameters with this learning rate; processes that share moments step together."""
        self.count += 1
        before = [self.values[span].clone() for span, _ in self.faster]
        torch._fused_adamw_(
            self.stepped,
            self.slopes,
            self.means,
            self.squares,
            [],
            [self.count] * len(self.stepped),
            lr=lr,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=0.0,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )
        for (span, factor), old in zip(self.faster, before, strict=True):
            # Without weight decay the step is proportional to the rate.
            self.values[span] = old + factor * (self.values[span] - old)
        if self.layout.sharing is not None:
            self.values[self.layout.common] = self.layout.sharing.whole(self.stepped[0])
