"""The model: read a context, think at its positions, talk (predict) with each thought."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from toyqs.model.backbones.backbone import Rows
from toyqs.model.core import Core
from toyqs.model.interpreter import Afresh, Onward
from toyqs.model.layers import LMHead
from toyqs.model.mixing import Mixer
from toyqs.model.predicting.attending import Attending
from toyqs.model.predicting.attention import average_of_others
from toyqs.model.predicting.inference import InferenceNetwork, drawing_head
from toyqs.model.predicting.parts import ONE_TOKEN, Auxiliaries, Horizon
from toyqs.model.predicting.prefixes import PrefixReadings, prefix_readings, wanted_now
from toyqs.model.thoughts import ThoughtHead, think, with_thoughts
from toyqs.positions import pick_positions, places_ahead
from toyqs.types import BranchState, Context, Thoughts, Trace, WholeStep

READERS = ("base_lm", "base_reasoner")


class LatentReasoner(Attending):
    """The roles in use, their heads and the mixer. Parts are chosen at construction; absent = None."""

    def __init__(
        self,
        letters: Mapping[str, str],
        cores: Mapping[str, Core],
        head: LMHead,
        mixer: Mixer,
        thought_head: ThoughtHead | None = None,
        interpreter: Afresh | Onward | None = None,
        *,
        auxiliaries: Auxiliaries | None = None,
        horizon: Horizon = ONE_TOKEN,
    ) -> None:
        """Put the parts together.

        Args:
            letters: role -> letter, for the roles in use.
            cores: letter -> core.
            head: features -> logits.
            mixer: base state and reading -> prediction (model/mixing.py).
            thought_head: the reasoner's state -> the next symbol; None where no symbol is sampled.
            interpreter: thought -> reading; None where there are no thoughts.
            auxiliaries: parts that only some objectives need; None: none.
            horizon: how many tokens each position predicts.
        """
        super().__init__()
        self.letters = dict(letters)
        # First, so that parameters shared with the parts below are named after cores and head.
        self.cores = nn.ModuleDict(dict(cores))
        self.head = head
        self.mixer = mixer
        self.thought_head = thought_head
        self.interpreter = interpreter
        auxiliaries = auxiliaries or Auxiliaries()
        self.extra_predictions, self.greedy_head, self.critic, self.sampler = auxiliaries[:4]
        self.reward_model, self.prefixes, self.gold_head, self.judge = auxiliaries[4:]
        self.num_ahead, self.interpreter_reads_on, self.offsets = horizon
        self.predicts_jointly = self.offsets is not None
        self.num_symbols = None if thought_head is None else thought_head.num_symbols
        self.predicts_without_thought = mixer.predicts_without_thought
        self.couples_positions = "average" in self.extra_predictions or self.reward_model is not None
        self.thinks_in_turn = False
        self.readers: tuple[str, ...] = READERS  # the roles that read before the model thinks
        self.plain_step: WholeStep | None = None  # set by who builds the model
        self.rereads_last = isinstance(interpreter, Onward) and interpreter.last_token is not None

    def read(self, inputs: Tensor, positions: Tensor | None, first: int = 0) -> Context:
        """Read the sequences, each core once.

        Args:
            inputs: (S, B, T) long, all positions.
            positions: (S, B, T') long, those that think; None: all.
            first: the position of each sequence's first token, where positions are learned.

        Returns:
            base_lm's outputs and base_reasoner's branch points at the thinking positions.
        """
        letters = {role: self.letters[role] for role in self.readers if role in self.letters}
        # Roles that share a core read the same: once.
        read = {letter: self._read(letter, inputs, first) for letter in dict.fromkeys(letters.values())}
        base, after = read[letters["base_lm"]] if "base_lm" in letters else (None, None)
        reasoner, branches = read[letters["base_reasoner"]] if "base_reasoner" in letters else (None, None)
        reasoner = None if self.critic is None and self.reward_model is None else reasoner
        branches = self._begun(branches, inputs)
        after, last = after if self.scores_symbols else None, inputs if self.rereads_last else None
        context = Context(base, branches, reasoner, last=last, first=first, base_branches=after)
        if positions is not None:
            context = self.at(context, positions)
        if self.num_ahead == 1 or self.offsets is not None:
            return context
        places, _ = places_ahead(inputs, positions, self.num_ahead)
        ahead = None if base is None else pick_positions(base, places)
        following = pick_positions(inputs, places[..., 1:]) if self.interpreter_reads_on else None
        return context._replace(ahead=ahead, following=following)

    def at(self, context: Context, index: Tensor) -> Context:
        """Gather the context at some of its positions.

        Args:
            context: from `read`.
            index: (S, B, T') long.
        """
        base, branches, *rest, first, tokens, positions, after = context
        if base is not None:
            base = pick_positions(base, index)
        if branches is not None:
            branches = self._core("base_reasoner").backbone.gather(branches, index)
        if after is not None:
            after = self._core("base_lm").backbone.gather(after, index)
        reasoner, ahead, following, last = (x if x is None else pick_positions(x, index) for x in rest)
        return Context(base, branches, reasoner, ahead, following, last, first, tokens, positions, after)

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
        """Sample K thoughts at every thinking position; return None for a model without thoughts.

        Args:
            context: from `read`.
            noise: (S, B, T, K, L) or (S, B, T, K, L, W) uniform in [0, 1).
            forced: (S, B, T, K, L) long or (S, B, T, K, L, Z); score these symbols instead of sampling.
            lengths: (S, B, T, 1 or K) long, the number of symbols that each thought is cut off at; None: L.
            off_policy: sample and score under the sampler's law, where there is one, not the policy's.
            targets: (S, B, T, N) long, which a sampler that is an inference network has to know.
        """
        if self.interpreter is None:
            return None
        if context.branches is None:  # zero-length thoughts that are interpreted afresh
            return Thoughts(noise.long(), noise, noise, None)
        core = self._core("reasoner")
        head = drawing_head(self.sampler, targets) if off_policy and self.sampler else self.thought_head
        keep = wanted_now(self.prefixes) and isinstance(self.interpreter, Onward)
        return think(core, head, context.branches, noise, forced=forced, lengths=lengths, keep_passed=keep)

    def nearest_tokens(self, symbols: Tensor) -> Tensor | None:
        """Return the token nearest to each symbol, as the first core that reads both has it; see `Core`."""
        roles = (role for role in ("interpreter", "reasoner") if role in self.letters)
        found = (self._core(role).nearest_tokens(symbols) for role in roles)
        return next((x for x in found if x is not None), None)

    def talk(self, context: Context, thoughts: Thoughts | None, gate_floor: float = 0.0) -> Trace:
        """Predict with each thought, N tokens at once.

        With offsets (ahead=joint) all are predicted from base state and reading of the position itself; see
        `Offsets`. Else the j-th of them, j = 0 … N − 1, is the target of position t + j, predicted with
        teacher forcing: its base state is base_lm's at t + j, which has read the true tokens up to there.
        That state is mixed with

            persist    the thought's reading at t, the same for all N
            continue   the interpreter's state after [thought, end marker, x_{t+1} … x_{t+j}]

        so that persist needs no further step of a backbone, and continue N − 1 of the interpreter's, for all
        positions at once. The thought itself has seen x_≤t alone. Where the context has neither `ahead`
        nor `following`, the first token alone is predicted.

        Args:
            context: from `read`.
            thoughts: from `think`; None: predict with no thought.
            gate_floor: least weight of a thought, where the mixer weighs thoughts.

        Returns:
            The trace; logits (S, B, T, K, N, V), with K = 1 where all thoughts of a position are one, or give
            one prediction. Weights are those of the first token.

        Source: Zelikman et al. 2024, "Quiet-STaR" (non-myopic scoring with teacher forcing).
        """
        visit = prefix_readings(self.prefixes)
        base, reading = self._mixer_inputs(context, thoughts, visit)
        trace = self._predicted(context, thoughts, base, reading, gate_floor)
        if thoughts is not None and "base" in self.extra_predictions:
            trace = trace._replace(base_logits=self._logits(context, base, None, gate_floor))
        if thoughts is None or not thoughts.symbols.shape[4]:
            return trace
        assert reading is not None
        if visit is not None:
            predicted = visit.logits(self.mixer, self._predictor(), base, gate_floor, reading)
            trace = trace._replace(prefix_logits=predicted)
        if "average" in self.extra_predictions:
            average = average_of_others(reading)
            trace = trace._replace(average_logits=self._logits(context, base, average, gate_floor))
        if self.greedy_head is not None:
            trace = trace._replace(greedy_logits=self._greedy_logits(context, thoughts, gate_floor))
        return with_thoughts(trace, thoughts)

    def _mixer_inputs(
        self, context: Context, thoughts: Thoughts | None, visit: PrefixReadings | None = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return base states and readings, with the axis N where several tokens are predicted."""
        reading = None
        if thoughts is not None:
            reading = self._readings(context, thoughts, visit)
        if self._one_token(context):
            return context.base, reading
        if reading is not None and context.following is None:
            reading = reading.unsqueeze(-2)  # one for all N tokens
        if self.offsets is not None and context.base is not None:
            return context.base.unsqueeze(-2), reading
        return context.ahead, reading

    def _readings(self, context: Context, thoughts: Thoughts, visit: PrefixReadings | None = None) -> Tensor:
        assert self.interpreter is not None
        args = (thoughts, context.last) if self.rereads_last else (thoughts,)
        following, first = context.following, context.first
        return cast(Tensor, self.interpreter(*args, following=following, first=first, visit=visit))

    def _logits(
        self, context: Context, base: Tensor | None, reading: Tensor | None, gate_floor: float
    ) -> Tensor:
        """Return logits (S, B, T, N, V) with one reading for all thoughts of a position, or with none."""
        logits, _ = self.mixer.predict(self._predictor(), base, reading, gate_floor)
        # The axis K is of size 1: where there is no axis N it takes its place.
        return logits if self._one_token(context) else logits.squeeze(3)

    def _predictor(self) -> LMHead:
        """Return the LM head, or what predicts all N tokens by it."""
        return self.head if self.offsets is None else cast(LMHead, partial(self.offsets.predict, self.head))

    def _one_token(self, context: Context) -> bool:
        """Return whether one token per position is predicted, so that no tensor has the axis N."""
        return context.ahead is None and context.following is None and self.offsets is None

    @torch.no_grad()
    def _greedy_logits(self, context: Context, thoughts: Thoughts, gate_floor: float) -> Tensor:
        """Return logits (S, B, T, N, V) with the thought of likeliest symbols, as long as the given ones."""
        *places, _, length = thoughts.symbols.shape[:5]
        unused_noise = torch.empty(*places, 1, length, device=thoughts.symbols.device)
        lengths = None if thoughts.given_length is None else thoughts.given_length[..., :1]
        core = self._core("reasoner")
        greedy = think(core, self.greedy_head, context.branches, unused_noise, lengths=lengths)
        return self._logits(context, *self._mixer_inputs(context, greedy), gate_floor)

    def forward(
        self,
        inputs: Tensor,
        positions: Tensor | None,
        noise: Tensor,
        forced: Tensor | None = None,
        targets: Tensor | None = None,
        gate_floor: float = 0.0,
        lengths: Tensor | None = None,
        first: int = 0,
    ) -> Trace:
        """Read, think and talk; see `read` and `respond`."""
        return self.respond(self.read(inputs, positions, first), noise, forced, targets, gate_floor, lengths)

    def respond(
        self,
        context: Context,
        noise: Tensor,
        forced: Tensor | None = None,
        targets: Tensor | None = None,
        gate_floor: float = 0.0,
        lengths: Tensor | None = None,
    ) -> Trace:
        """Think and talk; return the trace at the context's positions.

        Args:
            context: from `read`.
            noise: as in `think`, like forced and lengths.
            forced: see there.
            targets: (S, B, T, N) long, for the critic; None: neither it nor the reward model is evaluated.
            gate_floor: as in `talk`.
            lengths: see there.
        """
        thoughts = self.think(context, noise, forced, lengths)
        trace = self.talk(context, thoughts, gate_floor)
        features = [x for x in (context.base, context.reasoner) if x is not None]
        if targets is not None and self.critic is not None:
            trace = trace._replace(correction=self.critic(features, targets))
        if targets is not None and self.reward_model is not None:
            assert thoughts is not None
            trace = trace._replace(learned_reward=self.reward_model(features, thoughts.symbols, trace))
        if targets is not None and isinstance(self.sampler, InferenceNetwork):
            scores = self.sampler.score(self._core("reasoner"), context, thoughts, targets)
            trace = trace._replace(inference_log_prob=scores)
        return trace

    def _core(self, role: str) -> Core:
        return cast(Core, self.cores[self.letters[role]])

    def _read(self, letter: str, inputs: Tensor, first: int) -> tuple[Tensor, BranchState]:
        core = cast(Core, self.cores[letter])
        return core.backbone.read(Rows(core.token_rows(), inputs), first)
