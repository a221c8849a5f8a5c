"""Predictions with the prefixes of thoughts: with their first 0, 1, … L − 1 symbols alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from toyqs.model.layers import LMHead
from toyqs.model.mixing import Mixer


class Prefixes(NamedTuple):
    """When a model predicts with the prefixes of its thoughts, and what learns from that."""

    trained: bool  # a loss trains these predictions; else they have no gradient
    always: bool  # also where no gradient is computed: an evaluation says what its thoughts earn


def wanted_now(prefixes: Prefixes | None) -> bool:
    """Tell whether a model is to predict with prefixes; None: never."""
    return prefixes is not None and (prefixes.always or torch.is_grad_enabled())


class PrefixReadings:
    """The readings of the prefixes that an interpreter passes: the `visit` of its forward pass."""

    def __init__(self, trained: bool) -> None:
        """Begin with none; see `Prefixes.trained`."""
        self.trained = trained and torch.is_grad_enabled()
        self.readings: list[Tensor] = []

    def __call__(self, read: Callable[[], Tensor]) -> None:
        """Take the readings of the next longer prefix of every thought."""
        with torch.set_grad_enabled(self.trained):
            self.readings.append(read())

    def logits(
        self, mixer: Mixer, head: LMHead, base: Tensor | None, gate_floor: float, reading: Tensor
    ) -> Tensor:
        """Predict with every prefix as with a thought of its own; the empty one is a position's only one.

        Args:
            mixer: of the model.
            head: of the model.
            base: base states, as the mixer takes them for whole thoughts.
            gate_floor: as for whole thoughts.
            reading: that of whole thoughts, (S, B, T, K, E), (S, B, T, K, N, E) or (S, B, T, K, 1, E).

        Returns:
            (S, B, T, K, L, N, V).
        """
        number, parts = reading.shape[3], []
        for index, given in enumerate(self.readings):
            own = given.unsqueeze(-2) if given.dim() < reading.dim() else given
            own = own.expand(*reading.shape[:3], -1, *reading.shape[4:])
            parts.append(own if index else own[:, :, :, :1])
        with torch.set_grad_enabled(self.trained):
            logits, _ = mixer.predict(head, base, torch.cat(parts, 3), gate_floor)
            by_prefix = logits.split([1] + [number] * (len(parts) - 1), 3)
            stacked = torch.stack([x.expand(-1, -1, -1, number, *x.shape[4:]) for x in by_prefix], 4)
        return stacked.unsqueeze(-2) if reading.dim() == 5 else stacked


def prefix_readings(prefixes: Prefixes | None) -> PrefixReadings | None:
    """Return what an interpreter is to call at every prefix; None: nothing."""
    return PrefixReadings(prefixes.trained) if prefixes is not None and wanted_now(prefixes) else None
