"""Mixers: how the base state and a thought's reading become the LM head's prediction.

Every mixer maps base (S, B, T, D) and readings (S, B, T, K, E), either of them None where it is absent, to
the features that the head adds up, and to the weight (S, B, T, K) of each thought, where that is one number.
Without a reading the base state is the only feature, which the head predicts from with no thought. Where a
position predicts N tokens, base is (S, B, T, N, D), readings are (S, B, T, K, N, E) or (S, B, T, K, 1, E),
and features and weights have the axis N too.

Gate, Hidden and Logits learn each thought's weight. It is kept above `gate_floor`, which the training loop
lowers to 0: a thought that hardly moves the prediction at first would never learn to carry anything.

A new mixer is one class in this file with a `name`: docs/adding-a-mixer.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from toyqs.model.layers import Linear, LMHead, Output, SeedStacked, normal
from toyqs.model.predicting.attention import attended, attention, spread_scores
from toyqs.model.weighing import Weigher, interpolate, logistic_above

Mixed = tuple[list[Tensor], Tensor | None]  # features, and the weight of each thought

MIXERS: dict[str, type[Mixer]] = {}  # the word of mixing=… -> class; every named class below enters itself


class Mixer(SeedStacked, ABC):
    """The base class of all mixers."""

    name: ClassVar[str]  # the word of mixing=…
    needs_rows: ClassVar[bool] = False  # whether the LM head needs rows of weights for the reading alone
    weighs_thoughts: ClassVar[bool] = False  # whether the weight of each thought is learned, above the floor
    joins_thoughts: ClassVar[bool] = False  # whether all K thoughts of a position give one prediction
    predicts_without_thought: bool = True

    def __init_subclass__(cls) -> None:
        name = vars(cls).get("name")
        if name in MIXERS:
            raise ValueError(f"class {cls.__name__}: a mixer of the name {name!r} exists")
        if name:
            MIXERS[name] = cls

    def __init__(self, num_seeds: int, base_width: int, reading_width: int) -> None:
        """Declare the parameters and the widths of the features.

        Args:
            num_seeds: S.
            base_width: D; 0: the prediction may not see the base state.
            reading_width: E.
        """
        super().__init__()
        self.widths = [base_width]

    @abstractmethod
    def mix(self, base: Tensor, reading: Tensor, gate_floor: float) -> Mixed:
        """Mix base states (S, B, T, 1, D) and readings (S, B, T, K, E).

        Returns:
            The head's features, of the widths `self.widths`, and the weight of each thought or None.
        """

    def forward(self, base: Tensor, reading: Tensor | None, gate_floor: float = 0.0) -> Mixed:
        """Return the head's features, without a reading the base state; and the weight of each thought."""
        base = base.unsqueeze(3)
        return ([base], None) if reading is None else self.mix(base, reading, gate_floor)

    def predict(
        self, head: LMHead, base: Tensor | None, reading: Tensor | None, gate_floor: float = 0.0
    ) -> tuple[Tensor, Tensor | None]:
        """Return logits (S, B, T, K, V), and the weight of each thought."""
        features, weight = self(base, reading, gate_floor)
        return head(features), weight


class BaseOnly(Mixer):
    """The base state alone, of a model without thoughts, or whose thoughts help later positions only."""

    name = "base"

    def mix(self, base: Tensor, reading: Tensor, gate_floor: float) -> Mixed:
        """Return features (S, B, T, 1, D)."""
        return [base], None


class Concat(Mixer):
    """Base state and reading side by side; without a thought the reading's part is zero."""

    name = "concat"
    needs_rows = True

    def __init__(self, num_seeds: int, base_width: int, reading_width: int) -> None:
        super().__init__(num_seeds, base_width, reading_width)
        self.widths = [base_width, reading_width]

    def mix(self, base: Tensor, reading: Tensor, gate_floor: float) -> Mixed:
        """Return features (S, B, T, 1, D) and (S, B, T, K, E)."""
        return [base, reading], None


