"""The cost of a training step, counted while it runs: no clock, and no formula to keep up to date."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class Cost(NamedTuple):
    """The cost of one seed's training; a token is a position of a sequence."""

    parameters: int
    flops_per_step: int  # matrix products of a training step, forward and backward
    flops_per_token: float
    recurrent_steps_per_token: float  # state updates, over all roles and branches, shared ones once


def mean(costs: Mapping[Cost, int]) -> Cost:
    """Return the mean cost of a training step, where steps differ.

    Args:
        costs: cost of a step -> number of steps of that cost, all with the same parameters.

    Returns:
        The mean, its FLOPs per step rounded.
    """
    total = sum(costs.values())
    parameters, *counted = (
        sum(value * count for value, count in zip(values, costs.values(), strict=True)) / total
        for values in zip(*costs, strict=True)
    )
    return Cost(round(parameters), round(counted[0]), *counted[1:])


def measure(models: Sequence[nn.Module], step: Callable[[], object], tokens: int) -> Cost:
    """Count a training step of a model with S = 1.

    Args:
        models: the trained one, whose parameters are counted, then those that only compute; the backbones
            of their cores have `read` and `step`.
        step: runs forward and backward on a batch of the real size.
        tokens: B · T of that batch.
    """
    updates: list[int] = []
    for model in models:
        _count_updates(model, updates)
    with _Counter() as counter:
        step()
    flops = counter.flops
    parameters = sum(p.numel() for p in models[0].parameters())
    return Cost(parameters, flops, flops / tokens, sum(updates) / tokens)


_aten = torch.ops.aten
# torch's table has the attention kernels of GPUs; those of a CPU have the same arguments and FLOPs.
_COUNTED_AS = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _aten._scaled_dot_product_flash_attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        _aten._scaled_dot_product_flash_attention_backward
    ),
}


class _Counter(TorchDispatchMode):
    """A counter of FLOPs by torch's own table; its FlopCounterMode would import the compiler."""

    flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True would import torch._dynamo, which takes as long as torch itself

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        kernel = func._overloadpacket
        if count := flop_registry.get(_COUNTED_AS.get(kernel, kernel)):
            self.flops += count(*args, **(kwargs or {}), out_val=out)
        return out


def _count_updates(model: nn.Module, updates: list[int]) -> None:
    """Let every further call of a backbone append its number of state updates."""
    for core in model.cores.values():  # type: ignore[operator]
        for name in ("read", "step"):
            setattr(core.backbone, name, _counting(getattr(core.backbone, name), updates))


def _counting(call: Callable[..., tuple[Tensor, object]], updates: list[int]) -> Callable[..., object]:
    def counted(*args: Tensor) -> object:
        outputs, state = call(*args)
        updates.append(outputs.shape[:-1].numel())
        return outputs, state

    return counted
