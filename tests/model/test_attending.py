"""An attention over the readings of K thoughts, and the scores of their coherence, by exact laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests import reference, tiny
from tests.objectives import joint
from toyqs.model.layers import FeatureHead, initialise
from toyqs.model.mixing import Attend, Concat
from toyqs.model.predicting import attending
from toyqs.model.predicting.attention import attended, attention, attention_without_each
from toyqs.types import Coherence, Shares, Trace

BY_SCORES: dict[str, Any] = {"attend_by": "scores", "attend_temperature": 0.3}
WIDE: dict[str, Any] = {"base_lm_hidden_dim": 5, "reasoner_hidden_dim": 5, "baseline": "none"}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixers(learned: bool = True) -> tuple[Attend, Concat, FeatureHead]:
    parts = Attend(2, 5, 4, learned), Concat(2, 5, 4), FeatureHead(2, [5, 4], 3)
    for part in parts:
        initialise(part, [0, 1])
    return tuple(part.double() for part in parts)  # type: ignore[return-value]


BASE, READING = random(2, 3, 2, 5), random(2, 3, 2, 4, 4, seed=1)


def test_equal_scores_predict_from_the_mean_reading() -> None:
    """Exactly, to the bit, for K = 4: a quarter of each. Of equal readings it is Concat's of one of them."""
    mixer, concat, head = mixers(learned=False)
    r = READING
    mean = (r[:, :, :, 0:1] + r[:, :, :, 1:2] + r[:, :, :, 2:3] + r[:, :, :, 3:4]) / 4
    assert torch.equal(mixer.predict(head, BASE, r)[0], concat.predict(head, BASE, mean)[0])
    same = r[:, :, :, :1]
    learned, _, _ = mixers()
    for each in (mixer, learned):
        got = each.predict(head, BASE, same.expand_as(r))[0]
        torch.testing.assert_close(got, concat.predict(head, BASE, same)[0], rtol=0, atol=1e-14)
        assert torch.equal(each.predict(head, BASE, same)[0], concat.predict(head, BASE, same)[0])


def test_its_formula() -> None:
    mixer, concat, head = mixers()
    scores = mixer.scores(BASE, READING, None)
    weights = torch.softmax(scores, -1)
    assert float(weights.detach().std()) > 1e-3
    mean = (weights.unsqueeze(-1) * READING).sum(3, keepdim=True)
    got = mixer.predict(head, BASE, READING)[0]
    torch.testing.assert_close(got, concat.predict(head, BASE, mean)[0], rtol=0, atol=1e-14)
    without = attention_without_each(scores)
    for i in range(4):
        others = [k for k in range(4) if k != i]
        assert not without[:, :, :, i, i].any()
        wanted = torch.softmax(scores[..., others], -1)
        torch.testing.assert_close(without[:, :, :, i, others], wanted, rtol=0, atol=1e-14)
    rest = attended(READING, without)
    wanted = (without.unsqueeze(-1) * READING.unsqueeze(3)).sum(4)
    torch.testing.assert_close(rest, wanted, rtol=0, atol=1e-14)


def of_order(settings: Any, order: list[int]) -> Trace:
    """Return the trace of the same model and thoughts, those of each position in another order."""
    built, batch, noise = tiny.sampled(settings)
    return built(batch.inputs, None, noise_at(noise, batch.inputs.shape[2])[:, :, :, order])


