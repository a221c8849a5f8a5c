"""Credit for each symbol has the outcome's expected gradient: every tuple of thoughts summed exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests import latents, tiny
from tests.objectives.tables import BACKBONES, PATTERNS, STARTS, expected
from toyqs.objectives import advantages, prefixes
from toyqs.objectives.policy.reinforce import ClippedReinforce, Reinforce
from toyqs.types import Trace

PREFIX = {"credit": "prefix"}


def check(
    count: int = 2, thoughts: Tensor = tiny.THOUGHTS, baseline: str = "leave_one_out", **changes: Any
) -> None:
    """E[∇(policy + nll)] is the gradient of −Σ_h π(h) log q(y | h)."""
    settings = tiny.config(**PREFIX, **changes)
    tiny.check_expected_gradient(settings, Reinforce(baseline=baseline, **PREFIX), count, thoughts)


@STARTS
@PATTERNS
@BACKBONES
def test_the_expected_gradient_is_the_outcomes(groups: str, start: str) -> None:
    check(weight_groups=groups, interpreter_start=start)


@STARTS
@pytest.mark.parametrize(("symbols", "length"), [(2, 2), (2, 3), (3, 3)])
def test_with_other_thoughts(monkeypatch: pytest.MonkeyPatch, symbols: int, length: int, start: str) -> None:
    monkeypatch.setattr(tiny, "SYMBOLS", symbols)
    thoughts = torch.cartesian_prod(*[torch.arange(symbols)] * length)
    sizes = {"thought_vocab": symbols, "max_reasoning_len": length}
    check(2, thoughts, weight_groups="AABC", interpreter_start=start, **sizes)


@STARTS
@pytest.mark.parametrize("mixing", ["gate", "logits", "thought"])
def test_with_other_mixers(mixing: str, start: str) -> None:
    check(weight_groups="ABBC", interpreter_start=start, mixing=mixing)


@STARTS
@pytest.mark.parametrize("groups", ["AAAA", "ABCD"])
def test_where_thoughts_end_themselves(groups: str, start: str) -> None:
    """The end is drawn as a symbol is; it adds nothing to what its thought earns by itself."""
    check(2, tiny.ending(tiny.SYMBOLS), weight_groups=groups, interpreter_start=start, variable_len=True)


@STARTS
@pytest.mark.parametrize("ahead", ["persist", "continue", "joint"])
def test_of_two_tokens(ahead: str, start: str) -> None:
    check(weight_groups="AABC", interpreter_start=start, n_tokens_ahead=2, ahead=ahead)


@STARTS
@pytest.mark.parametrize(("baseline", "count"), [("none", 1), ("none", 2), ("leave_one_out", 3)])
def test_with_other_baselines(baseline: str, count: int, start: str) -> None:
    check(count, baseline=baseline, interpreter_start=start)


@pytest.mark.parametrize(
    ("reward", "start"), [("likelihood", "afresh"), ("likelihood", "onward"), ("accuracy", "afresh")]
)
@pytest.mark.parametrize("baseline", ["none", "leave_one_out", "group_mean"])
def test_of_the_policys_part_alone(baseline: str, reward: str, start: str) -> None:
    """With the group's mean both have (K − 1) / K of it; the estimates themselves are not the same."""
    settings = tiny.config(**PREFIX, reward=reward, weight_groups="ABCD", interpreter_start=start)
    every = tiny.enumerate_tuples(settings, 2, scale=5.0 if reward == "accuracy" else tiny.SCALE)
    losses = [Reinforce(baseline=baseline, reward=reward, credit=credit) for credit in ("prefix", "outcome")]
    found, wanted = (expected(every, objective, "policy") for objective in losses)
    tiny.close(found, wanted)
    each = [every.each(objective(every.trace, every.batch).parts["policy"]) for objective in losses]
    assert float((each[0] - each[1]).abs().max()) > 1e-3


@STARTS
def test_of_gaussian_thoughts(start: str) -> None:
    """By quadrature over two symbols of one number each."""
    given = {"max_reasoning_len": 2, "baseline": "none", "interpreter_start": start}
    every = latents.enumerate_nodes(latents.config("gaussian", **PREFIX, **given))
    credits = [Reinforce(baseline="none", credit=credit) for credit in ("prefix", "outcome")]
    found, wanted = (expected(every, objective, "policy") for objective in credits)
    assert float(tiny.flat({name: g[None] for name, g in wanted.items()}).norm()) > 1e-3
    tiny.close(found, wanted)
    each = [every.each(objective(every.trace, every.batch).parts["policy"]) for objective in credits]
    assert float((each[0] - each[1]).abs().max()) > 1e-3


