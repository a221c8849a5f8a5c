"""A learned reward that weighs what each thought predicts by a learned law of the target."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests import reference, tiny
from tests.objectives.test_reward_model import DATA, LOG_Q, POLICY, settings_of
from tests.reference import Weights
from toyqs.config.builders.training import build_objective
from toyqs.objectives import reward_model
from toyqs.objectives.rewards import tokens
from toyqs.positions import focus, thinking_positions

BACKBONES = pytest.mark.usefixtures("backbone")


def test_a_law_of_targets_fitted_on_differences_is_the_datas() -> None:
    """D_ψ = D is where the expected gradient is 0, all pairs of thoughts summed; elsewhere it is not."""
    pairs = torch.cartesian_prod(torch.arange(3), torch.arange(3))

    def slope(given: Tensor) -> Tensor:
        logits = given.log().requires_grad_()
        total = torch.zeros(()).double()
        for x in range(2):
            expected = (LOG_Q @ logits.softmax(-1)[x])[pairs]
            for y in range(2):
                probability = DATA[x, y] * POLICY[x][pairs].prod(-1)
                fault = reward_model.squared_error(
                    expected[:, None, None], LOG_Q[pairs, y][:, None, None], apart=True
                )
                total = total + (probability * fault.flatten()).sum()
        return torch.autograd.grad(total, logits)[0]

    assert float(slope(DATA).abs().max()) < 1e-10
    assert float(slope(DATA.flip(-1)).abs().max()) > 1e-3


@pytest.mark.parametrize("groups", tiny.PATTERNS)
@BACKBONES
def test_the_policy_climbs_the_expected_likelihood(groups: str) -> None:
    """r_ψ from log q of the plain reference, and the D_ψ that the parameters say."""
    settings = tiny.config(weight_groups=groups, learned_reward=True, reward_sees="prediction")
    every, truth = tiny.enumerate_tuples(settings, 2), tiny.exact(settings)
    w, one, (sequence, position) = Weights(truth.built, settings), tiny.one_position(), tiny.AT
    index = int(one.think[0, sequence].nonzero()[position, 0])
    tokens = one.inputs[0, sequence, : index + 1]
    read = torch.cat([w.read(role, tokens) for role in ("base_lm", "base_reasoner")], -1)
    hidden = torch.relu(read @ w.values["reward_model.inner.weight"] + w.values["reward_model.inner.bias"])
    shift = hidden @ w.values["reward_model.outer.weight"] + w.values["reward_model.outer.bias"]
    average = every.trace.average_logits[0, sequence, position, 0]
    known = (average.log_softmax(-1) + shift[0]).softmax(-1)
    log_q = reference.predict(truth.built, settings, tokens, tiny.THOUGHTS, tokens[:0]).log_q
    reward = (log_q @ known).detach()
    wanted = truth.gradient(-(truth.probability * reward).sum())
    assert float(tiny.flat({n: g[None] for n, g in wanted.items()}).norm()) > 1e-4, "nothing to compare"
    tiny.close(every.expected(build_objective(settings)(every.trace, every.batch).parts["policy"]), wanted)


def test_the_expected_likelihood_is_of_the_thoughts_and_blind_to_the_target() -> None:
    settings = settings_of("token", reward_sees="prediction")
    model, batch, noise = tiny.sampled(settings, size=4)
    positions = thinking_positions(batch)
    targets = tokens(focus(batch, positions))
    found = [model(batch.inputs, positions, noise, None, t).learned_reward for t in (targets, 2 - targets)]
    assert torch.equal(*found) and bool((found[0].std(-1) > 0).any())
