"""How a thought ends: by the end that is drawn, by the length that a task gives, or after L symbols."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests import reference, tiny
from toyqs.model import latent_reasoner
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.objectives.policy.reinforce import Reinforce
from toyqs.positions import focus, thinking_positions
from toyqs.types import Batch, Thoughts, Trace

BACKBONES = pytest.mark.usefixtures("backbone")
SYMBOLS = 2
KINDS: dict[str, dict[str, Any]] = {
    "token": {},
    "gaussian": {"latent_dim": 2},
    "state": {},
    "gumbel": {"objective": "pathwise"},
    "deterministic": {"objective": "pathwise"},
}


def variable(**changes: Any) -> tuple[Any, LatentReasoner, Batch, Tensor]:
    """Return the settings of thoughts of up to three symbols, of two kinds."""
    plain: dict[str, Any] = {"max_reasoning_len": 3, "thought_vocab": SYMBOLS, "trice_samples": 4}
    settings = tiny.config(variable_len=True, **(plain | changes))
    return settings, *tiny.sampled(settings)


def thoughts_of(model: LatentReasoner, batch: Batch, noise: Tensor) -> Thoughts:
    return model.think(model.read(batch.inputs, thinking_positions(batch)), noise)


# The end that is drawn.


def check_lengths(model: LatentReasoner, batch: Batch, noise: Tensor) -> None:
    """Compare lengths, padding and `unfinished` with a loop over every thought."""
    thoughts = thoughts_of(model, batch, noise)
    trace = model.talk(model.read(batch.inputs, thinking_positions(batch)), thoughts)
    assert trace.length is thoughts.length and trace.unfinished is thoughts.unfinished
    assert thoughts.length.dtype == torch.long and thoughts.unfinished.dtype == torch.bool
    found = set()
    for index in torch.cartesian_prod(*(torch.arange(n) for n in thoughts.length.shape)).tolist():
        symbols, length = thoughts.symbols[tuple(index)].tolist(), int(thoughts.length[tuple(index)])
        ends = [place for place, symbol in enumerate(symbols) if symbol == SYMBOLS]
        found.add(length)
        assert length == (ends[0] if ends else len(symbols))
        assert symbols[length:] == [SYMBOLS] * (len(symbols) - length)
        assert bool(thoughts.unfinished[tuple(index)]) == (not ends), "unfinished is off"
        for values in (thoughts.log_prob[tuple(index)], thoughts.entropy[tuple(index)]):
            assert bool((values[: length + 1] != 0).all()) and not values[length + 1 :].any()
    assert found == {0, 1, 2, 3}


@pytest.mark.parametrize("start", tiny.STARTS)
@BACKBONES
def test_a_thought_ends_where_the_end_is_drawn(start: str) -> None:
    _, model, batch, _ = variable(interpreter_start=start)
    check_lengths(model, batch, tiny.noise((1, 3, 2, 40, 3)))


def test_unfinished_off_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    right = latent_reasoner.think

    def hasty(*args: Any, **kwargs: Any) -> Thoughts:
        found = right(*args, **kwargs)
        return found._replace(unfinished=found.length >= found.symbols.shape[4] - 1)

    monkeypatch.setattr(latent_reasoner, "think", hasty)
    _, model, batch, _ = variable()
    with pytest.raises(AssertionError, match="unfinished is off"):
        check_lengths(model, batch, tiny.noise((1, 3, 2, 40, 3)))


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", tiny.PATTERNS)
@BACKBONES
def test_the_trace_equals_the_plain_reference(groups: str, start: str, share: bool) -> None:
    own = {"thought_vocab": None, "share_lm_head": True} if share else {}
    settings, model, batch, noise = variable(weight_groups=groups, interpreter_start=start, **own)
    thoughts = thoughts_of(model, batch, noise)
    trace = model.talk(model.read(batch.inputs, thinking_positions(batch)), thoughts)
    log_q = torch.log_softmax(trace.logits[0, :, :, :, 0], -1)
    assert len(thoughts.length.unique()) > 2
    for b in range(3):
        for t, at in enumerate(batch.think[0, b].nonzero().flatten().tolist()):
            symbols = thoughts.symbols[0, b, t]
            plain = reference.predict(model, settings, batch.inputs[0, b, : at + 1], symbols)
            for ours, theirs in (
                (trace.log_prob[0, b, t], plain.log_prob),
                (trace.entropy[0, b, t], plain.entropy),
                (log_q[b, t], plain.log_q),
            ):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("start", tiny.STARTS)
@BACKBONES
def test_scoring_forced_thoughts_equals_sampling_them(start: str) -> None:
    _, model, batch, noise = variable(interpreter_start=start)
    positions = thinking_positions(batch)
    drawn = model(batch.inputs, positions, noise)
    symbols = thoughts_of(model, batch, noise).symbols
    scored = model(batch.inputs, positions, torch.empty(0), symbols)
    for name in ("logits", "log_prob", "entropy", "length", "unfinished"):
        assert torch.equal(getattr(drawn, name), getattr(scored, name)), name


def losses(model: LatentReasoner, batch: Batch, trace: Trace) -> tuple[Trace, tiny.Gradients]:
    parts = Reinforce()(trace, focus(batch, thinking_positions(batch))).parts
    return trace, tiny.gradients(sum(parts.values()).sum(), model)


def alike(one: Trace, other: Trace) -> None:
    for name in ("logits", "log_prob", "entropy"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=1e-12, msg=name)


@pytest.mark.parametrize("extra", [{}, {"share_lm_head": True}, {"thought_vocab": SYMBOLS}])
@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", tiny.PATTERNS)
@BACKBONES
def test_an_end_that_is_never_drawn_is_fixed_length(groups: str, start: str, extra: dict[str, Any]) -> None:
    """Compare a run whose end has the logit minus infinity with thoughts of L symbols, gradients too."""
    fixed = tiny.config(weight_groups=groups, interpreter_start=start, **extra)
    model, batch, noise = tiny.sampled(fixed)
    other, *_ = tiny.sampled(
        tiny.config(weight_groups=groups, interpreter_start=start, variable_len=True, **extra)
    )
    with torch.no_grad():
        other.thought_head.ending.bias.fill_(-torch.inf)
    positions = thinking_positions(batch)
    wanted, slopes = losses(model, batch, model(batch.inputs, positions, noise))
    got, ours = losses(other, batch, other(batch.inputs, positions, noise))
    alike(got, wanted)
    assert bool(got.unfinished.all()) and wanted.length is None
    ending = {name: ours.pop(name) for name in list(ours) if ".ending." in name}
    assert len(ending) == 2 and all(not g.any() for g in ending.values())
    tiny.close(ours, slopes, tolerance=1e-12)


@pytest.mark.parametrize("start", tiny.STARTS)
@BACKBONES
def test_the_likeliest_thought_ends_where_the_end_is_likeliest(start: str) -> None:
    """Check ends at once, never, and at a given length."""
    for bias, symbol in ((1e3, SYMBOLS), (-1e3, None)):
        settings, model, batch, noise = variable(interpreter_start=start, baseline="greedy_thought")
        with torch.no_grad():
            model.thought_head.ending.bias.fill_(bias)
        positions = thinking_positions(batch)
        trace = model(batch.inputs, positions, noise)
        if symbol is None:
            fixed = tiny.model(tiny.config(**vars(settings) | {"variable_len": False}))
            tiny.lend(model, fixed)
            wanted = fixed(batch.inputs, positions, noise).greedy_logits
        else:
            wanted = model(batch.inputs, positions, noise, torch.full(noise.shape, symbol)).logits[:, :, :, 0]
        torch.testing.assert_close(trace.greedy_logits, wanted, rtol=0, atol=1e-12)
    settings = given("token", 3, adaptive_len=True, interpreter_start=start, baseline="greedy_thought")
    model, batch, noise = tiny.sampled(settings)
    positions, none = thinking_positions(batch), torch.zeros(1, 3, 2, 1).long()
    trace = model(batch.inputs, positions, noise, lengths=none)
    torch.testing.assert_close(trace.greedy_logits, trace.logits[:, :, :, 0], rtol=0, atol=1e-12)


def test_the_other_weights_start_as_without_an_end() -> None:
    """Check that the two are paired by seed."""
    fixed, ends = (dict(tiny.model(tiny.config(variable_len=x)).named_parameters()) for x in (False, True))
    assert ends.keys() - fixed.keys() == {"thought_head.ending.weight", "thought_head.ending.bias"}
    assert all(torch.equal(ends[name], value) for name, value in fixed.items())


# The length that a task gives.


def given(kind: str, length: int, **changes: Any) -> Any:
    plain = {"thoughts": kind, "max_reasoning_len": length, "trice_samples": 2, **KINDS[kind]}
    return tiny.config(**(plain | changes))


@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("kind", KINDS)
@BACKBONES
def test_a_given_length_is_a_model_of_that_length(kind: str, start: str) -> None:
    """Compare positions of length l, from 0 to L, with a model whose thoughts all have l symbols."""
    settings = given(kind, 3, adaptive_len=True, interpreter_start=start)
    model, batch, noise = tiny.sampled(settings, size=4)
    positions = thinking_positions(batch)
    lengths = torch.tensor([[[0, 1], [2, 3], [1, 9], [3, 0]]]).unsqueeze(-1)  # 9 counts as 3
    trace = model(batch.inputs, positions, noise, lengths=lengths)
    assert trace.unfinished is None and bool((trace.length == lengths.clamp(max=3)).all())
    for length in range(4):
        alone = tiny.model(given(kind, length, interpreter_start=start))
        tiny.lend(model, alone)
        silence = torch.empty(1, 4, 2, 1, 0).double()
        wanted = alone(batch.inputs, positions, noise[:, :, :, :, :length] if length else silence)
        here = lengths.clamp(max=3)[..., 0] == length
        torch.testing.assert_close(
            trace.logits[here], wanted.logits.expand_as(trace.logits)[here], rtol=0, atol=1e-12
        )
        for name in ("log_prob", "entropy", "prior_divergence"):
            ours, theirs = getattr(trace, name), getattr(wanted, name)
            if ours is not None and length:
                torch.testing.assert_close(ours[here][..., :length], theirs[here], rtol=0, atol=1e-12)
            assert ours is None or not ours[here][..., length:].any()


@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("kind", KINDS)
@BACKBONES
def test_all_symbols_given_is_fixed_length(kind: str, start: str) -> None:
    """Check gradients too, among them those through the symbols."""
    found = []
    for adaptive in (False, True):
        settings = given(kind, 2, adaptive_len=adaptive, interpreter_start=start)
        model, batch, noise = tiny.sampled(settings)
        lengths = torch.full((1, 3, 2, 1), 2) if adaptive else None
        trace = model(batch.inputs, thinking_positions(batch), noise, lengths=lengths)
        found.append((trace.logits, tiny.gradients(trace.logits.square().sum(), model)))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=0, atol=1e-12)
    tiny.close(found[1][1], found[0][1], tolerance=1e-12)


@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("kind", KINDS)
@BACKBONES
def test_scoring_with_given_lengths_equals_sampling(kind: str, start: str) -> None:
    model, batch, noise = tiny.sampled(given(kind, 3, adaptive_len=True, interpreter_start=start))
    context = model.read(batch.inputs, thinking_positions(batch))
    thoughts = model.think(context, noise, None, torch.tensor([[[0, 1], [2, 3], [1, 1]]]).unsqueeze(-1))
    again = model.think(context, torch.empty(0), thoughts.symbols, thoughts.given_length)
    for name in ("symbols", "log_prob", "entropy", "length"):
        ours, theirs = getattr(again, name), getattr(thoughts, name)
        assert (ours is None and theirs is None) or torch.equal(ours, theirs), name
    one, other = (model.talk(context, x).logits for x in (thoughts, again))
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("start", tiny.STARTS)
@BACKBONES
def test_the_expected_gradient_with_a_given_length(start: str) -> None:
    """Check E[∇] = ∇ Σ_h π(h) log q(y | h) with one symbol at the counted position: three thoughts."""
    settings, one = given("token", 2, adaptive_len=True, interpreter_start=start), tiny.one_position()
    lengths = torch.full((3, 2, 2, 1), 2)
    lengths[:, tiny.AT[0], tiny.AT[1]] = 1
    every = torch.tensor([[symbol, tiny.SYMBOLS] for symbol in range(3)])
    built, copies = tiny.model(settings, 3), tiny.repeated(one, 3)
    positions = thinking_positions(copies)
    forced = tiny.forced_everywhere(every.unsqueeze(1))
    trace = built(copies.inputs, positions, torch.empty(0), forced, lengths=lengths)
    probability = trace.log_prob[:, tiny.AT[0], tiny.AT[1]].sum((-1, -2)).detach().exp()
    parts = Reinforce(baseline="none")(trace, focus(copies, positions)).parts
    got = tiny.Enumeration(built, trace, copies, probability).expected(parts["policy"] + parts["nll"])
    truth = tiny.exact(settings, every[:, :1])
    tiny.close(got, truth.gradient(-(truth.probability * truth.log_q).sum()))