@pytest.mark.parametrize("groups", ["AAAA", "ABCD"])
def test_a_first_step_of_clipped_ratios_is_the_same(groups: str) -> None:
    settings = tiny.config(**PREFIX, weight_groups=groups, objective="ppo_clip", clip_each="symbol")
    every = tiny.enumerate_tuples(settings, 2)
    trace = every.trace._replace(sampler_log_prob=every.trace.log_prob.detach())
    found, wanted = (
        every.each(objective(trace, every.batch).parts["policy"])
        for objective in (ClippedReinforce(clip_each="symbol", **PREFIX), Reinforce(**PREFIX))
    )
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


# The numbers themselves, against a loop.

SIZES = (2, 3, 2, 3, 4)  # S, B, T, K, L


def random(*sizes: int, seed: int) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def case(ends: bool) -> tuple[Trace, Any, Tensor]:
    """A trace with predictions of two tokens, a batch with unequal weights, and what the thoughts earn."""
    ones = torch.ones(SIZES[:3])
    batch = tiny.Batch(ones.long(), ones.long(), random(*SIZES[:3], seed=4).abs(), ones.bool())
    log_prob, logits = -random(*SIZES, seed=1).abs(), random(*SIZES, 1, 2, seed=2)
    trace = Trace(torch.empty(0), log_prob, prefix_logits=logits)
    if ends:
        length = torch.randint(5, SIZES[:4], generator=torch.Generator().manual_seed(3))
        trace = trace._replace(length=length, unfinished=length == 4)
    return trace, batch, random(*SIZES[:4], seed=5)


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("baseline", ["none", "leave_one_out", "group_mean"])
def test_advantages_against_a_loop(baseline: str, ends: bool) -> None:
    trace, batch, reward = case(ends)
    found = Reinforce(baseline=baseline, **PREFIX).symbol_advantages(reward, trace, batch)
    earned = trace.prefix_logits.log_softmax(-1)[..., 0, 1]
    drew = torch.full(SIZES[:4], 4) if trace.length is None else (trace.length + 1).clamp(max=4)
    for *at, k, symbol in torch.cartesian_prod(*map(torch.arange, SIZES)).tolist():
        place = tuple(at)

        def to_go(thought: int, place: tuple[int, ...] = place, symbol: int = symbol) -> float:
            own = (*place, thought)
            return float(reward[own] - earned[own][symbol]) if symbol < drew[own] else 0.0

        every = [to_go(thought) for thought in range(3)]
        others = (sum(every) - every[k]) / 2
        wanted = every[k] - {"none": 0.0, "leave_one_out": others, "group_mean": sum(every) / 3}[baseline]
        wanted = wanted if symbol < drew[(*place, k)] else 0.0
        assert abs(float(found[(*place, k, symbol)]) - wanted) < 1e-12


def test_scales_are_one_factor_or_drop_what_is_below() -> None:
    trace, batch, reward = case(ends=True)
    plain, scaled, positive = (
        Reinforce(advantage_scale=scale, **PREFIX).symbol_advantages(reward, trace, batch)
        for scale in ("none", "batch_std", "positive_only")
    )
    for seed in range(SIZES[0]):
        ratio = (scaled[seed] / plain[seed])[plain[seed] != 0]
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
        weights = batch.weights[seed].view(3, 2, 1, 1).expand(SIZES[1:])
        mean = (weights * plain[seed]).sum() / weights.sum()
        spread = ((weights * (plain[seed] - mean).square()).sum() / weights.sum()).sqrt()
        torch.testing.assert_close(ratio[0], 1 / (spread + advantages.STD_FLOOR))
    assert torch.equal(positive, plain.clamp(min=0))


