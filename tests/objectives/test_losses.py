"""Rewards, advantage scales, the score-function loss, and the shapes that they refuse."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from toyqs.objectives import advantages as objectives_advantages
from toyqs.objectives import losses as policy
from toyqs.objectives import rewards
from toyqs.objectives.objective import nll
from toyqs.objectives.policy.reinforce import Reinforce
from toyqs.objectives.rewards import REWARDS
from toyqs.positions import thinking_positions
from toyqs.types import Batch, Trace

SEEDS, BATCH, TIME, THOUGHTS, LENGTH, VOCAB = 3, 4, 2, 3, 2, 5


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def case(tokens: int = 1) -> tuple[Trace, Batch]:
    """A trace of leaves and a batch with unequal weights, some of them 0."""
    logits = random(SEEDS, BATCH, TIME, THOUGHTS, tokens, VOCAB).requires_grad_()
    shape = (SEEDS, BATCH, TIME, THOUGHTS, LENGTH)
    log_prob, entropy = (-random(*shape, seed=n).abs() for n in (1, 2))
    targets = torch.randint(VOCAB, (SEEDS, BATCH, TIME), generator=torch.Generator().manual_seed(3))
    weights = random(SEEDS, BATCH, TIME, seed=4).abs()
    weights[:, 1] = 0
    weights[0, 2, 1] = 0
    batch = Batch(targets, targets, weights, torch.ones_like(targets, dtype=torch.bool))
    return Trace(logits, log_prob.requires_grad_(), entropy.requires_grad_()), batch


def test_target_log_prob_sums_over_the_tokens_ahead() -> None:
    logits = random(2, 3, 2, 4, 3, VOCAB)
    targets = torch.randint(VOCAB, (2, 3, 2, 3), generator=torch.Generator().manual_seed(0))
    got = rewards.target_log_prob(logits, targets)
    log_p = torch.log_softmax(logits, -1)
    for index in torch.cartesian_prod(*[torch.arange(n) for n in got.shape]).tolist():
        s, b, t, k = index
        wanted = sum(float(log_p[s, b, t, k, n, targets[s, b, t, n]]) for n in range(3))
        assert abs(float(got[tuple(index)]) - wanted) < 1e-12


def test_likelihood_reward_strictly_rises_with_the_targets_probability() -> None:
    """No floor, clip or scale: from hopeless to all but certain."""
    levels = torch.linspace(-800, 30, 2000, dtype=torch.float64)
    logits = torch.zeros(1, 1, 1, len(levels), 1, 3, dtype=torch.float64)
    logits[..., 0, 1] = levels
    targets = torch.ones(1, 1, 1, 1, dtype=torch.long)
    trace, batch = Trace(logits), tiny.batch()
    reward = rewards.likelihood(rewards.target_log_prob(logits, targets), trace, batch).flatten()
    assert bool((reward.diff() > 0).all())
    assert float(reward[0]) < -790
    torch.testing.assert_close(
        reward.exp(), torch.softmax(logits, -1)[..., 1].flatten(), rtol=1e-9, atol=1e-300
    )


def test_accuracy_reward_is_whether_the_likeliest_token_is_the_target() -> None:
    trace, batch = case()
    targets = batch.targets.unsqueeze(-1)
    got = rewards.accuracy(rewards.target_log_prob(trace.logits, targets), trace, batch)
    for index in torch.cartesian_prod(*[torch.arange(n) for n in got.shape]).tolist():
        s, b, t, k = index
        hit = int(trace.logits[s, b, t, k, 0].argmax()) == int(batch.targets[s, b, t])
        assert float(got[tuple(index)]) == float(hit)
    assert 0 < float(got.mean()) < 1


@pytest.mark.parametrize("reward", REWARDS)
def test_the_policys_part_has_no_gradient_through_the_reward(reward: str) -> None:
    trace, batch = case()
    reference = random(SEEDS, BATCH, TIME, 1, VOCAB, seed=7).log_softmax(-1)
    along = random(SEEDS, BATCH, TIME, THOUGHTS, LENGTH, 1, VOCAB, seed=8).requires_grad_()
    trace = trace._replace(
        reference_log_probs=reference, prefix_logits=along, without_logits=along[..., 0, :, :]
    )
    loss = Reinforce(reward=reward)(trace, batch)
    (got,) = torch.autograd.grad(
        loss.parts["policy"].sum(), trace.logits, allow_unused=True, retain_graph=True
    )
    assert got is None
    assert loss.reward is not None and not loss.reward.requires_grad
    assert bool(torch.autograd.grad(loss.parts["nll"].sum(), trace.logits)[0].any())


@pytest.mark.parametrize("baseline", ["none", "leave_one_out", "group_mean", "ema"])
@pytest.mark.parametrize("reward", ["likelihood", "accuracy"])
@pytest.mark.parametrize("scale", ["none", "batch_std"])
def test_policy_part_against_a_naive_loop(reward: str, baseline: str, scale: str) -> None:
    """The gradient at each thought's log-probability is −A · weight / (K · sum of weights)."""
    trace, batch = case()
    trace = trace._replace(running_reward=torch.tensor([-1.0, 0.5, -2.0]).double())
    loss = Reinforce(reward=reward, baseline=baseline, advantage_scale=scale)(trace, batch)
    got = torch.autograd.grad(loss.parts["policy"].sum(), trace.log_prob)[0]
    for s in range(SEEDS):
        wanted = -naive_advantages(trace, batch, s, reward, baseline, scale)
        wanted = wanted * (batch.weights[s] / batch.weights[s].sum()).unsqueeze(-1) / THOUGHTS
        for symbol in range(LENGTH):
            torch.testing.assert_close(got[s, ..., symbol], wanted, rtol=0, atol=1e-12)


