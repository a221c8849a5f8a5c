"""What a record of thoughts takes from an evaluation: the tensors of some of its sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from toyqs.numerics import log_softmax
from toyqs.objectives import coherence
from toyqs.objectives.rewards import target_log_prob
from toyqs.training.evaluation.reading import places
from toyqs.training.evaluation.thought_language import spoken
from toyqs.training.hard_positions import PositionSelection
from toyqs.types import Batch, Model, Trace

WHOLE = 16  # classes of a prediction that is recorded whole; of a larger one the LIKELIEST
LIKELIEST = 5
WIDEST = 64  # numbers of a vector that is recorded

Reward = Callable[[Trace, Batch], Tensor]
Tensors = dict[str, Tensor]


class Recorder:
    """Takes what a record holds of some of an evaluation's sequences, by the names of its arrays.

    Tokens and symbols are ids here. After a thought's end its symbols, and nearest tokens, are −1.
    """

    def __init__(self, model: Model, sequences: Sequence[int], reward: Reward | None) -> None:
        """Begin with no sequences seen.

        Args:
            model: the one that is evaluated.
            sequences: numbers of those to take, ascending.
            reward: trace and batch -> what each thought earns, (S, B, T, K); None: nothing is paid.
        """
        self.model, self.sequences, self.reward = model, sequences, reward
        self.begin()

    def begin(self) -> None:
        """Forget what was seen."""
        self._parts: list[Tensors] = []
        self._here, self._targets = torch.empty(0), torch.empty(0)

    def see(
        self, start: int, whole: Batch, batch: Batch, selection: PositionSelection | None, trace: Trace
    ) -> None:
        """Take in the thoughts of sequences from a number `start` on; see `Watcher`."""
        stop = start + whole.inputs.shape[1]
        device = whole.inputs.device
        self._here = torch.tensor([i - start for i in self.sequences if start <= i < stop], device=device)
        if not len(self._here):
            return
        positions = places(whole, selection)[:, self._here]
        batch, trace = (sequences_of(x, self._here) for x in (batch, trace))
        self._targets = batch.targets.unsqueeze(-1)
        logits = _with_each(trace)
        found = {
            "inputs": whole.inputs[:, self._here],
            "positions": positions,
            "truth": batch.targets,
            "counted": (batch.weights > 0).long(),
            **_thoughts(self.model, trace),
            "log_q": target_log_prob(logits, self._targets),
            **_predictions(logits[..., 0, :], ""),
            **coherence.scores(trace, batch),
        }
        if trace.attention is not None:
            found["attention"] = trace.attention
        if self.reward is not None:
            found["reward"] = self.reward(trace, batch)
        self._parts.append({name: x.cpu() for name, x in found.items()})

    def see_other(self, metric: str, trace: Trace) -> None:
        """Take in the prediction without a thought, or with another sequence's thoughts."""
        if not len(self._here) or metric not in ("nll_no_thought", "nll_shuffled"):
            return
        logits = _with_each(sequences_of(trace, self._here))
        log_q = target_log_prob(logits, self._targets)
        if metric == "nll_shuffled":
            found = {"log_q_shuffled": log_q}
        else:
            found = {"log_q_none": log_q[..., 0], **_predictions(logits[..., 0, 0, :], "_none")}
        self._parts[-1] |= {name: x.cpu() for name, x in found.items()}

    def tensors(self) -> Tensors:
        """Return all that was taken in, (S, N, …) each."""
        return {name: torch.cat([part[name] for part in self._parts], 1) for name in self._parts[0]}


def _with_each(trace: Trace) -> Tensor:
    """Return logits of the first token with each thought, (S, B, T, K, 1, V); the same where there is one."""
    logits = trace.logits[..., :1, :]
    if trace.attention is None:
        return logits
    return logits.expand(-1, -1, -1, trace.attention.shape[3], -1, -1)


def sequences_of(value: Any, here: Tensor) -> Any:
    """Return some sequences, here (n,) long, of a tensor (S, B, …), or of all tensors in a named tuple."""
    if isinstance(value, tuple):
        return type(value)(*(sequences_of(x, here) for x in value))
    return value[:, here] if isinstance(value, Tensor) else value


def _thoughts(model: Model, trace: Trace) -> Tensors:
    """Return the symbols of thoughts, or vectors and what is nearest to them; and log π of each thought."""
    assert trace.symbols is not None
    found = {} if trace.log_prob is None else {"log_prob": trace.log_prob.sum(-1)}
    if model.num_symbols is not None:
        symbols = spoken(trace.symbols, model.num_symbols)
        return found | {"symbols": symbols.masked_fill(symbols == model.num_symbols, -1)}
    if trace.symbols.shape[-1] <= WIDEST:
        found["vectors"] = trace.symbols
    nearest = model.nearest_tokens(trace.symbols)
    if nearest is None:
        return found
    if trace.length is not None:
        ended = torch.arange(nearest.shape[4], device=nearest.device) >= trace.length.unsqueeze(-1)
        nearest = nearest.masked_fill(ended, -1)
    return found | {"nearest": nearest}


def _predictions(logits: Tensor, suffix: str) -> Tensors:
    """Return a prediction from its logits (…, V): whole where it is small, else its likeliest tokens."""
    shares = log_softmax(logits).exp()
    if shares.shape[-1] <= WHOLE:
        return {f"predicted_p{suffix}": shares}
    top = shares.topk(LIKELIEST)
    return {f"predicted_p{suffix}": top.values, f"predicted{suffix}": top.indices}
