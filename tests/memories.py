"""What a role of the plain reference has read: take in a row, and say the output.

A transformer's is the library's own model, run on every sequence whole, by the library's own cache where the
weights change on the way. Nothing of toyqs.model runs here.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.library import cache_name


class GRUMemory:
    """One state (M, D) for M thoughts; it is its own output."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        """The parameters of one seed by name."""
        self.values = values

    def empty(self, letter: str) -> Tensor:
        table = self.values[f"cores.{letter}.tokens.weight"]
        return table.new_zeros(1, table.shape[1])

    def afresh(self, letter: str) -> Tensor:
        """Where an interpreter begins."""
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
    """All rows so far, (1 or M, D) each, and whose weights read it."""

    def __init__(self, cores: nn.ModuleDict) -> None:
        """Letter -> core, of whose backbones the weights alone are taken."""
        self.cores, self.models = cores, {}

    def model(self, letter: str) -> Any:
        """The library's own, with this letter's weights."""
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
        """(1 or M, D), at the last row."""
        count, found = max(len(x) for _, x in sequence), None
        parts = [list(part) for _, part in itertools.groupby(sequence, key=lambda row: row[0])]
        for part in parts:
            rows = torch.stack([x.expand(count, -1) for _, x in part], 1)
            read = self.model(part[0][0])
            before = {} if found is None else {cache_name(read): found[cache_name(read)]}
            found = read(inputs_embeds=rows, use_cache=len(parts) > 1, **before)
        return found.last_hidden_state[:, -1]
