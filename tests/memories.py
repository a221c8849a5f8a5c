"""The memories of the plain reference model, which read embeddings row by row and return an output.

A transformer's memory is the library's own model, run on every whole sequence, with the library's own cache
where the weights change within a sequence. Nothing of toyqs.model runs here.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class GRUMemory:
    """A GRU's memory: one state (M, D) for M thoughts, which is also the output."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        """Take the parameters of one seed, by name."""
        self.values = values

    def empty(self, letter: str) -> Tensor:
        weight = self.values[f"cores.{letter}.backbone.weight_hh"]
        return weight.new_zeros(1, len(weight))

    def afresh(self, letter: str) -> Tensor:
        """Return the initial state of an interpreter."""
        return self.values["interpreter.start_state"].view(1, -1)

    def take_in(self, letter: str, x: Tensor, h: Tensor) -> Tensor:
        def of(name: str) -> Tensor:
            return self.values[f"cores.{letter}.backbone.{name}"]

        i = x @ of("weight_ih") + of("bias_ih")[0]
        g = h @ of("weight_hh") + of("bias_hh")[0]
        (i_r, i_z, i_n), (g_r, g_z, g_n) = i.chunk(3, -1), g.chunk(3, -1)
        reset, update = torch.sigmoid(i_r + g_r), torch.sigmoid(i_z + g_z)
        return (1 - update) * torch.tanh(i_n + reset * g_n) + update * h

    def output(self, h: Tensor) -> Tensor:
        return h


Rows = tuple[tuple[str, Tensor], ...]


class WholeSequences:
    """A transformer's memory: all rows so far, (1 or M, D) each, and the letter of its weights."""

    def __init__(self, cores: nn.ModuleDict) -> None:
        """Take cores by letter; only the weights of their backbones are used."""
        self.cores, self.models = cores, {}

    def model(self, letter: str) -> Any:
        """Return the library's model with a letter's weights."""
        from tests.branching import plain_model  # it needs the package transformers

        if letter not in self.models:
            self.models[letter] = plain_model(self.cores[letter].backbone)
        return self.models[letter]

    def empty(self, letter: str) -> Rows:
        return ()

    afresh = empty

    def take_in(self, letter: str, x: Tensor, before: Rows) -> Rows:
        return (*before, (letter, x.view(-1, x.shape[-1])))

    def output(self, sequence: Rows) -> Tensor:
        """Return the output (1 or M, D) at the last row."""
        from bench.library_ways import cache_name

        count, out = max(len(x) for _, x in sequence), None
        parts = [list(part) for _, part in itertools.groupby(sequence, key=lambda row: row[0])]
        for part in parts:
            rows = torch.stack([x.expand(count, -1) for _, x in part], 1)
            read = self.model(part[0][0])
            before = {} if out is None else {cache_name(read): out[cache_name(read)]}
            out = read(inputs_embeds=rows, use_cache=len(parts) > 1, **before)
        return out.last_hidden_state[:, -1]
