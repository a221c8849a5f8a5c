"""Thoughts with one symbol changed, and thoughts cut short.

A change gives symbols. Reasoner and interpreter consume them (`with_symbols`, or `continued`), so that an
interpreter that continues the reasoner's state sees the change too.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor

from toyqs.answers.loaded.load import LoadedRun
from toyqs.answers.thoughts.arm import Sampled
from toyqs.model.core import Core
from toyqs.model.latent_heads import normals
from toyqs.model.thoughts import Symbols, ThoughtHead, think
from toyqs.types import Thoughts


class Change(NamedTuple):
    """Changed symbols of all thoughts; those that have no such symbol, or find no other, keep their own."""

    symbols: Tensor  # (1, B, T, K, L or fewer) long, or with an axis Z
    lengths: Tensor | None  # (1, B, T, K) long, where the task set the thoughts' lengths
    changed: Tensor  # (1, B, T, K) bool, which thoughts count


def has_symbol(thoughts: Thoughts, index: int) -> Tensor:
    """Return which thoughts have a symbol of an index, from 0: (1, B, T, K) bool."""
    live = thoughts.live(index)
    return thoughts.symbols.new_ones(thoughts.symbols.shape[:4], dtype=torch.bool) if live is None else live


def swapped(thoughts: Thoughts, index: int, shift: int) -> Change:
    """Give each thought the symbol that another sequence's has at the same position, thought and index.

    Args:
        thoughts: of B sequences.
        index: of the symbol, from 0.
        shift: how many sequences before its own the other one is, 1 to B − 1; the last follow the first.
    """
    has = has_symbol(thoughts, index)
    other = thoughts.symbols.select(4, index).roll(shift, 1)
    return replaced(thoughts, index, other, has & has.roll(shift, 1))


def replaced(thoughts: Thoughts, index: int, values: Tensor, where: Tensor | None = None) -> Change:
    """Replace one symbol of each thought.

    Args:
        thoughts: whose symbols are changed.
        index: of the symbol, from 0.
        values: (1, B, T, K) or (1, B, T, K, Z), or broadcast to it.
        where: (1, B, T, K) bool, the thoughts to be changed; None: those that have the symbol.
    """
    where = has_symbol(thoughts, index) if where is None else where
    symbols = thoughts.symbols.clone()
    own = symbols.select(4, index)
    wide = where.view(*where.shape, *(1 for _ in own.shape[4:]))
    own.copy_(torch.where(wide, values, own))
    return Change(symbols, thoughts.given_length, where)


def shuffled(thoughts: Thoughts) -> Change:
    """Give each position the thoughts that the sequence before its own has there."""
    lengths = thoughts.given_length
    every = thoughts.symbols.new_ones(thoughts.symbols.shape[:4], dtype=torch.bool)
    return Change(thoughts.symbols.roll(1, 1), None if lengths is None else lengths.roll(1, 1), every)


def removed(thoughts: Thoughts, index: int) -> Change:
    """Take one symbol out of each thought, so that it is one symbol shorter."""
    has, lengths = has_symbol(thoughts, index), thoughts.given_length
    rest = [x for place, x in enumerate(thoughts.symbols.unbind(4)) if place != index]
    symbols = torch.stack(rest, 4) if rest else thoughts.symbols[:, :, :, :, :0]
    return Change(symbols, None if lengths is None else lengths - has.long(), has)


def cut(thoughts: Thoughts, length: int) -> Change:
    """Cut each thought after its first symbols; shorter thoughts stay as they are."""
    lengths = thoughts.given_length
    every = thoughts.symbols.new_ones(thoughts.symbols.shape[:4], dtype=torch.bool)
    symbols = thoughts.symbols[:, :, :, :, :length]
    return Change(symbols, None if lengths is None else lengths.clamp(max=length), every)


def moved(own: Thoughts, change: Change, then: Thoughts, later: int) -> tuple[Tensor, Tensor] | None:
    """Compare the law of a later symbol after a thought's own symbols with its law after changed ones.

        log π(s_m | s_1 … s_{m−1}) − log π(s_m | the same, changed),    s_m the thought's own symbol

    The own symbol is drawn from the first law, so that the mean of this is KL(first ‖ second).

    Args:
        own: thoughts as they were sampled.
        change: of an earlier symbol.
        then: the thoughts of the changed symbols.
        later: index of s_m, from 0.

    Returns:
        (1, B, T, K) nats, and bool: which thoughts count, those that drew s_m, an end included. None: symbols
        have no density.
    """
    if own.log_prob is None or then.log_prob is None:
        return None
    drawn = change.changed
    if own.length is not None:
        drawn = drawn & (own.length + int(own.given_length is None) > later)
    return (own.log_prob - then.log_prob)[..., later], drawn


class Scale(NamedTuple):
    """What some sequences' symbols of one index are like."""

    first: Tensor  # (1, 1, 1, 1) or (1, 1, 1, 1, Z), the first of them
    size: Tensor  # () root mean square of a vector's numbers


