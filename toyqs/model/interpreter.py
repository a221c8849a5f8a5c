"""Interpreters: a thought -> one vector per (position, thought), its reading.

Where true tokens x_{t+1} … x_{t+N−1} follow the thought, the interpreter reads on, and there is a reading for
each of the N tokens predicted: after the thought, and after every further token.

On its way through a thought an interpreter passes the state after each prefix, the first 0 … L − 1 symbols. A
prefix read by itself, [start, prefix, end], takes one step more from there, that of the end marker.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from toyqs.model.backbones.backbone import Rows
from toyqs.model.core import END, FIRST_SYMBOL, START, Core, marker, step_live, where_live
from toyqs.model.layers import SeedStacked, gather_rows, normal
from toyqs.types import BranchState, Thoughts

# Called at every prefix of the thoughts, the shortest first, with what returns their readings there: of the
# shape of a whole thought's, but the axes S, B, T, K may be of size 1.
Visit = Callable[[Callable[[], Tensor]], None]


class Afresh(SeedStacked):
    """An interpreter that reads [start, symbols, end] from an empty memory, and so knows the symbols alone.

    Where a backbone has no empty memory it begins with a learned start state.
    """

    def __init__(self, num_seeds: int, core: Core) -> None:
        super().__init__()
        self.core = core
        learned = core.backbone.empty() is None
        shape = (num_seeds, 1, 1, 1, core.backbone.width)
        self.start_state = self.declare("start_state", shape, normal(0.1)) if learned else None

    def forward(
        self,
        thoughts: Thoughts,
        *,
        following: Tensor | None = None,
        first: int = 0,
        visit: Visit | None = None,
    ) -> Tensor:
        """Return readings (S, B, T, K, D), or of N tokens (S, B, T, K, N, D).

        A thought's reading depends on the symbols alone, so equal prefixes are read once: all V^l prefixes of
        length l while these are fewer than the thoughts, then every thought in a row of its own.

        Args:
            thoughts: of which only the symbols are used.
            following: (S, B, T, N − 1) long, the true tokens after the thought; None: N = 1.
            first: the position of the start marker, where positions are learned.
            visit: called at every prefix; None: none is read.
        """
        backbone, rows = self.core.backbone, self.core.thought_rows()
        symbols = thoughts.symbols.flatten(1, -2)  # (S, number of thoughts, L)
        vocab = rows.shape[1] - FIRST_SYMBOL
        spared = backbone.worth_a_step // backbone.width
        depth = _shared_depth(vocab, symbols.shape[1], symbols.shape[2], spared)
        read = partial(self._read, rows, thoughts.symbols.shape[:4], following)
        state = self._started(rows, first)
        for level in range(depth):
            if visit is not None:
                visit(partial(read, state, _row_of(symbols[..., :level], vocab)))
            state = backbone.step_by_each(rows, FIRST_SYMBOL, vocab**level, state)
        row = _row_of(symbols[..., :depth], vocab)
        if depth == symbols.shape[-1]:
            return read(state, row)
        if visit is not None:
            visit(partial(read, state, row))
        state = backbone.gather(state, row.unsqueeze(1))
        if visit is None:
            rest = (symbols[..., depth:] + FIRST_SYMBOL)[:, None, :, None]
            hidden, state = backbone.follow(Rows(rows, rest), END, state)
            return self._readings(hidden, state, thoughts.symbols.shape[:4], following)
        for index in range(depth, symbols.shape[-1]):
            if index > depth:
                visit(partial(read, state, None))
            ids = (symbols[..., index] + FIRST_SYMBOL)[:, None, :, None]
            _, state = backbone.step(Rows(rows, ids), state)
        return read(state, None)

    def _read(
        self,
        rows: Tensor,
        places: torch.Size,
        following: Tensor | None,
        state: BranchState,
        row: Tensor | None,
    ) -> Tensor:
        """Return the readings of thoughts, or of prefixes, from the state before the end marker.

        Args:
            rows: from `thought_rows`.
            places: S, B, T, K of the thoughts.
            following: see `forward`.
            state: of branches on the axis T.
            row: (S, number of thoughts) long, the branch of each thought; None: each has its own.
        """
        hidden, state = self.core.backbone.step(marker(rows, END), state)
        if row is not None:
            hidden = gather_rows(hidden[:, 0, :, 0], row)[:, None, :, None]
            if following is not None:
                state = self.core.backbone.gather(state, row.unsqueeze(1))
        return self._readings(hidden, state, places, following)

    def _readings(
        self, hidden: Tensor, state: BranchState, places: torch.Size, following: Tensor | None
    ) -> Tensor:
        """Return readings at S, B, T, K from the output at the end marker, and at what follows it."""
        if following is not None:  # every thought of a position reads the same tokens
            following = following.unsqueeze(3).expand(*places, -1).flatten(1, 3).unsqueeze(1)
        readings = _read_on(self.core, hidden, state, following)
        return readings.view(*places, *readings.shape[4:])

    def _started(self, rows: Tensor, first: int) -> BranchState:
        """Return the state after the start marker."""
        backbone = self.core.backbone
        start = backbone.empty(first) if self.start_state is None else self.start_state
        return backbone.step(marker(rows, START), start)[1]


class AfreshEach(Afresh):
    """`Afresh` with every thought in a row of its own: for vectors, or thoughts that differ in length.

    The state of a thought that has ended stays as it is until the end marker.
    """

    def forward(
        self,
        thoughts: Thoughts,
        *,
        following: Tensor | None = None,
        first: int = 0,
        visit: Visit | None = None,
    ) -> Tensor:
        """Return readings as `Afresh` does."""
        backbone, rows = self.core.backbone, self.core.thought_rows()
        read = partial(_read_end, self.core, rows, following)
        state = self._started(rows, first)
        for index, symbol in enumerate(thoughts.symbols.unbind(4)):
            if visit is not None:
                visit(partial(read, state))
            live = thoughts.live(index)
            valid = symbol if live is None else where_live(live, symbol, 0)  # padding may be no row
            _, new = backbone.step(self.core.embed_symbols(valid, rows), state)
            state = new if live is None else backbone.keep_ended(new, state, live)
        return read(state)


def _row_of(prefix: Tensor, vocab: int) -> Tensor:
    """Return the row of each prefix among all V^l of its length: (S, number, l) long -> (S, number)."""
    row = prefix.new_zeros(prefix.shape[:-1])
    for symbol in prefix.unbind(-1):
        row = torch.add(symbol, row, alpha=vocab)
    return row


def _read_end(core: Core, rows: Tensor, following: Tensor | None, state: BranchState) -> Tensor:
    """Let branches consume the end marker, then the tokens that follow; return their readings."""
    return _read_on(core, *core.backbone.step(marker(rows, END), state), following)


def _read_on(core: Core, reading: Tensor, state: BranchState, following: Tensor | None) -> Tensor:
    """Read true tokens after a thought.

    Args:
        core: the interpreter's.
        reading: (S, B, T, K, D) the output after the thought.
        state: the branches there.
        following: (S, B, T, N − 1) long; None: there are none.

    Returns:
        The reading and the outputs at the tokens, (S, B, T, K, N, D); the reading alone where there are none.
    """
    if following is None:
        return reading
    rows, readings = core.token_rows(), [reading]
    for tokens in following.unbind(-1):
        output, state = core.backbone.step(Rows(rows, tokens.unsqueeze(3)), state)
        readings.append(output)
    return torch.stack(torch.broadcast_tensors(*readings), -2)  # of empty thoughts the first one is shared


def _shared_depth(vocab: int, num_thoughts: int, length: int, spared: int) -> int:
    """Return the largest l ≤ L with V^l ≤ number of thoughts, less those that a step has to spare."""
    depth = 0
    while depth < length and vocab ** (depth + 1) + spared <= num_thoughts:
        depth += 1
    return depth


class Onward(nn.Module):
    """An interpreter that continues the reasoner's state.

    The reasoner consumes the last symbol, the interpreter's core the end marker. The state has read the
    context too, so the context may reach the prediction past the symbols.

        reading = output at the end of [x_≤t, start, symbols, end], or of [x_≤t, start, symbols, end, x_t]

    In the second form the output is taken where a model without thoughts predicts, at the context's last
    token. In a backbone with positions that token gets its own position t again, or t + 1, the start
    marker's; nothing else in its memory moves. Tokens that follow get the positions after the last input's.

    Where interpreter and reasoner differ in width, the state passes through one learned linear map.
    """

    def __init__(
        self,
        core: Core,
        reasoner: Core,
        *,
        last_token: int | None = None,
        handover: nn.Module | None = None,
    ) -> None:
        """Put both together.

        Args:
            core: the interpreter's; consumes the end marker, and x_t where that is read again.
            reasoner: the core whose state is continued.
            last_token: x_t is read again so many positions after t, 0 or 1; None: it is not.
            handover: maps the state to the interpreter's width (`Backbone.handover`); None: one width.
        """
        super().__init__()
        self.core, self.reasoner = core, reasoner
        self.last_token = last_token
        self.handover = handover

    def forward(
        self,
        thoughts: Thoughts,
        token: Tensor | None = None,
        *,
        following: Tensor | None = None,
        first: int = 0,
        visit: Visit | None = None,
    ) -> Tensor:
        """Return readings (S, B, T, K, D), or of N tokens (S, B, T, K, N, D).

        Through them the prediction's gradient reaches the reasoner.

        Args:
            thoughts: with the branches in which they were sampled.
            token: (S, B, T) long, x_t; only where it is read again.
            following: (S, B, T, N − 1) long, the true tokens after the thought; None: N = 1.
            first: not used; the thought's branches know their positions.
            visit: called at every prefix, of thoughts whose `passed` was kept; None: none is read.
        """
        reasoner = self.reasoner
        state, last = thoughts.branches, thoughts.symbols.shape[4] - 1
        if last >= 0:
            symbols, rows = thoughts.symbols.select(4, last), reasoner.thought_rows()
            _, state = step_live(reasoner, symbols, rows, state, thoughts.live(last))
        if visit is not None:
            assert thoughts.passed is not None
            rows = self.core.thought_rows()
            for passed in thoughts.passed:
                visit(partial(_hand_over, self, token, following, passed, rows))
        return _hand_over(self, token, following, state)


def _hand_over(
    interpreter: Onward,
    token: Tensor | None,
    following: Tensor | None,
    state: BranchState,
    rows: Tensor | None = None,
) -> Tensor:
    """Return the readings of thoughts, or of prefixes, from the reasoner's state after them.

    Args:
        interpreter: whose core reads on.
        token: see `Onward.forward`.
        following: see there.
        state: the reasoner's.
        rows: from `thought_rows`; None: they are made here.
    """
    core = interpreter.core
    if interpreter.handover is not None:
        state = interpreter.handover(state)
    rows = core.thought_rows() if rows is None else rows
    reading, state = core.backbone.step(marker(rows, END), state)
    if interpreter.last_token is not None:
        assert token is not None
        state = core.backbone.back_at_context(state, interpreter.last_token)
        reading, state = core.backbone.step(Rows(core.token_rows(), token.unsqueeze(3)), state)
    return _read_on(core, reading, state, following)