class Attend(Concat):
    """Base state and one reading of all K thoughts side by side: one prediction for a position.

        reading = Σ_k a_k reading_k,    a = softmax_k u_k

    u_k is learned, MLP(base, reading_k), or given. Of a single thought a = 1, which is Concat.
    """

    name = "attend"
    joins_thoughts = True

    def __init__(self, num_seeds: int, base_width: int, reading_width: int, learned: bool = True) -> None:
        super().__init__(num_seeds, base_width, reading_width)
        self.scorer = Weigher(num_seeds, base_width, reading_width) if learned else None

    def scores(self, base: Tensor, reading: Tensor, given: Tensor | None) -> Tensor:
        """Return u (S, B, T, K), or (S, B, T, K, N); where it is not learned, as given, None: all alike."""
        if self.scorer is None:
            return spread_scores(given, base, reading)
        return self.scorer(base.unsqueeze(3), reading).squeeze(-1)

    def mix(self, base: Tensor, reading: Tensor, gate_floor: float) -> Mixed:
        """Return features (S, B, T, 1, D) and (S, B, T, 1, E)."""
        weights = attention(self.scores(base.squeeze(3), reading, None))
        return [base, attended(reading, weights)], None

    def predict_each(self, head: LMHead, base: Tensor, readings: Tensor) -> Tensor:
        """Return logits (S, B, T, J, V) with each of J readings (S, B, T, J, E) by itself, as Concat does."""
        return head([base.unsqueeze(3), readings])


class Add(Mixer):
    """base + P reading, P a learned projection to the base width."""

    name = "add"

    def __init__(self, num_seeds: int, base_width: int, reading_width: int) -> None:
        super().__init__(num_seeds, base_width, reading_width)
        self.projection = Linear(num_seeds, reading_width, base_width)

    def mix(self, base: Tensor, reading: Tensor, gate_floor: float) -> Mixed:
        """Return features (S, B, T, K, D)."""
        return [base + self.projection(reading)], None


class Residual(Mixer):
    """base + c ⊙ P reading, c learned for each dimension and nearly 0 at first.

    So the prediction starts as the base LM's, and thoughts gain influence as far as they help. The weight
    reported is the mean |c|, the same for all thoughts.
    """

    name = "residual"

    def __init__(self, num_seeds: int, base_width: int, reading_width: int) -> None:
        super().__init__(num_seeds, base_width, reading_width)
        self.projection = Linear(num_seeds, reading_width, base_width)
        # Not 0 itself, at which the reading would have no gradient in the first step.
        self.scale = self.declare("scale", (num_seeds, base_width), normal(0.05))

    def mix(self, base: Tensor, reading: Tensor, gate_floor: float) -> Mixed:
        """Return features (S, B, T, K, D)."""
        scale = self.scale.view(len(self.scale), *(1 for _ in reading.shape[1:-1]), -1)
        mixed = base + scale * self.projection(reading)
        return [mixed], scale.detach().abs().mean(-1).expand(mixed.shape[:-1])


class Gate(Mixer):
    """(1 − g) base + g P reading, g = σ(a · [base, reading] + b) one number per thought."""

    name = "gate"
    weighs_thoughts = True

    def __init__(self, num_seeds: int, base_width: int, reading_width: int) -> None:
        super().__init__(num_seeds, base_width, reading_width)
        self.projection = Linear(num_seeds, reading_width, base_width)
        self.opening = Output(num_seeds, base_width + reading_width, 1)

    def mix(self, base: Tensor, reading: Tensor, gate_floor: float) -> Mixed:
        """Return features (S, B, T, K, D)."""
        shape = torch.broadcast_shapes(base.shape[:-1], reading.shape[:-1])
        base, reading = base.expand(*shape, -1), reading.expand(*shape, -1)
        weight = logistic_above(gate_floor, self.opening(torch.cat([base, reading], -1)))
        return [torch.lerp(base, self.projection(reading), weight)], weight.squeeze(-1)


