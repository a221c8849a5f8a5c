"""One prediction from K thoughts by the plain reference: every tuple of thoughts at the counted position."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tests import reference, tiny
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_reasoner import LatentReasoner


class Tuples(NamedTuple):
    """What K thoughts give together, of all tuples of a model."""

    built: LatentReasoner
    index: Tensor  # (tuples, K) which thoughts
    log_prob: Tensor  # (tuples, K) of each thought
    log_q: Tensor  # (tuples,) of the target with all K
    without: Tensor  # (tuples, K) of the target without each

    @property
    def probability(self) -> Tensor:
        return self.log_prob.sum(-1).exp()

    def gradient(self, value: Tensor) -> tiny.Gradients:
        return {name: g[0] for name, g in tiny.gradients(value, self.built).items()}


def scores(weights: reference.Weights, settings: RunConfig, read: reference.Read) -> Tensor:
    """Return u of each thought (M,): of an MLP, or its coherence over the temperature."""
    base = read.base.expand(len(read.reading), -1)
    if settings.attend_by == "learned":
        first = torch.cat([weights.values[f"mixer.scorer.first.weight_{i}"] for i in (0, 1)])
        x = torch.cat([base, read.reading], -1) @ first + weights.values["mixer.scorer.first.bias"][0]
        x = weights.linear("mixer.scorer.rest.1", torch.relu(x))
        return weights.linear("mixer.scorer.rest.3", torch.relu(x)).squeeze(-1)
    found = [(settings.coherence_semantic, (1 + nn.functional.cosine_similarity(base, read.reading)) / 2)]
    if settings.thought_vocab is None:
        found.append((settings.coherence_syntactic, likelihood(weights)))
    total = sum(share * score for share, score in found) / sum(share for share, _ in found)
    return total / settings.attend_temperature


def likelihood(weights: reference.Weights) -> Tensor:
    """Return the mean probability per symbol of all thoughts (9,), one after another, under base_lm."""
    one, (sequence, position) = tiny.one_position(), tiny.AT
    end = int(one.think[0, sequence].nonzero()[position, 0]) + 1
    found = []
    for thought in tiny.THOUGHTS:
        tokens, total = one.inputs[0, sequence, :end], 0.0
        for symbol in thought:
            base = weights.read("base_lm", tokens)[0]
            rows = weights.values["head.weight_0"]
            log_p = torch.log_softmax(base @ rows + weights.values["head.bias"][0], -1)
            total = total + log_p[symbol]
            tokens = torch.cat([tokens, symbol[None]])
        found.append((total / len(thought)).exp())
    return torch.stack(found)


def tuples(settings: RunConfig, count: int, scale: float = tiny.SCALE) -> Tuples:
    """Compute all tuples of `count` thoughts."""
    built, one = tiny.model(settings, 1, scale), tiny.one_position()
    sequence, position = tiny.AT
    place = int(one.think[0, sequence].nonzero()[position, 0])
    weights = reference.Weights(built, settings)
    tokens, target = one.inputs[0, sequence, : place + 1], one.targets[0, sequence, place]
    read = reference.read_thoughts(weights, settings, tokens, tiny.THOUGHTS)
    u = scores(weights, settings, read)
    index = torch.cartesian_prod(*[torch.arange(len(tiny.THOUGHTS))] * count).view(-1, count)

    def log_q(chosen: Tensor) -> Tensor:
        a = torch.softmax(u[chosen], -1).unsqueeze(-1)
        mean = (a * read.reading[chosen]).sum(1)
        features = torch.cat([read.base.expand(len(mean), -1), mean], -1)
        return torch.log_softmax(weights.head(features), -1)[:, target]

    left = [[j for j in range(count) if j != i] for i in range(count)]
    without = torch.stack([log_q(index[:, others]) for others in left], -1)
    return Tuples(built, index, read.log_prob.sum(-1)[index], log_q(index), without)
