"""Critics: who learns from what, what they are told, and that they fit whatever thoughts earn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from toyqs.config.builders.training import build_objective
from toyqs.model.critics import ValueHead
from toyqs.model.predicting.attention import average_of_others
from toyqs.objectives.objective import CRITIC_STARTS, Objective
from toyqs.objectives.policy.logz import LearnedLogZ
from toyqs.objectives.policy.reinforce import Reinforce
from toyqs.objectives.rewards import REWARDS, discounted, tokens
from toyqs.positions import focus, thinking_positions
from toyqs.types import Batch, Trace

SEES = ("context", "target", "base_prediction", "average_thought", "greedy_thought")
NUM_TOKENS = pytest.mark.parametrize("num", [1, 2])
# A contribution is earned by no prediction that a critic could start from: it is refused with those.
EVERY_REWARD = pytest.mark.parametrize("reward", [x for x in REWARDS if x != "contribution"])


def traced(settings: Any, size: int = 4, shift: int = 0) -> tuple[Any, Trace, Batch]:
    """A model, its trace beside a random reference, and the batch; the critic is shown targets shifted."""
    model, batch, noise = tiny.sampled(settings, size=size, copies=2)
    positions = thinking_positions(batch)
    counted = focus(batch, positions, settings.n_tokens_ahead)
    trace = model(batch.inputs, positions, noise, None, (tokens(counted) + shift) % tiny.SYMBOLS)
    reference = tiny.noise((*tokens(counted).shape, tiny.SYMBOLS), seed=4).log().log_softmax(-1)
    return model, trace._replace(reference_log_probs=reference), counted


@pytest.mark.parametrize("changes", [{}, {"n_tokens_ahead": 2, "reward": "kl_reverse"}])
@pytest.mark.parametrize("sees", SEES)
@pytest.mark.parametrize("groups", tiny.PATTERNS)
def test_a_critic_trains_itself_alone(groups: str, sees: str, changes: dict[str, Any]) -> None:
    given = {"baseline": "value", "value_sees": sees, **changes}
    settings = tiny.config(weight_groups=groups, trice_samples=3, **given)
    model, trace, counted = traced(settings)
    parts = build_objective(settings)(trace, counted).parts
    own = {f"critic.{layer}.{name}" for layer in ("inner", "outer") for name in ("weight", "bias")}
    for name, part in parts.items():
        found = {n for n, g in tiny.gradients(part.sum(), model).items() if bool(g.any())}
        assert found == own if name == "critic" else not found & own, name
    assert set(parts) == {"policy", "nll", "entropy", "critic"}


@pytest.mark.parametrize("sees", SEES)
def test_a_learned_log_z_is_trained_by_the_policys_loss(sees: str) -> None:
    settings = tiny.config(objective="logz_learned", trice_samples=3, value_sees=sees)
    model, trace, counted = traced(settings)
    part = build_objective(settings)(trace, counted).parts["policy"]
    reached = {n for n, g in tiny.gradients(part.sum(), model).items() if bool(g.any())}
    assert {"critic.outer.bias", "thought_head.projection.weight"} <= reached
    assert not any(name.startswith(("cores.A", "cores.D", "head")) for name in reached)


@NUM_TOKENS
@pytest.mark.parametrize("sees", SEES)
def test_only_the_plain_value_is_blind_to_the_target(sees: str, num: int) -> None:
    settings = tiny.config(baseline="value", value_sees=sees, n_tokens_ahead=num)
    corrections = [traced(settings, shift=shift)[1].correction for shift in (0, 1)]
    assert torch.equal(*corrections) == (sees == "context")


@NUM_TOKENS
@EVERY_REWARD
@pytest.mark.parametrize("sees", SEES)
def test_a_value_starts_from_what_the_prediction_that_it_knows_earns(
    sees: str, reward: str, num: int
) -> None:
    """By the reward function of the thoughts, on a trace whose only thought is that prediction."""
    given = {"baseline": "value", "value_sees": sees, "n_tokens_ahead": num, "ahead_decay": 0.8}
    settings = tiny.config(reward=reward, reward_beta=0.5, **given)
    _, trace, counted = traced(settings)
    objective = build_objective(settings)
    assert isinstance(objective, Reinforce)
    got = objective.expected(sees, trace, discounted(counted, 0.8))
    weights = torch.tensor([1.0, 0.8], dtype=torch.float64)[:num]
    there = torch.ones_like(trace.correction) if counted.ahead is None else counted.ahead.weights
    wanted = (weights * there * trace.correction).sum(-1)
    if sees in CRITIC_STARTS:
        known = getattr(trace, CRITIC_STARTS[sees]).unsqueeze(3)
        alone = trace._replace(logits=known, prefix_logits=known.unsqueeze(4))  # the same after every symbol
        wanted = wanted + objective._earned_and_score(alone, counted)[0].squeeze(3)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    assert bool((there == 0).any()) == (num == 2), "a token beyond the end"


def fitted(settings: Any, part: str) -> tuple[Tensor, Tensor, Tensor]:
    """Train the critic alone; return its loss (S,), the best constant's, and what no value would explain."""
    calls: list[Any] = []
    handle = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, args: calls.append(args) if isinstance(module, ValueHead) else None
    )
    model, trace, counted = traced(settings, size=8)
    handle.remove()
    objective, (given, *_) = build_objective(settings), calls
    optimiser = torch.optim.Adam(model.critic.parameters(), lr=0.06)
    for _ in range(70):
        now = trace._replace(correction=model.critic(*given), **{k: getattr(trace, k).detach() for k in HELD})
        loss = objective(now, counted).parts[part]
        optimiser.zero_grad()
        loss.sum().backward()
        optimiser.step()
    earned = objective._earned_and_score(trace, discounted(counted, settings.ahead_decay))[0]
    scale = 1.0
    if part == "policy":
        scale, log_prob = settings.temperature, trace.log_prob.detach().sum(-1)
        earned = earned - settings.temperature * log_prob
    weights = counted.weights / counted.weights.sum((1, 2), keepdim=True)
    mean = (earned.mean(-1) * weights).sum((1, 2)).view(-1, 1, 1, 1)
    constant, least = (
        ((earned - x).square().mean(-1) * weights).sum((1, 2)) / (2 * scale)
        for x in (mean, earned.mean(-1, keepdim=True))
    )
    return loss.detach(), constant, least


