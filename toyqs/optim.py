"""One AdamW step for all parameters of all seeds, with gradients clipped seed by seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from toyqs.numerics import LANES

LARGE = 2**22  # parameters of a seed, from which on sums over them, and notes whose they are, are dear
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
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """Move the model's parameters, each of shape (S, ...), into one buffer.

        Args:
            model: keeps its parameters, as views of the buffer.
            lr_multipliers: how a parameter's name ends -> factor of its learning rate.
            rank: of the processes that share the moments, which one this is.
            ranks: how many they are. Each keeps and steps one of as many equal parts; the others' new values
                are fetched by whoever calls `step` (ZeRO-1: Rajbhandari et al. 2020).
        """
        names, parameters = zip(*model.named_parameters(), strict=True)
        first = parameters[0].detach()
        self.used = sum(p.numel() for p in parameters)
        # filled up, so that the fused kernel's vector loop leaves nothing over: see numerics
        size = self.used + -self.used % (LANES * ranks)
        self.values, self.grads = first.new_zeros(size), first.new_zeros(size)
        self.part = slice(rank * size // ranks, (rank + 1) * size // ranks)
        self.stepped, self.slopes = self.values[self.part], self.grads[self.part]
        self.means, self.squares = torch.zeros_like(self.stepped), torch.zeros_like(self.stepped)
        self.count = torch.zeros((), device=first.device)
        self.num_seeds = first.shape[0]
        one = self.num_seeds == 1 and size >= LARGE
        self.seed_of = None if one else torch.zeros(size, dtype=torch.long, device=first.device)
        start, spans = 0, []
        for parameter in parameters:
            span = slice(start, start + parameter.numel())
            start = span.stop
            per_seed = parameter.numel() // self.num_seeds
            if self.seed_of is not None:
                self.seed_of[span] = torch.arange(self.num_seeds).repeat_interleave(per_seed)
            self.values[span] = parameter.detach().flatten()
            parameter.data = self.values[span].view(parameter.shape)
            parameter.grad = self.grads[span].view(parameter.shape)
            spans.append(span)
        self.spans = spans
        self.faster = [
            (span, factor)
            for name, span in zip(names, spans, strict=True)
            for ending, factor in (lr_multipliers or {}).items()
            if name.endswith(ending)
        ]

    def of_seed(self, index: int, whole: Callable[[Tensor], Tensor] | None = None) -> dict[str, Tensor]:
        """A seed's parameters and moments, flat, and the number of steps behind them, copied.

        Args:
            index: of the seed.
            whole: makes of each process's part all of it, where they share the moments.
        """
        mine = self._mine(index)
        buffers = {"values": self.values} | {
            name: each if whole is None else whole(each) for name, each in self._moments()
        }
        taken = {name: each[: self.used][mine].clone() for name, each in buffers.items()}
        return taken | {"count": self.count.clone()}

    def restore(self, parts: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on from what `of_seed` gave, one part per seed."""
        self.count.copy_(parts[0]["count"])
        for name, each in (("values", self.values), *self._moments()):
            whole = torch.zeros_like(self.values)
            for index, part in enumerate(parts):
                whole[: self.used][self._mine(index)] = part[name].to(each.device)
            each.copy_(whole if each is self.values else whole[self.part])

    def _mine(self, index: int) -> Tensor | slice:
        """Which of the used elements are a seed's."""
        return slice(None) if self.seed_of is None else self.seed_of[: self.used] == index

    def _moments(self) -> list[tuple[str, Tensor]]:
        return [("means", self.means), ("squares", self.squares)]

    def zero(self) -> None:
        """Forget the gradients."""
        self.grads.zero_()

    def per_seed(self, values: Tensor) -> Tensor:
        """The sums over each seed's parameters (S,) of values as long as the buffers.

        One float32 sum over many million small numbers would stand still: it is taken tensor by tensor then.
        """
        if self.seed_of is None:
            return values.sum().unsqueeze(0)
        if self.used > LARGE * self.num_seeds:
            parts = [values[span].view(self.num_seeds, -1).sum(1) for span in self.spans]
            return torch.stack(parts).sum(0)
        return values.new_zeros(self.num_seeds).index_add_(0, self.seed_of, values)

    def clip(self, max_norm: float) -> Tensor:
        """Scale each seed's gradient down to a norm of at most max_norm (0: leave it).

        Returns:
            (S,) the norms before.
        """
        norms = self.per_seed(self.grads.square()).sqrt()
        if max_norm:
            scale = (norms + 1e-6).reciprocal_().mul_(max_norm).clamp_(max=1.0)
            self.grads.mul_(scale if self.seed_of is None else scale.index_select(0, self.seed_of))
        return norms

    def step(self, lr: float) -> None:
        """Update this process's part of the parameters with this learning rate."""
        self.count += 1
        before = [self.values[span].clone() for span, _ in self.faster]
        torch._fused_adamw_(
            [self.stepped],
            [self.slopes],
            [self.means],
            [self.squares],
            [],
            [self.count],
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
