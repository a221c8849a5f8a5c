"""What a step of a thought may see: the symbol before alone, a context without its last token, one symbol."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import reference, tiny
from tests.config.checks.checking import accepted, refused
from toyqs.config.builders.model import build_model
from toyqs.model.core import Core
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.model.predicting.bounded import CosineLinear
from toyqs.model.predicting.last_symbol import LastSymbolEach, last_symbols
from toyqs.objectives.policy.reinforce import Reinforce
from toyqs.positions import thinking_positions
from toyqs.tasks.hidden_markov import HiddenMarkov
from toyqs.tasks.iterate import Iterate
from toyqs.types import Thoughts

BACKBONES = pytest.mark.usefixtures("backbone")
EACH: dict[str, dict[str, Any]] = {
    "markov": {"markov_reasoner": True},
    "last symbol": {"interpreter_reads": "last"},
    "hidden token": {"hide_last_token": True},
    "cosine": {"thought_logits": "cosine", "thought_logit_scale": 3.0},
}
ALL = {key: value for one in EACH.values() for key, value in one.items()}
# Thoughts alone are predicted from, begin before k is read, and are as long as k says.
HIDDEN: dict[str, Any] = {
    "task": Iterate(),
    "use_base_lm": False,
    "adaptive_len": True,
    "max_reasoning_len": 4,
}
UNREAD_WITH: tuple[dict[str, Any], ...] = (
    {"adaptive_len": False},
    {"task": Iterate(reach=2)},
    {"use_base_lm": True, "mixing": "thought", "adaptive_len": False},
    {"adaptive_len": False, "interpreter_start": "onward"},
)
UNREAD = "hide_last_token=true: .*neither they nor their lengths tell that token"
CASES = EACH | {"all": ALL, "all, no base": ALL | {"use_base_lm": False, "thought_vocab": 3}}


@pytest.mark.parametrize("groups", ["ABCD", "AAAA"])
@pytest.mark.parametrize("name", CASES)
@BACKBONES
def test_the_expected_gradient_is_that_of_the_plain_reference(name: str, groups: str) -> None:
    settings = tiny.config(weight_groups=groups, **CASES[name])
    tiny.check_expected_gradient(settings, Reinforce(), 2)


def seen_by(monkeypatch: pytest.MonkeyPatch, settings: Any, mutant: str) -> None:
    """Break one part, so that more is seen than should be."""
    if mutant == "markov":
        monkeypatch.setattr(Core, "_blank", lambda self, rows: self.remembered)
        step = Core.step_symbols

        def remembering(self: Core, symbols: Tensor, rows: Tensor, state: Tensor) -> Any:
            object.__setattr__(self, "remembered", state)
            return step(self, symbols, rows, state)

        monkeypatch.setattr(Core, "step_symbols", remembering)
    elif mutant == "last symbol":
        monkeypatch.setattr("toyqs.model.predicting.last_symbol.last_symbols", lambda thoughts: thoughts)
    elif mutant == "hidden token":
        right = LatentReasoner.read

        def reading(self: LatentReasoner, *args: Any) -> Any:
            self.hides_last_token = False
            return right(self, *args)

        monkeypatch.setattr(LatentReasoner, "read", reading)
    else:
        whole = CosineLinear.forward
        monkeypatch.setattr(CosineLinear, "forward", lambda self, x: whole(self, x) / self.scale)


@pytest.mark.parametrize("name", EACH)
def test_mutants_are_caught(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    settings = tiny.config(**EACH[name])
    seen_by(monkeypatch, settings, name)
    with pytest.raises(AssertionError, match="off by"):
        tiny.check_expected_gradient(settings, Reinforce(), 2)


@pytest.mark.parametrize("kind", ["token", "gaussian", "gumbel", "deterministic"])
@BACKBONES
def test_a_markov_chain_forgets_all_before_the_last_symbol(kind: str) -> None:
    """Other first symbols change the law of the second one, and nothing after it."""
    changes = {} if kind in ("token", "gaussian") else {"objective": "pathwise"}
    settings = tiny.config(thoughts=kind, max_reasoning_len=3, markov_reasoner=True, **changes)
    model, batch, noise = tiny.sampled(settings)
    context = model.read(batch.inputs, thinking_positions(batch))
    other = model.read((batch.inputs + 1) % tiny.SYMBOLS, thinking_positions(batch))
    symbols = model.think(context, noise).symbols
    moved = symbols.clone()
    moved[:, :, :, :, 0] = symbols[:, :, :, :, 0].roll(1, 1)
    if kind == "deterministic":
        return _check_states(model, context, noise)
    first, second = model.think(context, noise, symbols), model.think(other, noise, moved)
    assert torch.equal(first.entropy[..., 2], second.entropy[..., 2])
    if kind == "token":
        assert torch.equal(first.log_prob[..., 2], second.log_prob[..., 2])
    model.cores[model.letters["reasoner"]].forgets = False
    carried = model.think(other, noise, moved)
    assert not torch.equal(first.entropy[..., 2], carried.entropy[..., 2]) or kind == "gaussian"


def _check_states(model: LatentReasoner, context: Any, noise: Tensor) -> None:
    """Check that each state follows from the one before it, embedded, and from nothing else."""
    states, core = model.think(context, noise).symbols, model._core("reasoner")
    rows = core.thought_rows()
    for place in (0, 1):
        after = core.step_symbols(states[:, :, :, :, place], rows, None)[0]
        torch.testing.assert_close(after, states[:, :, :, :, place + 1], rtol=0, atol=1e-12)


def test_the_last_symbol_of_thoughts_that_differ_in_length() -> None:
    symbols = torch.tensor([[4, 1, 2], [3, 9, 9], [9, 9, 9]]).view(1, 1, 1, 3, 3)
    length = torch.tensor([3, 1, 0]).view(1, 1, 1, 3)
    found = last_symbols(Thoughts(symbols, None, None, None, length=length))
    assert found.symbols.tolist() == [[[[[2], [3], [9]]]]] and found.length.tolist() == [[[[1, 1, 0]]]]
    vectors = torch.stack([symbols, -symbols], -1)
    both = last_symbols(Thoughts(vectors, None, None, None, length=length)).symbols
    assert both.tolist() == [[[[[[2, -2]], [[3, -3]], [[9, -9]]]]]]


@BACKBONES
def test_a_thought_cut_short_is_read_by_its_own_last_symbol() -> None:
    settings = tiny.config(interpreter_reads="last", variable_len=True, max_reasoning_len=3)
    model, batch, noise = tiny.sampled(settings)
    assert isinstance(model.interpreter, LastSymbolEach)
    context = model.read(batch.inputs, thinking_positions(batch))
    thoughts = model.think(context, noise)
    trace = model.talk(context, thoughts)
    log_q = torch.log_softmax(trace.logits[0, :, :, :, 0], -1)
    seen = set()
    for b, t in ((0, 0), (1, 1), (2, 0), (2, 1)):
        at = int(batch.think[0, b].nonzero()[t])
        plain = reference.predict(model, settings, batch.inputs[0, b, : at + 1], thoughts.symbols[0, b, t])
        torch.testing.assert_close(log_q[b, t], plain.log_q, rtol=0, atol=1e-12)
        seen |= set(thoughts.length[0, b, t].tolist())
    assert len(seen) > 1


@BACKBONES
def test_a_hidden_token_changes_no_thought_and_the_one_before_it_does() -> None:
    settings = tiny.config(hide_last_token=True, task=Iterate(n=5, k=3), thought_vocab=4)
    model = tiny.model(settings)
    inputs = torch.tensor([[[0, 5], [0, 6], [1, 5]]])
    positions, noise = (
        torch.ones(1, 3, 1, dtype=torch.long),
        tiny.noise((1, 1, 1, 2, 2)).expand(1, 3, 1, 2, 2),
    )
    context = model.read(inputs, positions)
    entropy = model.think(context, noise).entropy[0]
    assert torch.equal(entropy[0], entropy[1]) and not torch.equal(entropy[0], entropy[2])
    assert not torch.equal(context.base[0, 0], context.base[0, 1]), "base_lm has read it"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cosines_are_bounded_by_the_scale(dtype: torch.dtype) -> None:
    layer = CosineLinear(2, 5, 20, scale=7.0).to(dtype)
    layer.weight.data = torch.randn(2, 5, 20, generator=torch.Generator().manual_seed(0)).to(dtype)
    x = 1e4 * layer.weight.mT.detach()
    logits = layer(x).detach()
    torch.testing.assert_close(logits.diagonal(dim1=1, dim2=2), torch.full((2, 20), 7.0, dtype=dtype))
    assert float(logits.abs().max()) <= 7.0 * (1 + 1e-6)
    assert layer(torch.zeros(2, 1, 5, dtype=dtype)).isfinite().all()
    most = math.exp(7) / (math.exp(7) + 19 * math.exp(-7))
    assert float(logits.softmax(-1).max()) <= most


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_seeds_draw_the_same_symbols_alone_and_together(seeds: list[int]) -> None:
    settings = tiny.config(
        dtype="float32", task=Iterate(n=5, k=3), thought_vocab=20, max_reasoning_len=3, **ALL
    )
    model = build_model(settings, seeds)
    inputs = torch.tensor([[[0, 5], [3, 6], [1, 7]]])
    positions, noise = torch.ones(1, 3, 1, dtype=torch.long), tiny.noise((1, 3, 1, 2, 3)).float()
    alone = build_model(settings, [0])
    found, wanted = (
        one.think(
            one.read(inputs.expand(n, -1, -1), positions.expand(n, -1, -1)), noise.expand(n, *noise.shape[1:])
        )
        for one, n in ((model, len(seeds)), (alone, 1))
    )
    assert torch.equal(found.log_prob[0], wanted.log_prob[0])


@pytest.mark.parametrize(
    ("said", "changes"),
    [
        (
            "markov_reasoner=true: .*goes on from the reasoner's state",
            {"markov_reasoner": True, "interpreter_start": "onward"},
        ),
        ("markov_reasoner=true: .*thoughts=state", {"markov_reasoner": True, "thoughts": "state"}),
        (
            "interpreter_reads=last: .*has seen all symbols",
            {"interpreter_reads": "last", "interpreter_start": "onward"},
        ),
        (
            "thought_logits=cosine: share_lm_head=true",
            {"thought_logits": "cosine", "share_lm_head": True, "thought_vocab": None},
        ),
        ("hide_last_token=true: the first position thinks", {"hide_last_token": True, "think_at": "all"}),
        ("hide_last_token=true: with thought_into=state", {"hide_last_token": True, "thought_into": "state"}),
        (
            "hide_last_token=true: the first position thinks",
            {"hide_last_token": True, "task": HiddenMarkov()},
        ),
        (
            "hide_last_token=true: add_last_context_token=true reads",
            {"hide_last_token": True, "add_last_context_token": True, "interpreter_start": "onward"},
        ),
        *((UNREAD, {"hide_last_token": True, **HIDDEN, **more}) for more in UNREAD_WITH),
    ],
)
def test_refused(said: str, changes: dict[str, Any]) -> None:
    refused(said, **changes)


def test_a_token_that_base_lm_or_the_length_of_a_thought_tells_may_be_hidden() -> None:
    hidden = {"hide_last_token": True, **HIDDEN}
    assert accepted(**hidden) == []
    for more in UNREAD_WITH:
        assert accepted(**hidden | more | {"use_base_lm": True, "mixing": "auto"}) == []
    constant = {"thought_vocab": 1, "objective": "reinforce", "policy_loss_beta": 0.0, "adaptive_len": False}
    assert accepted(**hidden | constant) == [], "the control of that name, which can say nothing anyway"


@pytest.mark.parametrize(
    "read", [{"credit": "prefix"}, {"prefix_nll_beta": 0.5}, {"reward": "trajectory"}], ids=str
)
def test_what_reads_first_symbols_does_not_go_with_the_last_one(read: dict[str, Any]) -> None:
    refused("interpreter_reads=last: credit=prefix, prefix_nll", interpreter_reads="last", **read)
    assert accepted(markov_reasoner=True, **read) == []


def test_accepted() -> None:
    assert accepted(**ALL) == []
    onward = {"interpreter_start": "onward"}
    for one in ({"markov_reasoner": True}, {"interpreter_reads": "last"}):
        assert accepted(**one, **onward, max_reasoning_len=1) == [], "with one symbol it is the same"
    assert accepted(hide_last_token=True, **onward) == []
