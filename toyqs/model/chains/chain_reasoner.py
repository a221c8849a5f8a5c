"""Thoughts that stay: what was thought at a position is handed on to the next one's input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from toyqs.model.chains.folding import changed, fold, joined, unfold
from toyqs.model.interpreter import Afresh, Onward
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.model.layers import Linear, gather_rows
from toyqs.model.thoughts import lengths_of, think, with_thoughts
from toyqs.positions import pick_positions, put_positions
from toyqs.types import BranchState, Context, Thoughts, Trace


class Chained(NamedTuple):
    """What base_lm makes of K chains; in the place of `Thoughts.branches` where it was needed to think."""

    base: Tensor  # (S, B K, T, D) its outputs at the thinking positions
    reading: Tensor  # (S, B, T, K, E)


class ChainReasoner(LatentReasoner):
    """A model of K chains side by side, each of which hands its readings on from position to position.

        e_k,t = E x_t + P r_k,t−1          base_lm's input; without P r_k,t−1 where t − 1 does not think
        b_k,t = base_lm(e_k,1 … e_k,t)     its state, which has the readings of all earlier positions in it
        q_k,t = mixer(b_k,t, r_k,t)        the prediction

    P is a learned map. Thought k of a position belongs to chain k. Where base_lm shares no core with
    base_reasoner the thoughts depend on the tokens alone: all of them come of one parallel reading, after
    which base_lm reads K times. Where they share one, base_reasoner's state is b_k,t: thoughts are drawn one
    position after another. Given ones are scored in one parallel reading, except where r_k,t is not known
    from the symbols alone: where the interpreter goes on from the reasoner's state, or symbols keep a path.

    Source: "Thinking States", arXiv 2602.08332 (thoughts added to the following inputs).
    """

    def __init__(self, *parts: Any, carry: Linear, keeps_path: bool, **more: Any) -> None:
        """Put the parts together.

        Args:
            parts: as of `LatentReasoner`.
            carry: P, from readings to base_lm's embeddings.
            keeps_path: symbols are differentiable.
            more: as of `LatentReasoner`.
        """
        super().__init__(*parts, **more)
        self.carry = carry
        self.thinks_in_turn = self.letters.get("base_reasoner") == self.letters["base_lm"]
        self.readers = () if self.thinks_in_turn else ("base_reasoner",)
        self.scores_at_once = not (keeps_path or isinstance(self.interpreter, Onward))

    def read(self, inputs: Tensor, positions: Tensor | None, first: int = 0) -> Context:
        """Read with base_reasoner, where it has a core of its own; see `LatentReasoner.read`."""
        return super().read(inputs, positions, first)._replace(tokens=inputs, positions=positions)

    def at(self, context: Context, index: Tensor) -> Context:
        """Gather the context at some of its positions, which alone think then; see `LatentReasoner.at`."""
        positions = context.positions
        left = index if positions is None else positions.gather(2, index)
        return super().at(context, index)._replace(positions=left)

    def think(
        self,
        context: Context,
        noise: Tensor,
        forced: Tensor | None = None,
        lengths: Tensor | None = None,
        *,
        off_policy: bool = False,
        targets: Tensor | None = None,
    ) -> Thoughts | None:
        """Sample K thoughts at every thinking position; see `LatentReasoner.think`."""
        if not self.thinks_in_turn:
            return super().think(context, noise, forced, lengths, off_policy=off_policy, targets=targets)
        if not self.scores_at_once:
            return self.walk(context, noise, forced, lengths)
        if forced is None:
            with torch.no_grad():
                forced = self.walk(context, noise, None, lengths).symbols
        return self.score(context, forced, lengths)

    def score(self, context: Context, forced: Tensor, lengths: Tensor | None) -> Thoughts:
        """Score symbols (S, B, T, K, L) in one parallel reading; only where `scores_at_once`."""
        count, length = forced.shape[3], lengths_of(forced, self.thought_head, lengths)
        reading = self._readings(context, Thoughts(forced, None, None, None, length=length))
        base, branches = self._read_chains(context, reading)
        symbols = fold(forced).unsqueeze(3)
        cut = None if lengths is None else fold(lengths.expand(forced.shape[:4])).unsqueeze(3)
        core = self._core("reasoner")
        scored = think(core, self.thought_head, branches, symbols, forced=symbols, lengths=cut)
        thoughts = changed(scored, lambda x: unfold(x.squeeze(3), count))
        return thoughts._replace(branches=Chained(base, reading))

    def walk(
        self, context: Context, noise: Tensor, forced: Tensor | None, lengths: Tensor | None
    ) -> Thoughts:
        """Think at one position after another: from base_lm's state, which has read the earlier thoughts."""
        assert context.tokens is not None
        count, size = noise.shape[3] if forced is None else forced.shape[3], context.tokens.shape[2]
        whole = Context(None, None, first=context.first)
        tokens = _chains(context.tokens, count)
        index, embedded = self._thinking(context, count), self._embedded(context.tokens, count)
        thinks = put_positions(embedded.new_ones(index.shape), index, size)
        given = put_positions(fold(noise if forced is None else forced), index, size)
        if lengths is not None:
            lengths = put_positions(fold(lengths.expand(*lengths.shape[:3], count)), index, size)
        core, reasoner = self._core("base_lm"), self._core("reasoner")
        known = self._known_readings(whole, given.shape[3], embedded.shape[1])
        outputs, readings, found = [], [], []
        handed, state = torch.zeros_like(embedded[:, :, 0]), None
        for place in range(size):
            row = core.backbone.project_input(embedded[:, :, place] + handed).unsqueeze(2)
            if state is None:
                output, state = core.backbone.read(row, context.first)
            else:
                output, state = core.backbone.step(row.unsqueeze(3), state)
                output, state = output.squeeze(3), core.backbone.as_context(state)
            now = given[:, :, place, None, None]
            cut = None if lengths is None else lengths[:, :, place, None, None]
            symbols = None if forced is None else now
            found.append(think(reasoner, self.thought_head, state, now, forced=symbols, lengths=cut))
            here = whole._replace(last=tokens[:, :, place, None])
            reading = self._readings(here, found[-1]) if known is None else known(found[-1].symbols)
            reading = reading.squeeze(3)
            handed = (self.carry(reading) * thinks[:, :, place, None, None]).squeeze(2)
            outputs.append(output)
            readings.append(reading)
        base, reading = (pick_positions(torch.cat(x, 2), index) for x in (outputs, readings))
        thoughts = changed(joined(found), lambda x: unfold(pick_positions(x.squeeze(3), index), count))
        return thoughts._replace(branches=Chained(base, unfold(reading, count)))

    def _known_readings(self, whole: Context, length: int, number: int) -> Callable[[Tensor], Tensor] | None:
        """Return symbols (S, B, T, K, L) -> readings, from a table of all thoughts that can be.

        None: they are more than `number`, or a reading depends on more than its symbols.
        """
        vocab = self.num_symbols or number + 1
        if type(self.interpreter) is not Afresh or vocab**length > number:
            return None
        every = torch.cartesian_prod(*[torch.arange(vocab, device=self.carry.weight.device)] * length)
        every = every.view(1, 1, 1, -1, length).expand(len(self.carry.weight), -1, -1, -1, -1)
        table = self._readings(whole, Thoughts(every, None, None, None))[:, 0, 0]
        digits = vocab ** torch.arange(length - 1, -1, -1, device=table.device)
        return lambda symbols: gather_rows(table, (symbols * digits).sum(-1))

    def talk(self, context: Context, thoughts: Thoughts | None, gate_floor: float = 0.0) -> Trace:
        """Predict with each chain, one token per position; without thoughts nothing is handed on.

        Args:
            context: from `read`.
            thoughts: from `think`; None: predict with no thought.
            gate_floor: least weight of a thought, where the mixer weighs thoughts.

        Returns:
            The trace; logits (S, B, T, K, 1, V).
        """
        if thoughts is None:
            return Trace(self._alone(context, gate_floor).unsqueeze(-2))
        count, chained = thoughts.symbols.shape[3], thoughts.branches
        if not isinstance(chained, Chained):
            reading = self._readings(context, thoughts)
            chained = Chained(self._read_chains(context, reading)[0], reading)
        own = fold(chained.reading).unsqueeze(3)
        logits, weight = self.mixer.predict(self.head, chained.base, own, gate_floor)
        weight = None if weight is None else unfold(weight, count).squeeze(-1)
        trace = Trace(unfold(logits, count), thought_weight=weight)
        if "base" in self.extra_predictions:
            trace = trace._replace(base_logits=self._alone(context, gate_floor))
        return with_thoughts(trace, thoughts) if thoughts.symbols.shape[4] else trace

    def _alone(self, context: Context, gate_floor: float) -> Tensor:
        """Return logits (S, B, T, 1, V) of base_lm's reading of the tokens alone, where it is not given."""
        base = context.base
        if base is None:
            assert context.tokens is not None
            base, _ = self._read(self.letters["base_lm"], context.tokens, context.first)
            base = base if context.positions is None else pick_positions(base, context.positions)
        return self.mixer.predict(self.head, base, None, gate_floor)[0]

    def _read_chains(self, context: Context, reading: Tensor) -> tuple[Tensor, BranchState]:
        """Read the sequences with base_lm, once for each chain.

        Args:
            context: whose tokens are read.
            reading: (S, B, T, K, E), handed on to the position after each thinking one.

        Returns:
            Outputs (S, B K, T, D) and branch points at the thinking positions.
        """
        assert context.tokens is not None
        count, size = reading.shape[3], context.tokens.shape[2]
        index, backbone = self._thinking(context, count), self._core("base_lm").backbone
        # One place more than there are positions: the last position's reading is handed on to nobody.
        handed = put_positions(self.carry(fold(reading)), index + 1, size + 1)
        inputs = self._embedded(context.tokens, count) + handed[:, :, :-1]
        rows = backbone.project_input(inputs.flatten(1, 2)).unflatten(1, inputs.shape[1:3])
        outputs, branches = backbone.read(rows, context.first)
        if context.positions is None:
            return outputs, branches
        return pick_positions(outputs, index), backbone.gather(branches, index)

    def _embedded(self, tokens: Tensor, count: int) -> Tensor:
        """Return the embeddings of tokens (S, B, T), for each chain: (S, B K, T, D)."""
        table = self._core("base_lm").tokens
        assert table is not None
        return _chains(gather_rows(table.weight, tokens), count)

    def _thinking(self, context: Context, count: int) -> Tensor:
        """Return the positions that think, for each chain: (S, B K, T) long."""
        assert context.tokens is not None
        positions = context.positions
        if positions is None:
            shape = context.tokens.shape
            positions = torch.arange(shape[2], device=context.tokens.device).expand(shape)
        return _chains(positions, count)


def _chains(x: Tensor, count: int) -> Tensor:
    """Return (S, B, ...) for each chain, (S, B K, ...), K = count."""
    return x.unsqueeze(2).expand(*x.shape[:2], count, *x.shape[2:]).flatten(1, 2)
