"""LatentReasoner: read a context, think at its positions, talk with each thought."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import cast

from torch import Tensor, nn

from toyqs.model.core import Core
from toyqs.model.critic import ValueHead
from toyqs.model.interpreter import Afresh, Onward
from toyqs.model.layers import Head, pick_rows
from toyqs.model.thoughts import TokenHead, think
from toyqs.types import BranchState, Context, Thoughts, Trace

READERS = ("base_lm", "base_reasoner")


class LatentReasoner(nn.Module):
    """The roles in use, their heads and the mixer. Parts are chosen at construction; absent = None."""

    def __init__(
        self,
        letters: Mapping[str, str],
        cores: Mapping[str, Core],
        head: Head,
        mixer: nn.Module,
        thought_head: TokenHead | None = None,
        interpreter: Afresh | Onward | None = None,
        *,
        tells: Collection[str] = (),
        critic: ValueHead | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            letters: role -> letter, for the roles in use.
            cores: letter -> core.
            head: features -> logits.
            mixer: base state and reading -> features (model/mixing.py).
            thought_head: None where no symbol is sampled.
            interpreter: None where there are no thoughts.
            tells: other predictions that the trace holds beside those of the thoughts: "base", with no
                thought, and "average", with the average reading of the other positions.
            critic: None where nothing is to be expected.
        """
        super().__init__()
        self.letters = dict(letters)
        # Cores and head come first: parts that hold one of them too leave it its name here.
        self.cores = nn.ModuleDict(dict(cores))
        self.head = head
        self.mixer = mixer
        self.thought_head = thought_head
        self.interpreter = interpreter
        self.tells = frozenset(tells)
        self.critic = critic
        self.speaks_alone: bool = mixer.speaks_alone  # type: ignore[assignment]

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
        heard = self.critic is not None and "base_reasoner" in letters
        context = Context(base, branches, read[letters["base_reasoner"]][0] if heard else None)
        return context if positions is None else self.at(context, positions)

    def at(self, context: Context, index: Tensor) -> Context:
        """The context at some of its positions.

        Args:
            context: from `read`.
            index: (S, B, T') long.
        """
        base, branches, reasoner = context
        if branches is not None:
            branches = self._core("base_reasoner").backbone.gather(branches, index)
        return Context(_at(base, index), branches, _at(reasoner, index))

    def think(self, context: Context, noise: Tensor, forced: Tensor | None = None) -> Thoughts | None:
        """K thoughts at every thinking position; None for a model without thoughts.

        Args:
            context: from `read`.
            noise: (S, B, T, K, L) uniform in [0, 1).
            forced: (S, B, T, K, L) long; score these symbols instead of sampling.
        """
        if self.interpreter is None:
            return None
        if context.branches is None:  # zero-length thoughts that are interpreted afresh
            return Thoughts(noise.long(), noise, noise, None)
        return think(self._core("reasoner"), self.thought_head, context.branches, noise, forced=forced)

    def talk(self, context: Context, thoughts: Thoughts | None) -> Trace:
        """Predict with each thought.

        Args:
            context: from `read`.
            thoughts: from `think`; None: the prediction with no thought.

        Returns:
            The trace; logits (S, B, T, K, 1, V), with K = 1 where there is no thought to tell apart.
        """
        reading = None
        if thoughts is not None:
            assert self.interpreter is not None
            reading = self.interpreter(thoughts)
        features, opening = self.mixer(context.base, reading)
        trace = Trace(self.head(features).unsqueeze(-2), thought_weight=opening)
        if thoughts is None or not thoughts.symbols.shape[-1]:
            return trace
        assert reading is not None
        if "base" in self.tells:
            # (S, B, T, 1, V): the axis of one thought serves as N = 1.
            trace = trace._replace(base_logits=self.head(self.mixer(context.base, None)[0]))
        if "average" in self.tells:
            average = _average_of_others(reading)
            trace = trace._replace(average_logits=self.head(self.mixer(context.base, average)[0]))
        return trace._replace(log_prob=thoughts.log_prob, entropy=thoughts.entropy)

    def forward(
        self,
        inputs: Tensor,
        positions: Tensor | None,
        noise: Tensor,
        forced: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> Trace:
        """Read, think and talk: the trace at the thinking positions.

        Args:
            inputs: as in `read`.
            positions: as in `read`.
            noise: as in `think`.
            forced: as in `think`.
            targets: (S, B, T') long, for the critic; None: it is not asked.
        """
        context = self.read(inputs, positions)
        trace = self.talk(context, self.think(context, noise, forced))
        if self.critic is None or targets is None:
            return trace
        features = [x for x in (context.base, context.reasoner) if x is not None]
        return trace._replace(value=self.critic(features, trace, targets))

    def _core(self, role: str) -> Core:
        return cast(Core, self.cores[self.letters[role]])

    def _read(self, letter: str, inputs: Tensor) -> tuple[Tensor, BranchState]:
        core = cast(Core, self.cores[letter])
        return core.backbone.read(pick_rows(core.token_rows(), inputs))


def _average_of_others(reading: Tensor) -> Tensor:
    """The mean reading of all other positions' thoughts in the batch: (S, B, T, K, E) -> (S, B, T, 1, E)."""
    reading = reading.detach()
    own = reading.sum(3, keepdim=True)
    others = reading[0, ..., 0].numel() - reading.shape[3]
    return (own.sum((1, 2), keepdim=True) - own) / max(1, others)


def _at(states: Tensor | None, index: Tensor) -> Tensor | None:
    """(S, B, T, D) at positions (S, B, T')."""
    if states is None:
        return None
    return states.gather(2, index.unsqueeze(-1).expand(*index.shape, states.shape[-1]))
