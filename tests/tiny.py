"""Tiny float64 models, built as a run builds them, and the enumeration behind all exact expectations.

The enumeration runs over the seed axis: S copies of one model, each forced to think another tuple of
thoughts. One backward pass then gives the gradient of every tuple, and an expectation is a sum. A transformer
takes one seed: backbones.py runs the same tables on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from tests import backbones, reference
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import thought_sizes
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.model.roles import WeightGroups
from toyqs.objectives.policy.reinforce import Reinforce
from toyqs.objectives.rewards import tokens
from toyqs.positions import focus, thinking_positions
from toyqs.tasks.task import Task
from toyqs.types import Batch, Trace

BACKBONE = "gru"  # of the settings below; the fixture `backbone` changes it for one test
PATTERNS = sorted({WeightGroups.parse(letters).label for letters in product("ABCD", repeat=4)})
STARTS = ("afresh", "onward")
MIXERS = ("add", "concat", "gate", "thought", "hidden", "logits", "residual")
SYMBOLS, LENGTH = 3, 2  # of the enumerated thoughts
THOUGHTS = torch.cartesian_prod(torch.arange(SYMBOLS), torch.arange(SYMBOLS))  # all 9, (9, 2)


def ending(symbols: int, length: int = LENGTH) -> torch.Tensor:
    """List all thoughts of 0 … length symbols, each once, padded with the id of the end: (n, length)."""
    every = torch.cartesian_prod(*[torch.arange(symbols + 1)] * length).view(-1, length)
    over = (every == symbols).long()
    return every[(over.cummax(1).values == over).all(1)]


AT = (1, 1)  # the sequence and the thinking position that count in an enumeration

Gradients = dict[str, Tensor]


@dataclass
class Toy(Task):
    """A task of random sequences of three symbols, which think at two of their four positions."""

    name: ClassVar[str] = "toy"
    vocab_size: ClassVar[int] = SYMBOLS

    def length(self, seq_len: int) -> int:
        return 4

    def symbols(self, ids: Iterable[int]) -> list[str]:
        return [str(i) for i in ids]

    def sample(
        self, generator: torch.Generator, batch_size: int, seq_len: int, split: str, progress: float = 1.0
    ) -> Batch:
        shape = (1, batch_size, 4)
        inputs, targets = torch.randint(SYMBOLS, (2, *shape), generator=generator)
        weights = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.5
        think = torch.zeros(shape, dtype=torch.bool)
        think.scatter_(2, torch.rand(shape, generator=generator).argsort(-1)[..., :2], True)
        return Batch(inputs, targets, weights, think)


def config(**changes: Any) -> RunConfig:
    """Return settings of a tiny float64 run; `weight_groups` may be a label."""
    if isinstance(changes.get("weight_groups"), str):
        changes["weight_groups"] = list(changes["weight_groups"])
    plain: dict[str, Any] = {
        "task": Toy(),
        "dtype": "float64",
        "base_lm_hidden_dim": 3,
        "reasoner_hidden_dim": 3,
        "interpreter_hidden_dim": None,
        "weight_groups": list("ABCD"),
        "interpreter_start": "afresh",
        "mixing": "auto",
        "thought_vocab": None,
        "max_reasoning_len": LENGTH,
        "trice_samples": 2,
        "baseline": "leave_one_out",
        "advantage_scale": "none",
        "entropy_encouragement_coef": 0.0,
        "clip_gradients": 0.0,
        "max_steps": 8,
        "data_loader_batch_size": 4,
    }
    given = {"backbone": BACKBONE} | plain | changes
    gru = BACKBONE == "gru" or "backbone" in changes
    return resolved(RunConfig(**(given if gru else backbones.sizes(given))))


SCALE = 2.0  # of the weights, so that no gradient is tiny


def model(settings: RunConfig, copies: int = 1, scale: float = SCALE) -> LatentReasoner:
    """Build copies of one model side by side."""
    built, gru = build_model(settings, [0]), settings.backbone == "gru"
    for name, parameter in built.named_parameters():
        if not gru and name.startswith("cores."):
            parameter.data = backbones.perturbed(name, parameter.data, scale)
            continue
        repeats = (copies if gru else 1, *(1 for _ in parameter.shape[1:]))
        parameter.data = (parameter.data * scale).repeat(repeats)
    return built if gru else backbones.folded(built, copies)


def lend(model: LatentReasoner, other: LatentReasoner) -> None:
    """Copy one model's weights to another; of learned position embeddings as many as the other has."""
    given = dict(model.named_parameters())
    for name, parameter in other.named_parameters():
        if name in given:
            parameter.data = given[name].data[:, : parameter.shape[1]].clone()


