"""A plain reference model: computed from the parameters one sequence and position at a time.

Nothing of toyqs.model runs here or in memories.py, so that a mistake in it cannot be repeated.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tests.memories import GRUMemory, WholeSequences
from toyqs.config.run_config import RunConfig


class Prediction(NamedTuple):
    """The prediction with each of M thoughts at one position."""

    log_prob: Tensor  # (M, L)
    entropy: Tensor  # (M, L)
    log_q: Tensor  # (M, V)


class Weights:
    """The parameters of one seed, found by role and name."""

    def __init__(self, model: nn.Module, settings: RunConfig, seed: int = 0) -> None:
        self.values = {name: p[seed] for name, p in model.named_parameters()}
        scaled = settings.meta_token_mode == "reparameterise"
        self.place: int | None = None  # of the token predicted, where several are predicted jointly
        self.marker_scale = settings.meta_token_scale if scaled else 1.0
        roles = ("base_lm", "base_reasoner", "reasoner", "interpreter")
        self.letter = dict(zip(roles, settings.weight_groups, strict=True))
        gru = settings.backbone == "gru"
        self.memory: Any = GRUMemory(self.values) if gru else WholeSequences(model.cores)

    def of(self, role: str, name: str) -> Tensor:
        return self.values[f"cores.{self.letter[role]}.{name}"]

    def take_in(self, role: str, x: Tensor, state: Any) -> Any:
        """Return the memory after one more row (1 or M, D)."""
        return self.memory.take_in(self.letter[role], x, state)

    def output(self, state: Any) -> Tensor:
        """Return the output (1 or M, D) of a memory."""
        return self.memory.output(state)

    def after(self, role: str, tokens: Tensor) -> Any:
        """Return the memory after a sequence of tokens."""
        state = self.memory.empty(self.letter[role])
        for token in tokens:
            state = self.take_in(role, self.of(role, "tokens.weight")[token], state)
        return state

    def read(self, role: str, tokens: Tensor) -> Tensor:
        """Return the output (1, D) after a sequence of tokens."""
        return self.output(self.after(role, tokens))

    def mark(self, role: str, which: int, state: Any) -> Any:
        """Return the memory after the start (0) or end (1) marker."""
        rows = self.of(role, "markers.weight")  # one where start and end are the same
        return self.take_in(role, rows[min(which, len(rows) - 1)] * self.marker_scale, state)

    def afresh(self) -> Any:
        """Return the memory of an interpreter that starts afresh, after the start marker."""
        return self.mark("interpreter", 0, self.memory.afresh(self.letter["interpreter"]))

    def embed_symbols(self, role: str, symbols: Tensor, state: Any) -> Any:
        """Return the memory after one more symbol of each thought."""
        own = f"cores.{self.letter[role]}.thoughts.weight"
        table = self.values[own] if own in self.values else self.of(role, "tokens.weight")
        return self.take_in(role, table[symbols], state)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.values[f"{name}.weight"] + self.values[f"{name}.bias"][0]

    def head(self, features: Tensor) -> Tensor:
        """Apply the LM head to concatenated features."""
        if self.place is not None:
            offsets = [
                v[self.place] for name, v in sorted(self.values.items()) if name.startswith("offsets.")
            ]
            features = features + torch.cat(offsets)
        rows = [v for name, v in sorted(self.values.items()) if name.startswith("head.weight_")]
        out = features @ torch.cat(rows) + self.values["head.bias"][0]
        if "head.rest.1.weight" in self.values:
            out = self.linear("head.rest.1", nn.functional.gelu(out))
            out = self.linear("head.rest.3", nn.functional.gelu(out))
        elif "head.rest.0.weight" in self.values:
            out = self.linear("head.rest.0", out)
        return out


def policy(weights: Weights, settings: RunConfig, memory: Any) -> Tensor:
    """Compute log π (M, symbols) of the next thought symbol, and of the end with variable length."""
    logits = state = weights.output(memory)
    if settings.thought_logits == "cosine":
        rows = weights.values["thought_head.projection.weight"].T
        cosines = nn.functional.cosine_similarity(logits.unsqueeze(1), rows.unsqueeze(0), -1)
        logits = settings.thought_logit_scale * cosines
    elif "thought_head.projection.weight" in weights.values:
        logits = weights.linear("thought_head.projection", logits)
    if settings.share_lm_head:
        logits = weights.head(logits)
    if settings.variable_len:
        logits = torch.cat([logits, weights.linear("thought_head.ending", state)], -1)
    return torch.log_softmax(logits, -1)


def seen(settings: RunConfig, tokens: Tensor) -> Tensor:
    """Return the tokens that base_reasoner has read where a thought begins."""
    return tokens[:-1] if settings.hide_last_token else tokens


def carried(weights: Weights, settings: RunConfig, memory: Any) -> Any:
    """Return what the reasoner remembers of all before its last symbol."""
    return weights.memory.empty(weights.letter["reasoner"]) if settings.markov_reasoner else memory


def predict(
    model: nn.Module,
    settings: RunConfig,
    tokens: Tensor,
    thoughts: Tensor,
    following: Tensor | None = None,
    place: int = 0,
) -> Prediction:
    """Score thoughts (M, L) after reading `tokens`, and predict the next token with each.

    With tokens `following` those, predict the token after them with the same thoughts; with ahead=joint the
    token `place` positions after the next. A thought of variable length ends at the first id that is not a
    symbol.
    """
    if settings.variable_len:
        ends = settings.thought_vocab or settings.task.vocab_size
        cut = [thought[: int((thought == ends).cumsum(0).eq(0).sum())] for thought in thoughts]
        each = [alike(model, settings, tokens, thought[None], following, place) for thought in cut]
        return Prediction(*(torch.cat(x) for x in zip(*each, strict=True)))
    return alike(model, settings, tokens, thoughts, following, place)


def alike(
    model: nn.Module,
    settings: RunConfig,
    tokens: Tensor,
    thoughts: Tensor,
    following: Tensor | None = None,
    place: int = 0,
) -> Prediction:
    """Compute `predict` for thoughts of equally many symbols, which may be fewer than L."""
    weights = Weights(model, settings)
    weights.place = place if settings.predicts_jointly else None
    read = read_thoughts(weights, settings, tokens, thoughts, following)
    log_q = torch.log_softmax(answer(weights, settings, read.base, read.reading), -1)
    return Prediction(read.log_prob, read.entropy, log_q)


class Read(NamedTuple):
    """M thoughts at one position, and what is mixed for a prediction with them."""

    log_prob: Tensor  # (M, L)
    entropy: Tensor  # (M, L)
    base: Tensor | None  # (1, D)
    reading: Tensor  # (M, E)


def read_thoughts(
    weights: Weights, settings: RunConfig, tokens: Tensor, thoughts: Tensor, following: Tensor | None = None
) -> Read:
    """Score thoughts of equally many symbols and read them."""
    following = tokens[:0] if following is None else following
    base = None
    if settings.use_base_lm and settings.mixer != "thought":
        base = weights.read("base_lm", torch.cat([tokens, following]))
    state = weights.mark("reasoner", 0, weights.after("base_reasoner", seen(settings, tokens)))
    log_probs, entropies = [], []
    onward = settings.interpreter_start == "onward"
    longest = settings.max_reasoning_len
    for count, symbols in enumerate(thoughts.T, start=1):
        log_p = policy(weights, settings, state).expand(len(thoughts), -1)
        log_probs.append(log_p[torch.arange(len(thoughts)), symbols])
        entropies.append(-(log_p.exp() * log_p).sum(-1))
        if onward or count < longest:
            state = weights.embed_symbols("reasoner", symbols, carried(weights, settings, state))
    decided = state
    if not onward:
        state = weights.afresh()
        for symbols in thoughts.T[-1 if settings.interpreter_reads == "last" else 0 :]:
            state = weights.embed_symbols("interpreter", symbols, state)
    if settings.variable_len and thoughts.shape[1] < longest:
        log_p = policy(weights, settings, decided)
        log_probs.append(log_p[:, -1])
        entropies.append(-(log_p.exp() * log_p).sum(-1))
    state = weights.mark("interpreter", 1, state)
    if settings.add_last_context_token:  # as a memory without positions reads it
        state = weights.take_in("interpreter", weights.of("interpreter", "tokens.weight")[tokens[-1]], state)
    if settings.ahead == "continue":
        for token in following:
            state = weights.take_in("interpreter", weights.of("interpreter", "tokens.weight")[token], state)
    reading = weights.output(state)
    padding = [reading.new_zeros(len(thoughts))] * (longest - len(log_probs))
    both = (torch.stack(x + padding, -1) for x in (log_probs, entropies))
    return Read(*both, base, reading)


def answer(weights: Weights, settings: RunConfig, base: Tensor | None, reading: Tensor) -> Tensor:
    """Compute logits (M, V) of the prediction."""
    if settings.mixer == "base":
        return weights.head(base)
    if settings.mixer == "sum":
        return weights.head(base) + weights.head(reading)
    if settings.mixer != "logits":
        return weights.head(mix(weights, settings, base, reading))
    base = base.expand(len(reading), -1)
    if weights.place is None:
        offsets = (0.0, 0.0)
    else:
        offsets = tuple(weights.values[f"offsets.offset_{i}"][weights.place] for i in (0, 1))
        weights.place = None
    alone = weights.head(torch.cat([base + offsets[0], torch.zeros_like(reading)], -1))
    thinking = weights.head(torch.cat([torch.zeros_like(base), reading + offsets[1]], -1))
    weight = weigh(weights, base, reading)
    return (1 - weight) * alone + weight * thinking


def weigh(weights: Weights, base: Tensor, reading: Tensor) -> Tensor:
    """Compute the weight (M, 1) of each thought by an MLP of three layers."""
    first = torch.cat([weights.values[f"mixer.opening.first.weight_{i}"] for i in (0, 1)])
    x = torch.cat([base, reading], -1) @ first + weights.values["mixer.opening.first.bias"][0]
    x = weights.linear("mixer.opening.rest.1", torch.relu(x))
    return torch.sigmoid(weights.linear("mixer.opening.rest.3", torch.relu(x)))


def mix(weights: Weights, settings: RunConfig, base: Tensor | None, reading: Tensor) -> Tensor:
    how = settings.mixer
    if how == "thought":
        return reading
    if base is None:
        return weights.linear("mixer.projection", reading)
    base = base.expand(len(reading), -1)
    both = torch.cat([base, reading], -1)
    if how == "concat":
        return both
    projected = weights.linear("mixer.projection", reading)
    if how == "add":
        return base + projected
    if how == "residual":
        return base + weights.values["mixer.scale"] * projected
    if how == "hidden":
        gate = weigh(weights, base, reading)
    else:
        gate = torch.sigmoid(weights.linear("mixer.opening", both))
    return (1 - gate) * base + gate * projected
