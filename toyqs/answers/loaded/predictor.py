"""Predict with a finished model: probabilities of given tokens, and generated tokens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from toyqs.answers.loaded import memory
from toyqs.config.facts.thoughts import MARKERS
from toyqs.model.core import Core
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.rng import ThoughtSizes, stream, thought_noise
from toyqs.types import Context, Thoughts

CHUNK = 512  # thoughts computed at a time, which bounds the memory
COLDEST = 1e-30  # a lower temperature gives the same probabilities, until dividing by it overflows


class Scored(NamedTuple):
    """The scores of given tokens, each predicted from all before it."""

    log_probs: Tensor  # (n,) nats, the mixture over thoughts: log (1/K) Σ_k q(y | h_k, x)
    greedy: Tensor  # (n,) bool: the token is the likeliest


class Step(NamedTuple):
    """A generated token of each text, and the thoughts and the prediction that it was chosen by."""

    tokens: Tensor  # (texts,) long
    log_probs: Tensor  # (B, V) nats, the mixture over thoughts; B = 1 while all texts are the same
    thoughts: Thoughts | None  # at S = 1, T = 1; None: it does not think
    context: Context  # that the thoughts follow, of one position


class Predictor:
    """A model of one seed that predicts with thoughts or without."""

    def __init__(
        self, model: LatentReasoner, sizes: ThoughtSizes, *, thinking: bool = True, seed: int = 0
    ) -> None:
        """Set up the random streams and the longest sequence that the model can read.

        Args:
            model: S = 1, with trained weights.
            sizes: of its thoughts.
            thinking: False: predict without thoughts.
            seed: of thoughts and of sampled tokens.

        Raises:
            ValueError: thoughts are off, but the model predicts only with thoughts.
        """
        if not thinking and model.interpreter is not None and not model.predicts_without_thought:
            raise ValueError("this model has no prediction without a thought")
        self.model = model.eval()
        limits = [cast(Core, core).backbone.longest for core in model.cores.values()]
        self.longest = min((x for x in limits if x is not None), default=None)
        self._like = next(model.parameters())
        self.thinking = thinking and model.interpreter is not None
        self.sizes = sizes._replace(
            hard_quantile=None
        )  # which positions are hardest is unknown token by token
        self._noise, self._choice = stream(seed, "answers/thoughts"), stream(seed, "answers/tokens")

    @torch.no_grad()
    def score(self, before: Tensor, given: Tensor) -> Scored:
        """Compute the log-probabilities of given tokens.

        Args:
            before: (m,) long, m ≥ 1.
            given: (n,) long.

        Raises:
            ValueError: more tokens than the model can read.
        """
        if not len(given):
            return Scored(self._like.new_empty(0).cpu(), torch.ones(0, dtype=torch.bool))
        given = given.to(self._like.device)
        whole = torch.cat([self._fitting(before, len(given)), given])
        inputs, last = whole[:-1].view(1, 1, -1), len(whole) - 1
        places = torch.arange(last - len(given), last, device=whole.device)
        log_probs, greedy = [], []
        for part in places.split(max(1, CHUNK // self.sizes.number)):
            context = self.model.read(inputs, part.view(1, 1, -1))
            log_q = self._predict(context._replace(ahead=None, following=None), 1, len(part))[0][0, 0]
            targets = whole[part + 1]
            log_probs.append(log_q.gather(-1, targets.unsqueeze(-1)).squeeze(-1))
            greedy.append(log_q.argmax(-1) == targets)
        return Scored(torch.cat(log_probs).cpu(), torch.cat(greedy).cpu())

    @torch.no_grad()
    def generate(
        self,
        before: Tensor,
        most: int,
        *,
        texts: int = 1,
        temperature: float = 0.0,
        ends: Collection[int] = (),
        stop: Callable[[Sequence[int]], bool] = lambda tokens: False,
        seconds: list[float] | None = None,
    ) -> list[list[int]]:
        """Generate texts that continue a given one, or each its own.

        Args:
            before: (m,) long, m ≥ 1; or (texts, m), of each text.
            most: tokens of a text at most.
            texts: number of texts, generated side by side.
            temperature: of sampled tokens; 0: each token is the likeliest.
            ends: tokens of which each completes a text; it is left out.
            stop: called after each other token with a text's tokens so far; tells whether it is complete.
            seconds: if given, the time of each token (of all texts at once) is appended to it.

        Returns:
            The new tokens of each text.

        Raises:
            ValueError: more tokens than the model can read.
        """
        written: list[list[int]] = [[] for _ in range(texts)]
        unfinished, start = set(range(texts)), time.perf_counter()
        for step in self.steps(before, most, texts=texts, temperature=temperature):
            if seconds is not None:
                seconds.append(time.perf_counter() - start)
                start = time.perf_counter()
            for index in sorted(unfinished):
                token = int(step.tokens[index])
                written[index] += [] if token in ends else [token]
                if token in ends or stop(written[index]):
                    unfinished.discard(index)
            if not unfinished:
                break
        return written

    @torch.no_grad()
    def steps(self, before: Tensor, most: int, *, texts: int = 1, temperature: float = 0.0) -> Iterator[Step]:
        """Generate token by token, as `generate` does; the text that is read on ends nowhere by itself.

        Args:
            before: (m,) long, m ≥ 1; or (texts, m), of each text.
            most: tokens at most.
            texts: number of texts, generated side by side.
            temperature: as in `generate`.

        Raises:
            ValueError: more tokens than the model can read.
        """
        fitting = self._fitting(before, most)
        cache = memory.read(self.model, fitting.view(1, -1, fitting.shape[-1]))
        for _ in range(most):
            context = memory.context_of(self.model, cache)
            mixture, thoughts = self._predict(context, cache.num_texts, 1)
            tokens = self._choose(mixture[0, :, 0], texts, temperature)
            yield Step(tokens, mixture[0, :, 0], thoughts, context)
            cache = memory.extend(self.model, cache, tokens.unsqueeze(0))

    @torch.no_grad()
    def without_thought(self, context: Context) -> Tensor:
        """Return log-probabilities (B, V) of the next token with no thought, where the model predicts so.

        Args:
            context: of one position, as in a `Step`.
        """
        return self.model.talk(context, None).logits[0, :, 0, 0, 0].log_softmax(-1)

    @property
    def room(self) -> int | None:
        """Return how many tokens can be read with a thought after them; None: any number."""
        if self.longest is None:
            return None
        return self.longest - (self.sizes.length + MARKERS if self.thinking else 0)

    def _fitting(self, before: Tensor, more: int) -> Tensor:
        """Cut the beginning of a text so that the model can read `more` tokens and a thought after it."""
        before = before.to(self._like.device)
        if self.room is None:
            return before
        if more >= self.room:
            raise ValueError(
                f"{more} tokens after a text are more than this model can read: it has room for "
                f"{self.room - 1}; give fewer"
            )
        return before[..., more - self.room :]

    def _predict(self, context: Context, texts: int, places: int) -> tuple[Tensor, Thoughts | None]:
        """Return log-probabilities (1, B, T, V) of the next token, mixed over thoughts, and the thoughts."""
        thoughts = self.think(context, texts, places)
        return self.mixture(context, thoughts), thoughts

    def think(self, context: Context, texts: int, places: int) -> Thoughts | None:
        """Draw the thoughts that follow a context of B texts and T places; None: this predictor has none."""
        if not self.thinking:
            return None
        everywhere = torch.ones(1, texts, places, dtype=torch.bool)
        noise = thought_noise([self._noise], everywhere, self.sizes).to(self._like)
        return self.model.think(context, noise)

    def mixture(self, context: Context, thoughts: Thoughts | None) -> Tensor:
        """Return log-probabilities (1, B, T, V) of the next token, log (1/K) Σ_k q(y | h_k, x)."""
        log_q = self.model.talk(context, thoughts).logits[..., 0, :].log_softmax(-1)
        return log_q.logsumexp(3) - math.log(log_q.shape[3])

    def _choose(self, log_probs: Tensor, texts: int, temperature: float) -> Tensor:
        """Choose a token for each text from log-probabilities (B or 1, V); return (texts,) long."""
        if not temperature:
            return log_probs.argmax(-1).expand(texts)
        probs = (log_probs / max(temperature, COLDEST)).softmax(-1).expand(texts, -1).cpu()
        return torch.multinomial(probs, 1, generator=self._choice).squeeze(-1).to(log_probs.device)
