"""Bias and noise of every estimator of the policy gradient, exactly, on a policy over six thoughts.

`python bench/estimators.py -o estimators.csv` sums over all groups of K thoughts; analysis/estimators.py
draws the table. For credit by prefixes the six thoughts have two symbols, one of two and one of three.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toyqs.command_line import Parser, check_file, path_of, run, whole, writing
from toyqs.files import write_text
from toyqs.objectives.objective import ThoughtObjective
from toyqs.objectives.policy.reinforce import MultiSample, Reinforce
from toyqs.objectives.registry import registry
from toyqs.types import Batch, Trace

THOUGHTS = 6
FIRST = torch.arange(THOUGHTS) // 3  # the first symbol of each thought, where it has two
NUMBERS = (1, 2, 3, 4, 6, 8, 12, 16)  # K
BETA = 0.3  # temperature, about the rewards' spread
FAMILY = registry()


@dataclass(frozen=True)
class Prefixes(Reinforce):
    """Credit for each symbol by what prefixes earn: the mean of their thoughts, or of the others'."""

    credit: str = "prefix"
    known: bool = True  # False: each of the two first symbols earns the mean of the other's thoughts

    def earned_with(self, logits: Tensor, trace: Trace, batch: Batch) -> Tensor:
        """Return the rewards that `estimates` gives in the place of logits, (groups, 1, 1, K)."""
        return logits[..., 0, 0]


# Name -> the estimator, and β of the aim that it is compared with, E r + β H.
ESTIMATORS: dict[str, tuple[Any, float]] = {
    "no baseline": (Reinforce(baseline="none"), 0.0),
    "true mean as baseline": (Reinforce(baseline="value"), 0.0),
    "leave-one-out": (Reinforce(baseline="leave_one_out"), 0.0),
    "credit by prefix, right rewards": (Prefixes(baseline="leave_one_out"), 0.0),
    "credit by prefix, wrong rewards": (Prefixes(baseline="leave_one_out", known=False), 0.0),
    "group mean": (Reinforce(baseline="group_mean"), 0.0),
    "group mean / std (GRPO)": (Reinforce(baseline="group_mean", advantage_scale="group_std"), 0.0),
    "positive advantages only": (Reinforce(baseline="group_mean", advantage_scale="positive_only"), 0.0),
    "multi-sample bound": (MultiSample(), 0.0),
    "listwise": (FAMILY["listwise"](temperature=BETA), BETA),
    "Plackett-Luce": (FAMILY["plackett_luce"](), BETA),
    "weighted MLE": (FAMILY["weighted_mle"](temperature=BETA), BETA),
    "maximum entropy": (FAMILY["maxent"](temperature=BETA), BETA),
    "VarGrad": (FAMILY["vargrad"](temperature=BETA), BETA),
    "trajectory balance, log Z estimated": (FAMILY["logz_mse"](temperature=BETA), BETA),
}
COLUMNS = ("estimator", "K", "aim", "cosine", "length", "noise")


def world(seed: int) -> tuple[Tensor, Tensor]:
    """Draw logits of a policy over six thoughts, and their rewards, (6,) each."""
    generator = torch.Generator().manual_seed(seed)
    logits, rewards = torch.randn(2, THOUGHTS, generator=generator, dtype=torch.float64)
    return logits, 0.3 * rewards - 1.0


def groups(number: int) -> tuple[Tensor, Tensor]:
    """List all unordered groups of K thoughts (groups, K), and the number of orders of each (groups,)."""
    unordered = list(itertools.combinations_with_replacement(range(THOUGHTS), number))
    orders = [
        math.factorial(number) / math.prod(math.factorial(one.count(i)) for i in set(one))
        for one in unordered
    ]
    return torch.tensor(unordered), torch.tensor(orders, dtype=torch.float64)


