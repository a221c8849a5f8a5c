"""The oracles: every thought summed exactly, against the plain reference's autograd."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests import tiny
from toyqs.config.run_config import RunConfig
from toyqs.objectives.policy.reinforce import Reinforce

BACKBONES = pytest.mark.usefixtures("backbone")
LEAVE_ONE_OUT = Reinforce(baseline="leave_one_out")
EXTRAS = {
    "shared_head": {"share_lm_head": True, "mixing": "add"},
    "shared_head_projected": {"share_lm_head": True, "mixing": "concat"},
    "symbols_only": {"use_base_lm": False},
    "symbols_projected": {"use_base_lm": False, "simple_lm_head": True, "reasoner_hidden_dim": 5},
    "own_symbols": {"thought_vocab": 3},
}


@pytest.mark.parametrize("mixing", tiny.MIXERS)
@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", tiny.PATTERNS)
@BACKBONES
def test_leave_one_out_is_unbiased(groups: str, start: str, mixing: str) -> None:
    settings = tiny.config(weight_groups=groups, interpreter_start=start, mixing=mixing)
    tiny.check_expected_gradient(settings, LEAVE_ONE_OUT, 2)


@pytest.mark.slow
@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", tiny.PATTERNS)
def test_the_librarys_norms_in_float32(groups: str, start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Llama as it comes, whose norms compute in float32 whatever the model's precision."""
    pytest.importorskip("transformers")
    monkeypatch.setattr(tiny, "BACKBONE", "llama")
    settings = tiny.config(weight_groups=groups, interpreter_start=start)
    tiny.check_expected_gradient(settings, LEAVE_ONE_OUT, 2, tolerance=1e-5)


@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", tiny.PATTERNS)
@BACKBONES
def test_the_other_baselines_are_unbiased(groups: str, start: str) -> None:
    settings = tiny.config(weight_groups=groups, interpreter_start=start)
    for baseline, count in (("none", 2), ("ema", 1)):
        tiny.check_expected_gradient(settings, Reinforce(baseline=baseline), count)


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", tiny.PATTERNS)
@BACKBONES
def test_the_same_with_other_heads_and_symbols(groups: str, start: str, extra: str) -> None:
    settings = tiny.config(weight_groups=groups, interpreter_start=start, **EXTRAS[extra])
    tiny.check_expected_gradient(settings, LEAVE_ONE_OUT, 2)


@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("share", [False, True])
@BACKBONES
def test_the_same_with_an_mlp_head(start: str, share: bool) -> None:
    settings = tiny.config(
        weight_groups="ABBA", interpreter_start=start, linear_lm_head=False, share_lm_head=share
    )
    tiny.check_expected_gradient(settings, Reinforce(baseline="none"), 1)


@pytest.mark.parametrize(("baseline", "count"), [("none", 1), ("ema", 2)])
@BACKBONES
def test_the_other_baselines_are_unbiased_for_other_k(baseline: str, count: int) -> None:
    for groups in ("AAAA", "AABC", "ABCD"):
        tiny.check_expected_gradient(tiny.config(weight_groups=groups), Reinforce(baseline=baseline), count)


@pytest.mark.parametrize("start", tiny.STARTS)
def test_the_same_with_unequal_widths(start: str) -> None:
    interpreter = 2 if start == "afresh" else 4
    settings = tiny.config(
        base_lm_hidden_dim=3,
        reasoner_hidden_dim=4,
        interpreter_hidden_dim=interpreter,
        interpreter_start=start,
    )
    for mixing in tiny.MIXERS:
        tiny.check_expected_gradient(replace(settings, mixing=mixing), LEAVE_ONE_OUT, 2)
    shared = replace(settings, share_lm_head=True, mixing="concat")
    tiny.check_expected_gradient(shared, LEAVE_ONE_OUT, 2)


def policy_gradients(
    settings: RunConfig, objective: Reinforce, count: int, scale: float = tiny.SCALE
) -> tuple[tiny.Gradients, tiny.Gradients]:
    """Expected policy gradient and −∇ Σ_h π(h) sg(r(h))."""
    every, truth = tiny.enumerate_tuples(settings, count, scale=scale), tiny.exact(settings, scale=scale)
    expected = every.expected(objective(every.trace, every.batch).parts["policy"])
    reward = truth.hit if objective.reward == "accuracy" else truth.log_q.detach()
    return expected, truth.gradient(-(truth.probability * reward).sum())


@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", ["AAAA", "ABCD"])
@pytest.mark.parametrize("count", [2, 3])
@BACKBONES
def test_group_mean_shrinks_the_policy_gradient(groups: str, start: str, count: int) -> None:
    settings = tiny.config(weight_groups=groups, interpreter_start=start)
    got, wanted = policy_gradients(settings, Reinforce(baseline="group_mean"), count)
    tiny.close(got, {name: (count - 1) / count * g for name, g in wanted.items()})
    with pytest.raises(AssertionError):
        tiny.close(got, wanted)


