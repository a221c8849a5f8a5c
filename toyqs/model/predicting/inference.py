"""The inference network: a law of thoughts that knows the target, learned beside the model."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from toyqs.model.core import Core
from toyqs.model.layers import Embedding, Linear, Output, gather_rows
from toyqs.model.samplers import TemperedTokens
from toyqs.model.thoughts import ThoughtHead, TokenHead, think
from toyqs.types import Context, Thoughts


class InferenceNetwork(nn.Module):
    """ρ(h | x, y), symbol by symbol, from the reasoner's states and the target.

        logits of ρ(s_l | x, y, s_<l) = sg logits of π(s_l | x, s_<l) + U relu(W state + Σ_n e_n(y_n))

    It starts near the policy and learns what the target adds: at the posterior, by how much each symbol
    changes the target's likelihood. All inputs are detached: it trains itself alone.
    """

    hidden = 32

    def __init__(
        self, num_seeds: int, policy: TokenHead, width: int, logits: int, vocab_size: int, num_tokens: int
    ) -> None:
        """Build the layers.

        Args:
            num_seeds: S.
            policy: the head whose logits it starts from.
            width: of the reasoner's state.
            logits: of the policy: its symbols, and the end where there is one.
            vocab_size: V of the targets.
            num_tokens: N.
        """
        super().__init__()
        self.policy, self.vocab_size = policy, vocab_size
        self.inner = Linear(num_seeds, width, self.hidden)
        self.targets = Embedding(num_seeds, num_tokens * vocab_size, self.hidden, std=0.5)
        self.outer = Output(num_seeds, self.hidden, logits)

    def knowing(self, targets: Tensor) -> ThoughtHead:
        """Return the head that samples given the targets, (S, B, T, N) long."""
        return _Knowing(self, targets)

    def score(self, core: Core, context: Context, thoughts: Thoughts | None, targets: Tensor) -> Tensor:
        """Compute log ρ of each symbol, (S, B, T, K, L), with a gradient to this network alone."""
        assert thoughts is not None
        forced, lengths = thoughts.symbols, thoughts.given_length
        scored = think(core, self.knowing(targets), context.branches, forced, forced=forced, lengths=lengths)
        return cast(Tensor, scored.log_prob)


class _Knowing(TemperedTokens):
    """An inference network's head for some targets."""

    def __init__(self, network: InferenceNetwork, targets: Tensor) -> None:
        super().__init__(network.policy, 1.0)
        self.network = network
        places = torch.arange(targets.shape[-1], device=targets.device) * network.vocab_size
        self.known = gather_rows(network.targets.weight, targets + places).sum(-2).unsqueeze(3)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map states (S, B, T, 1 or K, D) to logits."""
        network, hidden = self.network, hidden.detach()
        added = network.outer(nn.functional.relu(network.inner(hidden) + self.known))
        return network.policy(hidden).detach() + added


def drawing_head(sampler: ThoughtHead | InferenceNetwork, targets: Tensor | None) -> ThoughtHead:
    """Return the head that samples off-policy; an inference network's knows the targets (S, B, T, N)."""
    if isinstance(sampler, ThoughtHead):
        return sampler
    assert targets is not None
    return sampler.knowing(targets)
