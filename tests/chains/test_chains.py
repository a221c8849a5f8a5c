"""Thoughts that are handed on, against a plain chain read token by token; and what reaches what."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.chains import plain_chain
from toyqs.config.builders.training import thought_sizes
from toyqs.model.chains.chain_reasoner import ChainReasoner
from toyqs.positions import thinking_positions
from toyqs.training.evaluation.metrics import evaluate
from toyqs.types import Context, Thoughts, Trace

BACKBONES = pytest.mark.usefixtures("backbone")
LENGTH, CHAINS, THINKS = 2, 2, len(plain_chain.THINKS)


def drawn(copies: int = 1, **changes: Any) -> tuple[ChainReasoner, Context, Tensor]:
    """Return a model, the context of `plain_chain.batch`, and noise for it."""
    settings = plain_chain.config(**{"max_reasoning_len": LENGTH, "trice_samples": CHAINS, **changes})
    model, one = tiny.model(settings, copies), plain_chain.batch(copies)
    context = model.read(one.inputs, thinking_positions(one))
    return model, context, tiny.noise((copies, 1, THINKS, settings.trice_samples, LENGTH))


def talk(model: ChainReasoner, context: Context, *given: Any) -> Trace:
    return model.talk(context, model.think(context, *given))


def near(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("start", tiny.STARTS)
@pytest.mark.parametrize("groups", ["AAAA", "AABC", "ABCD", "ABAB"])
@BACKBONES
def test_all_chains_at_once_are_one_chain_token_by_token(groups: str, start: str) -> None:
    check_chains(weight_groups=groups, interpreter_start=start)


@pytest.mark.parametrize("groups", ["AABC", "ABCD"])
def test_the_same_where_the_last_token_is_read_again(groups: str) -> None:
    check_chains(weight_groups=groups, interpreter_start="onward", add_last_context_token=True)


def check_chains(**changes: Any) -> None:
    """Compare thoughts that are drawn, and given ones, with the plain chain."""
    settings = plain_chain.config(max_reasoning_len=LENGTH, **changes)
    model, context, noise = drawn(**changes)
    for trace in (talk(model, context, noise), talk(model, context, noise, noise.gt(0.5).long())):
        for chain, thoughts in enumerate(trace.symbols[0, 0].unbind(1)):
            wanted = plain_chain.chain(model, settings, context.tokens[0, 0], thoughts)
            near(trace.log_prob[0, 0, :, chain], wanted.log_prob)
            near(trace.logits[0, 0, :, chain, 0].log_softmax(-1), wanted.log_q)


IN_TURN: dict[str, dict[str, Any]] = {
    "all shared": {"weight_groups": "AAAA"},
    "as many thoughts as can be": {"weight_groups": "AABC", "trice_samples": 4},
    "two shared": {"weight_groups": "AABC", "thought_vocab": 4},
    "ending": {"weight_groups": "AABC", "variable_len": True, "mixing": "base"},
    "lengths of the task": {"weight_groups": "AABC", "adaptive_len": True},
    "vectors": {"weight_groups": "AABC", "thoughts": "gaussian", "thought_vocab": None},
}


@pytest.mark.parametrize("name", IN_TURN)
@BACKBONES
def test_scored_at_once_or_in_turn_thoughts_are_the_same(name: str) -> None:
    """Check values and gradients."""
    model, context, noise = drawn(**IN_TURN[name])
    if "thoughts" in IN_TURN[name]:
        noise = noise.unsqueeze(-1).expand(*noise.shape, 4)
    lengths = torch.tensor([2, 0, 1]).view(1, 1, 3, 1) if "adaptive_len" in IN_TURN[name] else None
    symbols = model.think(context, noise, None, lengths).symbols.detach()
    found = (model.score(context, symbols, lengths), model.walk(context, noise, symbols, lengths))
    first, second = (model.talk(context, thoughts) for thoughts in found)
    values = [x.logits.square().sum() + x.log_prob.sum() + x.entropy.sum() for x in (first, second)]
    near(first.logits, second.logits)
    near(first.log_prob, second.log_prob)
    near(*(tiny.flat(tiny.gradients(value, model)) for value in values))
    for one, other in ((first.length, second.length), (first.unfinished, second.unfinished)):
        assert (one is None and other is None) or torch.equal(one, other)


@pytest.mark.parametrize("groups", ["AABC", "ABCD"])
@pytest.mark.parametrize("mixing", ["concat", "base"])
@BACKBONES
def test_a_thought_reaches_later_positions_of_its_chain(groups: str, mixing: str) -> None:
    """Its own position too, unless the prediction is base_lm's alone."""
    model, context, noise = drawn(weight_groups=groups, mixing=mixing)
    symbols = model.think(context, noise).symbols
    other = symbols.clone()
    other[:, :, 1, 0] = 1 - other[:, :, 1, 0]
    first, second = (talk(model, context, noise, x) for x in (symbols, other))
    changed = (first.logits - second.logits).abs().amax((-1, -2))[0, 0] > 1e-9
    assert changed.tolist() == [[False, False], [mixing == "concat", False], [True, False]]
    moved = (first.log_prob - second.log_prob).abs().amax(-1)[0, 0] > 1e-9
    assert moved.tolist() == [[False, False], [True, False], [groups == "AABC", False]]


