"""Whole thoughts by native functions: the steps and draws of all symbols, one function with a gradient."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from toyqs.model.backbones.kernels import KEPT_FROM
from toyqs.model.backbones.kernels.calls import check, check_first_order, check_shapes, run
from toyqs.model.backbones.kernels.gru import padded


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
        symbol = _Symbol(start, table, layers, [None] * 4, symbols)
        for index in range(length):
            before = hidden[-1]
            hidden.append(states.new_empty(seeds, *places, each if index else 1, states.shape[-1]))
            kept.append(states.new_empty(*before.shape[:-1], 3 * padded(before)) if keep else None)
            symbol.take(index, before, hidden[-1], kept[-1])
            symbol.gru.states = symbol.draw.h
            symbol.draw.noise = None if forced else _part(given, index)
            symbol.draw.log_prob = _part(log_prob, index)
            symbol.draw.entropy = _part(entropy, index) if index else first_entropy.data_ptr()
            symbol.step()
            symbol.sample()
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
        symbol = _Symbol(start, table, layers, at_layers, symbols)
        for index in range(length - 1, -1, -1):
            at_before = torch.empty_like(hidden[index])
            symbol.take(index, hidden[index], hidden[index + 1], kept[index])
            symbol.draw.at_log_prob = _part(at_draws[0], index)
            symbol.draw.at_entropy = _part(at_draws[1], index) if index else first_entropy.data_ptr()
            symbol.draw.at_h = symbol.gru.grad = at_now.data_ptr()
            symbol.gru.at_x = (at_table if index else at_start).data_ptr()
            symbol.gru.at_h = at_before.data_ptr()
            symbol.sample()
            symbol.step()
            at_now = at_before
        return at_start, at_table, at_now, *at_layers, None, None


def _words(pointers: str, sizes: str) -> list[tuple[str, type]]:
    words: list[tuple[str, type]] = [(name, ctypes.c_void_p) for name in pointers.split()]
    return [*words, *((name, ctypes.c_int64) for name in sizes.split())]


class _Gru(ctypes.Structure):
    """Gru of gru.h."""

    _fields_ = _words(
        "x ids h weight bias at_weight at_bias states grad at_x at_h kept",
        "seeds starts each length x_rows x_part d",
    )


class _Draw(ctypes.Structure):
    """Draw of draw.h."""

    _fields_ = _words(
        "h weight bias at_weight at_bias noise symbols log_prob entropy at_log_prob at_entropy at_h",
        "seeds rows draws d v",
    )


class _Symbol:
    """The step to a symbol of all thoughts, and its draw: fields that stay are filled in once.

    Fields hold addresses: what lies there has to be kept as long as they are used.
    """

    def __init__(
        self,
        start: Tensor,
        table: Tensor,
        layers: Sequence[Tensor],
        at_layers: Sequence[Tensor | None],
        symbols: Tensor,
    ) -> None:
        check_first_order()
        self.start, self.table, self.symbols = start, table, symbols
        places = [None if x is None else x.data_ptr() for x in (*layers, *at_layers)]
        seeds, width, classes = layers[2].shape
        self.gru = _Gru(None, None, None, *places[:2], *places[4:6], length=1, x_part=width, d=width)
        self.draw = _Draw(None, *places[2:4], *places[6:], d=width, v=classes)
        self.gru.seeds = self.draw.seeds = seeds

    def take(self, index: int, before: Tensor, now: Tensor, kept: Tensor | None) -> None:
        """Take a symbol's number, and the states before and after the step."""
        gru, draw, x = self.gru, self.draw, self.table if index else self.start
        starts, rows = before.shape[1:-1].numel(), now.shape[1:-1].numel()
        gru.x, gru.x_rows, gru.h = x.data_ptr(), x.shape[1], before.data_ptr()
        gru.ids = _part(self.symbols, index - 1) if index else None
        gru.kept = None if kept is None else kept.data_ptr()
        gru.starts, gru.each = starts, rows // max(1, starts)
        draw.h, draw.symbols = now.data_ptr(), _part(self.symbols, index)
        draw.rows, draw.draws = rows, self.symbols.shape[2:].numel() // max(1, rows)

    def step(self) -> None:
        """Call `gru`."""
        run("gru", self.start.dtype, ctypes.addressof(self.gru))

    def sample(self) -> None:
        """Call `draw`."""
        run("draw", self.start.dtype, ctypes.addressof(self.draw))


def _part(x: Tensor, index: int) -> int:
    """Return the address of x[index]; x lies one number after another."""
    return x.data_ptr() + index * x.stride(0) * x.element_size()


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
