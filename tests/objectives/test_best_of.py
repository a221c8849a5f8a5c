"""Imitation of the best of K thoughts, summed over every group, and the walk through it in docs/."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.objectives.worlds import LOGITS, REWARDS, expected_gradient, gradient_of, near
from toyqs.objectives.policy.best_of import BestOf
from toyqs.types import Batch, Trace

BACKBONES = pytest.mark.usefixtures("backbone")
ROOT = Path(__file__).resolve().parents[2]


def loss(rewards: Tensor, log_prob: Tensor) -> Tensor:
    ones = torch.ones(rewards.shape[:3])
    batch = Batch(ones.long(), ones.long(), ones, ones.bool())
    return BestOf().policy_loss(rewards, Trace(torch.empty(0), log_prob.unsqueeze(-1)), batch)


def law_of_the_best(logits: Tensor, count: int) -> Tensor:
    """P(h is the best of K draws), from the distribution of the largest of K rewards."""
    probability = logits.softmax(0)
    order = REWARDS.argsort()
    below = probability[order].cumsum(0)
    first = torch.cat([below[:1] * 0, below[:-1]])
    return torch.zeros_like(probability).scatter(0, order, below**count - first**count)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_it_imitates_the_law_of_the_best_of_k(count: int) -> None:
    law = law_of_the_best(LOGITS, count)
    near(law.sum(), torch.ones(()).double())
    wanted = gradient_of(lambda logits: -(law * logits.log_softmax(0)).sum())
    near(expected_gradient(loss, count), wanted)


@pytest.mark.parametrize("groups", tiny.PATTERNS)
@BACKBONES
def test_it_does_so_in_whole_models(groups: str) -> None:
    settings = tiny.config(weight_groups=groups)
    every, truth = tiny.enumerate_tuples(settings, 2), tiny.exact(settings)
    got = every.expected(BestOf()(every.trace, every.batch).parts["policy"])
    log_q, log_prob = truth.log_q.detach(), truth.log_prob.sum(-1)
    both = torch.cartesian_prod(*[torch.arange(len(tiny.THOUGHTS))] * 2)
    best = torch.where(log_q[both[:, 1]] > log_q[both[:, 0]], both[:, 1], both[:, 0])
    tiny.close(got, truth.gradient(-(log_prob.exp().detach()[both].prod(-1) * log_prob[best]).sum()))


def test_docs_show_the_files_as_they_are() -> None:
    text = (ROOT / "docs" / "adding-an-objective.md").read_text()
    shown = {place: code for place, code in re.findall(r"`([\w/.]+)`:\n\n```\w+\n(.*?)```", text, re.DOTALL)}
    assert sorted(shown) == ["conf/run_modifier/BestOfRunConfig.yaml", "toyqs/objectives/policy/best_of.py"]
    for place, code in shown.items():
        assert code == (ROOT / place).read_text()


def test_it_took_one_file_and_one_preset() -> None:
    """Nothing else has to name it: presets.py, which puts presets in groups for --help, may."""
    files = [*ROOT.glob("toyqs/**/*.py"), *ROOT.glob("conf/**/*.yaml"), ROOT / "run.py"]
    naming = {file.name for file in files if re.search("best_of|BestOf", file.read_text())}
    assert naming - {"presets.py"} == {"best_of.py", "BestOfRunConfig.yaml"}