class Hidden(Mixer):
    """(1 − w) base + w P reading, w = σ(MLP(base, reading)) one number per thought."""

    name = "hidden"
    weighs_thoughts = True

    def __init__(self, num_seeds: int, base_width: int, reading_width: int) -> None:
        super().__init__(num_seeds, base_width, reading_width)
        self.projection = Linear(num_seeds, reading_width, base_width)
        self.opening = Weigher(num_seeds, base_width, reading_width)

    def mix(self, base: Tensor, reading: Tensor, gate_floor: float) -> Mixed:
        """Return features (S, B, T, K, D)."""
        weight = logistic_above(gate_floor, self.opening(base, reading))
        return [interpolate(base, self.projection(reading), weight)], weight.squeeze(-1)


class Logits(Mixer):
    """(1 − w) logits of the base state + w logits of the reading, w = σ(MLP(base, reading)).

    One head computes both, with rows of its first layer for each, as in Concat.

    Source: Zelikman et al. 2024, "Quiet-STaR" (mixing head).
    """

    name = "logits"
    weighs_thoughts = True

    def __init__(self, num_seeds: int, base_width: int, reading_width: int) -> None:
        super().__init__(num_seeds, base_width, reading_width)
        self.widths = [base_width, reading_width]
        self.opening = Weigher(num_seeds, base_width, reading_width)

    def mix(self, base: Tensor, reading: Tensor, gate_floor: float) -> Mixed:
        """Return features (S, B, T, 1, D) and (S, B, T, K, E), of which `predict` takes the logits apart."""
        return [base, reading], logistic_above(gate_floor, self.opening(base, reading)).squeeze(-1)

    def predict(
        self, head: LMHead, base: Tensor | None, reading: Tensor | None, gate_floor: float = 0.0
    ) -> tuple[Tensor, Tensor | None]:
        """Return logits (S, B, T, K, V), and the weight of each thought."""
        features, weight = self(base, reading, gate_floor)
        of_base = head(features[:1])
        if weight is None:
            return of_base, None
        return interpolate(of_base, head([None, features[1]]), weight.unsqueeze(-1)), weight


class ThoughtOnly(Mixer):
    """The reading alone; without a thought the base state, where it may be seen and is as wide."""

    name = "thought"

    def __init__(self, num_seeds: int, base_width: int, reading_width: int) -> None:
        super().__init__(num_seeds, base_width, reading_width)
        self.widths = [reading_width]
        self.predicts_without_thought = base_width == reading_width

    def mix(self, base: Tensor | None, reading: Tensor, gate_floor: float) -> Mixed:
        """Return features (S, B, T, K, E)."""
        return [reading], None

    def forward(self, base: Tensor | None, reading: Tensor | None, gate_floor: float = 0.0) -> Mixed:
        """Return the reading, without one the base state."""
        if reading is not None:
            return self.mix(base, reading, gate_floor)
        if base is None or not self.predicts_without_thought:
            raise ValueError(f"{type(self).__name__}: this model has no prediction without a thought")
        return super().forward(base, None)


class Projected(ThoughtOnly):
    """P reading alone, P a learned projection to the base width: Add where the base state may not be seen."""

    def __init__(self, num_seeds: int, base_width: int, reading_width: int) -> None:
        super().__init__(num_seeds, 0, reading_width)
        self.widths = [base_width]
        self.projection = Linear(num_seeds, reading_width, base_width)

    def mix(self, base: Tensor | None, reading: Tensor, gate_floor: float) -> Mixed:
        """Return features (S, B, T, K, D)."""
        return [self.projection(reading)], None


class Sum(ThoughtOnly):
    """Logits of the base state + logits of the reading, both of one head; without a thought the base state's.

    Both are of one width. With a linear head that is Concat with the same rows for both features (and the
    bias twice); with an MLP no other mixer equals it. Logits takes the weighted mean of the same two.

    Source: Zelikman et al. 2024, "Quiet-STaR" (residual logits of its code).
    """

    name = "sum"

    def predict(
        self, head: LMHead, base: Tensor | None, reading: Tensor | None, gate_floor: float = 0.0
    ) -> tuple[Tensor, Tensor | None]:
        """Return logits (S, B, T, K, V), and None: it gives thoughts no weights."""
        of_base, _ = super().predict(head, base, None, gate_floor)
        return of_base if reading is None else of_base + head([reading]), None
