"""Predictions of a position: one with each thought, or one with all by an attention; and their coherence."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple, cast

import torch
from torch import Tensor

from toyqs.model.backbones.backbone import Rows
from toyqs.model.core import where_live
from toyqs.model.layers import LMHead
from toyqs.model.mixing import Attend, Mixer
from toyqs.model.predicting.attention import attended, attention, attention_without_each
from toyqs.model.predicting.gold import Instructed
from toyqs.numerics import log_prob_of, row_sums
from toyqs.types import Coherence, Context, Shares, Thoughts, Trace

TINY = 1e-12  # least product of squared lengths that divides


class Judge(NamedTuple):
    """Which scores of coherence exist, and when they are computed."""

    semantic: bool  # base state and reading are equally wide
    syntactic: bool  # symbols are the task's tokens, which base_lm predicts
    predictive: bool  # there is a prediction without a thought
    shares: Shares = Shares()
    temperature: float | None = (
        None  # of scores that weigh thoughts, and so have a gradient; None: they do not
    )
    paid: bool = False  # whether thoughts earn by them; else they are computed where no gradient is

    @property
    def wanted_now(self) -> bool:
        """Tell whether scores are to be computed."""
        return self.temperature is not None or self.paid or not torch.is_grad_enabled()


class Attending(Instructed):
    """What a model predicts with the readings of thoughts; the other parts are `LatentReasoner`'s."""

    head: LMHead
    mixer: Mixer
    extra_predictions: frozenset[str]
    judge: Judge | None  # None: coherence is not asked for

    @abstractmethod
    def _predictor(self) -> LMHead: ...

    @abstractmethod
    def _one_token(self, context: Context) -> bool: ...

    @property
    def joins_thoughts(self) -> bool:
        """Tell whether all K thoughts of a position give one prediction."""
        return self.mixer.joins_thoughts

    @property
    def scores_symbols(self) -> bool:
        """Tell whether base_lm reads thoughts, to say how likely their symbols are."""
        return self.judge is not None and self.judge.syntactic

    def _predicted(
        self,
        context: Context,
        thoughts: Thoughts | None,
        base: Tensor | None,
        reading: Tensor | None,
        gate_floor: float,
    ) -> Trace:
        """Return a trace with the predictions alone, and with the coherence of the thoughts if it is wanted.

        Args:
            context: of the positions.
            thoughts: there; None: none.
            base: (S, B, T, D), or (S, B, T, N, D); None: it may not be seen.
            reading: of the thoughts, as a mixer takes them; None: none.
            gate_floor: as in `talk`.
        """
        one = self._one_token(context)
        if reading is None or not isinstance(self.mixer, Attend):
            logits, weight = self.mixer.predict(self._predictor(), base, reading, gate_floor)
            first = weight if one or weight is None else weight[..., 0]
            trace = Trace(logits.unsqueeze(-2) if one else logits, thought_weight=first)
            coherence = self._coherence(context, thoughts, reading, trace.logits)
            return trace._replace(coherence=coherence)
        assert base is not None
        return self._attended(context, thoughts, base, reading, one)

    def _attended(
        self, context: Context, thoughts: Thoughts | None, base: Tensor, reading: Tensor, one: bool
    ) -> Trace:
        """Return the trace of one prediction from all K readings, and of K with one of them left out."""
        mixer, head = cast(Attend, self.mixer), self._predictor()
        coherence = self._coherence(context, thoughts, reading, None)
        given = None
        if coherence is not None and self.judge is not None and self.judge.temperature is not None:
            given = coherence.mean() / self.judge.temperature  # without what knows the target
        scores = mixer.scores(base, reading, given)
        weights = attention(scores)

        def predicted(readings: Tensor) -> Tensor:
            logits = mixer.predict_each(head, base, readings)
            return logits.unsqueeze(-2) if one else logits

        first = weights[:, :, :, 0] if one else weights[:, :, :, 0, 0]
        trace = Trace(predicted(attended(reading, weights)), attention=first, coherence=coherence)
        if "without" in self.extra_predictions and reading.shape[3] > 1:
            with torch.no_grad():
                others = attended(reading, attention_without_each(scores))
                trace = trace._replace(without_logits=predicted(others))
        return trace

    def _coherence(
        self, context: Context, thoughts: Thoughts | None, reading: Tensor | None, logits: Tensor | None
    ) -> Coherence | None:
        """Return the scores of thoughts, and the predictions that the predictive one compares.

        Args:
            context: of the positions.
            thoughts: there; None, or without symbols: there are no scores.
            reading: of them.
            logits: (S, B, T, K, N, V) of their predictions; None: they are made here, one with each alone.
        """
        judge, base = self.judge, context.base
        if judge is None or not judge.wanted_now or thoughts is None or not thoughts.symbols.shape[4]:
            return None
        assert reading is not None
        reading = reading if reading.dim() == 5 else reading[..., 0, :]
        with torch.set_grad_enabled(judge.temperature is not None and torch.is_grad_enabled()):
            semantic = _alignment(cast(Tensor, base), reading) if judge.semantic else None
            syntactic = self._likelihood(context, thoughts) if judge.syntactic else None
        found = Coherence(semantic, syntactic, shares=judge.shares)
        if not judge.predictive:
            return found
        with torch.no_grad():
            none = self.mixer.predict(self.head, base, None)[0]
            if logits is None:
                alone = cast(Attend, self.mixer).predict_each(self.head, cast(Tensor, base), reading)
            else:
                alone = logits[..., 0, :].detach()
        return found._replace(alone=alone, none=none)

    def _likelihood(self, context: Context, thoughts: Thoughts) -> Tensor:
        """Compute the mean probability of a thought's symbols under base_lm, which goes on from its context.

            (Π_l p(s_l | x, s_1 … s_l−1))^(1/L),    1 of a thought without symbols

        Returns:
            (S, B, T, K).
        """
        core, symbols = self._core("base_lm"), thoughts.symbols
        rows, state = core.token_rows(), context.base_branches
        hidden = cast(Tensor, context.base).unsqueeze(3)
        total, count = torch.zeros_like(symbols[..., 0], dtype=hidden.dtype), symbols.shape[4]
        for index in range(count):
            flat = self.mixer.predict(self.head, hidden.flatten(2, 3), None)[0].squeeze(3)
            logits = flat.unflatten(2, hidden.shape[2:4]).expand(*symbols.shape[:4], -1)
            live, now = thoughts.live(index), symbols[..., index]
            now = now if live is None else where_live(live, now, 0)
            log_prob = log_prob_of(logits.contiguous(), now)
            total = total + (log_prob if live is None else where_live(live, log_prob, 0.0))
            if index + 1 < count:
                hidden, state = core.backbone.step(Rows(rows, now), state)
        length = count if thoughts.length is None else thoughts.length.clamp(min=1)
        return (total / length).exp()


def _alignment(base: Tensor, reading: Tensor) -> Tensor:
    """Compute (1 + cos) / 2 of the directions of base states and readings.

    Args:
        base: (S, B, T, D).
        reading: (S, B, T, K, D).

    Returns:
        (S, B, T, K) in [0, 1].
    """
    base = base.unsqueeze(3)
    lengths = row_sums(base.square()) * row_sums(reading.square())
    return 0.5 + 0.5 * row_sums(base * reading) / lengths.clamp(min=TINY).sqrt()
