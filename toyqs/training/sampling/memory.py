"""The memory of a chain of thoughts for each example of a finite training set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from toyqs.objectives.policy.mcmc_em import chain_states


class Moved(NamedTuple):
    """The states to which some examples' chains have moved."""

    examples: Tensor  # (S, B) long
    states: Tensor  # (S, B, T, L) long, or (S, B, T, L, Z)


class Memory:
    """One thought per thinking position of each example, the state of its chain; empty at first.

    Args:
        examples: how many there are.
    """

    def __init__(self, examples: int) -> None:
        self.size = examples
        self.states: Tensor | None = None  # (S, examples, T, L, ...)
        self.known: Tensor | None = None  # (S, examples) bool, whether it has been seen

    def recall(self, examples: Tensor, symbols: Tensor) -> Tensor:
        """Put the chains' states in the place of the last thoughts drawn, where there are such.

        Args:
            examples: (S, B) long.
            symbols: (S, B, T, K, L, ...), drawn from the policy.
        """
        if self.states is None or self.known is None:
            return symbols
        seed = torch.arange(len(examples), device=examples.device).unsqueeze(-1)
        known = self.known[seed, examples].view(*examples.shape, *(1 for _ in symbols.shape[3:]))
        last = torch.where(known, self.states[seed, examples], symbols[:, :, :, -1])
        return torch.cat([symbols[:, :, :, :-1], last.unsqueeze(3)], 3)

    def next(self, examples: Tensor, symbols: Tensor, log_q: Tensor, numbers: Tensor) -> Moved:
        """Return where the chains are after all proposals.

        Args:
            examples: (S, B) long.
            symbols: (S, B, T, K, L, ...), from `recall`.
            log_q: (S, B, T, K) log q(y | h, x) of these thoughts.
            numbers: (S, B, T) uniform, which draw the states.
        """
        below = chain_states(log_q)[..., -1, :].double().cumsum(-1)
        chosen = (below <= (numbers.double() * below[..., -1]).unsqueeze(-1)).sum(-1, keepdim=True)
        chosen = chosen.clamp(max=log_q.shape[-1] - 1)
        index = chosen.view(*chosen.shape, *(1 for _ in symbols.shape[4:]))
        states = symbols.gather(3, index.expand(*chosen.shape, *symbols.shape[4:])).squeeze(3)
        return Moved(examples, states)

    def keep(self, moves: Sequence[Moved]) -> None:
        """Let the chains be where they have moved."""
        for examples, states in moves:
            if self.states is None or self.known is None:
                self.states = states.new_zeros(len(examples), self.size, *states.shape[2:])
                self.known = torch.zeros(self.states.shape[:2], dtype=torch.bool, device=states.device)
            seed = torch.arange(len(examples), device=examples.device).unsqueeze(-1)
            self.states[seed, examples], self.known[seed, examples] = states, True

    def seed_state(self, index: int) -> dict[str, Any]:
        """Return a copy of one seed's memory, for `restore`."""
        if self.states is None or self.known is None:
            return {}
        return {"states": self.states[index].clone(), "known": self.known[index].clone()}

    def restore(self, parts: Sequence[Mapping[str, Any]], device: torch.device) -> None:
        """Restore what `seed_state` returned, seed by seed."""
        if all(parts):
            self.states, self.known = (
                torch.stack([part[name] for part in parts]).to(device) for name in ("states", "known")
            )
