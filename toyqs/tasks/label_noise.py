"""Answers that are observed with noise: with some probability one drawn anew, uniformly."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def observe(generator: torch.Generator, answers: Tensor, num_answers: int, noise: float) -> Tensor:
    """Draw what is observed of answers (...), long, each replaced with probability `noise`."""
    if noise == 0:
        return answers
    replaced = torch.rand(answers.shape, generator=generator) < noise
    drawn = torch.randint(num_answers, answers.shape, generator=generator)
    return torch.where(replaced, drawn, answers)


def observed_log_probs(answers: Tensor, num_answers: int, noise: float, vocab_size: int) -> Tensor:
    """Compute the log-probability of each token to be observed in an answer's place.

    Args:
        answers: (...) long, below num_answers.
        num_answers: the ids that answers may have.
        noise: probability of being drawn anew.
        vocab_size: V, at least num_answers.

    Returns:
        (..., V), −inf for what cannot be observed.
    """
    other = noise / num_answers
    log_probs = torch.full((*answers.shape, vocab_size), -math.inf)
    log_probs[..., :num_answers] = math.log(other) if other > 0 else -math.inf
    return log_probs.scatter_(-1, answers.unsqueeze(-1), math.log(1 - noise + other))


def noise_entropy(num_answers: int, noise: float) -> float:
    """Compute the entropy of what is observed of an answer, in nats.

        −c ln c − (p − 1) (ε/p) ln(ε/p),   c = 1 − ε + ε/p

    of p answers and noise ε.
    """
    other = noise / num_answers
    correct = 1 - noise + other
    if other == 0:
        return 0.0
    return -correct * math.log(correct) - (num_answers - 1) * other * math.log(other)
