"""The memory of a model after reading some texts, extended token by token, for any backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

from torch import Tensor

from toyqs.model.core import Core
from toyqs.model.latent_reasoner import READERS, LatentReasoner
from toyqs.model.layers import gather_rows
from toyqs.types import BranchState, Context


class ContextCache(NamedTuple):
    """The memory at the last token read, for each weight group that reads tokens."""

    tokens: Tensor  # (1, B, 1) long, the last token
    outputs: Mapping[str, Tensor]  # letter -> (1, B, 1, D)
    states: Mapping[str, BranchState]  # letter -> branch point (1, B, 1, 1)

    @property
    def num_texts(self) -> int:
        """Return B, the number of texts read."""
        return self.tokens.shape[1]


def read(model: LatentReasoner, tokens: Tensor) -> ContextCache:
    """Read whole texts.

    Args:
        model: S = 1.
        tokens: (1, B, T) long, T ≥ 1.
    """
    last = tokens.new_full((*tokens.shape[:2], 1), tokens.shape[2] - 1)
    outputs, states = {}, {}
    for letter, core in _cores(model).items():
        out, state = core.backbone.read(gather_rows(core.token_rows(), tokens))
        outputs[letter], states[letter] = out[:, :, -1:], core.backbone.gather(state, last)
    return ContextCache(tokens[..., -1:], outputs, states)


def extend(model: LatentReasoner, memory: ContextCache, tokens: Tensor) -> ContextCache:
    """Read one more token of each text.

    Args:
        model: S = 1.
        memory: of B texts, or of one text that B continue.
        tokens: (1, B) long.
    """
    outputs, states = {}, {}
    for letter, core in _cores(model).items():
        rows = gather_rows(core.token_rows(), tokens)[:, :, None, None]
        out, state = core.backbone.step(rows, memory.states[letter])
        states[letter] = core.backbone.as_context(state)
        outputs[letter] = out[:, :, :, 0]
    return ContextCache(tokens.unsqueeze(-1), outputs, states)


def context_of(model: LatentReasoner, memory: ContextCache) -> Context:
    """Return the context at the last token (T = 1), from which the model thinks and talks."""
    base, reasoner = (model.letters.get(role) for role in READERS)
    return Context(
        None if base is None else memory.outputs[base],
        None if reasoner is None else memory.states[reasoner],
        last=memory.tokens if model.rereads_last else None,
    )


def _cores(model: LatentReasoner) -> dict[str, Core]:
    """Return the cores that read tokens, by letter."""
    letters = dict.fromkeys(model.letters[role] for role in READERS if role in model.letters)
    return {letter: cast(Core, model.cores[letter]) for letter in letters}
