"""A learned reward: what it converges to, whom it trains, what the policy climbs, and which half is whose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.reference import Weights
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.run_config import RunConfig
from toyqs.objectives import reward_model
from toyqs.objectives.objective import Loss
from toyqs.objectives.policy.reinforce import Reinforce
from toyqs.objectives.rewards import tokens
from toyqs.positions import focus, thinking_positions
from toyqs.training.batches import prepare
from toyqs.training.loop import accumulate
from toyqs.types import Batch, Trace

BACKBONES = pytest.mark.usefixtures("backbone")
LEARNED = Reinforce(learned_reward=True)
SEES = ("thought", "prediction")
KINDS = ("token", "gaussian", "state")


# A world of two tokens, two contexts and three thoughts, in which r_ψ is a table.
LOG_Q = torch.randn(3, 2, generator=torch.Generator().manual_seed(1)).double().log_softmax(-1)  # (h, y)
DATA = torch.tensor([[0.8, 0.2], [0.35, 0.65]], dtype=torch.float64)  # D(y | x), (x, y)
POLICY = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]], dtype=torch.float64)  # π(h | x), (x, h)
EXPECTED = DATA @ LOG_Q.T  # Σ_y D(y | x) log q(y | h), (x, h)


def gradient_in_expectation(table: Tensor) -> Tensor:
    """∇ E[reward_model] at a table r (x, h): every context, thought and target summed, one for each seed."""
    table = table.clone().requires_grad_()
    x, h, y = torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(2)).T
    shape = (len(x), 2, 1, 1)  # the first sequence is fitted on, the second of another target pays
    targets = torch.stack([y, 1 - y], 1).view(shape[:3])
    blank = torch.zeros(*shape, 1, dtype=torch.float64)
    trace = Trace(
        LOG_Q[h].view(-1, 1, 1, 1, 1, 2).expand(*shape, 1, 2),
        log_prob=blank,
        entropy=blank,
        learned_reward=table[x, h].view(-1, 1, 1, 1).expand(shape),
    )
    ones = torch.ones(shape[:3], dtype=torch.float64)
    batch = Batch(targets, targets, ones, ones.bool())
    each = replace(LEARNED, baseline="none")(trace, batch).parts["reward_model"]
    probability = 0.5 * POLICY[x, h] * DATA[x, y]
    return torch.autograd.grad((probability * each).sum(), table)[0]


def test_it_learns_what_a_thought_earns_on_average() -> None:
    assert float(gradient_in_expectation(EXPECTED).abs().max()) < 1e-10
    for other in (LOG_Q[:, 0].expand(2, 3), EXPECTED.mean(0).expand(2, 3), torch.zeros(2, 3).double()):
        assert float(gradient_in_expectation(other).abs().max()) > 1e-3


def test_descending_arrives_there() -> None:
    table = torch.zeros(2, 3).double()
    for _ in range(1000):
        table -= gradient_in_expectation(table)
    assert float((table - EXPECTED).abs().max()) < 1e-10


def traced(settings: RunConfig, change: Callable[[Batch], Batch] = lambda batch: batch) -> tuple[Any, Loss]:
    """A model and its loss on four sequences."""
    model, batch, noise = tiny.sampled(settings, size=4, copies=2)
    batch = change(batch)
    positions = thinking_positions(batch)
    counted = focus(batch, positions)
    trace = model(batch.inputs, positions, noise, None, tokens(counted))
    return model, build_objective(settings)(trace, counted)


def settings_of(kind: str, **changes: Any) -> RunConfig:
    return tiny.config(**({"thoughts": kind, "latent_dim": 2, "learned_reward": True} | changes))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sees", SEES)
@pytest.mark.parametrize("groups", tiny.PATTERNS)
@BACKBONES
def test_it_trains_itself_alone(groups: str, kind: str, sees: str) -> None:
    model, loss = traced(settings_of(kind, weight_groups=groups, reward_sees=sees))
    own = {name for name, _ in model.named_parameters() if name.startswith("reward_model.")}
    for name, part in loss.parts.items():
        found = {n for n, g in tiny.gradients(part.sum(), model).items() if bool(g.any())}
        assert found == own if name == "reward_model" else not found & own, name
    assert {"policy", "nll", "entropy", "reward_model"} <= set(loss.parts)


def plain_rewards(settings: RunConfig, truth: tiny.Exact) -> Tensor:
    """r_ψ(h, x) of all nine thoughts, (9,), from the parameters one by one."""
    w, one, (sequence, position) = Weights(truth.built, settings), tiny.one_position(), tiny.AT
    index = int(one.think[0, sequence].nonzero()[position, 0])
    tokens = one.inputs[0, sequence, : index + 1]
    read = torch.cat([w.read(role, tokens) for role in ("base_lm", "base_reasoner")], -1)
    hidden = read @ w.values["reward_model.inner.weight"] + w.values["reward_model.inner.bias"]
    rows = w.values["reward_model.symbols.weight"]
    heard = rows[tiny.THOUGHTS[:, 0]] + rows[tiny.SYMBOLS + tiny.THOUGHTS[:, 1]]
    active = torch.relu(hidden + heard)
    out = active @ w.values["reward_model.outer.weight"] + w.values["reward_model.outer.bias"]
    return out.squeeze(-1) - torch.tensor(float(tiny.SYMBOLS)).double().log()


@pytest.mark.parametrize("groups", tiny.PATTERNS)
@pytest.mark.parametrize("baseline", ["none", "leave_one_out"])
@BACKBONES
def test_the_policy_climbs_it_exactly(groups: str, baseline: str) -> None:
    settings = tiny.config(weight_groups=groups, baseline=baseline, learned_reward=True)
    every, truth = tiny.enumerate_tuples(settings, 2), tiny.exact(settings)
    reward = plain_rewards(settings, truth).detach()
    wanted = truth.gradient(-(truth.probability * reward).sum())
    assert float(tiny.flat({n: g[None] for n, g in wanted.items()}).norm()) > 1e-3, "nothing to compare"
    tiny.close(every.expected(build_objective(settings)(every.trace, every.batch).parts["policy"]), wanted)


def check_halves(settings: RunConfig) -> None:
    """ψ learns from the first half of the sequences alone, the policy from the second alone."""

    def other(where: slice) -> Callable[[Batch], Batch]:
        def change(batch: Batch) -> Batch:
            inputs, targets = batch.inputs.clone(), batch.targets.clone()
            inputs[:, where], targets[:, where] = (tiny.SYMBOLS - 1 - x[:, where] for x in (inputs, targets))
            return batch._replace(inputs=inputs, targets=targets)

        return change

    half = {"reward_model": slice(0, 2), "policy": slice(2, None)}
    for name, own in half.items():
        rest = slice(2, None) if own.start == 0 else slice(0, 2)
        found = []
        for change in (lambda batch: batch, other(rest), other(own)):
            model, loss = traced(settings, change)
            found.append(tiny.flat(tiny.gradients(loss.parts[name].sum(), model)))
        as_is, others, owns = found
        assert torch.allclose(as_is, others, rtol=0, atol=1e-12), f"{name} depends on the other half"
        assert not torch.allclose(as_is, owns, rtol=0, atol=1e-6), f"{name} depends on nothing"


HALVED: list[dict[str, Any]] = [
    {},
    {"advantage_scale": "batch_std", "baseline": "value", "value_sees": "target"},
    {"objective": "vargrad", "temperature_scale": "spread"},
    {"thoughts": "gaussian", "latent_dim": 2},
]


@pytest.mark.parametrize("changes", HALVED)
@BACKBONES
def test_each_half_has_its_own_learner(changes: dict[str, Any]) -> None:
    check_halves(tiny.config(learned_reward=True, **changes))


def swapped(batch: Batch) -> tuple[Batch, Batch]:
    first, second = HALVES(batch)
    return second, first


def on_the_policys_own(batch: Batch) -> tuple[Batch, Batch]:
    _, second = HALVES(batch)
    return second, second


def on_all(batch: Batch) -> tuple[Batch, Batch]:
    return batch, HALVES(batch)[1]


HALVES = reward_model.split_to_fit_and_pay


@pytest.mark.parametrize("mutant", [swapped, on_the_policys_own, on_all])
def test_a_reward_fitted_where_it_pays_is_caught(monkeypatch: pytest.MonkeyPatch, mutant: Any) -> None:
    monkeypatch.setattr(reward_model, "split_to_fit_and_pay", mutant)
    with pytest.raises(AssertionError, match="reward_model depends on the other half"):
        check_halves(tiny.config(learned_reward=True))


def test_a_half_is_a_mean_over_its_own_positions() -> None:
    """By the weights of the batch; the predictor learns from all; an odd sequence pays."""
    batch = tiny.batch(5)
    fitting, paying = reward_model.split_to_fit_and_pay(batch)
    assert torch.equal(fitting.weights[:, :2], batch.weights[:, :2]) and not fitting.weights[:, 2:].any()
    assert torch.equal(paying.weights[:, 2:], batch.weights[:, 2:]) and not paying.weights[:, :2].any()
    settings = tiny.config(learned_reward=True, baseline="none")
    model, drawn, noise = tiny.sampled(settings, size=5)
    positions = thinking_positions(drawn)
    counted = focus(drawn, positions)
    trace = model(drawn.inputs, positions, noise, None, tokens(counted))
    loss, whole = LEARNED(trace, counted), Reinforce()(trace, counted)
    squares = 0.5 * (
        trace.learned_reward
        - trace.logits.log_softmax(-1)[..., 0, :]
        .gather(-1, counted.targets[..., None, None].expand(1, 5, 2, 2, 1))
        .squeeze(-1)
    ).square().mean(-1)
    w = counted.weights
    wanted = (w * squares)[:, :2].sum((1, 2)) / w[:, :2].sum((1, 2))
    torch.testing.assert_close(loss.parts["reward_model"], wanted, rtol=0, atol=1e-12)
    mean = (w * trace.learned_reward.mean(-1))[:, 2:].sum((1, 2)) / w[:, 2:].sum((1, 2))
    torch.testing.assert_close(loss.reward, mean.detach(), rtol=0, atol=1e-12)
    assert torch.equal(loss.parts["nll"], whole.parts["nll"])
    with pytest.raises(ValueError, match="at least 2 sequences"):
        reward_model.split_to_fit_and_pay(tiny.batch(1))


def test_a_critic_learns_where_the_policy_is_paid() -> None:
    settings = tiny.config(learned_reward=True, baseline="value", value_sees="target")
    model, drawn, noise = tiny.sampled(settings, size=5)
    positions = thinking_positions(drawn)
    counted = focus(drawn, positions)
    trace = model(drawn.inputs, positions, noise, None, tokens(counted))
    squares = 0.5 * (trace.correction - trace.learned_reward).square().mean(-1)
    w = counted.weights
    wanted = (w * squares)[:, 2:].sum((1, 2)) / w[:, 2:].sum((1, 2))
    found = build_objective(settings)(trace, counted).parts["critic"]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_parts_of_a_batch_are_halved_each() -> None:
    """Of four sequences in two parts the first and the third are fitted on."""
    settings = tiny.config(learned_reward=True, grad_acc=2)

    def fitted(changed: int | None) -> Tensor:
        model, batch, noise = tiny.sampled(settings, size=4)
        targets = batch.targets.clone()
        if changed is not None:
            targets[:, changed] = (targets[:, changed] + 1) % tiny.SYMBOLS
        numbers = build_training_params(settings)
        drawn = prepare(batch._replace(targets=targets), noise)
        only = dict.fromkeys(("policy", "nll", "entropy"), 0.0) | {"reward_model": 1.0}
        seen = accumulate(model, build_objective(settings), drawn, only, numbers, torch.zeros(1).double())
        assert seen["reward_fit"].shape == (1,)
        grads = [p.grad.flatten() for n, p in model.named_parameters() if n.startswith("reward_model")]
        return torch.cat(grads)

    as_is = fitted(None)
    assert [torch.equal(as_is, fitted(place)) for place in range(4)] == [False, True, False, True]


def test_the_agreement_is_a_correlation_among_the_thoughts_of_a_position() -> None:
    earned = tiny.noise((2, 3, 2, 4))
    weights = tiny.noise((2, 3, 2), seed=1)
    of_position = 5 * tiny.noise((2, 3, 2, 1), seed=2)
    for expected, wanted in (
        (3 * earned + of_position, 1.0),
        (of_position - earned, -1.0),
        (of_position, 0.0),
    ):
        got = reward_model.correlation(expected.expand_as(earned), earned, weights)
        torch.testing.assert_close(got, torch.full((2,), wanted).double(), rtol=0, atol=1e-6)
    none = torch.zeros_like(weights)
    none[:, 0] = 1.0
    other = tiny.noise((2, 3, 2, 4), seed=3)
    got = reward_model.correlation(other, earned, none)
    centred = [(x - x.mean(-1, keepdim=True))[:, 0].flatten(1) for x in (other, earned)]
    wanted = torch.cosine_similarity(*centred, dim=1)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


def test_a_trace_without_one_is_refused() -> None:
    model, batch, noise = tiny.sampled(tiny.config())
    positions = thinking_positions(batch)
    with pytest.raises(ValueError, match="learned_reward needs"):
        LEARNED(model(batch.inputs, positions, noise), focus(batch, positions))


def test_shorter_thoughts_are_heard_as_ending_in_nothing() -> None:
    """As a training makes them that shortens its thoughts step by step."""
    for kind in ("token", "gaussian"):
        model = tiny.model(settings_of(kind)).reward_model
        symbols = (
            torch.ones(1, 2, 2, 3, 1, 2).double() if kind == "gaussian" else torch.ones(1, 2, 2, 3, 1).long()
        )
        features = [torch.ones(1, 2, 2, 3).double()] * 2
        assert model(features, symbols, None).shape == (1, 2, 2, 3)


def test_what_stands_after_an_end_is_a_symbol_of_its_own() -> None:
    settings = tiny.config(learned_reward=True, variable_len=True)
    built, one = tiny.model(settings), tiny.one_position(1)
    positions = thinking_positions(one)
    targets = focus(one, positions).targets
    ended, other = (tiny.forced_everywhere(torch.tensor([[[0, last]]])) for last in (tiny.SYMBOLS, 1))
    rewards = [
        built(one.inputs, positions, torch.empty(0), symbols, targets).learned_reward.detach()[0, *tiny.AT]
        for symbols in (ended, other)
    ]
    assert float(rewards[0]) != float(rewards[1])
