"""Whole thoughts by native functions: the steps and draws of all symbols, one function with a gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from toyqs.model.backbones.kernels import KEPT_FROM
from toyqs.model.backbones.kernels.calls import call, check, check_shapes
from toyqs.model.backbones.kernels.gru import padded

Given = Tensor | None


class Think(torch.autograd.Function):
    """The sampling of K thoughts of L ≥ 1 symbols from each state: `think` in model/thoughts.py.

    Args:
        start: (S, 1, 3 D) the start marker as input row of the GRU.
        table: (S, V, 3 D) the symbols likewise; with L = 1, which reads none, of any number of rows.
        states: (S, B, T, 1, D) before the start marker.
        weight: (S, D, 3 D) of the GRU.
        bias: (S, 1, 3 D).
        head_weight: (S, D, V) of the layer before the softmax.
        head_bias: (S, 1, V).
        given: (S, B, T, K, L) uniform numbers; with `forced` long, the symbols themselves.
        forced: score the given symbols instead of sampling.

    Returns:
        (S, B, T, K, L) long symbols, their log-probabilities, and the entropies of their distributions;
        (S, B, T, K, D) the states after all symbols but the last, K = 1 where L = 1.
    """

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sample the thoughts."""
        *numbers, given, forced = args
        check(given if forced else None, *numbers, *(() if forced else (given,)))
        seeds, *places, each, length = given.shape
        _check_shapes(seeds, places, length, *numbers)
        start, table, states, *layers = (x.contiguous() for x in numbers)
        given = given.movedim(4, 0).contiguous()
        symbols = given if forced else torch.empty(given.shape, dtype=torch.long)
        log_prob, entropy = states.new_empty(given.shape), states.new_empty(given.shape)
        first_entropy = states.new_empty(states.shape[:-1])  # one for all thoughts of a position
        keep = states.shape[-1] >= KEPT_FROM and any(ctx.needs_input_grad)
        hidden, kept = [states], []
        for index in range(length):
            before = hidden[-1]
            hidden.append(states.new_empty(seeds, *places, each if index else 1, states.shape[-1]))
            kept.append(states.new_empty(*before.shape[:-1], 3 * padded(before)) if keep else None)
            x, ids = (table, symbols[index - 1]) if index else (start, None)
            _step((x, ids, before), (*layers[:2], None, None), (hidden[-1], None, None, None, kept[-1]))
            found = (log_prob[index], entropy[index] if index else first_entropy)
            noise = None if forced else given[index]
            _draw(hidden[-1], (*layers[2:], None, None), (noise, symbols[index], *found, None, None, None))
        entropy[0] = first_entropy
        ctx.save_for_backward(start, table, symbols, *layers, *hidden, *kept)
        results = tuple(x.movedim(0, 4) for x in (symbols, log_prob, entropy))
        ctx.mark_non_differentiable(results[0])
        ctx.set_materialize_grads(False)
        return *results, hidden[-1]

    @staticmethod
    def backward(
        ctx: Any, _: Any, at_log_prob: Tensor | None, at_entropy: Tensor | None, at_state: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients."""
        start, table, symbols, *layers = ctx.saved_tensors[:7]
        length = len(symbols)
        hidden, kept = ctx.saved_tensors[7 : 8 + length], ctx.saved_tensors[8 + length :]
        at_draws = [
            symbols.new_zeros(symbols.shape, dtype=start.dtype) if x is None else x.movedim(4, 0).contiguous()
            for x in (at_log_prob, at_entropy)
        ]
        first_entropy = at_draws[1][0].sum(-1, keepdim=True)
        at_start, at_table, *at_layers = map(torch.zeros_like, (start, table, *layers))
        at_now = torch.zeros_like(hidden[-1])
        if at_state is not None:
            at_now.add_(at_state)
        for index in range(length - 1, -1, -1):
            before, now = hidden[index : index + 2]
            given = (at_draws[0][index], at_draws[1][index] if index else first_entropy)
            layer = (*layers[2:], *at_layers[2:])
            _draw(now, layer, (None, symbols[index], None, None, *given, at_now))
            x, ids, at_x = (table, symbols[index - 1], at_table) if index else (start, None, at_start)
            at_before, layer = torch.empty_like(before), (*layers[:2], *at_layers[:2])
            _step((x, ids, before), layer, (None, at_now, at_x, at_before, kept[index]))
            at_now = at_before
        return at_start, at_table, at_now, *at_layers, None, None


def _check_shapes(
    seeds: int, places: list[int], length: int, start: Tensor, table: Tensor, states: Tensor, *layers: Tensor
) -> None:
    symbols, width = layers[2].shape[-1], states.shape[-1]
    rows = symbols if length > 1 else table.shape[1]
    check_shapes(
        *((start, (seeds, 1, 3 * width)), (table, (seeds, rows, 3 * width))),
        *((states, (seeds, *places, 1, width)), (layers[0], (seeds, width, 3 * width))),
        *((layers[1], (seeds, 1, 3 * width)), (layers[2], (seeds, width, symbols))),
        (layers[3], (seeds, 1, symbols)),
    )


def _step(inputs: tuple[Tensor, Given, Tensor], layer: tuple[Given, ...], rest: tuple[Given, ...]) -> None:
    """Call `gru` for one step: input rows, their ids and states; the layer, and all other fields."""
    x, _, before = inputs
    after = rest[0] if rest[0] is not None else rest[1]
    assert after is not None
    starts, width = before.shape[1:-1].numel(), before.shape[-1]
    each = after.shape[1:-1].numel() // max(1, starts)
    sizes = (len(x), starts, each, 1, x.shape[1], width, width)
    call("gru", x.dtype, *inputs, *layer, *rest, *sizes)


def _draw(states: Tensor, layer: tuple[Given, ...], rest: tuple[Given, ...]) -> None:
    """Call `draw` for states (S, B, T, 1 or K, D): the layer, and all other fields."""
    weight, symbols = layer[0], rest[1]
    assert weight is not None and symbols is not None
    rows = states.shape[1:-1].numel()
    draws = symbols.shape[1:].numel() // max(1, rows)
    call("draw", states.dtype, states, *layer, *rest, len(states), rows, draws, *weight.shape[1:])