def noise_at(noise: Tensor, positions: int) -> Tensor:
    return noise.repeat(1, 1, positions // noise.shape[2], 1, 1)


@pytest.mark.parametrize("extra", [{}, BY_SCORES])
@pytest.mark.usefixtures("backbone")
def test_the_order_of_thoughts_does_not_matter(extra: dict[str, Any]) -> None:
    settings = tiny.config(mixing="attend", reward="contribution", trice_samples=3, **WIDE, **extra)
    order = [2, 0, 1]
    one, other = of_order(settings, [0, 1, 2]), of_order(settings, order)
    assert one.attention is not None and float(one.attention.detach().std()) > 1e-4
    torch.testing.assert_close(one.logits, other.logits, rtol=0, atol=1e-13)
    torch.testing.assert_close(one.attention[..., order], other.attention, rtol=0, atol=1e-13)
    assert one.without_logits is not None
    wanted = one.without_logits[:, :, :, order]
    torch.testing.assert_close(wanted, other.without_logits, rtol=0, atol=1e-13)


def test_several_tokens_have_weights_each() -> None:
    """Of the first of two tokens it is what a model of one token predicts."""
    one = tiny.config(mixing="attend", reward="contribution", **WIDE)
    two = tiny.config(mixing="attend", reward="contribution", n_tokens_ahead=2, **WIDE)
    a, b = of_order(one, [0, 1]), of_order(two, [0, 1])
    assert b.logits.shape[3:5] == (1, 2)
    torch.testing.assert_close(a.logits, b.logits[..., :1, :], rtol=0, atol=1e-13)
    torch.testing.assert_close(a.attention, b.attention, rtol=0, atol=1e-13)
    torch.testing.assert_close(a.without_logits, b.without_logits[..., :1, :], rtol=0, atol=1e-13)


def test_scores_against_the_plain_reference() -> None:
    settings = tiny.config(coherence_beta=1.0, **{**WIDE, "interpreter_start": "onward"})
    every = tiny.enumerate_tuples(settings, 1)
    given = every.trace.coherence
    assert given is not None and given.semantic is not None and given.syntactic is not None
    weights = reference.Weights(every.built, settings)
    place = int(tiny.one_position().think[0, tiny.AT[0]].nonzero()[tiny.AT[1], 0])
    tokens = tiny.one_position().inputs[0, tiny.AT[0], : place + 1]
    read = reference.read_thoughts(weights, settings, tokens, tiny.THOUGHTS)
    cosine = torch.nn.functional.cosine_similarity(read.base.expand_as(read.reading), read.reading)
    got = (x[:, tiny.AT[0], tiny.AT[1], 0] for x in (given.semantic, given.syntactic))
    for found, wanted in zip(got, ((1 + cosine) / 2, joint.likelihood(weights)), strict=True):
        torch.testing.assert_close(found, wanted.detach(), rtol=0, atol=1e-12)


def test_of_thoughts_that_end_only_their_symbols_count() -> None:
    settings = tiny.config(coherence_beta=1.0, variable_len=True, **WIDE)
    thoughts = tiny.ending(tiny.SYMBOLS)
    every = tiny.enumerate_tuples(settings, 1, thoughts)
    assert every.trace.coherence is not None and every.trace.coherence.syntactic is not None
    found = every.trace.coherence.syntactic[:, tiny.AT[0], tiny.AT[1], 0]
    empty = (thoughts[:, 0] == tiny.SYMBOLS).nonzero()[0, 0]
    assert found[empty] == 1
    single = [i for i, x in enumerate(thoughts.tolist()) if x[0] != tiny.SYMBOLS and x[1] == tiny.SYMBOLS]
    weights = reference.Weights(every.built, settings)
    place = int(tiny.one_position().think[0, tiny.AT[0]].nonzero()[tiny.AT[1], 0])
    base = weights.read("base_lm", tiny.one_position().inputs[0, tiny.AT[0], : place + 1])[0]
    p = torch.softmax(base @ weights.values["head.weight_0"] + weights.values["head.bias"][0], -1).detach()
    for i in single:
        assert abs(float(found[i] - p[thoughts[i, 0]])) < 1e-12


def test_the_mean_is_over_the_scores_that_there_are() -> None:
    a, b, c = random(3, 1, 2, 2, 2).sigmoid()
    whole = Coherence(a, b, shares=Shares(0.4, 0.3, 0.3))
    torch.testing.assert_close(whole.mean(c), 0.4 * a + 0.3 * b + 0.3 * c, rtol=0, atol=1e-15)
    torch.testing.assert_close(whole.mean(), (4 * a + 3 * b) / 7, rtol=0, atol=1e-15)
    torch.testing.assert_close(Coherence(None, b).mean(c), (b + c) / 2, rtol=0, atol=1e-15)
    assert torch.equal(Coherence(a, b, shares=Shares(0.0, 1.0, 0.0)).mean(c), b)
    with pytest.raises(ValueError, match="no score of coherence"):
        Coherence(a, None, shares=Shares(0.0, 1.0, 1.0)).mean()


def unscaled(base: Tensor, reading: Tensor) -> Tensor:
    """A product of base state and reading that is not divided by both lengths."""
    return 0.5 + 0.5 * (base.unsqueeze(3) * reading).sum(-1)


@pytest.mark.parametrize("mutant", [unscaled])
def test_a_wrong_cosine_is_caught(monkeypatch: pytest.MonkeyPatch, mutant: Any) -> None:
    monkeypatch.setattr(attending, "_alignment", mutant)
    with pytest.raises(AssertionError, match="not close"):
        test_scores_against_the_plain_reference()


def test_a_summed_log_probability_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The product of the symbols' probabilities in place of their mean."""
    right = attending.Attending._likelihood
    monkeypatch.setattr(attending.Attending, "_likelihood", lambda *given: right(*given) ** tiny.LENGTH)
    with pytest.raises(AssertionError, match="not close"):
        test_scores_against_the_plain_reference()


def test_scores_of_the_others_symbols_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A base LM that does not go on with the thought's own symbols."""
    right = attending.Rows
    monkeypatch.setattr(attending, "Rows", lambda table, ids: right(table, torch.zeros_like(ids)))
    with pytest.raises(AssertionError, match="not close"):
        test_scores_against_the_plain_reference()


def test_weights_that_know_the_order_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def biased(scores: Tensor) -> Tensor:
        return attention(scores + torch.arange(scores.shape[3]).to(scores))

    monkeypatch.setattr(attending, "attention", biased)
    with pytest.raises(AssertionError, match="not close"):
        test_the_order_of_thoughts_does_not_matter({})
