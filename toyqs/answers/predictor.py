"""A finished run that answers: the probabilities of given tokens, and tokens of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from toyqs.answers import memory
from toyqs.config.run_config import MARKERS
from toyqs.model.core import Core
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.rng import ThoughtSizes, stream, thought_noise
from toyqs.types import Context

AT_ONCE = 512  # thoughts and their predictions at once: bounds the memory


class Scored(NamedTuple):
    """Of given tokens, each predicted from all before it."""

    log_probs: Tensor  # (n,) natural logarithms, thoughts mixed: log (1/K) Σ_k q(y | h_k, x)
    greedy: Tensor  # (n,) bool, whether the token is the likeliest


class Predictor:
    """A model of one seed, thinking or silent."""

    def __init__(
        self, model: LatentReasoner, sizes: ThoughtSizes, *, thinking: bool = True, seed: int = 0
    ) -> None:
        """Take a model.

        Args:
            model: S = 1, weights as trained.
            sizes: of its thoughts.
            thinking: False: it predicts without a thought.
            seed: of thoughts and of sampled tokens.

        Raises:
            ValueError: it is to be silent but predicts with thoughts alone.
        """
        if not thinking and model.interpreter is not None and not model.predicts_without_thought:
            raise ValueError("this model has no prediction without a thought")
        self.model = model.eval()
        limits = [cast(Core, core).backbone.longest for core in model.cores.values()]
        self.longest = min((x for x in limits if x is not None), default=None)
        self._like = next(model.parameters())
        self.thinking = thinking and model.interpreter is not None
        self.sizes = sizes._replace(hard_quantile=None)  # what is hardest is not known token by token
        self._noise, self._choice = stream(seed, "answers/thoughts"), stream(seed, "answers/tokens")

    @torch.no_grad()
    def score(self, before: Tensor, given: Tensor) -> Scored:
        """The probabilities of given tokens.

        Args:
            before: (m,) long, m ≥ 1.
            given: (n,) long, n ≥ 1.

        Raises:
            ValueError: more tokens than the model can read.
        """
        given = given.to(self._like.device)
        whole = torch.cat([self._fitting(before, len(given)), given])
        inputs, places = (
            whole[:-1].view(1, 1, -1),
            torch.arange(len(whole) - len(given) - 1, len(whole) - 1, device=whole.device),
        )
        log_probs, greedy = [], []
        for some in places.split(max(1, AT_ONCE // self.sizes.number)):
            context = self.model.read(inputs, some.view(1, 1, -1))
            found = self._predict(context._replace(ahead=None, following=None), 1, len(some))[0, 0]
            targets = whole[some + 1]
            log_probs.append(found.gather(-1, targets.unsqueeze(-1)).squeeze(-1))
            greedy.append(found.argmax(-1) == targets)
        return Scored(torch.cat(log_probs).cpu(), torch.cat(greedy).cpu())

    @torch.no_grad()
    def generate(
        self,
        before: Tensor,
        most: int,
        *,
        texts: int = 1,
        temperature: float = 0.0,
        stop: Callable[[Sequence[int]], bool] = lambda tokens: False,
        seconds: list[float] | None = None,
    ) -> list[list[int]]:
        """Go on from a text.

        Args:
            before: (m,) long, m ≥ 1.
            most: tokens that a text may have.
            texts: how many to write, side by side.
            temperature: 0: each token is the likeliest.
            stop: whether a text is complete, given its tokens so far; asked after each of them.
            seconds: where given, the time of each token (of all texts at once) is added to it.
        """
        before = self._fitting(before, most)
        written: list[list[int]] = [[] for _ in range(texts)]
        open_, known = set(range(texts)), memory.read(self.model, before.view(1, 1, -1))
        for _ in range(most):
            begun = time.perf_counter()
            context = memory.context_of(self.model, known)
            chosen = self._choose(self._predict(context, known_texts(known), 1)[0, :, 0], texts, temperature)
            for index in sorted(open_):
                written[index].append(int(chosen[index]))
                if stop(written[index]):
                    open_.discard(index)
            if not open_:
                break
            known = memory.extend(self.model, known, chosen.unsqueeze(0))
            if seconds is not None:
                seconds.append(time.perf_counter() - begun)
        return written

    def _fitting(self, before: Tensor, more: int) -> Tensor:
        """The end of a text, so long that as many more tokens and a thought after them can be read too."""
        before = before.to(self._like.device)
        if self.longest is None:
            return before
        room = self.longest - (self.sizes.length + MARKERS if self.thinking else 0) - more
        if room < 1:
            raise ValueError(
                f"{more} tokens are more than this model can read: with a thought after them, and one token "
                f"before, it has room for {self.longest} positions"
            )
        return before[-room:]

    def _predict(self, context: Context, texts: int, places: int) -> Tensor:
        """Log-probabilities (1, B, T, V) of the next token, thoughts mixed."""
        thoughts = None
        if self.thinking:
            there = torch.ones(1, texts, places, dtype=torch.bool)
            noise = thought_noise([self._noise], there, self.sizes).to(self._like)
            thoughts = self.model.think(context, noise)
        log_q = self.model.talk(context, thoughts).logits[..., 0, :].log_softmax(-1)
        return log_q.logsumexp(3) - math.log(log_q.shape[3])

    def _choose(self, log_probs: Tensor, texts: int, temperature: float) -> Tensor:
        """(B or 1, V) -> (texts,) long."""
        if not temperature:
            return log_probs.argmax(-1).expand(texts)
        probs = (log_probs / temperature).softmax(-1).expand(texts, -1).cpu()
        return torch.multinomial(probs, 1, generator=self._choice).squeeze(-1).to(log_probs.device)


def known_texts(known: memory.ContextCache) -> int:
    """B of a memory."""
    return next(iter(known.outputs.values())).shape[1]
