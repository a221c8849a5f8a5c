"""Modes: the next N tokens are fixed by a mode that the context makes likely, but does not tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from toyqs.tasks.task import Feature, Task, check_amount, check_length, check_split
from toyqs.types import Batch

MOST_READINGS = 16  # of a uniform mixture whose floor is computed
GRID = 4096  # values of a reading's probability that are tried before the best is refined


@dataclass
class Modes(Task):
    """Predict N tokens at once that one hidden mode fixes: the positive control of ahead=joint.

    A context symbol c is drawn uniformly, then a mode m of M by weights that depend on c: the mode c mod M
    has `likely`, the others share the rest evenly (with `equal` all have 1 / M). The mode fixes all N tokens
    that follow: y_j is the symbol (m + j − 1) mod M of the j-th place, and every place has symbols of its
    own. A sequence is c, y_1 … y_{N−1}, its targets y_1 … y_N: T = N. Only the first position thinks; the
    others count as tokens ahead of it. V = contexts + N · M.

    Worked examples, of a task with N = 3: the mode 0 is likely after x0, the mode 1 after x1.

    >>> task = Modes(tokens=3, contexts=2)
    >>> task.symbols(range(8))
    ['x0', 'x1', '1a', '1b', '2a', '2b', '3a', '3b']

    mode    tokens      after x0    after x1
    0       1a 2b 3a    .9          .1
    1       1b 2a 3b    .1          .9

    >>> [task.symbols(ids) for ids in task.choices.tolist()]
    [['1a', '2b', '3a'], ['1b', '2a', '3b']]
    >>> task.weights.round(decimals=3).tolist()
    [[0.9, 0.1], [0.1, 0.9]]

    Floors of the loss of all N tokens together, predicted from c alone (n_tokens_ahead=N ahead=joint). With
    w the weights of the modes and H(w) = −Σ_m w_m log w_m:

        plain       one prediction: Σ_j H(y_j | c) = N · H(w), as each token tells the mode. It holds for any
                    number of parameters and steps.
        thinking    a mixture over M thoughts or more with weights π(h | c): H(y_1 … y_N | c) = H(w), where
                    each thought predicts one mode, and π are the modes' weights.
        uniform     a mixture over R thoughts of equal weight, as those that are never rewarded are: in
                    between, see `uniform_floor`; computed for M = 2 and R up to 16 alone. With R = M and
                    equal modes it is H(w) = log M.

    >>> [round(task.joint_floor(3, *model), 4) for model in ((1, False), (2, False), (2, True))]
    [0.9752, 0.6931, 0.3251]

    The gap between the first and the last, (N − 1) · H(w), is the tokens' total correlation. A language model
    that is given each true token before it predicts the next one (teacher forcing) closes it without any
    thought: after y_1 it knows the mode. The task says that there is a latent choice to be made, not that
    such a choice is the only way.

    Splits: a training batch is a fresh draw. Of held-out sequences every context has as many, give or take
    one, and every mode of a context as many as its weight says, give or take one: so that a loss lies below
    its floor by no more than that (not at all where the shares are whole numbers). Their order is drawn.
    """

    name: ClassVar[str] = "modes"
    summary: ClassVar[str] = "N tokens fixed by one hidden mode, predicted together: a positive control"
    num_steps: ClassVar[int] = 300

    modes: int = 2  # M, number of modes
    tokens: int = 8  # N, tokens that a mode fixes
    contexts: int = 4  # number of context symbols
    likely: float = 0.9  # probability of the mode that a context makes likely
    equal: bool = False  # true: all modes are equally likely, whatever the context

    def check(self, seq_len: int) -> None:
        """Refuse settings that cannot work, whatever `seq_len`; see `Task.check`."""
        for key, least in (("modes", 2), ("tokens", 2), ("contexts", 1)):
            value = getattr(self, key)
            if value < least:
                raise ValueError(f"task.{key}={value}: is too small; give task.{key}={least} or more")
        check_length(f"task.tokens={self.tokens}", self.tokens)
        numbers = self.modes * (self.tokens + self.contexts)
        check_amount(f"task.modes={self.modes}, task.tokens and task.contexts", numbers)
        if not 0 < self.likely < 1:
            raise ValueError(f"task.likely={self.likely}: is a probability; give more than 0 and less than 1")

    @property
    def vocab_size(self) -> int:
        """Return V = contexts + N · M."""
        return self.contexts + self.tokens * self.modes

    def length(self, seq_len: int) -> int:
        """Return T = N, whatever `seq_len`."""
        return self.tokens

    def thinking(self, seq_len: int) -> int:
        """Return 1: the first position."""
        return 1

    @property
    def choices(self) -> Tensor:
        """Return the token ids of each mode, (M, N) long."""
        places = torch.arange(self.tokens)
        symbols = (torch.arange(self.modes).unsqueeze(1) + places) % self.modes
        return self.contexts + self.modes * places + symbols

    @property
    def weights(self) -> Tensor:
        """Return the probability of each mode in each context, (contexts, M) float64."""
        if self.equal:
            return torch.full((self.contexts, self.modes), 1 / self.modes, dtype=torch.float64)
        others = (1 - self.likely) / (self.modes - 1)
        weights = torch.full((self.contexts, self.modes), others, dtype=torch.float64)
        context = torch.arange(self.contexts)
        weights[context, context % self.modes] = self.likely
        return weights

    def floor(self) -> float:
        """Return the Bayes NLL of the first token, H(w); the others follow from it."""
        law = self.weights[0]
        return float(-(law * law.log()).sum())

    def joint_floor(self, num_tokens: int, num_thoughts: int | None, weighed: bool) -> float | None:
        """Return the least loss of the first N tokens together, predicted from the context alone.

        Args:
            num_tokens: N of the prediction, at most `tokens`.
            num_thoughts: how many different thoughts there are; None: without end; 1: a plain model.
            weighed: whether the model learns how likely its thoughts are.

        Returns:
            Nats; None where it is not known: see `uniform_floor`, or with fewer thoughts than modes.
        """
        if num_thoughts == 1:
            return num_tokens * self.floor()
        if weighed:
            return self.floor() if num_thoughts is None or num_thoughts >= self.modes else None
        if num_thoughts is None or num_thoughts > MOST_READINGS or self.modes != 2:
            return None
        likely = float(self.weights[0].max())
        return uniform_floor(likely, num_tokens, num_thoughts)

    def features(self, batch: Batch) -> dict[str, Feature]:
        """Return the likelier mode at the position that thinks; none with equal modes."""
        values = torch.full_like(batch.inputs, -1)
        if not self.equal:
            values[..., 0] = batch.inputs[..., 0] % self.modes
        return {"likelier mode": Feature(values, self.modes)}

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """Return x0, x1 … for contexts; of other tokens the place and a letter for the symbol: 1a, 1b, 2a."""
        names = []
        for token in ids:
            place, symbol = divmod(token - self.contexts, self.modes)
            letters = chr(ord("a") + symbol) if self.modes <= 26 else f".{symbol}"
            names.append(f"x{token}" if token < self.contexts else f"{place + 1}{letters}")
        return names

    def sample(
        self, generator: torch.Generator, batch_size: int, seq_len: int, split: str, progress: float = 1.0
    ) -> Batch:
        """Draw sequences, of the held-out ones the order alone; see `Task.sample`."""
        check_split(split)
        if split == "train":
            context = torch.randint(self.contexts, (batch_size,), generator=generator)
            numbers = torch.rand(batch_size, 1, generator=generator, dtype=torch.float64)
        else:
            place = torch.randperm(batch_size, generator=generator)
            context, rank = place % self.contexts, place // self.contexts
            count = (batch_size - context + self.contexts - 1) // self.contexts  # of sequences of its context
            numbers = ((rank.double() + 0.5) / count).unsqueeze(1)
        below = self.weights[context].cumsum(-1) <= numbers
        mode = below.sum(-1).clamp(max=self.modes - 1)  # weights may add up to a little less than 1
        targets = self.choices[mode].unsqueeze(0)
        inputs = torch.cat([context.view(1, -1, 1), targets[..., :-1]], -1)
        think = torch.zeros(inputs.shape, dtype=torch.bool)
        think[..., 0] = True
        return Batch(inputs, targets, torch.ones(inputs.shape), think)


def uniform_floor(likely: float, num_tokens: int, num_readings: int) -> float:
    """Compute the least loss of an equal mixture of R predictions of N tokens that one of two modes fixes.

        min  −w log A − (1 − w) log B,    A = (1/R) Σ_r a_r^N,   B = (1/R) Σ_r (1 − a_r)^N

    a_r is what the reading r gives to the likely mode's token, the same at each place: with other values at
    the N places the two products Π_j a_rj and Π_j (1 − a_rj) could not both be larger, because
    (Π_j a_rj)^{1/N} + (Π_j (1 − a_rj))^{1/N} ≤ 1 (Hölder), with equality where the places are alike.

    At a minimum the derivative by each a_r strictly between 0 and 1 is 0, which is to say

        (a_r / (1 − a_r))^{N−1} = (1 − w) A / (w B)

    whose right side is the same for all r, and the left rises with a_r: all those a_r are one number a. So
    some readings are certain of the likely mode, some of the other, and the rest share an a: for each of the
    (R + 1)(R + 2) / 2 ways to divide them it is found by a grid and golden sections around its best value.

    With R = 2 and w = .9 each reading is certain of one mode where N is 3 or more: log 2. With N = 2 that is
    not the best: one is certain of the likely mode, the other gives it a = .74.

    >>> [round(uniform_floor(0.9, n, 2), 4) for n in (1, 2, 3, 4)]
    [0.3251, 0.5681, 0.6931, 0.6931]

    Args:
        likely: w.
        num_tokens: N.
        num_readings: R.

    Returns:
        Nats, to 1e-9.
    """

    best = math.inf
    for sure in range(num_readings + 1):
        for other in range(num_readings + 1 - sure):
            loss = partial(_uniform_loss, likely, num_tokens, num_readings, sure, other)
            place = min((i / GRID for i in range(GRID + 1)), key=loss)
            best = min(best, loss(place), _least(loss, place - 1 / GRID, place + 1 / GRID))
    return best


def _uniform_loss(
    likely: float, num_tokens: int, num_readings: int, sure: int, other: int, a: float
) -> float:
    """Return the loss where so many readings are certain of the likely mode, or the other; a: of the rest."""
    if not 0 <= a <= 1:
        return math.inf
    rest = num_readings - sure - other
    of_likely = (sure + rest * a**num_tokens) / num_readings
    of_other = (other + rest * (1 - a) ** num_tokens) / num_readings
    if not (of_likely and of_other):
        return math.inf
    return -likely * math.log(of_likely) - (1 - likely) * math.log(of_other)


def _least(function: Callable[[float], float], low: float, high: float) -> float:
    """Return the least value of a function between two places by golden sections."""
    golden = (math.sqrt(5) - 1) / 2
    while high - low > 1e-9:
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if function(left) < function(right) else (left, high)
    return function((low + high) / 2)
