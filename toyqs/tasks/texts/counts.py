"""How well counts of a text predict its continuation: what a trained model should do better than."""

from __future__ import annotations

import torch
from torch import Tensor


def count_nll(
    training: Tensor, inputs: Tensor, targets: Tensor, weights: Tensor, size: int
) -> dict[str, float]:
    """Compute the NLL of two models of counts, in nats per counted position.

        unigram_nll   p(y) = (c(y) + 1) / (n + V): each token by how often it occurs
        bigram_nll    p(y | x) = (c(x, y) + p(y)) / (c(x) + 1): by what follows the token before it

    c(y) counts a token in the training text of n tokens, c(x, y) a token right after another, and c(x) what
    follows x. The added one is spread evenly by the first model, as the first model says by the second, so a
    token or a pair that the training text has not stays possible.

    Args:
        training: the training text, (n,) token ids, n ≥ 2.
        inputs: (...) long, the token before each target.
        targets: (...) long.
        weights: (...), of each position in the mean.
        size: V.

    Returns:
        Both, by name.
    """
    text, before, after = training.long().cpu(), inputs.cpu().flatten(), targets.cpu().flatten()
    single = (torch.bincount(text, minlength=size) + 1).double() / (len(text) + size)
    pairs, numbers = torch.unique(text[:-1] * size + text[1:], return_counts=True)
    wanted = before * size + after
    place = torch.searchsorted(pairs, wanted).clamp(max=len(pairs) - 1)
    found = torch.where(pairs[place] == wanted, numbers[place], 0)
    followed = torch.bincount(text[:-1], minlength=size)[before]
    double = (found + single[after]) / (followed + 1)
    share = weights.cpu().flatten().double()
    share = share / share.sum()
    return {
        "unigram_nll": float(-(share * single[after].log()).sum()),
        "bigram_nll": float(-(share * double.log()).sum()),
    }
