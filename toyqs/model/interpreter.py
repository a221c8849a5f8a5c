"""Interpreters: a thought -> one vector per (position, thought), its reading.

Where true tokens x_{t+1} … x_{t+N−1} follow the thought, the interpreter reads on, and there is a reading for
each of the N tokens predicted: after the thought, and after every further token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from toyqs.model.backbones.backbone import Rows
from toyqs.model.core import END, FIRST_SYMBOL, START, Core, marker, step_live, where_live
from toyqs.model.layers import SeedStacked, gather_rows, normal
from toyqs.types import BranchState, Thoughts


class Afresh(SeedStacked):
    """An interpreter that reads [start, symbols, end] from an empty memory, and so knows the symbols alone.

    Where a backbone has no empty memory it begins with a learned start state.
    """

    def __init__(self, num_seeds: int, core: Core, *, last_only: bool = False) -> None:
        """Build it.

        Args:
            num_seeds: S.
            core: the interpreter's.
            last_only: of a thought's symbols the last alone is read, [start, s_l, end].
        """
        super().__init__()
        self.core, self.last_only = core, last_only
        learned = core.backbone.empty() is None
        shape = (num_seeds, 1, 1, 1, core.backbone.width)
        self.start_state = self.declare("start_state", shape, normal(0.1)) if learned else None

    def forward(self, thoughts: Thoughts, *, following: Tensor | None = None, first: int = 0) -> Tensor:
        """Return readings (S, B, T, K, D), or of N tokens (S, B, T, K, N, D).

        A thought's reading depends on the symbols alone, so equal prefixes are read once: all V^l prefixes of
        length l while these are fewer than the thoughts, then every thought in a row of its own.

        Args:
            thoughts: of which only the symbols are used.
            following: (S, B, T, N − 1) long, the true tokens after the thought; None: N = 1.
            first: the position of the start marker, where positions are learned.
        """
        thoughts = last_symbols(thoughts) if self.last_only else thoughts
        backbone, rows = self.core.backbone, self.core.thought_rows()
        symbols = thoughts.symbols.flatten(1, -2)  # (S, number of thoughts, L)
        vocab = rows.shape[1] - FIRST_SYMBOL
        depth = _shared_depth(vocab, *symbols.shape[1:])
        state = self._started(rows, first)
        for level in range(depth):
            parent = torch.arange(vocab**level, device=rows.device).repeat_interleave(vocab)
            state = backbone.gather(state, parent.expand(len(rows), 1, -1))
            each_next = rows[:, FIRST_SYMBOL:].repeat(1, vocab**level, 1)
            _, state = backbone.step(each_next[:, None, :, None], state)
        digits = vocab ** torch.arange(depth - 1, -1, -1, device=rows.device)
        prefix = (symbols[..., :depth] * digits).sum(-1)  # its row among the V^depth prefixes
        if depth == symbols.shape[-1]:
            hidden, state = backbone.step(marker(rows, END), state)
            hidden = gather_rows(hidden[:, 0, :, 0], prefix)[:, None, :, None]
            if following is not None:
                state = backbone.gather(state, prefix.unsqueeze(1))
        else:
            state = backbone.gather(state, prefix.unsqueeze(1))
            for symbol in symbols[..., depth:].unbind(-1):
                ids = (symbol + FIRST_SYMBOL)[:, None, :, None]
                _, state = backbone.step(Rows(rows, ids), state)
            hidden, state = backbone.step(marker(rows, END), state)
        places = thoughts.symbols.shape[:4]
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

    def forward(self, thoughts: Thoughts, *, following: Tensor | None = None, first: int = 0) -> Tensor:
        """Return readings as `Afresh` does."""
        thoughts = last_symbols(thoughts) if self.last_only else thoughts
        backbone, rows = self.core.backbone, self.core.thought_rows()
        state = self._started(rows, first)
        for index, symbol in enumerate(thoughts.symbols.unbind(4)):
            live = thoughts.live(index)
            valid = symbol if live is None else where_live(live, symbol, 0)  # padding may be no row
            _, new = backbone.step(self.core.embed_symbols(valid, rows), state)
            state = new if live is None else backbone.keep_ended(new, state, live)
        return _read_on(self.core, *backbone.step(marker(rows, END), state), following)


def last_symbols(thoughts: Thoughts) -> Thoughts:
    """Return thoughts of their last symbol each, none where a thought has none."""
    symbols, length = thoughts.symbols, thoughts.length
    if length is None:
        return thoughts._replace(symbols=symbols[:, :, :, :, -1:])
    last = (length - 1).clamp(min=0).view(*length.shape, 1, *(1 for _ in symbols.shape[5:]))
    last = last.expand(*length.shape, 1, *symbols.shape[5:])
    return thoughts._replace(symbols=symbols.gather(4, last), length=length.clamp(max=1))


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
    return torch.stack(readings, -2)


def _shared_depth(vocab: int, num_thoughts: int, length: int) -> int:
    """Return the largest l ≤ L with V^l ≤ number of thoughts."""
    depth = 0
    while depth < length and vocab ** (depth + 1) <= num_thoughts:
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
    ) -> Tensor:
        """Return readings (S, B, T, K, D), or of N tokens (S, B, T, K, N, D).

        Through them the prediction's gradient reaches the reasoner.

        Args:
            thoughts: with the branches in which they were sampled.
            token: (S, B, T) long, x_t; only where it is read again.
            following: (S, B, T, N − 1) long, the true tokens after the thought; None: N = 1.
            first: not used; the thought's branches know their positions.
        """
        core, reasoner = self.core, self.reasoner
        state, last = thoughts.branches, thoughts.symbols.shape[4] - 1
        if last >= 0:
            symbols, rows = thoughts.symbols.select(4, last), reasoner.thought_rows()
            _, state = step_live(reasoner, symbols, rows, state, thoughts.live(last))
        if self.handover is not None:
            state = self.handover(state)
        reading, state = core.backbone.step(marker(core.thought_rows(), END), state)
        if self.last_token is not None:
            assert token is not None
            state = core.backbone.back_at_context(state, self.last_token)
            reading, state = core.backbone.step(Rows(core.token_rows(), token.unsqueeze(3)), state)
        return _read_on(core, reading, state, following)
