"""One optimiser step for all parameters of all seeds, with gradients clipped seed by seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from toyqs.numerics import LANES
from toyqs.training.optimizers.grokfast import Grokfast
from toyqs.training.optimizers.muon import ADJUSTMENTS, Muon, apply_, hidden_matrices

METHODS = ("adamw", "adam", "sgd", "muon")  # torch's AdamW, Adam, SGD without momentum; muon.py

BETAS, EPSILON = (0.9, 0.999), 1e-8  # torch's own defaults

NativeStep = Callable[[float, float, float], None]  # max_norm, rate, weight decay; clips and steps
Native = Callable[..., NativeStep]  # from the optimiser's buffers; see model/backbones/kernels/adam.py

LARGE = 2**22  # parameters of a seed: from here on one sum over them is inexact, and `seed_of` costly


class Optimiser:
    """AdamW, Adam, SGD or Muon over one flat buffer that holds every parameter.

        adamw   θ ← θ − η (m̂ / (√v̂ + ε) + λ θ)        m, v moving means of g and g²
        adam    θ ← θ − η m̂ / (√v̂ + ε)                the same of g + λ θ
        sgd     θ ← θ − η (g + λ θ)
        muon    see `Muon`; what is no matrix of a hidden layer as with adamw

    with rate η and weight decay λ; g may be filtered before (`Grokfast`). A model of small parameters costs
    one kernel instead of dozens. The parameters and their gradients become views of the buffers. The step is
    torch.optim's function: its classes import the compiler, which takes as long as torch itself, in every
    process that trains.
    """

    def __init__(
        self,
        model: nn.Module,
        lr_multipliers: Mapping[str, float] | None = None,
        method: str = "adamw",
        native: Native | None = None,
        *,
        adjust_lr_fn: str = next(iter(ADJUSTMENTS)),
        grokfast: Grokfast | None = None,
    ) -> None:
        """Move the model's parameters, each of shape (S, ...), into one buffer.

        Args:
            model: keeps its parameters, as views of the buffer.
            lr_multipliers: shell pattern of a parameter's name -> factor of its learning rate; the factors of
                several that fit are multiplied.
            method: one of METHODS.
            native: makes a clipped step of Adam and AdamW in one call; None: torch's operations make it,
                as they do with muon and with a filter.
            adjust_lr_fn: of muon.
            grokfast: the filter of the gradients; None: there is none.
        """
        self.method, self.grokfast = method, grokfast
        maps = hidden_matrices(model) if method == "muon" else {}
        named = dict(model.named_parameters())
        named = {name: named[name] for name in dict.fromkeys((*maps, *named))}
        first = next(iter(named.values())).detach()
        self.num_seeds = first.shape[0]
        self.spans: dict[str, slice] = {}  # each parameter's part of the buffer
        self.used = 0
        for name, parameter in named.items():
            self.spans[name] = slice(self.used, self.used + parameter.numel())
            self.used = self.spans[name].stop
        self.begin = self.spans[list(maps)[-1]].stop if maps else 0  # of what Adam or SGD steps
        # Padded, so that the fused kernel's vector loop leaves no remainder: see numerics.
        size = self.used + -(self.used - self.begin) % LANES
        self.values, self.grads = first.new_zeros(size), first.new_zeros(size)
        # What the method keeps from step to step: nothing for sgd.
        sizes = {} if method == "sgd" else {"means": size, "squares": size - self.begin}
        sizes |= {} if grokfast is None else {"slow": size}
        self.moments = {name: first.new_zeros(length) for name, length in sizes.items()}
        self.count = torch.zeros((), device=first.device)
        self.seed_of = None if self.num_seeds == 1 and size >= LARGE else self._seeds()
        for name, parameter in named.items():
            span = self.spans[name]
            self.values[span] = parameter.detach().flatten()
            parameter.data = self.values[span].view(parameter.shape)
            parameter.grad = self.grads[span].view(parameter.shape)
        self.faster = [
            (span, factor)
            for name, span in self.spans.items()
            for pattern, factor in (lr_multipliers or {}).items()
            if fnmatchcase(name, pattern)
        ]
        shapes = {name: parameter.shape for name, parameter in named.items()}
        self.muon = Muon(self.spans, shapes, maps, adjust_lr_fn) if maps else None
        self.native = self._native(native)

    def seed_state(self, index: int) -> dict[str, Tensor]:
        """Return copies of a seed's parameters and moments, flat, and the steps that Adam has counted."""
        taken = {name: part[self._mine(index, at)].clone() for name, (part, at) in self._buffers().items()}
        return taken | {"count": self.count.clone()}

    def restore(self, parts: Sequence[Mapping[str, Tensor]]) -> None:
        """Restore what `seed_state` returned, one part per seed."""
        self.count.copy_(parts[0]["count"])
        for name, (values, at) in self._buffers().items():
            for index, part in enumerate(parts):
                values[self._mine(index, at)] = part[name].to(values.device)

    def revert(self, index: int, values: Tensor) -> None:
        """Set a seed's parameters to those of a copy of the whole buffer."""
        mine = self._mine(index)
        self.values[: self.used][mine] = values[: self.used][mine]

    def blank(self, index: int) -> None:
        """Set a seed's parameters to NaN."""
        self.values[: self.used][self._mine(index)] = math.nan

    def zero(self) -> None:
        """Set the gradients to zero."""
        self.grads.zero_()

    def clip(self, max_norm: float) -> Tensor:
        """Scale each seed's gradient down to a norm of at most max_norm (0: leave it).

        Returns:
            (S,) the norms before.
        """
        norms = self.sums(self.grads.square()).sqrt()
        if max_norm:
            scale = (norms + 1e-6).reciprocal_().mul_(max_norm).clamp_(max=1.0)
            self.grads.mul_(scale if self.seed_of is None else scale.index_select(0, self.seed_of))
        return norms

    def step(self, lr: float | Tensor, weight_decay: float = 0.0, max_norm: float = 0.0) -> None:
        """Update the parameters, all of which decay, along gradients clipped to max_norm (0: as they are).

        A rate that is a tensor, one float32 number, stays on its device: a graph may hold the step.

        Where memory runs out all parameters are as they were: what is needed is allocated before the first
        change.
        """
        if self.native is not None and not isinstance(lr, Tensor):
            return self.native(max_norm, lr, weight_decay)
        if max_norm:
            self.clip(max_norm)
        slow = self._filter()
        matrices = slice(self.begin)
        means = self.moments["means"][matrices] if self.muon else self.grads
        prepared = self.muon.prepare(self.grads[matrices], means) if self.muon else None
        before = [self.values[span].clone() for span, _ in self.faster]
        count = self.count.clone()
        try:
            if self.method == "sgd":
                self._sgd(lr, weight_decay)
            else:
                self._adam(lr, weight_decay)
        except BaseException:
            self.count.copy_(count)  # torch counts before it computes
            raise
        if slow is not None:
            self.moments["slow"].copy_(slow)
        if prepared is not None:
            means.copy_(prepared[0])
            apply_(self.values[matrices], prepared[1], lr, weight_decay)
        for (span, factor), old in zip(self.faster, before, strict=True):
            # The step, decay included, is proportional to the rate.
            self.values[span].sub_(old).mul_(factor).add_(old)

    def _filter(self) -> Tensor | None:
        """Filter the gradients in place; return the slow ones from now on, None where there is no filter."""
        if self.grokfast is None:
            return None
        slow = self.grokfast.slow(self.moments["slow"], self.grads)
        self.grokfast.amplify_(self.grads, slow)
        return slow

    def _native(self, native: Native | None) -> NativeStep | None:
        if native is None or self.method not in ("adam", "adamw") or self.grokfast is not None:
            return None
        spans = list(self.spans.values())
        factors = [math.prod(factor for span, factor in self.faster if span is own) for own in spans]
        buffers = {"values": self.values, "grads": self.grads, "count": self.count} | self.moments
        constants, decoupled = (*BETAS, EPSILON), self.method == "adamw"
        return native(buffers, self.num_seeds, spans, factors, constants, decoupled=decoupled)

    def _adam(self, lr: float | Tensor, weight_decay: float) -> None:
        rest = slice(self.begin, None)
        adam(
            [self.values[rest]],
            [self.grads[rest]],
            [self.moments["means"][rest]],
            [self.moments["squares"]],
            [],
            [self.count],
            fused=True,
            decoupled_weight_decay=self.method != "adam",
            lr=lr,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=weight_decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def _sgd(self, lr: float | Tensor, weight_decay: float) -> None:
        sgd(
            [self.values],
            [self.grads],
            [None],
            fused=True,
            lr=lr,  # type: ignore[arg-type]  # it takes tensors as well
            weight_decay=weight_decay,
            momentum=0.0,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )

    def sums(self, values: Tensor) -> Tensor:
        """Sum values, of the buffer's length, over each seed's parameters, (S,).

        A single float32 sum of many million small numbers stops growing: it is taken tensor by tensor then.
        """
        if self.seed_of is None:
            return values.sum().unsqueeze(0)
        if self.used > LARGE * self.num_seeds:
            parts = [values[span].view(self.num_seeds, -1).sum(1) for span in self.spans.values()]
            return torch.stack(parts).sum(0)
        return values.new_zeros(self.num_seeds).index_add_(0, self.seed_of, values)

    def _buffers(self) -> dict[str, tuple[Tensor, int]]:
        """Return the used parts of what a checkpoint saves, and the element that each begins at."""
        buffers = {"values": self.values} | self.moments
        begins = {name: self.begin if name == "squares" else 0 for name in buffers}
        return {name: (buffer[: self.used - begins[name]], begins[name]) for name, buffer in buffers.items()}

    def _mine(self, index: int, begin: int = 0) -> Tensor | slice:
        """Return which of the used elements, from one on, are a seed's."""
        return slice(None) if self.seed_of is None else self.seed_of[begin : self.used] == index

    def _seeds(self) -> Tensor:
        """Return the seed of each element, as an index; of a single seed all are one number."""
        if self.num_seeds == 1:
            return torch.zeros(1, dtype=torch.long, device=self.values.device).expand(len(self.values))
        seed_of = torch.zeros_like(self.values, dtype=torch.long)
        for span in self.spans.values():
            per_seed = (span.stop - span.start) // self.num_seeds
            seed_of[span] = torch.arange(self.num_seeds).repeat_interleave(per_seed)
        return seed_of
