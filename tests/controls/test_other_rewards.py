"""Controls of the reward: what another position earned, and the policy loss with the other sign."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.config.checks.checking import accepted, refused
from tests.controls.arms import control, run, step_gradients, uniform
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.checks.rewards import check_shuffled_rewards
from toyqs.config.checks.training.distributed import check_parallel
from toyqs.config.errors import Refusal
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.objectives.advantages import leave_one_out
from toyqs.objectives.exchange import exchanged
from toyqs.objectives.rewards import target_log_prob, tokens
from toyqs.positions import focus, thinking_positions
from toyqs.training.batches import draw_batches

BACKBONES = pytest.mark.usefixtures("backbone")
REWARDS = uniform((2, 3, 2, 4))  # (S, B, T, K)
ORDER = uniform((2, 3, 2), seed=1)
COUNTED = torch.tensor([[[1.5, 1], [0, 0.5], [1, 0]], [[0, 0], [1, 0], [0, 2]]], dtype=torch.float64)


def sources(moved: Tensor) -> list[tuple[int, int]]:
    """Return which position of REWARDS, flat, each seed's position has been given the rewards of."""
    found = []
    for seed, rows in enumerate(moved.flatten(1, 2)):
        for place, row in enumerate(rows):
            (same,) = (REWARDS.flatten(1, 2)[seed] == row).all(-1).nonzero()[:, 0].tolist()
            found.append((place, same))
    return found


def test_the_rewards_of_a_position_go_to_another_that_counts_and_stay_together() -> None:
    first, second = (sources(exchanged(REWARDS, ORDER, COUNTED))[part] for part in (slice(6), slice(6, 12)))
    for pairs, counted in ((first, {0, 1, 3, 4}), (second, {2, 5})):
        assert {place for place, _ in pairs} == {source for _, source in pairs} == set(range(6))
        for place, source in pairs:
            assert (source in counted and source != place) if place in counted else source == place


def test_a_single_position_has_no_other() -> None:
    one = torch.zeros(2, 3, 2)
    one[:, 1, 1] = 1
    assert torch.equal(exchanged(REWARDS, ORDER, one), REWARDS)


def test_no_order_leaves_a_reward_and_their_mean_is_that_of_the_others() -> None:
    """Every order of four counted positions, each equally likely: E r'_i is the mean of all r_j, j ≠ i."""
    counted = COUNTED[:1] > 0
    places = [0, 1, 3, 4]
    total, number = torch.zeros_like(REWARDS[:1]), 0
    for ranks in itertools.permutations(range(4)):
        order = torch.full((6,), 0.5).double()
        order[places] = torch.tensor(ranks).double() / 4
        moved = exchanged(REWARDS[:1], order.view(1, 3, 2), COUNTED[:1])
        assert not (moved == REWARDS[:1])[counted].any()
        total, number = total + moved, number + 1
    flat = REWARDS[0].flatten(0, 1)[places]
    others = (flat.sum(0, keepdim=True) - flat) / 3
    torch.testing.assert_close((total / number)[counted], others, rtol=0, atol=1e-12)


@BACKBONES
@pytest.mark.parametrize("baseline", ["none", "leave_one_out"])
def test_rewards_change_places_after_penalties_and_before_the_baseline(baseline: str) -> None:
    settings = control("reward_shuffled", thought_vocab=None, baseline=baseline)
    model, batch, noise = tiny.sampled(settings)
    positions = thinking_positions(batch)
    focused = focus(batch, positions)
    trace = model(batch.inputs, positions, noise)
    penalty, order = uniform((1, 3, 2, 2)), uniform((1, 3, 2), seed=2)
    trace = trace._replace(penalty=penalty, shuffle=order)
    loss = build_objective(settings)(trace, focused)
    paid = target_log_prob(trace.logits, tokens(focused)).detach() - penalty
    paid = exchanged(paid, order, focused.weights)
    advantage = paid - leave_one_out(paid) if baseline == "leave_one_out" else paid
    each = -(advantage * trace.log_prob.sum(-1)).mean(-1)
    wanted = (each * focused.weights).sum() / focused.weights.sum()
    torch.testing.assert_close(loss.parts["policy"][0], wanted, rtol=0, atol=1e-12)
    plain = build_objective(settings)(trace._replace(shuffle=None), focused).parts
    assert not torch.allclose(loss.parts["policy"], plain["policy"])
    for name in plain.keys() - {"policy"}:
        assert torch.equal(loss.parts[name], plain[name]), name