def scale_of(thoughts: Thoughts, index: int) -> Scale | None:
    """Measure the symbols of an index; None where no thought has one."""
    symbols = thoughts.symbols.select(4, index)[has_symbol(thoughts, index)]
    if not len(symbols):
        return None
    size = symbols.double().square().mean().sqrt().to(thoughts.symbols.device)
    return Scale(symbols[:1].view(1, 1, 1, 1, *symbols.shape[1:]), size)


def noise_symbols(run: LoadedRun, uniform: Tensor, scale: Scale) -> Tensor:
    """Turn uniform numbers into symbols that no reasoner has chosen.

    Tokens, relaxed or not, are all equally likely; a vector's numbers are independent and normal, of mean 0
    and as large as the thoughts' own.

    Args:
        run: whose kind of symbols they have.
        uniform: (1, B, T, K, W) in [0, 1), of which tokens take the first.
        scale: of the thoughts' own symbols.
    """
    config = run.config
    if not config.symbols_are_tokens:
        return (scale.size * normals(uniform)).to(scale.first)
    number = config.thought_vocab or config.task.vocab_size
    ids = (uniform[..., 0] * number).long().clamp(max=number - 1)
    return ids if config.symbol_kind == "token" else torch.nn.functional.one_hot(ids, number).to(scale.first)


class Continued(ThoughtHead):
    """The policy's head, whose first symbols are given."""

    def __init__(self, head: ThoughtHead, first: Tensor) -> None:
        """Take the head, and symbols (1, B, T, K, l) or (1, B, T, K, l, Z), for one call of `think`."""
        super().__init__()
        self.head, self.end, self.padding = head, head.end, head.padding
        if self.end is None and not first.is_floating_point():  # padding is no symbol then, and is not read
            first = first.masked_fill(first == self.padding, 0)
        self._left = iter(first.unbind(4))

    def draw(self, hidden: Tensor, given: Tensor, *, forced: bool) -> Symbols:
        """Return the next given symbol while there is one, then symbols drawn by the head."""
        symbol = next(self._left, None)
        if symbol is None:
            return self.head.draw(hidden, given, forced=forced)
        return self.head.draw(hidden, symbol, forced=True)


@torch.no_grad()
def continued(run: LoadedRun, sampled: Sampled, change: Change, index: int) -> Thoughts:
    """Keep the changed symbols up to an index, and draw later ones anew from what the change left behind.

    They are drawn from the numbers that the thoughts' own were drawn from, so a thought whose symbol did not
    change is its own again.

    Args:
        run: whose reasoner goes on.
        sampled: where.
        change: of the symbol of that index.
        index: from 0.
    """
    model = run.model
    head = model.thought_head
    assert head is not None
    core = cast(Core, model.cores[model.letters["reasoner"]])
    given = Continued(head, change.symbols[:, :, :, :, : index + 1])
    return think(core, given, sampled.context.branches, sampled.noise, lengths=sampled.batch.lengths)