@BACKBONES
def test_leave_one_out_is_unbiased_with_three_thoughts() -> None:
    tiny.check_expected_gradient(tiny.config(interpreter_start="onward"), LEAVE_ONE_OUT, 3)


@pytest.mark.parametrize(("groups", "scale"), [("AAAA", 2.0), ("ABCD", 5.0)])
def test_accuracy_as_reward(groups: str, scale: float) -> None:
    settings = tiny.config(weight_groups=groups)
    truth = tiny.exact(settings, scale=scale)
    assert 0 < truth.hit.sum() < len(truth.hit), "the case needs right and wrong thoughts"
    for baseline, count in (("none", 1), ("leave_one_out", 2)):
        objective = Reinforce(reward="accuracy", baseline=baseline)
        tiny.close(*policy_gradients(settings, objective, count, scale))


def test_accuracy_leaves_no_gradient_where_all_thoughts_agree() -> None:
    settings = tiny.config(weight_groups="AAAA")
    hit = tiny.exact(settings).hit
    every = tiny.enumerate_tuples(settings, 2)
    agree = (hit[:, None] == hit[None, :]).flatten()
    for baseline in ("leave_one_out", "group_mean"):
        loss = Reinforce(reward="accuracy", baseline=baseline)(every.trace, every.batch).parts["policy"]
        grads = every.each(loss).abs().amax(1)
        assert bool((grads[agree] == 0).all()) and bool((grads[~agree] > 0).all())


def variances(settings: RunConfig, bad: float) -> dict[str, float]:
    """Exact variance of the policy gradient, K = 2, by baseline; ema with the mean reward and off it."""
    every, truth = tiny.enumerate_tuples(settings, 2), tiny.exact(settings)
    mean = (truth.probability * truth.log_q).sum().detach()
    found = {}
    for name, baseline, running in (
        ("none", "none", mean),
        ("leave_one_out", "leave_one_out", mean),
        ("ema_good", "ema", mean),
        ("ema_bad", "ema", mean + bad),
    ):
        trace = every.trace._replace(running_reward=running.expand(len(every.probability)))
        loss = Reinforce(baseline=baseline)(trace, every.batch)
        found[name] = every.variance(loss.parts["policy"])
    return found


def test_a_baseline_lowers_the_variance_only_where_it_is_good() -> None:
    for groups in ("AAAA", "ABCD"):
        found = variances(tiny.config(weight_groups=groups), bad=20.0)
        # Rewards are far below 0 beside their spread, so a baseline near their mean takes most away.
        assert found["ema_good"] < 0.5 * found["none"], found
        assert found["leave_one_out"] < found["none"], found
        assert found["ema_good"] < found["leave_one_out"], found  # two thoughts know less than the mean
        assert found["ema_bad"] > found["none"], found


@pytest.mark.parametrize("groups", ["AAAA", "ABCD"])
@BACKBONES
def test_entropy_bonus_is_exact_for_one_symbol(groups: str) -> None:
    settings, symbols = tiny.config(weight_groups=groups, max_reasoning_len=1), torch.arange(3).view(3, 1)
    every, truth = tiny.enumerate_tuples(settings, 1, symbols), tiny.exact(settings, symbols)
    got = every.expected(Reinforce(baseline="none")(every.trace, every.batch).parts["entropy"])
    tiny.close(got, truth.gradient((truth.probability * truth.log_prob.sum(-1)).sum()))


@pytest.mark.parametrize("groups", ["AAAA", "ABCD"])
def test_entropy_bonus_is_myopic_for_two_symbols(groups: str) -> None:
    """It differs from −∇H(π), by just the score of the first symbol, and points the same way."""
    settings = tiny.config(weight_groups=groups)
    every, truth = tiny.enumerate_tuples(settings, 1), tiny.exact(settings)
    got = every.expected(Reinforce(baseline="none")(every.trace, every.batch).parts["entropy"])
    wanted = truth.gradient((truth.probability * truth.log_prob.sum(-1)).sum())
    with pytest.raises(AssertionError):
        tiny.close(got, wanted, tolerance=1e-4)
    a, b = (tiny.flat({name: g[None] for name, g in grads.items()})[0] for grads in (got, wanted))
    assert 0 < torch.cosine_similarity(a, b, dim=0) < 0.99999
    later = truth.gradient(-(truth.probability * truth.entropy[:, 1].detach()).sum())
    tiny.close(tiny.plus(got, later), wanted)