@BACKBONES
def test_a_step_pays_what_others_earned_and_trains_the_predictor_alike() -> None:
    settings = control("reward_shuffled", entropy_encouragement_coef=0.0)
    plain, moved = step_gradients(settings), step_gradients(settings, uniform((1, 3, 2), seed=3))
    differ = {name for name in plain if not torch.allclose(plain[name], moved[name], rtol=0, atol=1e-14)}
    assert "thought_head.projection.weight" in differ
    assert not any(name.startswith(("head", "interpreter", "mixer")) for name in differ)


def test_the_order_has_a_stream_of_its_own() -> None:
    """Batches and the noise of thoughts are the run's, and every step has another order."""
    like = torch.zeros(1, dtype=torch.float64)
    both = []
    for settings in (run(), control("reward_shuffled")):
        drawn = draw_batches(settings.task, [3, 4], build_training_params(settings), like)
        both.append([next(drawn) for _ in range(3)])
    for ours, theirs in zip(*both, strict=True):
        assert torch.equal(ours.inputs, theirs.inputs) and torch.equal(ours.noise, theirs.noise)
        assert ours.shuffle is None and theirs.shuffle.shape == theirs.counted.weights.shape
    orders = [batch.shuffle for batch in both[1]]
    assert not torch.equal(orders[0], orders[1]) and not torch.equal(orders[0][0], orders[0][1])


@pytest.mark.parametrize(
    "changes", [{"think_at": "hard"}, {"learned_reward": True}, {"objective": "multi_sample"}]
)
def test_a_run_that_exchanges_rewards_trains(changes: dict[str, Any]) -> None:
    settings = control("reward_shuffled", **changes)
    like = torch.zeros(1, dtype=torch.float64)
    drawn = next(draw_batches(settings.task, [3], build_training_params(settings), like))
    assert drawn.shuffle.shape == drawn.noise.shape[:3]


def test_what_sees_no_whole_batch_is_refused() -> None:
    for key in ({"shuffle_rewards": True}, {"controls": "all"}):
        (name,) = key
        refused(
            f"{name}=(true|all): .*whole batch.*grad_acc=2.*give grad_acc=1 or {name}=", grad_acc=2, **key
        )
        refused(f"{name}=(true|all): .*one sequence.*give data_loader", data_loader_batch_size=1, **key)
        settings = resolved(replace(RunConfig(), **key))
        with pytest.raises(Refusal, match=f"{name}=.*2 processes see a share each; give one process"):
            check_shuffled_rewards(settings, 2)
        for harmless in ({"policy_loss_beta": 0.0}, {"max_reasoning_len": 0}):
            assert accepted(grad_acc=2, **key, **harmless) == []
    assert accepted(grad_acc=2) == []
    check_parallel(resolved(RunConfig()), 2)


@BACKBONES
@pytest.mark.parametrize("changes", [{}, {"objective": "listwise"}, {"thoughts": "gaussian"}])
def test_reversed_the_policys_part_of_the_gradient_is_minus_it(changes: dict[str, Any]) -> None:
    arms = {name: control(name, **changes) for name in ("policy_off", "policy_reversed")}
    own, off, back = map(step_gradients, (run(**changes), *arms.values()))
    for name in own:
        torch.testing.assert_close(back[name] - off[name], off[name] - own[name], rtol=0, atol=1e-12)
    assert max(float((own[name] - off[name]).abs().max()) for name in own) > 1e-3
