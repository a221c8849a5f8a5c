"""A plain chain of thoughts that are handed on: computed token by token, with nothing of toyqs.model."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests import tiny
from tests.reference import Weights, answer, policy
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.types import Batch

THINKS = (0, 1, 3)  # the positions that think, of four
WEIGHTS = (
    0.7,
    0.0,
    0.4,
    1.3,
)  # of all positions: one thinks and does not count, one counts and does not think
EVERY = torch.cartesian_prod(*[torch.arange(2)] * len(THINKS)).unsqueeze(-1)  # (8, T, L): V = 2, L = 1


class Chain(NamedTuple):
    """A chain's thoughts and its predictions."""

    log_prob: Tensor  # (T, L) of each symbol
    log_q: Tensor  # (T, V)


def config(**changes: Any) -> RunConfig:
    """Return settings of a tiny run that hands its thoughts on."""
    small = {"thought_into": "state", "thought_vocab": 2, "max_reasoning_len": 1}
    return tiny.config(**small | changes)


def batch(copies: int = 1) -> Batch:
    """Return a sequence of four positions, three of which think, the same for every copy."""
    one = tiny.batch(1, seed=3)
    think = torch.zeros_like(one.think)
    think[..., THINKS] = True
    weights = torch.tensor(WEIGHTS).double().expand_as(one.weights)
    return tiny.repeated(one._replace(weights=weights, think=think), copies)


def chain(model: LatentReasoner, settings: RunConfig, tokens: Tensor, thoughts: Tensor) -> Chain:
    """Think given thoughts (T, L) at THINKS while reading tokens (4,), each handed on to the next input."""
    weights = Weights(model, settings)
    base, handed, given = weights.memory.empty(weights.letter["base_lm"]), None, iter(thoughts)
    alike = weights.letter["base_lm"] == weights.letter["base_reasoner"]
    found = []
    for place, token in enumerate(tokens):
        row = weights.of("base_lm", "tokens.weight")[token].unsqueeze(0)
        base = weights.take_in("base_lm", row if handed is None else row + handed, base)
        handed = None
        if place in THINKS:
            start = base if alike else weights.after("base_reasoner", tokens[: place + 1])
            log_prob, reading = thought(weights, settings, start, next(given), token)
            log_q = torch.log_softmax(answer(weights, settings, weights.output(base), reading), -1)[0]
            found.append(Chain(log_prob, log_q))
            handed = weights.linear("carry", reading)
    return Chain(*(torch.stack(x) for x in zip(*found, strict=True)))


def thought(
    weights: Weights, settings: RunConfig, start: Any, symbols: Tensor, last: Tensor
) -> tuple[Tensor, Tensor]:
    """Score the symbols (L,) of a thought after a last token; return log-probabilities and reading (1, E)."""
    state, log_probs = weights.mark("reasoner", 0, start), []
    onward = settings.interpreter_start == "onward"
    for number, symbol in enumerate(symbols.split(1), 1):
        log_probs.append(policy(weights, settings, state)[0, symbol[0]])
        if onward or number < len(symbols):
            state = weights.embed_symbols("reasoner", symbol, state)
    if not onward:
        state = weights.afresh()
        for symbol in symbols.split(1):
            state = weights.embed_symbols("interpreter", symbol, state)
    state = weights.mark("interpreter", 1, state)
    if settings.add_last_context_token:  # as a memory without positions reads it
        state = weights.take_in("interpreter", weights.of("interpreter", "tokens.weight")[last], state)
    return torch.stack(log_probs), weights.output(state)
