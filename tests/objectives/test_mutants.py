"""Broken versions of the parts that the oracles guard: every oracle must fail on its mutant."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.objectives.test_advantages import check_leave_one_out
from toyqs.model import latent_reasoner, thoughts
from toyqs.model.core import END, FIRST_SYMBOL, Core, marker
from toyqs.model.interpreter import Onward
from toyqs.model.layers import gather_rows
from toyqs.objectives import advantages as baselines
from toyqs.objectives import losses, rewards
from toyqs.objectives.policy.reinforce import Reinforce
from toyqs.types import Batch, Thoughts, Trace

BACKBONES = pytest.mark.usefixtures("backbone")
GROUPS = ["AAAA", "AABB", "ABCD"]


def check(groups: str, start: str, **changes: Any) -> None:
    """The oracle that all mutants meet."""
    settings = tiny.config(weight_groups=groups, interpreter_start=start, **changes)
    tiny.check_expected_gradient(settings, Reinforce(), 2)


def caught(start: str, **changes: Any) -> None:
    """The oracle fails in every pattern tried."""
    for groups in GROUPS:
        with pytest.raises(AssertionError, match="off by"):
            check(groups, start, **changes)


@pytest.mark.parametrize("start", tiny.STARTS)
def test_the_oracle_passes_without_a_mutant(start: str) -> None:
    for groups in GROUPS:
        check(groups, start)


def with_itself(given: Tensor) -> Tensor:
    """The thought's own reward counts, the divisor is still K − 1."""
    return given.sum(-1, keepdim=True).expand_as(given) / (given.shape[-1] - 1)


def of_all(given: Tensor) -> Tensor:
    """The mean of all thoughts under the other's name."""
    return given.mean(-1, keepdim=True).expand_as(given)


def of_another_position(given: Tensor) -> Tensor:
    """Right, but for the next position."""
    return baselines.leave_one_out(given).roll(1, 2)


@pytest.mark.parametrize("mutant", [with_itself, of_all])
def test_leave_one_out_that_counts_the_thought_itself(monkeypatch: pytest.MonkeyPatch, mutant: Any) -> None:
    with pytest.raises(AssertionError):
        check_leave_one_out(mutant)
    monkeypatch.setitem(baselines.BASELINES, "leave_one_out", baselines.Baseline(mutant))
    caught("afresh")


def test_leave_one_out_of_another_position() -> None:
    """Unbiased all the same, so only its values give it away."""
    with pytest.raises(AssertionError):
        check_leave_one_out(of_another_position)


