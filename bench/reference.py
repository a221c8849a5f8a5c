"""The training step of a thinking GRU written plainly from the papers: what speed.py compares toyqs with.

Plain torch modules and autograd, one seed. The batch is repeated K times, so that every thought has a
row of its own from the first token on (B · K · T rows for the thoughts). Nothing is shared, cached or
fused, and nothing is computed that the algorithm does not need. It imports nothing of toyqs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Prediction(NamedTuple):
    """Predictions for each sequence, thought and position."""

    logits: Tensor  # (B, K, T, V) of the next token
    log_prob: Tensor  # (B, K, T) of the whole thought
    entropy: Tensor  # (B, K, T), summed over the symbols' distributions


@dataclass(frozen=True)
class Recipe:
    """The plain numbers of the training step."""

    num_thoughts: int  # K
    thought_length: int  # L
    lr: float
    entropy_beta: float  # weight of the entropy bonus; the other two parts of the loss weigh 1
    max_norm: float  # of the gradient


class Core(nn.Module):
    """An embedding and a GRU: what the roles of one weight group share."""

    def __init__(self, num_rows: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_rows, width)
        self.gru = nn.GRU(width, width)

    def read(self, tokens: Tensor) -> Tensor:
        """Read tokens (n, T); return the state after each of them, (n, T, D)."""
        return self.gru(self.embedding(tokens.t()))[0].transpose(0, 1)

    def step(self, symbols: Tensor, hidden: Tensor) -> Tensor:
        """Advance states (n, D) by one symbol each (n,); return the next states (n, D)."""
        return self.gru(self.embedding(symbols).unsqueeze(0), hidden.unsqueeze(0))[1].squeeze(0)


class Reference(nn.Module):
    """A GRU language model that thinks at every position; interpreter afresh, concatenating linear head."""

    def __init__(self, letters: Mapping[str, str], widths: Mapping[str, int], vocab_size: int) -> None:
        """Build the four roles.

        Args:
            letters: role -> letter of its weight group.
            widths: role -> hidden width.
            vocab_size: V, of tokens and thought symbols alike; two more inputs start and end a thought.
        """
        super().__init__()
        self.letters = dict(letters)
        self.start, self.end = vocab_size, vocab_size + 1
        thinking = {letters["reasoner"], letters["interpreter"]}
        self.cores = nn.ModuleDict(
            {x: Core(vocab_size + 2 * (x in thinking), widths[role]) for role, x in letters.items()}
        )
        self.start_state = nn.Parameter(0.1 * torch.randn(widths["interpreter"]))
        self.thought_head = nn.Linear(widths["reasoner"], vocab_size)
        self.head = nn.Linear(widths["base_lm"] + widths["interpreter"], vocab_size)

    def forward(self, inputs: Tensor, recipe: Recipe, forced: Tensor | None = None) -> Prediction:
        """Read, think, interpret and predict.

        Args:
            inputs: (B, T) long.
            recipe: has K and L.
            forced: (B, K, T, L) long, thoughts to be scored instead of sampled ones.
        """
        repeated = inputs.repeat_interleave(recipe.num_thoughts, 0)
        base = self._core("base_lm").read(repeated).flatten(0, 1)
        hidden = self._core("base_reasoner").read(repeated).flatten(0, 1)
        symbol = torch.full((len(hidden),), self.start)
        symbols, log_prob, entropy = [symbol], 0.0, 0.0
        for index in range(recipe.thought_length):
            hidden = self._core("reasoner").step(symbol, hidden)
            log_probs = self.thought_head(hidden).log_softmax(-1)
            probs = log_probs.exp()
            if forced is None:
                symbol = torch.multinomial(probs.detach(), 1).squeeze(1)
            else:
                symbol = forced[..., index].flatten()
            symbols.append(symbol)
            log_prob = log_prob + log_probs.gather(1, symbol.unsqueeze(1)).squeeze(1)
            entropy = entropy - (probs * log_probs).sum(1)
        reading = self.start_state.expand(len(hidden), -1)
        for marked in [*symbols, torch.full_like(symbol, self.end)]:
            reading = self._core("interpreter").step(marked, reading)
        logits = self.head(torch.cat([base, reading], -1))
        shape = (len(inputs), recipe.num_thoughts, inputs.shape[1])
        return Prediction(logits.view(*shape, -1), log_prob.view(shape), entropy.view(shape))

    def _core(self, role: str) -> nn.Module:
        return self.cores[self.letters[role]]


def thinking_loss(prediction: Prediction, targets: Tensor, entropy_beta: float) -> Tensor:
    """Compute REINFORCE with the leave-one-out baseline, every thought's cross entropy, an entropy bonus.

    Args:
        prediction: of K ≥ 2 thoughts.
        targets: (B, T) long.
        entropy_beta: weight of the bonus.

    Returns:
        A scalar, the mean over positions and thoughts.
    """
    logits = prediction.logits
    num_thoughts = logits.shape[1]
    repeated = targets.repeat_interleave(num_thoughts, 0).view(logits.shape[:-1])
    nll = F.cross_entropy(logits.flatten(0, 2), repeated.flatten(), reduction="none").view(repeated.shape)
    reward = -nll.detach()
    others = (reward.sum(1, keepdim=True) - reward) / (num_thoughts - 1)
    policy = -(reward - others) * prediction.log_prob
    return (policy + nll - entropy_beta * prediction.entropy).mean()


def train(model: Reference, batches: Iterable[tuple[Tensor, Tensor]], recipe: Recipe) -> None:
    """Take one training step on each batch of inputs and targets, both (B, T)."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=0.0)
    for inputs, targets in batches:
        optimiser.zero_grad()
        thinking_loss(model(inputs, recipe), targets, recipe.entropy_beta).backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.max_norm)
        optimiser.step()


def translated(model: nn.Module, pick: Callable[[nn.Parameter], Tensor]) -> dict[str, Tensor]:
    """Rename and reshape the parameters of a toyqs model, or their gradients, to those of a Reference.

    Args:
        model: a toyqs.model.latent_reasoner.LatentReasoner of one seed, built as a Reference is.
        pick: a parameter of it -> the tensor to translate, of the same shape: itself, its gradient, ...

    Returns:
        Name of a Reference's parameter -> tensor.
    """
    head = model.head
    tensors = {
        "start_state": pick(model.interpreter.start_state).flatten(),
        "head.weight": torch.cat([pick(head.weight_0)[0], pick(head.weight_1)[0]]).t(),
        "head.bias": pick(head.bias).flatten(),
        "thought_head.weight": pick(model.thought_head.projection.weight)[0].t(),
        "thought_head.bias": pick(model.thought_head.projection.bias).flatten(),
    }
    for letter, core in model.cores.items():
        tables = [core.tokens] if core.markers is None else [core.tokens, core.markers]
        tensors[f"cores.{letter}.embedding.weight"] = torch.cat([pick(table.weight)[0] for table in tables])
        for kind in ("ih", "hh"):
            weight, bias = (getattr(core.backbone, f"{part}_{kind}") for part in ("weight", "bias"))
            tensors[f"cores.{letter}.gru.weight_{kind}_l0"] = pick(weight)[0].t()
            tensors[f"cores.{letter}.gru.bias_{kind}_l0"] = pick(bias).flatten()
    return tensors