@pytest.mark.parametrize("groups", ["AABC", "ABCD"])
@BACKBONES
def test_without_thoughts_it_is_the_model_that_hands_nothing_on(groups: str) -> None:
    model, context, _ = drawn(weight_groups=groups)
    settings = plain_chain.config(thought_into="prediction", max_reasoning_len=LENGTH, weight_groups=groups)
    plain = tiny.model(settings)
    near(
        model.talk(context, None).logits,
        plain.talk(plain.read(context.tokens, context.positions), None).logits,
    )


@pytest.mark.parametrize("kind", ["gaussian", "gumbel", "deterministic", "state"])
@pytest.mark.parametrize("groups", ["AABC", "ABCD"])
def test_along_a_path_later_predictions_reach_the_reasoner(groups: str, kind: str) -> None:
    changes = {"weight_groups": groups, "thoughts": kind, "objective": "pathwise", "mixing": "base"}
    model, context, noise = drawn(**changes)
    width = {"gaussian": 4, "gumbel": 2, "state": 3}.get(kind)
    one = noise[:, :, :, :1]  # of deterministic thoughts all of a position are the same
    noise = one if width is None else noise.unsqueeze(-1).expand(*noise.shape, width)
    last = talk(model, context, noise).logits[:, :, -1].log_softmax(-1)[..., 0].sum()
    grads = tiny.gradients(last, model)
    letter = model.letters["reasoner"]
    assert float(grads[f"cores.{letter}.backbone.weight_hh"].abs().max()) > 1e-9
    assert float(grads["carry.weight"].abs().max()) > 1e-9


def test_only_thoughts_of_the_context_alone_have_information_about_it() -> None:
    for groups, told in (("AABC", False), ("ABCD", True)):
        settings = plain_chain.config(weight_groups=groups)
        measured = evaluate(tiny.model(settings), tiny.batch(4), [0], thought_sizes(settings), full=True)
        assert ("information" in measured) == told
        assert {"nll_shuffled", "nll_constant", "nll_no_thought", "homogeneity"} <= measured.keys()


def test_given_thoughts_need_no_noise() -> None:
    model, context, noise = drawn(weight_groups="AAAA")
    found: Thoughts = model.think(context, noise)
    again = model.think(context, torch.empty(0), found.symbols)
    assert torch.equal(found.log_prob, again.log_prob)


@pytest.mark.parametrize("groups", ["AABC", "ABCD"])
def test_at_some_positions_only_these_think(groups: str) -> None:
    model, context, noise = drawn(weight_groups=groups)
    index = torch.tensor([[[0, 2]]])
    symbols = model.think(context, noise).symbols[:, :, [0, 2]]
    some = model.read(context.tokens, context.positions.gather(2, index))
    near(
        talk(model, model.at(context, index), noise, symbols).logits, talk(model, some, noise, symbols).logits
    )