def aim(logits: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """Compute −∇(E r + β H), the gradient that a descent should follow, (6,)."""
    logits = logits.clone().requires_grad_()
    log_prob = logits.log_softmax(0)
    (gradient,) = torch.autograd.grad(-(log_prob.exp() * (rewards - beta * log_prob)).sum(), logits)
    return gradient


def estimates(
    estimator: ThoughtObjective, number: int, logits: Tensor, rewards: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute the estimate from every group of K thoughts (groups, 6), and its probability (groups,)."""
    index, orders = groups(number)
    table = logits.expand(len(index), -1).clone().requires_grad_()
    whole = table.log_softmax(1)
    first = whole.view(-1, 2, 3).logsumexp(2).repeat_interleave(3, 1)  # of each thought's first symbol
    log_prob = torch.stack([first, whole - first], -1)[torch.arange(len(index))[:, None], index]
    reward = rewards[index][:, None, None]
    mean = (logits.softmax(0) * rewards).sum().expand(len(index), 1, 1, 1)
    earned = of_prefixes(logits, rewards, known=getattr(estimator, "known", True))[index]
    trace = Trace(
        torch.empty(0),
        log_prob[:, None, None],
        correction=mean,
        prefix_logits=earned[:, None, None, :, :, None, None],
    )
    ones = torch.ones(len(index), 1, 1, dtype=torch.float64)
    batch = Batch(ones.long(), ones.long(), ones, ones.bool())
    (gradients,) = torch.autograd.grad(estimator.policy_loss(reward, trace, batch).sum(), table)
    return gradients, orders * logits.log_softmax(0)[index].sum(1).exp()


def of_prefixes(logits: Tensor, rewards: Tensor, *, known: bool) -> Tensor:
    """Return what the prefixes of each thought earn, of no symbol and of one: (6, 2)."""
    law = logits.softmax(0)
    means = torch.stack([(law * rewards)[s == FIRST].sum() / law[s == FIRST].sum() for s in (0, 1)])
    first = means[FIRST if known else 1 - FIRST]
    return torch.stack([(law * rewards).sum().expand(THOUGHTS), first], -1)


def measured(name: str, number: int, seeds: int) -> dict[str, object]:
    """Measure bias and noise of one estimator, the mean over a number of worlds."""
    estimator, beta = ESTIMATORS[name]
    cosine, length, noise = [], [], []
    for seed in range(seeds):
        logits, rewards = world(seed)
        each, probability = estimates(estimator, number, logits, rewards)
        mean, wanted = probability @ each, aim(logits, rewards, beta)
        spread = (probability @ (each - mean).square().sum(1)).sqrt()
        cosine.append(torch.cosine_similarity(mean, wanted, dim=0))
        length.append(mean.norm() / wanted.norm())
        noise.append(spread / mean.norm())
    values = [float(torch.stack(column).mean()) for column in (cosine, length, noise)]
    words = "reward and entropy" if beta else "reward"
    return dict(zip(COLUMNS, (name, number, words, *values), strict=True))


def main(words: Sequence[str] | None = None) -> int:
    """Print the table and write it; return the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    place = Path("estimators.csv")
    parser.add_argument("-o", type=path_of, default=place, help="where the table goes (estimators.csv)")
    parser.add_argument("--worlds", type=whole, default=20, help="policies to average over (20)")
    return run(_tabulate, parser, words)


def _tabulate(given: argparse.Namespace) -> None:
    check_file(given.o)
    torch.set_num_threads(1)
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    print(f"{'estimator':36}{'K':>4}  {'against':20}{'cosine':>9}{'length':>9}{'noise':>9}")
    for name, (estimator, _) in ESTIMATORS.items():
        least = estimator.least_thoughts
        group = getattr(estimator, "baseline", "") in ("leave_one_out", "group_mean")
        for number in NUMBERS:
            if number < max(least, 1 + group):
                continue
            row = measured(name, number, given.worlds)
            table.writerow(row)
            values = "".join(f"{row[column]:9.3f}" for column in COLUMNS[3:])
            print(f"{name:36}{number:4}  {row['aim']:20}{values}")
    with writing(given.o):
        write_text(given.o, text.getvalue())
    print(f"\ntable  {given.o}")


if __name__ == "__main__":
    sys.exit(main())
