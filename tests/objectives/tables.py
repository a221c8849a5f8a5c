"""What the tables of objectives by enumeration share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests import tiny
from toyqs.objectives.objective import ThoughtObjective

BACKBONES = pytest.mark.usefixtures("backbone")
PATTERNS = pytest.mark.parametrize("groups", tiny.PATTERNS)
STARTS = pytest.mark.parametrize("start", tiny.STARTS)


def expected(
    every: tiny.Enumeration, objective: ThoughtObjective, *names: str, **more: Tensor
) -> tiny.Gradients:
    """E[∇ of some parts] over the tuples."""
    parts = objective(every.trace._replace(**more), every.batch).parts
    return every.expected(sum(parts[name] for name in names))


def of_tuples(truth: tiny.Exact, count: int, value: Callable[[Tensor, Tensor], Tensor]) -> tiny.Gradients:
    """∇ Σ_tuples sg P(tuple) · value(log q, log π), each (tuples, 1, 1, K)."""
    index = torch.cartesian_prod(*[torch.arange(len(tiny.THOUGHTS))] * count).view(-1, count)
    log_prob = truth.log_prob.sum(-1)
    each = value(truth.log_q[index][:, None, None], log_prob[index][:, None, None]).flatten()
    return truth.gradient((log_prob.detach().exp()[index].prod(-1) * each).sum())


def log_q_of(every: tiny.Enumeration) -> Tensor:
    log_p = every.trace.logits[..., 0, :].log_softmax(-1)
    targets = every.batch.targets[..., None, None].expand(*log_p.shape[:-1], 1)
    return log_p.gather(-1, targets).squeeze(-1)
