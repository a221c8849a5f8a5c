"""The thought of likeliest symbols as what rewards are compared with: no chance in it, so no bias."""

from __future__ import annotations

import pytest
import torch

from tests import latents, reference, tiny
from toyqs.objectives.policy.reinforce import Reinforce
from toyqs.positions import thinking_positions

BACKBONES = pytest.mark.usefixtures("backbone")
PATTERNS = pytest.mark.parametrize("groups", tiny.PATTERNS)
STARTS = pytest.mark.parametrize("start", tiny.STARTS)
BASELINE = {"baseline": "greedy_thought"}


@STARTS
@PATTERNS
@BACKBONES
def test_the_expected_gradient_is_exact(groups: str, start: str) -> None:
    settings = tiny.config(weight_groups=groups, interpreter_start=start, **BASELINE)
    tiny.check_expected_gradient(settings, Reinforce(**BASELINE), 1)


@STARTS
@BACKBONES
def test_the_expected_gradient_is_exact_where_thoughts_end(start: str) -> None:
    settings = tiny.config(interpreter_start=start, variable_len=True, **BASELINE)
    every = tiny.ending(tiny.SYMBOLS, settings.max_reasoning_len)
    tiny.check_expected_gradient(settings, Reinforce(**BASELINE), 1, every)


@STARTS
@BACKBONES
def test_it_is_the_plain_models_best_thought(start: str) -> None:
    """Symbol by symbol: the first of the likeliest thought need not begin the likeliest pair."""
    settings = tiny.config(interpreter_start=start, **BASELINE)
    every, truth = tiny.enumerate_tuples(settings, 1), tiny.exact(settings)
    log_prob = truth.log_prob.detach()
    first = int(log_prob[::3, 0].argmax())  # the nine thoughts are in order of their first symbol
    best = 3 * first + int(log_prob[3 * first : 3 * first + 3, 1].argmax())
    sequence, position = tiny.AT
    one = tiny.one_position(1)
    index = int(one.think[0, sequence].nonzero()[position, 0])
    tokens = one.inputs[0, sequence, : index + 1]
    wanted = reference.predict(tiny.model(settings), settings, tokens, tiny.THOUGHTS[best : best + 1]).log_q
    got = every.trace.greedy_logits[0, sequence, position].log_softmax(-1)
    torch.testing.assert_close(got, wanted.detach(), rtol=0, atol=1e-12)
    assert every.trace.greedy_logits.grad_fn is None


@pytest.mark.parametrize("kind", ["gaussian", "state"])
@BACKBONES
def test_of_continuous_symbols_it_is_the_mean(kind: str) -> None:
    """Noise of one half everywhere draws the mean of every symbol."""
    settings = latents.config(kind, "reinforce", max_reasoning_len=2, latent_dim=2, **BASELINE)
    model, batch = tiny.model(settings), tiny.one_position(1)
    positions = thinking_positions(batch)
    *_, noise = tiny.sampled(settings)
    trace = model(batch.inputs, positions, torch.full_like(noise[:1, : len(batch.inputs[0])], 0.5))
    wanted = trace.logits[:, :, :, 0].detach()
    torch.testing.assert_close(trace.greedy_logits, wanted, rtol=0, atol=1e-12)


@BACKBONES
def test_a_mutant_that_compares_with_the_thought_itself_is_biased() -> None:
    """Were the greedy prediction the sampled thought's own, every advantage would be 0."""
    settings = tiny.config(**BASELINE)
    every = tiny.enumerate_tuples(settings, 1)
    broken = every.trace._replace(greedy_logits=every.trace.logits[:, :, :, 0])
    part = Reinforce(**BASELINE)(broken, every.batch).parts["policy"]
    assert all(float(g.abs().max()) < 1e-12 for g in every.expected(part).values())
    right = Reinforce(**BASELINE)(every.trace, every.batch).parts["policy"]
    assert max(float(g.abs().max()) for g in every.expected(right).values()) > 1e-3
