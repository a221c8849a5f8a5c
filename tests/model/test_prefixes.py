"""Predictions with the prefixes of thoughts: those of shorter thoughts, at one more step for each symbol."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from toyqs.config.builders.cost import count_cost
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.model.predicting.prefixes import PrefixReadings
from toyqs.positions import thinking_positions
from toyqs.tasks.iterate import Iterate
from toyqs.types import Batch, Context, Thoughts

BACKBONES = pytest.mark.usefixtures("backbone")
WANTED = {"prefix_nll_beta": 1.0}
KINDS: dict[str, dict[str, Any]] = {
    "all read together": {"trice_samples": 12},
    "in rows of their own": {"max_reasoning_len": 4},
    "two symbols": {"thought_vocab": 2, "max_reasoning_len": 4},
    "one symbol": {"max_reasoning_len": 1},
    "ended": {"variable_len": True, "thought_vocab": 2, "max_reasoning_len": 4},
    "vectors": {"thoughts": "gaussian", "latent_dim": 2, "max_reasoning_len": 3},
    "states": {"thoughts": "state", "max_reasoning_len": 3},
    "relaxed": {"thoughts": "gumbel", "objective": "pathwise", "max_reasoning_len": 3},
    "the reasoner's states": {"thoughts": "deterministic", "objective": "pathwise"},
    "other widths": {"interpreter_hidden_dim": 5, "reasoner_hidden_dim": 4},
    "two tokens": {"n_tokens_ahead": 2, "ahead_decay": 0.5},
    "two tokens, reading on": {"n_tokens_ahead": 2, "ahead": "continue", "max_reasoning_len": 3},
    "vectors, reading on": {"n_tokens_ahead": 2, "ahead": "continue", "thoughts": "gaussian"},
    "two tokens together": {"n_tokens_ahead": 2, "ahead": "joint"},
    "weighed": {"mixing": "gate", "gate_floor": 0.3},
    "two logits": {"mixing": "logits"},
    "alone": {"use_base_lm": False},
}


def shorter(model: LatentReasoner, context: Context, thoughts: Thoughts, length: int) -> Tensor:
    """Return the prediction with the first symbols of every thought, as thoughts of their own."""
    symbols = thoughts.symbols[:, :, :, :, :length].detach()
    given = None if thoughts.given_length is None else thoughts.given_length.clamp(max=length)
    cut = model.think(context, symbols, symbols if length else None, given)
    assert cut is not None
    logits = model.talk(context, cut, 0.3).logits
    return logits.expand(*thoughts.symbols.shape[:4], *logits.shape[4:])


def check(settings: RunConfig) -> None:
    model, batch, noise = tiny.sampled(settings, copies=1 if settings.backbone != "gru" else 2)
    context = model.read(batch.inputs, thinking_positions(batch))
    thoughts = model.think(context, noise)
    trace = model.talk(context, thoughts, 0.3)
    assert trace.prefix_logits.shape[3:5] == noise.shape[3:5]
    for length, found in enumerate(trace.prefix_logits.unbind(4)):
        wanted = shorter(model, context, thoughts, length)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12, msg=f"off with {length} symbols")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", tiny.STARTS)
@BACKBONES
def test_they_are_those_of_shorter_thoughts(kind: str, start: str) -> None:
    check(
        tiny.config(
            **WANTED,
            weight_groups="AABC" if kind != "other widths" else "ABCD",
            interpreter_start=start,
            **KINDS[kind],
        )
    )


@pytest.mark.parametrize("start", tiny.STARTS)
def test_a_token_read_again_and_one_marker(start: str) -> None:
    again = {"add_last_context_token": True} if start == "onward" else {}
    check(tiny.config(**WANTED, interpreter_start=start, different_eot=False, **again))


@pytest.mark.parametrize("start", tiny.STARTS)
def test_lengths_of_the_task(start: str) -> None:
    settings = tiny.config(**WANTED, interpreter_start=start, max_reasoning_len=3, adaptive_len=True)
    model, batch, noise = tiny.sampled(settings)
    context = model.read(batch.inputs, thinking_positions(batch))
    lengths = torch.tensor([[1, 2], [3, 0], [5, 1]]).view(1, 3, 2, 1)
    thoughts = model.think(context, noise, None, lengths)
    trace = model.talk(context, thoughts)
    for length, found in enumerate(trace.prefix_logits.unbind(4)):
        torch.testing.assert_close(found, shorter(model, context, thoughts, length), rtol=0, atol=1e-12)
        ended = (lengths <= length).expand(found.shape[:4])
        torch.testing.assert_close(found[ended], trace.logits[ended], rtol=0, atol=1e-12)


def test_a_prefix_that_is_read_without_its_last_symbol_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = PrefixReadings.__call__
    early: list[Tensor] = []

    def late(self: PrefixReadings, read: Any) -> None:
        """Take what the interpreter had read one symbol before."""
        early.append(read())
        own = early[-1].shape
        right(self, lambda: early[max(0, len(early) - 2)][:, :, :, : own[3]].expand(own))

    monkeypatch.setattr(PrefixReadings, "__call__", late)
    for start in tiny.STARTS:
        early.clear()
        with pytest.raises(AssertionError, match="off with 1 symbols"):
            check(tiny.config(**WANTED, interpreter_start=start, trice_samples=6, max_reasoning_len=3))


def traced(**changes: Any) -> tuple[LatentReasoner, Batch, Tensor]:
    return tiny.sampled(tiny.config(weight_groups="ABCD", **changes))


@pytest.mark.parametrize("start", tiny.STARTS)
def test_when_they_are_predicted_and_what_learns_from_them(start: str) -> None:
    """In training alone, but where an evaluation says what thoughts earn; credit and reward train nothing."""
    cases = [({}, False, False), ({"credit": "prefix"}, True, False), (WANTED, True, False)]
    cases += [({"reward": "trajectory"}, True, True), ({"credit": "prefix", "baseline": "none"}, True, False)]
    cases += [({"credit": "prefix", "policy_loss_beta": 0.0}, False, False)]
    cases += [({"credit": "prefix", "objective": "maxent"}, False, False)]
    for changes, training, evaluation in cases:
        model, batch, noise = traced(interpreter_start=start, **changes)
        found = model(batch.inputs, thinking_positions(batch), noise).prefix_logits
        assert (found is not None) == training
        assert found is None or found.requires_grad == ("prefix_nll_beta" in changes)
        with torch.no_grad():
            trace = model(batch.inputs, thinking_positions(batch), noise)
        assert (trace.prefix_logits is not None) == evaluation


def steps_more(settings: RunConfig, **changes: Any) -> float:
    """Return how many state updates a thought's symbol costs more with other settings."""
    batch = settings.data_loader_batch_size * settings.task.length(settings.seq_len)
    positions = settings.data_loader_batch_size * 2  # that think, of four
    more = [count_cost(replace(settings, **x)).recurrent_steps_per_token for x in (changes, {})]
    symbols = positions * settings.trice_samples * settings.max_reasoning_len
    return (more[0] - more[1]) * batch / symbols


@pytest.mark.parametrize("changes", [{"credit": "prefix"}, WANTED, {"reward": "trajectory"}])
def test_the_cost_is_a_step_for_each_symbol_at_most(changes: dict[str, Any]) -> None:
    """Fewer where thoughts share prefixes: the empty one is a position's, or all positions' together."""
    vectors = tiny.config(thoughts="gaussian", max_reasoning_len=6, trice_samples=5)
    onward = replace(vectors, thoughts="token", interpreter_start="onward")
    assert steps_more(vectors, **changes) == pytest.approx(5 / 6 + 1 / (5 * 6 * 8))
    assert steps_more(onward, **changes) == pytest.approx(5 / 6 + 1 / (5 * 6))
    few = replace(onward, interpreter_start="afresh", thought_vocab=2, max_reasoning_len=3)
    assert steps_more(few, **changes) == pytest.approx((1 + 2 + 4) / (5 * 3 * 8))


def test_a_task_that_sets_lengths_trains_with_them() -> None:
    settings = tiny.config(
        task=Iterate(n=4, k=3, curriculum=0.0), adaptive_len=True, max_reasoning_len=3, credit="prefix"
    )
    assert count_cost(settings).recurrent_steps_per_token > 0
