"""LatentReasoner: read a context, think at its positions, talk with each thought."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from toyqs.model.core import Core
from toyqs.model.critics import RewardModel, RewardOfPrediction, ValueHead
from toyqs.model.interpreter import Afresh, Onward
from toyqs.model.layers import LMHead, gather_rows
from toyqs.model.mixing import Mixer
from toyqs.model.thoughts import ThoughtHead, think
from toyqs.types import BranchState, Context, Thoughts, Trace, pick_positions, places_ahead

READERS = ("base_lm", "base_reasoner")


class Horizon(NamedTuple):
    """How far a position's prediction reaches, and what a reading does on the way; `talk` says more."""

    num_tokens: int = 1  # N
    goes_on: bool = False  # the interpreter reads the true tokens on the way; else its reading persists


ONE_TOKEN = Horizon()


class Auxiliaries(NamedTuple):
    """What stands beside the thoughts' predictions."""

    extra_predictions: frozenset[str] = (
        frozenset()
    )  # predictions in the trace: "base", with no thought; "average"
    greedy_head: ThoughtHead | None = (
        None  # where the trace tells the prediction of the likeliest thought too
    )
    critic: ValueHead | None = None
    sampler: ThoughtHead | None = None  # draws the thoughts of off-policy training; None: the thought head
    reward_model: RewardModel | RewardOfPrediction | None = None