def batch(size: int = 3, seed: int = 0, copies: int = 1) -> Batch:
    """Draw a batch of the toy task, the same for every copy."""
    return repeated(Toy().sample(torch.Generator().manual_seed(seed), size, 4, "train"), copies)


def repeated(one: Batch, copies: int) -> Batch:
    return Batch(*(x.expand(copies, *x.shape[1:]) for x in one[:4]))


def noise(sizes: Iterable[int], seed: int = 0) -> Tensor:
    """Draw uniform numbers in [0, 1)."""
    return torch.rand(*sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sampled(settings: RunConfig, size: int = 3, copies: int = 1) -> tuple[LatentReasoner, Batch, Tensor]:
    """Build a model, with another batch for each copy, and noise for it."""
    drawn = [batch(size, seed) for seed in range(copies)]
    many = Batch(*(torch.cat(x) for x in list(zip(*drawn, strict=True))[:4]))
    number, length, width, _ = thought_sizes(settings)
    shape = (copies, size, 2, number, length, *([width] if width else []))
    return model(settings, copies), many, noise(shape)


def gradients(loss: Tensor, built: torch.nn.Module) -> Gradients:
    """Compute the gradient of each parameter by name, zeros where it has none; the graph is retained."""
    named = dict(built.named_parameters())
    grads = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
    return {
        name: torch.zeros_like(p) if g is None else g
        for (name, p), g in zip(named.items(), grads, strict=True)
    }


def flat(grads: Mapping[str, Tensor]) -> Tensor:
    """Concatenate all parameters' gradients to one vector per seed, (S, n)."""
    return torch.cat([g.flatten(1) for g in grads.values()], dim=1)


def plus(a: Gradients, b: Gradients) -> Gradients:
    return {name: a[name] + b[name] for name in a}


def one_position(num_ahead: int = 1) -> Batch:
    """Make two sequences with one thinking position that counts, so that one tuple of thoughts matters.

    With several tokens ahead the positions after it, which do not think, count too.
    """
    drawn = batch(2, seed=5)
    sequence, position = AT
    index = drawn.think[0, sequence].nonzero()[position, 0]
    weights = torch.zeros_like(drawn.weights)
    for ahead in range(num_ahead):
        assert not (ahead and drawn.think[0, sequence, index + ahead])
        weights[0, sequence, index + ahead] = 0.7 - 0.2 * ahead
    return drawn._replace(weights=weights)


def forced_everywhere(thoughts: Tensor) -> Tensor:
    """Put thoughts (S, K, L) at the counted position, arbitrary ones elsewhere: (S, 2, 2, K, L)."""
    copies, count, length = thoughts.shape
    filler = torch.randint(SYMBOLS, (2, 2, count, length), generator=torch.Generator().manual_seed(9))
    forced = filler.repeat(copies, 1, 1, 1, 1)
    forced[:, AT[0], AT[1]] = thoughts
    return forced


class Enumeration(NamedTuple):
    """All tuples of K thoughts, one for each copy of the model."""

    built: LatentReasoner
    trace: Trace
    batch: Batch
    probability: Tensor  # (S,) of each copy's tuple under the model

    def expected(self, part: Tensor) -> Gradients:
        """Compute E[∇ part] over the tuples, part (S,)."""
        if isinstance(self.built, backbones.Folded):
            return {name: g[0] for name, g in gradients((self.probability * part).sum(), self.built).items()}
        grads = gradients(part.sum(), self.built)
        return {name: self._mean(g) for name, g in grads.items()}

    def each(self, part: Tensor) -> Tensor:
        """Compute ∇ part of every tuple (S, n), part (S,)."""
        if isinstance(self.built, backbones.Folded):
            return torch.cat([flat(gradients(one, self.built)) for one in part])
        return flat(gradients(part.sum(), self.built))

    def variance(self, part: Tensor) -> float:
        """Compute E |∇ part − E[∇ part]|² over the tuples."""
        grads = self.each(part)
        spread = (grads - self._mean(grads)).square().sum(1)
        return float((self.probability * spread).sum())

    def _mean(self, values: Tensor) -> Tensor:
        return torch.einsum("s,s...->...", self.probability, values)


def enumerate_tuples(
    settings: RunConfig, count: int, thoughts: Tensor = THOUGHTS, scale: float = SCALE
) -> Enumeration:
    """Compute all tuples of `count` thoughts."""
    index = torch.cartesian_prod(*[torch.arange(len(thoughts))] * count).view(-1, count)
    built, one = model(settings, len(index), scale), one_position(settings.n_tokens_ahead)
    copies = repeated(one, len(index))
    positions = thinking_positions(copies)
    focused = focus(copies, positions, settings.n_tokens_ahead)
    forced = forced_everywhere(thoughts[index])
    trace = built(copies.inputs, positions, torch.empty(0), forced, tokens(focused))
    log_prob = trace.log_prob[:, AT[0], AT[1]].sum((-1, -2))
    return Enumeration(built, trace, focused, log_prob.detach().exp())


class Exact(NamedTuple):
    """log π(h | x) and log q(y | h, x) of all thoughts at the counted position, by the plain reference."""

    built: LatentReasoner
    log_prob: Tensor  # (9, L)
    entropy: Tensor  # (9, L)
    each: Tensor  # (9, N) of each token
    hit: Tensor  # (9,) whether the likeliest first token is the target

    @property
    def log_q(self) -> Tensor:
        return self.each.sum(-1)

    @property
    def probability(self) -> Tensor:
        return self.log_prob.sum(-1).exp()

    def gradient(self, value: Tensor) -> Gradients:
        return {name: g[0] for name, g in gradients(value, self.built).items()}


def exact(settings: RunConfig, thoughts: Tensor = THOUGHTS, scale: float = SCALE) -> Exact:
    return exact_of(model(settings, 1, scale), settings, thoughts)


def exact_of(built: LatentReasoner, settings: RunConfig, thoughts: Tensor = THOUGHTS) -> Exact:
    one = one_position(settings.n_tokens_ahead)
    sequence, position = AT
    index = int(one.think[0, sequence].nonzero()[position, 0])
    tokens, targets = one.inputs[0, sequence], one.targets[0, sequence, index:]
    ahead = []
    for n in range(settings.n_tokens_ahead):
        given = tokens[index + 1 : index + 1 + (0 if settings.predicts_jointly else n)]
        ahead.append(reference.predict(built, settings, tokens[: index + 1], thoughts, given, n))
    log_q = [plain.log_q[:, target] for plain, target in zip(ahead, targets, strict=False)]
    hit = (ahead[0].log_q.argmax(-1) == targets[0]).double()
    return Exact(built, ahead[0].log_prob, ahead[0].entropy, torch.stack(log_q, -1), hit)


def close(got: Gradients, wanted: Gradients, tolerance: float = 1e-10) -> None:
    """Compare gradients; raise AssertionError naming the parameter that is off."""
    assert got.keys() == wanted.keys()
    for name in wanted:
        error = float((got[name] - wanted[name]).abs().max())
        assert error < tolerance, f"{name}: off by {error:.3g}"


def check_expected_gradient(
    settings: RunConfig,
    objective: Reinforce,
    count: int,
    thoughts: Tensor = THOUGHTS,
    tolerance: float = 1e-10,
) -> None:
    """Check that E[∇(policy + nll)] over all tuples of `count` thoughts is −∇ Σ_h π(h) log q(y | h)."""
    every = enumerate_tuples(settings, count, thoughts)
    trace = every.trace._replace(running_reward=torch.full((len(every.probability),), -0.6).double())
    parts = objective(trace, every.batch).parts
    truth = exact(settings, thoughts)
    wanted = truth.gradient(-(truth.probability * truth.log_q).sum())
    assert float(flat({n: g[None] for n, g in wanted.items()}).norm()) > 1e-3, "nothing to compare"
    close(every.expected(parts["policy"] + parts["nll"]), wanted, tolerance)
