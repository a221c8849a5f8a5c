"""Right thoughts: a policy thinks them; a control thinks its own, and says the right one from its states."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from toyqs.model.core import START, Core, marker
from toyqs.model.layers import Output
from toyqs.model.predicting.prefixes import Prefixes, wanted_now
from toyqs.model.thoughts import Symbols, ThoughtHead, think
from toyqs.numerics import log_prob_of
from toyqs.types import BranchState, Context, Thoughts, Trace


class GoldHead(nn.Module):
    """A linear map from a control's states to the symbols of the right thought, used in training alone.

        log p(gold | x) = Σ_l log softmax(W s_l + b)[gold_l]

    s_l is the reasoner's state before its own l-th symbol, where a policy has its thought head, and W is the
    same for all of them. A model of one state says all symbols from it, each with rows of W of its own: after
    the start marker where thoughts have no symbols, else base_lm's at the position.
    """

    def __init__(self, num_seeds: int, width: int, symbols: int, at_once: int = 1) -> None:
        """Declare the weights.

        Args:
            num_seeds: S.
            width: D of the states.
            symbols: how many there are.
            at_once: symbols that one state says.
        """
        super().__init__()
        self.linear, self.symbols = Output(num_seeds, width, symbols * at_once), symbols

    def forward(self, states: Tensor, gold: Tensor) -> Tensor:
        """Return the log-probability (S, B, T) of gold thoughts (S, B, T, L), −1 after their end.

        States are (S, B, T, 1, D), or (S, B, T, L or more, D).
        """
        logits = self.linear(states).unflatten(-1, (-1, self.symbols)).flatten(3, 4)
        logits = logits[:, :, :, : gold.shape[-1]].contiguous()
        log_prob = log_prob_of(logits, gold.clamp(min=0))
        return log_prob.masked_fill(gold < 0, 0.0).sum(-1)


class StatesSeen(ThoughtHead):
    """A head that draws as another one does, and notes the states that it draws from."""

    def __init__(self, head: ThoughtHead) -> None:
        super().__init__()
        self.head, self.states = head, list[Tensor]()
        self.num_symbols, self.end, self.padding = head.num_symbols, head.end, head.padding

    def draw(self, hidden: Tensor, given: Tensor, *, forced: bool) -> Symbols:
        """Draw one symbol of every thought; see `ThoughtHead.draw`."""
        self.states.append(hidden)
        return self.head.draw(hidden, given, forced=forced)


class Instructed(nn.Module, ABC):
    """The part of a model that learns right thoughts, and says where in the context thoughts begin."""

    hides_last_token = False  # thoughts at t begin where base_reasoner has read x_<t; set by who builds it
    letters: dict[str, str]
    thought_head: ThoughtHead | None
    prefixes: Prefixes | None
    gold_head: GoldHead | None  # None: the policy learns them

    @abstractmethod
    def think(
        self, context: Context, noise: Tensor, forced: Tensor | None = None, lengths: Tensor | None = None
    ) -> Thoughts | None:
        """Sample or score thoughts; see `Model.think`."""

    @abstractmethod
    def talk(self, context: Context, thoughts: Thoughts | None, gate_floor: float = 0.0) -> Trace:
        """Predict with each thought; see `Model.talk`."""

    @abstractmethod
    def _core(self, role: str) -> Core: ...

    def instruct(
        self,
        context: Context,
        noise: Tensor,
        gold: Tensor,
        gate_floor: float = 0.0,
        lengths: Tensor | None = None,
    ) -> Trace:
        """Think the right thought, or say it from the states of another one; see `Model.instruct`."""
        noise = noise[:, :, :, :1]
        if self.gold_head is None:
            assert self.thought_head is not None
            forced = _forced_by(gold, self.thought_head.padding, noise.shape[4])
            thoughts = self.think(context, noise, forced, lengths)
            assert thoughts is not None and thoughts.log_prob is not None
            log_prob = thoughts.log_prob.sum(-1).squeeze(3)
        elif "reasoner" in self.letters:
            thoughts, states = self._own_thoughts(context, noise, lengths)
            log_prob = self.gold_head(states, gold)
        else:
            assert context.base is not None
            thoughts = self.think(context, noise)
            log_prob = self.gold_head(context.base.unsqueeze(3), gold)
        return self.talk(context, thoughts, gate_floor)._replace(gold_log_prob=log_prob)

    def _begun(self, branches: BranchState, inputs: Tensor) -> BranchState:
        """Return the states after each token of the sequences from which thoughts at its position begin."""
        if not self.hides_last_token or branches is None:
            return branches
        before = torch.arange(-1, inputs.shape[2] - 1, device=inputs.device).clamp(min=0)
        return self._core("base_reasoner").backbone.gather(branches, before.expand(inputs.shape))

    def _own_thoughts(
        self, context: Context, noise: Tensor, lengths: Tensor | None
    ) -> tuple[Thoughts, Tensor]:
        """Return own thoughts of K = 1, and the states (S, B, T, L or 1, D) that say the right ones."""
        core = self._core("reasoner")
        if self.thought_head is None:
            thoughts = think(core, None, context.branches, noise)
            return thoughts, core.backbone.step(marker(core.thought_rows(), START), context.branches)[0]
        seen = StatesSeen(self.thought_head)
        keep = wanted_now(self.prefixes)
        thoughts = think(core, seen, context.branches, noise, lengths=lengths, keep_passed=keep)
        return thoughts, torch.cat(seen.states, 3)


def _forced_by(gold: Tensor, padding: int, length: int) -> Tensor:
    """Return gold thoughts as symbols to score, of K = 1: (S, B, T, L) -> (S, B, T, 1, length)."""
    symbols = nn.functional.pad(gold, (0, length - gold.shape[-1]), value=-1)
    return torch.where(symbols < 0, padding, symbols).unsqueeze(3)