class LatentReasoner(nn.Module):
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
            thought_head: None where no symbol is sampled.
            interpreter: None where there are no thoughts.
            beside: what stands beside the thoughts' predictions; None: nothing.
            horizon: how many tokens each position predicts.
        """
        super().__init__()
        self.letters = dict(letters)
        # Cores and head come first: parts that hold one of them too leave it its name here.
        self.cores = nn.ModuleDict(dict(cores))
        self.head = head
        self.mixer = mixer
        self.thought_head = thought_head
        self.interpreter = interpreter
        self.extra_predictions, self.greedy_head, self.critic, self.sampler, self.reward_model = (
            auxiliaries or Auxiliaries()
        )
        self.num_ahead, self.goes_on = horizon
        self.predicts_without_thought = mixer.predicts_without_thought
        self.hears_last = isinstance(interpreter, Onward) and interpreter.last_token is not None

    def read(self, inputs: Tensor, positions: Tensor | None) -> Context:
        """Read the context once.

        Args:
            inputs: (S, B, T) long, all positions.
            positions: (S, B, T') long, those that think; None: all.

        Returns:
            base_lm's outputs and base_reasoner's branch points at the thinking positions.
        """
        letters = {role: self.letters[role] for role in READERS if role in self.letters}
        # Roles that share a core read alike: once.
        read = {letter: self._read(letter, inputs) for letter in dict.fromkeys(letters.values())}
        base = read[letters["base_lm"]][0] if "base_lm" in letters else None
        branches = read[letters["base_reasoner"]][1] if "base_reasoner" in letters else None
        judged = self.critic is not None or self.reward_model is not None
        heard = judged and "base_reasoner" in letters
        context = Context(
            base,
            branches,
            read[letters["base_reasoner"]][0] if heard else None,
            last=inputs if self.hears_last else None,
        )
        there = context if positions is None else self.at(context, positions)
        if self.num_ahead == 1:
            return there
        places, _ = places_ahead(inputs, positions, self.num_ahead)
        ahead = None if base is None else pick_positions(base, places)
        following = pick_positions(inputs, places[..., 1:]) if self.goes_on else None
        return there._replace(ahead=ahead, following=following)

    def at(self, context: Context, index: Tensor) -> Context:
        """The context at some of its positions.

        Args:
            context: from `read`.
            index: (S, B, T') long.
        """
        base, branches, *rest = context
        if base is not None:
            base = pick_positions(base, index)
        if branches is not None:
            branches = self._core("base_reasoner").backbone.gather(branches, index)
        return Context(base, branches, *(x if x is None else pick_positions(x, index) for x in rest))

    def think(
        self,
        context: Context,
        noise: Tensor,
        forced: Tensor | None = None,
        lengths: Tensor | None = None,
        *,
        off_policy: bool = False,
    ) -> Thoughts | None:
        """K thoughts at every thinking position; None for a model without thoughts.

        Args:
            context: from `read`.
            noise: (S, B, T, K, L) or (S, B, T, K, L, W) uniform in [0, 1).
            forced: (S, B, T, K, L) long or (S, B, T, K, L, Z); score these symbols instead of sampling.
            lengths: (S, B, T, 1 or K) long, after how many symbols each thought ends by force; None: after L.
            off_policy: draw and score by the sampler's law, where there is a sampler, not by the policy's.
        """
        if self.interpreter is None:
            return None
        if context.branches is None:  # zero-length thoughts that are interpreted afresh
            return Thoughts(noise.long(), noise, noise, None)
        core = self._core("reasoner")
        head = self.thought_head if self.sampler is None or not off_policy else self.sampler
        return think(core, head, context.branches, noise, forced=forced, lengths=lengths)

    def talk(self, context: Context, thoughts: Thoughts | None, floor: float = 0.0) -> Trace:
        """Predict with each thought, N tokens at once.

        The j-th of them is the token after t + j. The true tokens up to there are read, never the
        model's own: the base state of its prediction is base_lm's at t + j, from the one reading of the
        sequence. With that state meets

            persist    the thought's reading at t, the same for all N
            continue   the interpreter's state after [thought, end marker, x_{t+1} … x_{t+j}]

        so that persist costs no step of any memory, and continue N − 1 of the interpreter's, all
        positions at once. The thought itself has seen x_≤t alone. Where the context has neither `ahead`
        nor `following`, the first token alone is predicted.

        Args:
            context: from `read`.
            thoughts: from `think`; None: the prediction with no thought.
            floor: what the mixer's openness is kept above.

        Returns:
            The trace; logits (S, B, T, K, N, V), with K = 1 where there is no thought to tell apart.
            thought_weight is that of the first token.

        Source: Zelikman et al. 2024, "Quiet-STaR" (non-myopic scoring with teacher forcing).
        """
        base, reading, one_token = context.base, None, context.ahead is None and context.following is None
        if thoughts is not None:
            reading = self._interpret(context, thoughts)
        if not one_token:
            base, reading = context.ahead, self._go_on(reading, context.following)
        logits, opening = self.mixer.predict(self.head, base, reading, floor)
        trace = Trace(logits.unsqueeze(-2) if one_token else logits, thought_weight=opening)
        if opening is not None and not one_token:
            trace = trace._replace(thought_weight=opening[..., 0])
        if thoughts is None or not thoughts.symbols.shape[4]:
            return trace
        assert reading is not None
        if "base" in self.extra_predictions:
            trace = trace._replace(base_logits=self._one_thought(base, None, floor, one_token))
        if "average" in self.extra_predictions:
            average = _average_of_others(reading)
            trace = trace._replace(average_logits=self._one_thought(base, average, floor, one_token))
        if self.greedy_head is not None:
            trace = trace._replace(greedy_logits=self._greedy(context, thoughts, floor))
        shared = ("log_prob", "entropy", "prior_divergence", "symbols", "length", "unfinished")
        return trace._replace(**{name: getattr(thoughts, name) for name in shared})

    @torch.no_grad()
    def _greedy(self, context: Context, thoughts: Thoughts, floor: float) -> Tensor:
        """Logits (S, B, T, N, V) with the one thought of likeliest symbols, no longer than the given ones."""
        *places, _, length = thoughts.symbols.shape[:5]
        silent = torch.empty(*places, 1, length, device=thoughts.symbols.device)
        lengths = None if thoughts.given_length is None else thoughts.given_length[..., :1]
        core = self._core("reasoner")
        greedy_head = think(core, self.greedy_head, context.branches, silent, lengths=lengths)
        reading = self._interpret(context, greedy_head)
        one_token = context.ahead is None and context.following is None
        if one_token:
            return self._one_thought(context.base, reading, floor, one_token)
        return self._one_thought(context.ahead, self._go_on(reading, context.following), floor, one_token)

    def _interpret(self, context: Context, thoughts: Thoughts) -> Tensor:
        """Readings (S, B, T, K, E)."""
        assert self.interpreter is not None
        return self.interpreter(thoughts, context.last) if self.hears_last else self.interpreter(thoughts)

    def _one_thought(
        self, base: Tensor | None, reading: Tensor | None, floor: float, one_token: bool
    ) -> Tensor:
        """Logits (S, B, T, N, V) with one reading for all thoughts of a position, or with none."""
        logits, _ = self.mixer.predict(self.head, base, reading, floor)
        return logits if one_token else logits.squeeze(3)

    def _go_on(self, reading: Tensor | None, following: Tensor | None) -> Tensor | None:
        """Readings (S, B, T, K, E) -> those of the N tokens (S, B, T, K, N, E), of size 1 where they persist.

        The interpreter's output stands for its state, as a GRU's does.
        """
        if reading is None or following is None:
            return None if reading is None else reading.unsqueeze(-2)
        core = self._core("interpreter")
        rows, readings = core.token_rows(), [reading]
        for tokens in following.unbind(-1):
            readings.append(core.backbone.step(gather_rows(rows, tokens).unsqueeze(3), readings[-1])[0])
        return torch.stack(readings, -2)

    def forward(
        self,
        inputs: Tensor,
        positions: Tensor | None,
        noise: Tensor,
        forced: Tensor | None = None,
        targets: Tensor | None = None,
        floor: float = 0.0,
        lengths: Tensor | None = None,
    ) -> Trace:
        """Read, think and talk: the trace at the thinking positions.

        Args:
            inputs: as in `read`.
            positions: as in `read`.
            noise: as in `think`.
            forced: as in `think`.
            targets: (S, B, T') long, for the critic; None: neither it nor the reward model is asked.
            floor: as in `talk`.
            lengths: as in `think`.
        """
        context = self.read(inputs, positions)
        thoughts = self.think(context, noise, forced, lengths)
        trace = self.talk(context, thoughts, floor)
        if targets is None:
            return trace
        features = [x for x in (context.base, context.reasoner) if x is not None]
        if self.critic is not None:
            trace = trace._replace(value=self.critic(features, trace, targets))
        if self.reward_model is not None:
            assert thoughts is not None
            trace = trace._replace(learned_reward=self.reward_model(features, thoughts.symbols, trace))
        return trace

    def _core(self, role: str) -> Core:
        return cast(Core, self.cores[self.letters[role]])

    def _read(self, letter: str, inputs: Tensor) -> tuple[Tensor, BranchState]:
        core = cast(Core, self.cores[letter])
        return core.backbone.read(gather_rows(core.token_rows(), inputs))


def _average_of_others(reading: Tensor) -> Tensor:
    """The mean reading of all other positions' thoughts: (S, B, T, K, …, E) -> (S, B, T, 1, …, E)."""
    reading = reading.detach()
    own = reading.sum(3, keepdim=True)
    others = reading.shape[1:4].numel() - reading.shape[3]
    return (own.sum((1, 2), keepdim=True) - own) / max(1, others)