def test_a_detached_onward_state(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Onward.forward

    def detached(self: Onward, given: Thoughts, **kwargs: Any) -> Tensor:
        return right(self, given._replace(branches=given.branches.detach()), **kwargs)

    monkeypatch.setattr(Onward, "forward", detached)
    caught("onward")


def test_a_detached_onward_symbol(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the table's rows of the last symbol are cut off."""
    right = Onward.forward

    def cut(self: Onward, given: Thoughts, **kwargs: Any) -> Tensor:
        step_symbols = self.reasoner.step_symbols
        reasoner = SimpleNamespace(
            thought_rows=self.reasoner.thought_rows,
            step_symbols=lambda symbols, rows, state: step_symbols(symbols, rows.detach(), state),
        )
        plain = SimpleNamespace(core=self.core, reasoner=reasoner, handover=None, last_token=None)
        return right(plain, given, **kwargs)

    monkeypatch.setattr(Onward, "forward", cut)
    caught("onward")


def test_an_onward_interpreter_that_skips_the_last_symbol(monkeypatch: pytest.MonkeyPatch) -> None:
    def skipping(self: Onward, given: Thoughts, **kwargs: Any) -> Tensor:
        state = given.branches.expand(*given.symbols.shape[:-1], -1)
        return self.core.backbone.step(marker(self.core.thought_rows(), END), state)[0]

    monkeypatch.setattr(Onward, "forward", skipping)
    caught("onward")


@BACKBONES
def test_an_interpreter_that_hears_the_last_symbol_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def stuttering(self: Onward, given: Thoughts, **kwargs: Any) -> Tensor:
        last = gather_rows(self.reasoner.thought_rows(), given.symbols[..., -1] + FIRST_SYMBOL)
        _, state = self.reasoner.backbone.step(last, given.branches)
        _, state = self.reasoner.backbone.step(last, state)
        return self.core.backbone.step(marker(self.core.thought_rows(), END), state)[0]

    monkeypatch.setattr(Onward, "forward", stuttering)
    caught("onward")


@pytest.mark.parametrize("start", tiny.STARTS)
@BACKBONES
def test_thinking_that_forgets_to_advance_its_state(monkeypatch: pytest.MonkeyPatch, start: str) -> None:
    """Every symbol is scored from the state before the start marker and its own predecessor alone."""
    right = latent_reasoner.think

    def forgetful(core: Core, *args: Any, **kwargs: Any) -> Thoughts:
        def stuck(x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            hidden, _ = core.backbone.step(x, state)
            return hidden, state

        return right(
            SimpleNamespace(
                thought_rows=core.thought_rows,
                backbone=SimpleNamespace(step=stuck),
                step_symbols=lambda symbols, rows, state: stuck(core.embed_symbols(symbols, rows), state),
            ),
            *args,
            **kwargs,
        )

    monkeypatch.setattr(latent_reasoner, "think", forgetful)
    caught(start)


def test_thinking_on_a_detached_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """The context's gradient no longer reaches base_reasoner."""
    right = latent_reasoner.think
    monkeypatch.setattr(
        latent_reasoner,
        "think",
        lambda core, head, state, *a, **k: right(core, head, state.detach(), *a, **k),
    )
    caught("afresh")


def test_a_reward_with_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaking(self: Reinforce, reward: Tensor, trace: Trace, batch: Batch) -> Tensor:
        log_q = rewards.target_log_prob(trace.logits, batch.targets.unsqueeze(-1))
        advantages = log_q - baselines.leave_one_out(log_q)
        return -(advantages * trace.log_prob.sum(-1)).mean(-1)

    monkeypatch.setattr(Reinforce, "policy_loss", leaking)
    caught("afresh")


def of_the_thought_itself(self: Reinforce, value_sees: str, trace: Trace, batch: Batch) -> Tensor:
    """A value that starts from the prediction of the first thought, not of one drawn without it."""
    return self.earned_by(trace.logits[:, :, :, 0], trace, batch).squeeze(3)


def test_a_value_that_starts_from_the_thought_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tiny.config(weight_groups="ABCD", baseline="value", value_sees="average_thought")
    value = Reinforce(baseline="value", value_sees="average_thought")
    tiny.check_expected_gradient(settings, value, 1)
    monkeypatch.setattr(Reinforce, "expected", of_the_thought_itself)
    with pytest.raises(AssertionError, match="off by"):
        tiny.check_expected_gradient(settings, value, 1)


def first_for_all(advantages: Tensor, log_prob: Tensor) -> Tensor:
    return -(advantages[..., :1].detach() * log_prob.sum(-1)).mean(-1)


def swapped(advantages: Tensor, log_prob: Tensor) -> Tensor:
    return -(advantages.roll(1, -1).detach() * log_prob.sum(-1)).mean(-1)


def mean_over_symbols(advantages: Tensor, log_prob: Tensor) -> Tensor:
    return -(advantages.detach() * log_prob.mean(-1)).mean(-1)


def first_symbol_only(advantages: Tensor, log_prob: Tensor) -> Tensor:
    return -(advantages.detach() * log_prob[..., 0]).mean(-1)


def summed_over_thoughts(advantages: Tensor, log_prob: Tensor) -> Tensor:
    return -(advantages.detach() * log_prob.sum(-1)).sum(-1)


def ascending(advantages: Tensor, log_prob: Tensor) -> Tensor:
    return (advantages.detach() * log_prob.sum(-1)).mean(-1)


@pytest.mark.parametrize(
    "mutant",
    [first_for_all, swapped, mean_over_symbols, first_symbol_only, summed_over_thoughts, ascending],
    ids=lambda mutant: mutant.__name__,
)
def test_advantages_that_meet_the_wrong_log_probabilities(
    monkeypatch: pytest.MonkeyPatch, mutant: Any
) -> None:
    monkeypatch.setattr(losses, "score_function_loss", mutant)
    caught("afresh")


def test_a_reward_with_a_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        rewards.REWARDS, "likelihood", lambda *args: rewards.likelihood(*args).clamp(min=-1.0)
    )
    caught("afresh")


def test_a_draw_whose_gradient_forgets_the_normalisation(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(ctx: Any, _: Any, at_log_prob: Tensor, at_entropy: Tensor) -> tuple[Tensor, None, None]:
        probs, *_, symbols = ctx.saved_tensors
        return torch.zeros_like(probs).scatter_add_(-1, symbols, at_log_prob), None, None

    monkeypatch.setattr(thoughts._Draw, "backward", staticmethod(forgetful))
    caught("afresh")


@pytest.mark.parametrize("row", [END, FIRST_SYMBOL + 1])
@BACKBONES
def test_a_thought_that_starts_with_another_row(monkeypatch: pytest.MonkeyPatch, row: int) -> None:
    """The start marker is neither the end marker nor a symbol."""
    monkeypatch.setattr(thoughts, "START", row)
    caught("onward")
