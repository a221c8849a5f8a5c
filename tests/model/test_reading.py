"""One marker for both ends, the context's last token fed again, base logits added: on GRUs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests import tiny
from toyqs.config.builders.model import build_model
from toyqs.config.run_config import RunConfig
from toyqs.model.layers import FeatureHead, initialise
from toyqs.model.mixing import Sum
from toyqs.objectives.policy.reinforce import Reinforce
from toyqs.positions import thinking_positions

LAST = {"interpreter_start": "onward", "add_last_context_token": True}
KEYS: dict[str, dict[str, Any]] = {
    "one marker": {"different_eot": False},
    "last token": LAST,
    "residual": {"use_residual": True},
}
OTHERS: dict[str, dict[str, Any]] = {
    "one marker onward": {"different_eot": False, "interpreter_start": "onward"},
    "residual onward": {"use_residual": True, "interpreter_start": "onward"},
    "one scaled marker": {
        "different_eot": False,
        "meta_token_mode": "reparameterise",
        "meta_token_scale": 1.7,
    },
    "last token, own symbols": {**LAST, "thought_vocab": 3},
    "last token, thought alone": {**LAST, "mixing": "thought"},
    "last token, two ahead": {**LAST, "n_tokens_ahead": 2, "ahead": "continue"},
    "residual, two ahead": {"use_residual": True, "n_tokens_ahead": 2},
    "residual, shared head": {"use_residual": True, "share_lm_head": True},
    "residual, MLP head": {"use_residual": True, "linear_lm_head": False},
    "two linear layers": {"lm_head_layers": 2, "share_lm_head": True},
    "logits of two linear layers": {"lm_head_layers": 2, "mixing": "logits"},
    "all": {**LAST, "different_eot": False, "use_residual": True},
}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("groups", tiny.PATTERNS)
def test_leave_one_out_is_unbiased(groups: str, key: str) -> None:
    tiny.check_expected_gradient(tiny.config(weight_groups=groups, **KEYS[key]), Reinforce(), 2)


@pytest.mark.parametrize("key", OTHERS)
@pytest.mark.parametrize("groups", ["AAAA", "ABBC", "ABCD"])
def test_it_is_with_other_settings_too(groups: str, key: str) -> None:
    settings = tiny.config(weight_groups=groups, **OTHERS[key])
    tiny.check_expected_gradient(settings, Reinforce(baseline="none"), 1)


def test_thoughts_of_different_lengths_all_read_the_last_token() -> None:
    settings = tiny.config(**LAST, variable_len=True)
    tiny.check_expected_gradient(settings, Reinforce(), 2, tiny.ending(tiny.SYMBOLS))


@pytest.mark.parametrize("start", tiny.STARTS)
def test_one_marker_is_two_tied_ones(start: str) -> None:
    """Check for the same numbers as with two equal rows, and the sum of their gradients."""
    found = []
    for apart in (False, True):
        settings = tiny.config(weight_groups="ABBC", interpreter_start=start, different_eot=apart)
        model, batch, noise = tiny.sampled(settings)
        for name, parameter in model.named_parameters():
            if name.endswith("markers.weight"):
                parameter.data[:] = torch.arange(1.0, 4.0)
        trace = model(batch.inputs, thinking_positions(batch), noise)
        grads = tiny.gradients(trace.logits.square().sum() + trace.log_prob.sum(), model)
        markers = {n: g.sum(1) for n, g in grads.items() if n.endswith("markers.weight")}
        assert all(bool(g.any()) for g in markers.values())
        found.append((trace.logits, grads | markers))
    torch.testing.assert_close(*(logits for logits, _ in found), rtol=0, atol=1e-12)
    tiny.close(found[0][1], found[1][1])


def test_one_marker_starts_as_a_symbol_too() -> None:
    settings = tiny.config(different_eot=False, thought_vocab=4, meta_token_init=3)
    core = build_model(settings, [0]).cores["D"]
    assert core.markers.weight.shape == (1, 1, 3)
    torch.testing.assert_close(core.markers.rows()[:, 1], core.thoughts.weight[:, 3], rtol=0, atol=1e-12)


def test_the_sum_of_two_heads_calls() -> None:
    mixer, head = Sum(2, 3, 3), FeatureHead(2, [3], 5, linear=False)
    initialise(head, [0, 1])
    base, reading = torch.randn(2, 4, 2, 3), torch.randn(2, 4, 2, 6, 3)
    logits, opening = mixer.predict(head, base, reading)
    alone = mixer.predict(head, base, None)[0]
    torch.testing.assert_close(logits, head([base]).unsqueeze(3) + head([reading]))
    torch.testing.assert_close(alone, head([base]).unsqueeze(3))
    assert opening is None and logits.shape == (2, 4, 2, 6, 5)


@pytest.mark.parametrize("groups", ["AAAA", "ABCD"])
def test_with_a_linear_head_concat_of_the_same_rows_is_the_sum(groups: str) -> None:
    """Check it with a doubled bias, which the sum has twice."""
    predictions = []
    for changes in ({"use_residual": True}, {"mixing": "concat"}):
        settings = tiny.config(weight_groups=groups, **changes)
        model, batch, noise = tiny.sampled(settings)
        named = dict(model.named_parameters())
        with torch.no_grad():
            if "head.weight_1" in named:
                named["head.weight_1"].copy_(named["head.weight_0"])
                named["head.bias"].mul_(2.0)
            rows = torch.linspace(-1, 1, 9).view(1, 3, 3)
            named["head.weight_0"].copy_(rows)
            named.get("head.weight_1", rows.clone()).copy_(rows)
            named["head.bias"].fill_(0.25 * (2 if "head.weight_1" in named else 1))
        predictions.append(model(batch.inputs, thinking_positions(batch), noise).logits)
    torch.testing.assert_close(*predictions, rtol=0, atol=1e-12)


def _logits(settings: RunConfig, inputs: torch.Tensor) -> torch.Tensor:
    model, batch, noise = tiny.sampled(settings)
    forced = (noise * tiny.SYMBOLS).long()
    return model(inputs, thinking_positions(batch), noise, forced).logits


def test_nothing_after_the_context_is_fed_again() -> None:
    """Check that a position's prediction depends on its own last token, and on no later one."""
    settings = tiny.config(**LAST, mixing="thought")
    _, batch, _ = tiny.sampled(settings)
    positions = thinking_positions(batch)
    before = _logits(settings, batch.inputs)
    for place in range(2):
        changed = batch.inputs.clone()
        at = positions[0, :, place]
        changed[0, torch.arange(len(at)), at] = (changed[0, torch.arange(len(at)), at] + 1) % tiny.SYMBOLS
        after = _logits(settings, changed)
        moved = (after - before).abs().amax((-1, -2, -3))[0]  # (B, T)
        assert bool((moved[:, place] > 1e-6).all())
        assert bool((moved[:, :place] == 0).all())
