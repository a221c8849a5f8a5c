"""How well counts of a text predict its continuation: what a trained model should do better than."""

from __future__ import annotations

import torch
from torch import Tensor


class Counts:
    """A model of a text's counts: each token by the one before it.

        p(y) = (c(y) + 1) / (n + V),   p(y | x) = (c(x, y) + p(y)) / (c(x) + 1)

    c(y) counts a token in the text of n tokens, c(x, y) a token right after another, and c(x) what follows x.
    """

    def __init__(self, training: Tensor, size: int) -> None:
        """Count.

        Args:
            training: the text, (n,) token ids, n ≥ 2.
            size: V.
        """
        text = training.long().cpu()
        self.size = size
        self.single = (torch.bincount(text, minlength=size) + 1).double() / (len(text) + size)  # p(y)
        self.pairs, self.numbers = torch.unique(text[:-1] * size + text[1:], return_counts=True)
        self.followed = torch.bincount(text[:-1], minlength=size)  # c(x)

    def prob(self, before: Tensor, after: Tensor) -> Tensor:
        """Return p(after | before), (...) long each -> (...) float64."""
        wanted = before * self.size + after
        place = torch.searchsorted(self.pairs, wanted).clamp(max=len(self.pairs) - 1)
        found = torch.where(self.pairs[place] == wanted, self.numbers[place], 0)
        return (found + self.single[after]) / (self.followed[before] + 1)

    def entropy(self) -> Tensor:
        """Return the entropy of what follows each token, the loss to expect there: (V,) float64, nats.

        −Σ_y p(y | x) ln p(y | x), of which the pairs that do not occur are summed for all x at once.
        """
        total = (self.followed + 1).double()
        never = ((self.single * self.single.log()).sum() - total.log()) / total  # as if no pair occurred
        before, after = self.pairs // self.size, self.pairs % self.size
        with_it = (self.numbers + self.single[after]) / total[before]
        without = self.single[after] / total[before]
        more = with_it * with_it.log() - without * without.log()
        return -never.scatter_add(0, before, more)


def count_nll(
    training: Tensor, inputs: Tensor, targets: Tensor, weights: Tensor, size: int
) -> dict[str, float]:
    """Compute the NLL of two models of counts, in nats per counted position.

        unigram_nll   p(y): each token by how often it occurs, see `Counts`
        bigram_nll    p(y | x): by what follows the token before it

    The added one is spread evenly by the first model, as the first model says by the second, so a token or a
    pair that the training text has not stays possible.

    Args:
        training: the training text, (n,) token ids, n ≥ 2.
        inputs: (...) long, the token before each target.
        targets: (...) long.
        weights: (...), of each position in the mean.
        size: V.

    Returns:
        Both, by name.
    """
    before, after = inputs.cpu().flatten(), targets.cpu().flatten()
    counts = Counts(training, size)
    share = weights.cpu().flatten().double()
    share = share / share.sum()
    return {
        "unigram_nll": float(-(share * counts.single[after].log()).sum()),
        "bigram_nll": float(-(share * counts.prob(before, after).log()).sum()),
    }