@pytest.mark.parametrize(
    "changes", [{"baseline": "ema"}, {"baseline": "value"}, {"advantage_scale": "group_std"}]
)
def test_what_is_of_whole_thoughts_is_refused(changes: dict[str, str]) -> None:
    trace, batch, reward = case(ends=False)
    with pytest.raises(ValueError, match="credit=prefix needs a baseline and a scale"):
        Reinforce(**PREFIX, **changes).symbol_advantages(reward, trace, batch)
    with pytest.raises(ValueError, match=r"needs trace\.prefix_logits"):
        Reinforce(**PREFIX).symbol_advantages(reward, trace._replace(prefix_logits=None), batch)
    clipped = ClippedReinforce(**PREFIX)
    with pytest.raises(ValueError, match="needs clip_each=symbol"):
        clipped.policy_loss(reward, trace._replace(sampler_log_prob=trace.log_prob), batch)


# Broken versions: each must fail the oracle.

right, leave_one_out = prefixes.reward_to_go, advantages.leave_one_out


def of_what_the_symbol_made(reward: Tensor, of_prefixes: Tensor, trace: Trace) -> Tensor:
    """r(h) − r(h_≤l): the baseline knows the symbol itself."""
    shifted = torch.cat([of_prefixes[..., 1:], reward.unsqueeze(-1)], -1)
    return reward.unsqueeze(-1) - shifted


def of_one_step(reward: Tensor, of_prefixes: Tensor, trace: Trace) -> Tensor:
    """r(h_≤l) − r(h_<l) alone: what the symbol does to later ones is not paid."""
    shifted = torch.cat([of_prefixes[..., 1:], reward.unsqueeze(-1)], -1)
    return shifted - of_prefixes


def of_the_prefix_alone(reward: Tensor, of_prefixes: Tensor, trace: Trace) -> Tensor:
    """r(h_≤l), without what comes after."""
    return torch.cat([of_prefixes[..., 1:], reward.unsqueeze(-1)], -1)


def of_another_thought(reward: Tensor, of_prefixes: Tensor, trace: Trace) -> Tensor:
    """Every thought's reward with its neighbour's prefixes: no bias, another variance; its numbers tell."""
    return right(reward, of_prefixes.roll(1, 3), trace)


@pytest.mark.parametrize(
    "mutant", [of_what_the_symbol_made, of_one_step, of_the_prefix_alone], ids=lambda mutant: mutant.__name__
)
@STARTS
def test_another_credit_is_caught(monkeypatch: pytest.MonkeyPatch, mutant: Any, start: str) -> None:
    monkeypatch.setattr(prefixes, "reward_to_go", mutant)
    for groups in ("AAAA", "ABCD"):
        with pytest.raises(AssertionError, match="off by"):
            check(weight_groups=groups, interpreter_start=start)


def test_prefixes_of_another_thought_are_seen_in_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes, "reward_to_go", of_another_thought)
    with pytest.raises(AssertionError):
        test_advantages_against_a_loop("leave_one_out", ends=False)


def test_leave_one_out_over_symbols_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thought's other symbols in place of the other thoughts' same symbol."""

    def over_symbols(self: Reinforce, reward: Tensor, trace: Trace, batch: Any) -> Tensor:
        ahead = right(reward, prefixes.earned_by_prefixes(self, trace, batch), trace)
        return ahead - leave_one_out(ahead)

    monkeypatch.setattr(Reinforce, "symbol_advantages", over_symbols)
    for groups in ("AAAA", "ABCD"):
        with pytest.raises(AssertionError, match="off by"):
            check(weight_groups=groups)


@STARTS
def test_padding_that_is_paid_is_caught(monkeypatch: pytest.MonkeyPatch, start: str) -> None:
    monkeypatch.setattr(prefixes, "where_drawn", lambda values, trace: values)
    with pytest.raises(AssertionError):
        test_advantages_against_a_loop("leave_one_out", ends=True)


def test_a_prediction_of_the_prefix_with_a_gradient_is_caught() -> None:
    """The policy's part reaches no predictor, whatever the prefixes are read for."""
    for more in ({}, {"prefix_nll_beta": 1.0}):
        settings = tiny.config(**PREFIX, **more, weight_groups="ABCD", trice_samples=3)
        model, batch, noise = tiny.sampled(settings)
        positions = tiny.thinking_positions(batch)
        trace = model(batch.inputs, positions, noise)
        assert trace.prefix_logits.requires_grad == bool(more)
        loss = Reinforce(**PREFIX)(trace, tiny.focus(batch, positions)).parts["policy"]
        moved = {name for name, grad in tiny.gradients(loss.sum(), model).items() if bool(grad.any())}
        assert moved and all(name.startswith(("cores.B", "cores.C", "thought_head")) for name in moved)
