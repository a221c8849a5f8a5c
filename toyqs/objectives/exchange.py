"""Rewards that go to the thoughts of another position: those of the control reward_shuffled."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def exchanged(rewards: Tensor, order: Tensor, weights: Tensor) -> Tensor:
    """Give each counted position the rewards of another one of the same seed, its K thoughts' together.

    The counted positions of a seed stand in a circle, in the order of their numbers, and each gets the
    rewards of the next: uniform numbers make every other position equally likely, and none keeps its own.
    A seed with a single counted position has no other.

    Args:
        rewards: (S, B, T, K).
        order: (S, B, T) numbers.
        weights: (S, B, T), 0 where a position does not count and keeps its rewards.

    Returns:
        (S, B, T, K).
    """
    counted, flat = (weights > 0).flatten(1), rewards.flatten(1, 2)
    places = order.flatten(1).masked_fill(~counted, math.inf).argsort(-1)  # those that count come first
    rank, number = torch.arange(places.shape[1], device=places.device), counted.sum(-1, keepdim=True)
    following = torch.where(rank + 1 < number, rank + 1, torch.where(rank < number, 0, rank))
    sources = torch.empty_like(places).scatter_(1, places, places.gather(1, following))
    return flat.gather(1, sources.unsqueeze(-1).expand_as(flat)).view_as(rewards)