def naive_advantages(trace: Trace, batch: Batch, s: int, reward: str, baseline: str, scale: str) -> Tensor:
    log_p = torch.log_softmax(trace.logits.detach()[s, ..., 0, :], -1)
    r = torch.zeros(BATCH, TIME, THOUGHTS, dtype=torch.float64)
    b = torch.zeros_like(r)
    for i in range(BATCH):
        for t in range(TIME):
            target = int(batch.targets[s, i, t])
            for k in range(THOUGHTS):
                p = log_p[i, t, k]
                r[i, t, k] = p[target] if reward == "likelihood" else float(int(p.argmax()) == target)
            for k in range(THOUGHTS):
                others = [float(r[i, t, j]) for j in range(THOUGHTS) if j != k]
                b[i, t, k] = {
                    "none": 0.0,
                    "leave_one_out": sum(others) / (THOUGHTS - 1),
                    "group_mean": float(r[i, t].mean()),
                    "ema": 0.0 if trace.running_reward is None else float(trace.running_reward[s]),
                }[baseline]
    advantages = r - b
    return advantages * factor(advantages, batch.weights[s]) if scale == "batch_std" else advantages


def factor(advantages: Tensor, weights: Tensor) -> float:
    """1 / (std + 10⁻³) over the counted thoughts, by a loop."""
    values, shares = [], []
    for i in range(BATCH):
        for t in range(TIME):
            for k in range(THOUGHTS):
                values.append(float(advantages[i, t, k]))
                shares.append(float(weights[i, t]))
    total = sum(shares)
    mean = sum(v * w for v, w in zip(values, shares, strict=True)) / total
    variance = sum(w * (v - mean) ** 2 for v, w in zip(values, shares, strict=True)) / total
    return 1.0 / (math.sqrt(variance) + 1e-3)


def test_batch_std_scales_and_does_not_turn() -> None:
    """Seed by seed through a whole model: the same direction, a factor known beforehand."""
    settings = tiny.config(trice_samples=THOUGHTS)
    model, drawn, noise = tiny.sampled(settings, BATCH, SEEDS)
    weights = drawn.weights.clone()
    weights[:, 1] = 0
    batch = tiny.focus(drawn._replace(weights=weights), thinking_positions(drawn))
    trace = model(drawn.inputs, thinking_positions(drawn), noise)
    grads, losses = [], []
    for scale in ("none", "batch_std"):
        loss = Reinforce(advantage_scale=scale)(trace, batch)
        grads.append(tiny.flat(tiny.gradients(loss.parts["policy"].sum(), model)))
        losses.append(loss)
    cosine = torch.cosine_similarity(grads[0], grads[1], dim=1)
    torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=0, atol=1e-12)
    for s in range(SEEDS):
        plain = naive_advantages(trace, batch, s, "likelihood", "leave_one_out", "none")
        torch.testing.assert_close(
            grads[1][s], factor(plain, batch.weights[s]) * grads[0][s], rtol=1e-10, atol=0
        )
    ratio = grads[1].norm(dim=1) / grads[0].norm(dim=1)
    assert len(ratio.unique()) == SEEDS, "each seed has its own factor"
    assert torch.equal(losses[0].parts["nll"], losses[1].parts["nll"])


def test_positions_that_do_not_count_do_not_move_the_scale() -> None:
    advantages, weights = random(SEEDS, BATCH, TIME, THOUGHTS), random(SEEDS, BATCH, TIME, seed=1).abs()
    weights[:, 1] = 0
    other = advantages.clone()
    other[:, 1] += 50.0
    kept = [0, 2, 3]
    torch.testing.assert_close(
        objectives_advantages.batch_std(advantages, advantages, weights)[:, kept],
        objectives_advantages.batch_std(other, other, weights)[:, kept],
        rtol=0,
        atol=1e-12,
    )


def test_equal_rewards_stay_finite() -> None:
    equal = torch.zeros(1, 2, 2, 3)
    scaled = objectives_advantages.batch_std(equal, equal, torch.ones(1, 2, 2))
    assert torch.equal(scaled, torch.zeros_like(scaled))


