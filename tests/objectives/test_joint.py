"""Tokens predicted together from what was read before them (ahead=joint): exact gradients, and mutants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import reference, tiny
from tests.objectives.test_ahead import everywhere, told
from toyqs.config.builders.training import build_objective
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.model.predicting.offsets import Offsets
from toyqs.objectives import rewards
from toyqs.objectives.policy.reinforce import MultiSample, Reinforce
from toyqs.positions import focus
from toyqs.types import Context

BACKBONES = pytest.mark.usefixtures("backbone")
BOTH = torch.cartesian_prod(torch.arange(9), torch.arange(9))  # all pairs of thoughts


def config(num: int = 2, **changes: Any) -> RunConfig:
    return tiny.config(n_tokens_ahead=num, ahead="joint", **changes)


@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", ["AAAA", "ABAC", "ABCD"])
@BACKBONES
def test_the_expected_gradient_of_two_tokens(groups: str, start: str) -> None:
    tiny.check_expected_gradient(config(weight_groups=groups, interpreter_start=start), Reinforce(), 2)


def marginal(settings: RunConfig) -> None:
    """Compare E[∇ loss] over all pairs of thoughts with ∇ of the bound on the joint likelihood."""
    every, truth = tiny.enumerate_tuples(settings, 2), tiny.exact(settings)
    parts = MultiSample()(every.trace, every.batch).parts
    bound = truth.log_q[BOTH].logsumexp(-1) - torch.tensor(2.0).log()
    wanted = truth.gradient(-(truth.log_prob.sum(-1)[BOTH].sum(-1).exp() * bound).sum())
    tiny.close(every.expected(parts["policy"] + parts["nll"]), wanted)


MIXED = [
    *({"mixing": mixing} for mixing in tiny.MIXERS),
    {"use_base_lm": False},
    {"linear_lm_head": False},
    {"interpreter_start": "onward", "weight_groups": "AABC"},
]


@pytest.mark.parametrize("changes", MIXED, ids=repr)
def test_the_expected_gradient_of_the_marginal(changes: dict[str, Any]) -> None:
    marginal(config(**changes))


def test_with_a_single_thought_for_every_position_the_marginal_is_the_likelihood() -> None:
    settings = config(trice_samples=1, thought_vocab=1, policy_loss_beta=0.0)
    model, batch, noise = tiny.sampled(settings)
    trace = model(batch.inputs, None, tiny.noise((1, 3, 4, 1, 2)))
    there = focus(batch._replace(think=torch.ones_like(batch.think)), None, 2)
    both = (MultiSample(baseline="none"), Reinforce(baseline="none"))
    one, other = (objective(trace, there).parts["nll"] for objective in both)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert noise.shape[-2] == 1


def sums(settings: RunConfig) -> None:
    """Compare rewards and loss of a batch that thinks everywhere with those of one token at a time."""
    batch = everywhere()
    model, trace, forced = told(settings, batch)
    there = focus(batch, None, settings.n_tokens_ahead)
    wanted = torch.zeros(forced.shape[:-1], dtype=torch.float64)
    with torch.no_grad():
        for b in range(batch.inputs.shape[1]):
            for t in range(4):
                read = batch.inputs[0, b, : t + 1]
                for place in range(t, min(t + settings.n_tokens_ahead, 4)):
                    if batch.weights[0, b, place] > 0:
                        plain = reference.predict(model, settings, read, forced[0, b, t], place=place - t)
                        wanted[0, b, t] += plain.log_q[:, batch.targets[0, b, place]]
        got = rewards.over_tokens(rewards.token_log_prob(trace.logits, rewards.tokens(there)), there)
        loss = build_objective(settings)(trace, there)
    counted = (batch.weights > 0).unsqueeze(-1)
    torch.testing.assert_close(got * counted, wanted * counted, rtol=0, atol=1e-12)
    nll = (-wanted.mean(-1) * batch.weights).sum() / batch.weights.sum()
    torch.testing.assert_close(loss.parts["nll"][0], nll, rtol=0, atol=1e-12)


@pytest.mark.parametrize("num", [2, 4])
@pytest.mark.parametrize("mixing", ["concat", "gate", "logits"])
@BACKBONES
def test_rewards_are_sums_of_separate_log_probabilities(mixing: str, num: int) -> None:
    sums(config(num, mixing=mixing))


Mutant = Callable[[Offsets, int], Tensor]
right = Offsets._offset


def one_late(self: Offsets, index: int) -> Tensor:
    return right(self, index).roll(1, -2)


def all_first(self: Offsets, index: int) -> Tensor:
    offset = right(self, index)
    return offset[..., :1, :].expand_as(offset)


def of_the_base_alone(self: Offsets, index: int) -> Tensor:
    return right(self, index) * (index == 0)


@pytest.mark.parametrize("mutant", [one_late, all_first, of_the_base_alone], ids=lambda x: x.__name__)
def test_offsets_of_other_tokens_are_caught(monkeypatch: pytest.MonkeyPatch, mutant: Mutant) -> None:
    monkeypatch.setattr(Offsets, "_offset", mutant)
    with pytest.raises(AssertionError):
        sums(config(3))


def test_a_gradient_without_an_offset_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Offsets, "_offset", all_first)
    with pytest.raises(AssertionError):
        marginal(config())


def knows(settings: RunConfig) -> None:
    """Check that nothing at t depends on a token after it."""
    model, batch, _ = tiny.sampled(settings)
    noise = tiny.noise((1, 3, 4, settings.trice_samples, settings.max_reasoning_len))
    before = model(batch.inputs, None, noise)
    for later in (1, 2, 3):
        changed = batch.inputs.clone()
        changed[:, :, later] = (changed[:, :, later] + 1) % tiny.SYMBOLS
        after = model(changed, None, noise)
        for t in range(4):
            same = torch.equal(before.logits[:, :, t], after.logits[:, :, t])
            # without a base state the same thoughts make the same prediction
            assert same if t < later else not (same and settings.use_base_lm), (t, later)


@pytest.mark.parametrize(
    "changes", [{}, {"interpreter_start": "onward", "mixing": "gate"}, {"use_base_lm": False}]
)
@BACKBONES
def test_no_prediction_knows_a_token_after_its_position(changes: dict[str, Any]) -> None:
    knows(config(3, **changes))


@BACKBONES
def test_nor_does_a_plain_model_s() -> None:
    settings = config(3, use_reasoner=False)
    assert settings.num_ahead == 3
    model, batch, _ = tiny.sampled(settings)
    before = model(batch.inputs, None, torch.empty(1, 3, 4, 1, 0))
    assert before.logits.shape == (1, 3, 4, 1, 3, tiny.SYMBOLS)
    changed = batch.inputs.clone()
    changed[:, :, 2:] = (changed[:, :, 2:] + 1) % tiny.SYMBOLS
    after = model(changed, None, torch.empty(1, 3, 4, 1, 0))
    assert torch.equal(before.logits[:, :, :2], after.logits[:, :, :2])
    assert not torch.equal(before.logits[:, :, 2:], after.logits[:, :, 2:])


def test_a_true_token_that_leaks_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant base states of later positions, as ahead=persist reads them."""
    inputs = LatentReasoner._mixer_inputs

    def leaking(self: LatentReasoner, context: Context, *rest: Any) -> tuple[Any, Any]:
        base, reading = inputs(self, context, *rest)
        return base.roll(-1, 2), reading

    monkeypatch.setattr(LatentReasoner, "_mixer_inputs", leaking)
    with pytest.raises(AssertionError):
        knows(config(3))
