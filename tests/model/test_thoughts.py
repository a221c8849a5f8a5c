"""Sampling by inverse CDF, scoring of forced symbols, and the loop against the plain reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests import reference, tiny
from toyqs.model.thoughts import _Draw, sample_symbols
from toyqs.positions import thinking_positions

BACKBONES = pytest.mark.usefixtures("backbone")
PROBS = torch.tensor(
    [
        [0.0, 0.2, 0.0, 0.5, 0.3, 0.0],
        [1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 1.0],
        [1 / 6] * 6,
        [1e-30, 0.0, 1 - 1e-9, 0.0, 0.0, 1e-9],
    ],
    dtype=torch.float64,
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_frequencies_on_a_grid_are_the_probabilities() -> None:
    points = 10_000
    grid = ((torch.arange(points) + 0.5) / points).double().expand(len(PROBS), points)
    symbols = sample_symbols(PROBS, grid)
    for row, probs in zip(symbols, PROBS, strict=True):
        frequency = torch.bincount(row, minlength=6) / points
        assert float((frequency - probs).abs().max()) <= 1.0 / points


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_symbol_of_probability_zero_is_never_drawn(dtype: torch.dtype) -> None:
    """Check it at the ends of the noise, and at 1 itself, which rounding to a shorter format can produce."""
    probs = PROBS.to(dtype)
    logits = random(50, 6).to(dtype)
    logits[:, [0, 3, 5]] = -torch.inf
    probs = torch.cat([probs, logits.softmax(-1)])
    edge = torch.finfo(dtype).eps
    ends = torch.tensor([0.0, edge, 0.5, 1 - edge, 1 - edge / 2, 1.0], dtype=dtype)
    steps = probs.cumsum(-1)
    noise = torch.cat([ends.expand(len(probs), -1), steps.clamp(max=1.0)], -1)  # and at every step
    symbols = sample_symbols(probs, noise)
    assert bool((probs.gather(-1, symbols) > 0).all())


def test_drawing_many_rows_equals_drawing_one_by_one() -> None:
    probs, noise = random(2, 3, 6).softmax(-1), tiny.noise((2, 3, 7))
    symbols = sample_symbols(probs, noise)
    for s in range(2):
        for b in range(3):
            for j in range(7):
                total, naive = 0.0, 0
                for naive, p in enumerate(probs[s, b].tolist()):  # noqa: B007 the loop's end is the answer
                    total += p
                    if total > float(noise[s, b, j]):
                        break
                assert int(symbols[s, b, j]) == naive


@pytest.mark.parametrize("shape", [(2, 3, 4, 3), (2, 3, 4, 20)], ids=["few symbols", "many symbols"])
@pytest.mark.parametrize("draws", [1, 5], ids=["own rows", "shared rows"])
def test_gradient_of_a_draw(shape: tuple[int, ...], draws: int) -> None:
    """Check one draw from a row of its own, and K draws from a shared row."""
    logits = random(*shape).requires_grad_()
    noise = tiny.noise((*shape[:-1], draws))

    def scores(x: Tensor) -> tuple[Tensor, Tensor]:
        return _Draw.apply(x, noise, False)[1:]

    if shape[-1] < 10:
        assert torch.autograd.gradcheck(scores, (logits,))
    symbols, log_prob, entropy = _Draw.apply(logits, noise, False)
    log_p = torch.log_softmax(logits, -1)
    wanted = log_p.gather(-1, symbols), -(log_p.exp() * log_p).sum(-1)
    pulls = random(*log_prob.shape, seed=1), random(*entropy.shape, seed=2)
    for ours, theirs, pull in zip((log_prob, entropy), wanted, pulls, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
        mine, plain = (
            torch.autograd.grad((v * pull).sum(), logits, retain_graph=True)[0] for v in (ours, theirs)
        )
        torch.testing.assert_close(mine, plain, rtol=0, atol=1e-12)


def test_a_forbidden_symbol_leaves_everything_finite() -> None:
    logits = random(4, 3)
    logits[:, 1] = -torch.inf
    logits.requires_grad_()
    symbols, log_prob, entropy = _Draw.apply(logits, tiny.noise((4, 50)), False)
    assert not bool((symbols == 1).any())
    two = torch.log_softmax(logits.detach()[:, [0, 2]], -1)
    torch.testing.assert_close(entropy, -(two.exp() * two).sum(-1), rtol=0, atol=1e-12)
    (log_prob.sum() + 1e3 * entropy.sum()).backward()
    assert bool(logits.grad.isfinite().all()) and not logits.grad[:, 1].any()


@pytest.mark.parametrize("thoughts", [1, 3])
@pytest.mark.parametrize("start", tiny.STARTS)
@BACKBONES
def test_scoring_forced_symbols_equals_sampling_them(start: str, thoughts: int) -> None:
    settings = tiny.config(interpreter_start=start, trice_samples=thoughts, max_reasoning_len=3)
    model, batch, noise = tiny.sampled(settings, copies=2)
    drawn = model(batch.inputs, thinking_positions(batch), noise)
    symbols = model.think(model.read(batch.inputs, thinking_positions(batch)), noise).symbols
    assert settings.backbone != "gru" or len(symbols.unique()) == tiny.SYMBOLS
    scored = model(batch.inputs, thinking_positions(batch), torch.empty(0), symbols)
    for name in ("logits", "log_prob", "entropy"):
        assert torch.equal(getattr(drawn, name), getattr(scored, name)), name


@pytest.mark.parametrize(
    "extra",
    [{}, {"share_lm_head": True}, {"thought_vocab": 4}, {"linear_lm_head": False}, {"lm_head_layers": 2}],
)
@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", tiny.PATTERNS)
@BACKBONES
def test_the_trace_equals_the_plain_reference(groups: str, start: str, extra: dict[str, object]) -> None:
    """Compare log-probabilities, entropies and logits at every position, for several mixers."""
    mixing = tiny.MIXERS[tiny.PATTERNS.index(groups) % 4]
    settings = tiny.config(weight_groups=groups, interpreter_start=start, mixing=mixing, **extra)
    model, batch, noise = tiny.sampled(settings)
    context = model.read(batch.inputs, thinking_positions(batch))
    thoughts = model.think(context, noise)
    trace = model.talk(context, thoughts)
    log_q = torch.log_softmax(trace.logits[0, :, :, :, 0], -1)
    for b in range(3):
        for t, at in enumerate(batch.think[0, b].nonzero().flatten().tolist()):
            plain = reference.predict(
                model, settings, batch.inputs[0, b, : at + 1], thoughts.symbols[0, b, t]
            )
            for ours, theirs in (
                (trace.log_prob[0, b, t], plain.log_prob),
                (trace.entropy[0, b, t], plain.entropy),
                (log_q[b, t], plain.log_q),
            ):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
