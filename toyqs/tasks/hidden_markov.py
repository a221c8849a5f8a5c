"""HiddenMarkov: the next symbol of a hidden Markov chain, whose true distribution is known."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from toyqs.tasks.task import Feature, Task, check_amount, check_length, check_split, counted_from
from toyqs.types import Batch

MAX_SHARPNESS = 50.0  # above it a probability could be 0 in float64, and its logarithm not finite
FLOOR_NUMBERS = 2**22  # most probabilities that the floor is computed from


@dataclass
class HiddenMarkov(Task):
    """Predict each next symbol of a hidden Markov chain; every position counts and thinks.

        s_1 uniform,   s_{t+1} ~ transition[s_t],   x_t ~ emission[s_t]

    Each row of the two matrices is softmax(sharpness · z), z standard normal, fixed by the task's seed. The
    inputs are x_1…x_T, the targets x_2…x_{T+1}; T = positions, V = vocab. `oracle` is the true distribution
    of each target, by the forward algorithm:

        a_1 = 1 / states,   b_t(s) ∝ a_t(s) emission[s, x_t],   a_{t+1} = b_t · transition,
        p(x_{t+1} | x_1…x_t) = a_{t+1} · emission

    a_t is the distribution of s_t given x_1…x_{t−1}, and b_t that given x_t too.

    Worked example, of a task whose matrices are

    >>> task = HiddenMarkov(states=2, vocab=2, transition_sharpness=1, emission_sharpness=1, seed=3)
    >>> task.transition.round(decimals=2).tolist()
    [[0.69, 0.31], [0.22, 0.78]]
    >>> task.emission.round(decimals=2).tolist()
    [[0.5, 0.5], [0.19, 0.81]]

    t    x_t    b_t          a_{t+1}      p(x_{t+1} | …)
    1    0      .72 .28      .56 .44      .36 .64
    2    1      .44 .56      .42 .58      .32 .68

    >>> task.oracle(torch.tensor([0, 1])).exp().round(decimals=2).tolist()
    [[0.36, 0.64], [0.32, 0.68]]

    Splits: both are fresh, independent draws of the one chain; they differ by the generator alone. A
    sequence may occur in both by chance, which does not lower the floor: its targets are random all the same.
    """

    name: ClassVar[str] = "hidden_markov"
    summary: ClassVar[str] = "the next symbol of a hidden Markov chain, whose best possible loss is known"
    num_steps: ClassVar[int] = 400

    states: int = 16  # number of hidden states
    vocab: int = 8  # number of symbols
    positions: int = 16  # symbols per sequence that are read
    transition_sharpness: float = 4.0  # 0: all next states are equally likely; large: one is nearly certain
    emission_sharpness: float = 4.0  # 0: all symbols are equally likely; large: one is nearly certain
    seed: int = 0  # fixes both matrices

    def check(self, seq_len: int) -> None:
        """Refuse settings that cannot work, whatever `seq_len`; see `Task.check`."""
        for key, least in (("states", 1), ("vocab", 2), ("positions", 1)):
            value = getattr(self, key)
            if value < least:
                raise ValueError(f"task.{key}={value}: is too small; give task.{key}={least} or more")
        check_length(f"task.positions={self.positions}", self.positions)
        numbers = self.states * (self.states + self.vocab)
        check_amount(f"task.states={self.states} and task.vocab={self.vocab}", numbers)
        for key in ("transition_sharpness", "emission_sharpness"):
            value = getattr(self, key)
            if not 0 <= value <= MAX_SHARPNESS:
                raise ValueError(f"task.{key}={value}: is out of range; give 0 to {MAX_SHARPNESS:g}")

    @property
    def vocab_size(self) -> int:
        """Return V = vocab."""
        return self.vocab

    def length(self, seq_len: int) -> int:
        """Return T = positions, whatever `seq_len`."""
        return self.positions

    @cached_property
    def transition(self) -> Tensor:
        """Draw the transition matrix, (states, states) float64; row s: of the state after s."""
        return self._rows("transition", self.states, self.transition_sharpness)

    @cached_property
    def emission(self) -> Tensor:
        """Draw the emission matrix, (states, V) float64; row s: of the symbols in state s."""
        return self._rows("emission", self.vocab, self.emission_sharpness)

    def _rows(self, purpose: str, columns: int, sharpness: float) -> Tensor:
        """Draw a stochastic matrix (states, columns)."""
        source = random.Random(f"{purpose}/{self.seed}")
        normal = [[source.gauss(0.0, 1.0) for _ in range(columns)] for _ in range(self.states)]
        return (sharpness * torch.tensor(normal, dtype=torch.float64)).softmax(-1)

    def floor(self) -> float:
        """Compute the Bayes NLL in nats per position: the mean over positions of E[H(x_{t+1} | x_1…x_t)].

        See `floor_and_error` for how it is computed.
        """
        return self.floor_and_error[0]

    @cached_property
    def floor_and_error(self) -> tuple[float, float]:
        """Compute the floor, and the standard error of its estimate: 0 where it is exact.

        Exact, by the sum over all V^T inputs, where that sums at most 2^22 probabilities; else the mean of
        the oracle's entropies over as many sequences as have 2^22 of them, from a generator that is the same
        for every run. At the defaults those are 32,768 sequences, and the standard
        error is 0.0011 nats.
        """
        numbers = self.positions * self.vocab
        if self.vocab ** min(self.positions, 64) * numbers <= FLOOR_NUMBERS:
            inputs = torch.tensor(list(itertools.product(range(self.vocab), repeat=self.positions)))
            oracle = self.oracle(inputs)
            first = self.emission.mean(0)[inputs[:, 0]]
            rest = oracle[:, :-1].gather(-1, inputs[:, 1:].unsqueeze(-1)).sum((1, 2)).exp()
            return float((first * rest * _entropy(oracle)).sum()), 0.0
        generator = torch.Generator().manual_seed(0)
        inputs = self._draw(generator, max(2, FLOOR_NUMBERS // numbers))[:, :-1]
        entropy = _entropy(self.oracle(inputs))
        return float(entropy.mean()), float(entropy.std()) / len(inputs) ** 0.5

    def oracle(self, inputs: Tensor) -> Tensor:
        """Compute the true log-probabilities of the next symbol.

        Args:
            inputs: (…, T) long.

        Returns:
            (…, T, V) float64, log p(x_{t+1} | x_1…x_t), all finite.
        """
        predictions = [ahead @ self.emission for _, ahead in self._forward(inputs)]
        return torch.stack(predictions, dim=-2).log()

    def _forward(self, inputs: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield b_t and a_{t+1} of each position, (…, states) float64 each."""
        ahead = torch.full((*inputs.shape[:-1], self.states), 1 / self.states, dtype=torch.float64)
        for symbol in inputs.unbind(-1):
            joint = ahead * self.emission.T[symbol]
            here = joint / joint.sum(-1, keepdim=True)
            ahead = here @ self.transition
            yield here, ahead

    def features(self, batch: Batch) -> dict[str, Feature]:
        """Return the likeliest hidden state at a position, the likeliest after it, and the likeliest symbol.

        They are the largest entries of b_t, a_{t+1} and p(x_{t+1} | x_1…x_t). The state that was drawn is no
        feature: no reader of the sequence can know it.
        """
        here, ahead = (torch.stack(x, -2) for x in zip(*self._forward(batch.inputs), strict=True))
        return {
            "likeliest state": Feature(here.argmax(-1), self.states),
            "likeliest next state": Feature(ahead.argmax(-1), self.states),
            "likeliest next symbol": Feature((ahead @ self.emission).argmax(-1), self.vocab),
        }

    def _draw(self, generator: torch.Generator, batch_size: int) -> Tensor:
        """Draw x_1…x_{T+1} of some sequences, (B, T + 1) long."""
        shape = (self.positions + 1, 2, batch_size)
        numbers = torch.rand(shape, generator=generator, dtype=torch.float64)
        rows = torch.full((batch_size, self.states), 1 / self.states, dtype=torch.float64)
        symbols = []
        for for_state, for_symbol in numbers:
            state = _pick(rows, for_state)
            symbols.append(_pick(self.emission[state], for_symbol))
            rows = self.transition[state]
        return torch.stack(symbols, dim=-1)

    def sample(
        self, generator: torch.Generator, batch_size: int, seq_len: int, split: str, progress: float = 1.0
    ) -> Batch:
        """Draw fresh sequences, whatever the split, with their oracle; see `Task.sample`."""
        check_split(split)
        drawn = self._draw(generator, batch_size).unsqueeze(0)
        inputs, targets = drawn[..., :-1].contiguous(), drawn[..., 1:].contiguous()
        return counted_from(0, inputs, targets)._replace(oracle=self.oracle(inputs))


def _pick(probabilities: Tensor, numbers: Tensor) -> Tensor:
    """Draw from each row (B, n) with a number in [0, 1)."""
    below = probabilities.cumsum(-1) <= numbers.unsqueeze(-1)
    return below.sum(-1).clamp(max=probabilities.shape[-1] - 1)  # a row may add up to a little less than 1


def _entropy(log_prob: Tensor) -> Tensor:
    """Compute the entropy of log-probabilities (B, T, V), the mean over positions, (B,)."""
    return -(log_prob.exp() * log_prob).sum(-1).mean(-1)
