"""Held-out metrics with a hint before each sequence: the model's own, or those of what it learns from."""

from __future__ import annotations

import torch
from torch import Tensor

from toyqs.numerics import log_softmax
from toyqs.objectives.rewards import hits, target_log_prob
from toyqs.positions import behind, focus, thinking_positions
from toyqs.rng import ThoughtSizes
from toyqs.training.evaluation.metrics import Meter
from toyqs.training.evaluation.reading import spans
from toyqs.training.shortage import in_fewer
from toyqs.types import Batch, Model


@torch.no_grad()
def with_hints(
    model: Model, held_out: Batch, teacher: Model | None = None, *, at_once: int
) -> dict[str, Tensor]:
    """Compute metrics on held-out sequences with their hints, in nats per counted position.

    Without a teacher `nll_hinted` and `accuracy_hinted`, of the model's own prediction after the hint. With
    one `nll_teacher` and `accuracy_teacher`, of the teacher's, and

        kl_teacher    Σ_y p̄(y | hint, x) (log p̄(y | hint, x) − log q(y | x))

    at least 0: how far the prediction q without the hint is from the teacher's p̄ with it.

    Args:
        model: S seeds, without thoughts.
        held_out: (S, B, T), B ≥ 2, with their hints.
        teacher: what the model learns from.
        at_once: about how many positions are evaluated at once, per seed.

    Returns:
        Name -> (S,) float64.
    """
    places = list(spans(held_out, ThoughtSizes(1, 0), at_once))

    def measured(most: int) -> dict[str, Tensor]:
        meter = Meter()
        for span in places:
            for start in range(span.start, span.stop, most):
                _add(meter, model, teacher, held_out, slice(start, min(start + most, span.stop)))
        return {name: value / meter.weights[name] for name, value in meter.sums.items()}

    largest = max(span.stop - span.start for span in places)
    return in_fewer(largest, measured, "an evaluation with hints")


def _add(meter: Meter, model: Model, teacher: Model | None, held_out: Batch, span: slice) -> None:
    inputs, targets, weights, think = (x[:, span] for x in held_out[:4])
    assert held_out.hint is not None
    batch = Batch(inputs, targets, weights, think)
    positions = thinking_positions(batch)
    counted = focus(batch, positions)
    reader, who = (model, "hinted") if teacher is None else (teacher, "teacher")
    read = reader.read(*behind(held_out.hint[:, span], inputs, positions))
    logits, wanted = reader.talk(read, None).logits[..., :1, :], counted.targets.unsqueeze(-1)
    meter.add(f"nll_{who}", -target_log_prob(logits, wanted).squeeze(-1), counted.weights)
    meter.add(f"accuracy_{who}", hits(logits, wanted)[..., 0, 0], counted.weights)
    if teacher is None:
        return
    own = model.talk(model.read(inputs, positions), None).logits[..., :1, :]
    log_p, log_q = log_softmax(logits), log_softmax(own)
    distance = torch.where(log_p > -torch.inf, log_p - log_q, 0.0)
    meter.add("kl_teacher", (log_p.exp() * distance).sum(-1)[..., 0, 0], counted.weights)