@pytest.mark.parametrize("number", [1, 2, 3, None])
def test_only_the_first_thoughts_carry_the_nll(number: int | None) -> None:
    trace, batch = case()
    loss = Reinforce(train_nll_num=number)(trace, batch)
    log_p = torch.log_softmax(trace.logits[..., 0, :], -1)
    log_q = log_p.gather(-1, batch.targets[..., None, None].expand(*log_p.shape[:-1], 1)).squeeze(-1)
    per_position = -log_q[..., : number or THOUGHTS].mean(-1)
    wanted = (per_position * batch.weights).sum((1, 2)) / batch.weights.sum((1, 2))
    torch.testing.assert_close(loss.parts["nll"], wanted, rtol=0, atol=1e-12)
    grad = torch.autograd.grad(loss.parts["nll"].sum(), trace.logits)[0]
    carries = grad.abs().sum((0, 1, 2, 4, 5)) > 0
    assert carries.tolist() == [k < (number or THOUGHTS) for k in range(THOUGHTS)]
    mean = (log_q.mean(-1) * batch.weights).sum((1, 2)) / batch.weights.sum((1, 2))
    torch.testing.assert_close(loss.reward, mean.detach(), rtol=0, atol=1e-12)  # of all thoughts


def test_each_part_reaches_its_own_share_of_the_trace() -> None:
    trace, batch = case()
    parts = Reinforce()(trace, batch).parts
    leaves = {"nll": trace.logits, "policy": trace.log_prob, "entropy": trace.entropy}
    for name, loss in parts.items():
        grads = torch.autograd.grad(loss.sum(), list(leaves.values()), allow_unused=True)
        assert [g is not None for g in grads] == [leaf is leaves[name] for leaf in leaves.values()], name
    wanted = -(trace.entropy.sum(-1).mean(-1) * batch.weights).sum((1, 2)) / batch.weights.sum((1, 2))
    torch.testing.assert_close(parts["entropy"], wanted, rtol=0, atol=1e-12)


def test_position_mean_counts_by_weight() -> None:
    values, weights = random(2, 3, 4), random(2, 3, 4, seed=1).abs()
    wanted = [
        sum((values[s] * weights[s]).flatten().tolist()) / sum(weights[s].flatten().tolist())
        for s in range(2)
    ]
    torch.testing.assert_close(policy.position_mean(values, weights), torch.tensor(wanted).double())


@pytest.mark.parametrize("name", ["log_prob", "logits", "targets", "weights"])
def test_shapes_that_would_broadcast_are_refused(name: str) -> None:
    trace, batch = case()
    if name == "log_prob":
        trace = trace._replace(log_prob=trace.log_prob[..., :1, :])
    elif name == "logits":
        trace = trace._replace(logits=trace.logits[:, :, :, :1])
    elif name == "weights":
        batch = batch._replace(weights=batch.weights[:, :, :1])
    else:
        batch = batch._replace(targets=batch.targets[:, :, :1])
    with pytest.raises(ValueError, match=r"has shape .*, needs"):
        Reinforce(baseline="none")(trace, batch)


def test_the_doors_name_what_is_wrong() -> None:
    advantages = random(SEEDS, BATCH, TIME, 1)
    with pytest.raises(ValueError, match=r"advantages has shape \(3, 4, 2, 1\), needs \(3, 4, 2, 3\)"):
        policy.score_function_loss(advantages, random(SEEDS, BATCH, TIME, THOUGHTS, LENGTH))
    with pytest.raises(ValueError, match=r"values has shape \(3, 4, 2, 1\), needs \(3, 4, 2\)"):
        policy.position_mean(advantages, random(SEEDS, BATCH, TIME))


def refused(changes: dict[str, Any], match: str, **objective: Any) -> None:
    trace, batch = case()
    with pytest.raises(ValueError, match=match):
        Reinforce(**objective)(trace._replace(**changes), batch)


def test_what_an_objective_cannot_do_without() -> None:
    refused({"log_prob": None}, "sampled thoughts")
    refused({"entropy": None}, "sampled thoughts")
    refused({}, "running_reward", baseline="ema")


@pytest.mark.parametrize("baseline", ["leave_one_out", "group_mean"])
def test_group_baselines_refuse_one_thought(baseline: str) -> None:
    trace, batch = case()
    one = Trace(trace.logits[:, :, :, :1], trace.log_prob[..., :1, :], trace.entropy[..., :1, :])
    with pytest.raises(ValueError, match="at least 2"):
        Reinforce(baseline=baseline)(one, batch)
    assert Reinforce(baseline="none")(one, batch).parts["policy"].shape == (SEEDS,)


def test_nll_is_for_one_prediction_per_position() -> None:
    trace, batch = case()
    with pytest.raises(ValueError, match="log q"):
        nll(trace, batch)
    one = nll(trace._replace(logits=trace.logits[:, :, :, :1]), batch)
    assert one.parts.keys() == {"nll"} and one.reward is None