HELD = ("logits", "log_prob", "entropy")


def check_fit(settings: Any, part: str) -> None:
    """Of what a constant leaves over and a value can explain, the head alone explains most."""
    loss, constant, least = fitted(settings, part)
    assert bool((constant > 1.2 * least).all()), "nothing to explain"
    share = 0.7 if settings.value_sees == "context" else 0.4
    explained = (loss - least) / (constant - least)
    assert bool((explained < share).all()), explained.tolist()


@EVERY_REWARD
@pytest.mark.parametrize(("sees", "num"), [*((sees, 1) for sees in SEES), ("average_thought", 2)])
def test_the_head_alone_fits_every_reward_better_than_a_constant(sees: str, reward: str, num: int) -> None:
    given = {"baseline": "value", "value_sees": sees, "n_tokens_ahead": num}
    check_fit(tiny.config(reward=reward, trice_samples=3, **given), "critic")


@EVERY_REWARD
@pytest.mark.parametrize("sees", SEES)
def test_a_learned_log_z_does_so_too(sees: str, reward: str) -> None:
    given = {"objective": "logz_learned", "value_sees": sees, "temperature": 0.5}
    check_fit(tiny.config(reward=reward, trice_samples=3, **given), "policy")


def bounded(self: Objective, value_sees: str, trace: Trace, batch: Batch) -> Tensor:
    """A log-softmax of logits and correction: no more than 0."""
    logits = getattr(trace, CRITIC_STARTS[value_sees])[..., 0, :].detach()
    target = batch.targets.unsqueeze(-1)
    shifted = logits.scatter_add(-1, target, trace.correction)
    return shifted.log_softmax(-1).gather(-1, target).squeeze(-1)


@pytest.mark.parametrize("reward", ["accuracy", "log_ratio"])
def test_a_bounded_value_is_caught(monkeypatch: pytest.MonkeyPatch, reward: str) -> None:
    for kind in (Reinforce, LearnedLogZ):
        monkeypatch.setattr(kind, "expected", bounded)
    with pytest.raises(AssertionError):
        test_the_head_alone_fits_every_reward_better_than_a_constant("average_thought", reward, 1)
    with pytest.raises(AssertionError):
        test_a_learned_log_z_does_so_too("average_thought", reward)


def test_the_average_reading_is_of_all_other_positions() -> None:
    reading = torch.randn(2, 3, 2, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = average_of_others(reading)
    for s in range(2):
        for b in range(3):
            for t in range(2):
                others = [reading[s, i, j] for i in range(3) for j in range(2) if (i, j) != (b, t)]
                torch.testing.assert_close(got[s, b, t, 0], torch.cat(others).mean(0), rtol=0, atol=1e-12)


def test_a_model_without_a_critic_is_asked_in_vain() -> None:
    _, trace, _ = traced(tiny.config())
    assert trace.correction is None and trace.base_logits is None and trace.average_logits is None
