"""What a probe reads is what the model computes with, on every backbone and for every kind of symbol."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.answers.thoughts.runs import trained
from toyqs.answers.loaded.load import LoadedRun
from toyqs.answers.thoughts.arm import Sampled, load_arm, sample
from toyqs.answers.thoughts.places import one_hot, places, with_prefixes
from toyqs.tasks.hidden_markov import HiddenMarkov
from toyqs.tasks.iterate import Iterate
from toyqs.types import Thoughts

TRANSFORMER = {"model_n_layer": 1, "model_n_head": 2, "base_lm_hidden_dim": 4, "reasoner_hidden_dim": 8}
RUNS: dict[str, dict[str, Any]] = {
    "gru": {},
    "gru-onward": {"interpreter_start": "onward", "interpreter_hidden_dim": 3},
    "gru-shared": {"weight_groups": list("AAAA"), "base_lm_hidden_dim": 5},
    "variable": {"variable_len": True, "interpreter_start": "onward", "max_reasoning_len": 5},
    "adaptive": {"adaptive_len": True, "task": Iterate()},
    "hard": {"think_at": "hard", "task": HiddenMarkov()},
    "gaussian": {"thoughts": "gaussian"},
    "gumbel": {"thoughts": "gumbel", "objective": "pathwise"},
    "state": {"thoughts": "state"},
    "deterministic": {"thoughts": "deterministic", "objective": "pathwise"},
    "llama": {"backbone": "llama", **TRANSFORMER},
    "gpt2-onward": {"backbone": "gpt2", "interpreter_start": "onward", "variable_len": True, **TRANSFORMER},
}


def of_run(folder: Path, name: str) -> tuple[LoadedRun, Sampled, Thoughts, dict[str, Tensor]]:
    if "backbone" in RUNS[name]:
        pytest.importorskip("transformers")
    (path,) = trained(folder, [1], **RUNS[name])
    run = load_arm([path]).first
    part = next(sample(run, 1, 12, run.sizes._replace(number=1)))
    assert part.thoughts is not None
    return run, part, part.thoughts, places(run, part)


def state(found: dict[str, Tensor], number: int) -> Tensor:
    """The state that the symbol of this number, from 0, is drawn from, (1, B, T, 1, D)."""
    return found[f"state after {number}" if number else "state at the start"][None, :, :, None]


@pytest.mark.parametrize("name", RUNS)
def test_symbols_are_drawn_from_the_states_before_them(tmp_path: Path, name: str) -> None:
    run, part, thoughts, found = of_run(tmp_path, name)
    model, symbols = run.model, thoughts.symbols
    for number in range(symbols.shape[4]):
        symbol = symbols.select(4, number)
        assert torch.equal(found[f"symbol {number + 1}"], symbol[0, :, :, 0])
        hidden = state(found, number)
        if thoughts.log_prob is None:  # the symbols are the states, or drawn anew from the same noise
            noise = part.noise.select(4, number)
            drawn = model.thought_head.draw(hidden, noise, forced=False).values
            assert torch.allclose(drawn, symbol, atol=1e-12)
            continue
        live = torch.ones(symbol.shape[:4], dtype=torch.bool)
        if thoughts.length is not None:  # where ends are drawn, they are as well
            live = thoughts.length + (thoughts.unfinished is not None) > number
        given = torch.where(live, symbol, 0) if symbol.dim() == 4 else symbol
        log_prob = model.thought_head.draw(hidden, given, forced=True).log_prob
        assert torch.allclose(log_prob[live], thoughts.log_prob[..., number][live], atol=1e-12)
        assert number or live.any()


@pytest.mark.parametrize("name", ["variable", "gpt2-onward"])
def test_a_thought_that_has_ended_keeps_its_state(tmp_path: Path, name: str) -> None:
    *_, thoughts, found = of_run(tmp_path, name)
    last = thoughts.symbols.shape[4]
    for number in range(last):
        ended = (thoughts.length <= number)[0, :, :, 0]
        same = (state(found, number + 1) == state(found, number)).all(-1)[0, :, :, 0]
        assert torch.equal(same, ended)
    assert ended.any() and not ended.all()


@pytest.mark.parametrize("name", RUNS)
def test_base_states_and_reading_are_those_that_predict(tmp_path: Path, name: str) -> None:
    run, part, thoughts, found = of_run(tmp_path, name)
    model = run.model
    base, reading = found["base state"][None], found["reading"][None, :, :, None]
    logits, _ = model.mixer.predict(model.head, base, reading, 0.0)
    assert torch.equal(logits, model.talk(part.context, thoughts).logits[..., 0, :])
    model.critic = SimpleNamespace()  # with one, reading keeps the outputs of base_reasoner
    outputs = model.read(part.whole.inputs, part.positions).reasoner
    assert torch.equal(found["base_reasoner"][None], outputs)


def test_states_that_nothing_reads_are_none(tmp_path: Path) -> None:
    names = {name: list(of_run(tmp_path / name, name)[-1]) for name in ("gru", "gru-onward")}
    thought = ["symbol 1", "state after 1", "symbol 2", "state after 2", "symbol 3"]
    start = ["base state", "base_reasoner", "state at the start", *thought]
    assert names == {"gru": [*start, "reading"], "gru-onward": [*start, "state after 3", "reading"]}


@pytest.mark.parametrize("start", ["afresh", "onward"])
def test_without_symbols(tmp_path: Path, start: str) -> None:
    (path,) = trained(tmp_path, [1], max_reasoning_len=0, interpreter_start=start)
    run = load_arm([path]).first
    found = places(run, next(sample(run, 1, 12)))
    reasons = ["base_reasoner", "state at the start"] if start == "onward" else []
    assert list(found) == ["base state", *reasons, "reading"]


def test_prefixes_and_one_hot_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = torch.tensor([[4, 4, 1]]), torch.tensor([[0, 2, 0]])
    found = with_prefixes({"symbol 1": first, "symbol 2": second, "reading": torch.ones(1, 3, 2)})
    assert list(found) == ["symbol 1", "symbol 2", "symbols 1 to 2", "reading"]
    assert found["symbols 1 to 2"].tolist() == [[[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0]]]
    vectors = torch.randn(2, 1, 3, 4)
    found = with_prefixes({"symbol 1": vectors[0], "symbol 2": vectors[1]})
    assert torch.equal(found["symbols 1 to 2"], torch.cat([vectors[0], vectors[1]], -1))
    monkeypatch.setattr("toyqs.answers.thoughts.places.COLUMNS", 2)
    assert one_hot(torch.tensor([7, 3, 3, 5, 7])).tolist() == [[0, 1], [1, 0], [1, 0], [0, 0], [0, 1]]
