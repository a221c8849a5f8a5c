"""An evaluation that does not fit into memory is made in smaller parts, with the same numbers and record."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.training.test_loop import quick
from toyqs.config.builders.held_out import draw_held_out
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import build_training_params
from toyqs.config.run_config import RunConfig
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.tasks.hidden_markov import HiddenMarkov
from toyqs.tasks.iterate import Iterate
from toyqs.training import shortage
from toyqs.training.evaluation import reading
from toyqs.training.evaluation.metrics import evaluate
from toyqs.training.evaluation.watching import Recorder, Tensors

SEEDS = [4, 9]
WORDS = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes. Error code 12"
CASES: dict[str, dict[str, Any]] = {
    "tokens": {},
    "lengths": {"variable_len": True, "interpreter_start": "onward"},
    "lengths of the task": {"task": Iterate(n=4, k=3, curriculum=0.0), "adaptive_len": True},
    "gaussian": {"thoughts": "gaussian"},
    "deterministic": {"thoughts": "deterministic", "objective": "pathwise"},
    "hard positions": {"think_at": "hard", "hard_quantile": 0.5},
    "tokens ahead": {"task": HiddenMarkov(states=4, vocab=3, positions=7), "n_tokens_ahead": 2},
    "tokens together": {"n_tokens_ahead": 2, "ahead": "joint"},
    "together, estimated": {"n_tokens_ahead": 2, "ahead": "joint", "thoughts": "gaussian"},
    "no symbols": {"max_reasoning_len": 0},
    "handed on": {"thought_into": "state"},
    "handed on in turn": {"thought_into": "state", "weight_groups": list("AAAA"), "model_hidden_dim": 5},
    "no thoughts": {"use_reasoner": False},
}


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the collection of garbage, which takes long in a process of many modules."""
    monkeypatch.setattr(shortage, "_free", lambda: None)


def limit(most: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let every reading fail of more sequences at once; return the list to which their numbers are added."""
    read, sizes = LatentReasoner.read, list[int]()

    def limited(self: LatentReasoner, inputs: torch.Tensor, *args: Any) -> Any:
        sizes.append(inputs.shape[1])
        if inputs.shape[1] > most:
            raise RuntimeError(WORDS)
        return read(self, inputs, *args)

    monkeypatch.setattr(LatentReasoner, "read", limited)
    return sizes


def measured(settings: RunConfig, **more: Any) -> tuple[Tensors, Tensors]:
    """Evaluate 11 sequences, seven and four of them at once; return the metrics, and what a record takes."""
    model = build_model(settings, SEEDS)
    params = build_training_params(settings)
    held_out = draw_held_out(settings, len(SEEDS), next(model.parameters()))
    positions = int(held_out.think[0, 0].sum())
    at_once = 7 * params.thoughts.number * positions
    recorder = Recorder(model, [0, 3, 6, 9], None) if settings.has_thoughts else None
    kwargs: dict[str, Any] = {"full": True, "at_once": at_once, "watcher": recorder, **more}
    found = evaluate(model, held_out, SEEDS, params.thoughts, **kwargs)
    return found, {} if recorder is None else recorder.tensors()


def close(found: Tensors, wanted: Tensors) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(
            found[name],
            value,
            rtol=1e-10,
            atol=1e-10,
            equal_nan=True,
            msg=lambda m, n=name: f"{n}: {m}",
        )


SLOW = ("deterministic", "no symbols", "no thoughts", "lengths")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in CASES]
)
def test_parts_measure_what_the_whole_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = quick(dtype="float64", eval_sequences=11, **CASES[name])
    metrics_of_all, record = measured(settings)
    sizes = limit(2, monkeypatch)
    in_parts, recorded = measured(settings)
    assert sizes[:3] == [7, 4, 2] and max(sizes[3:]) == 2
    close(in_parts, metrics_of_all)
    close(recorded, record)


def test_an_evaluation_that_fails_late_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = quick(dtype="float64", eval_sequences=11)
    wanted, record = measured(settings)
    read, calls = LatentReasoner.read, list[int]()

    def failing(self: LatentReasoner, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError(WORDS)
        return read(self, *args)

    monkeypatch.setattr(LatentReasoner, "read", failing)
    found, recorded = measured(settings)
    close(found, wanted)
    close(recorded, record)


def test_thoughts_exchanged_within_a_part_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = quick(dtype="float64", eval_sequences=11)
    wanted, _ = measured(settings)
    limit(2, monkeypatch)
    monkeypatch.setattr(reading, "_shuffled", lambda given: None)
    with pytest.raises(AssertionError, match="nll_shuffled"):
        close(measured(settings)[0], wanted)


def test_one_sequence_too_much_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(0, monkeypatch)
    with pytest.raises(MemoryError, match="an evaluation does not fit into memory, not with one sequence"):
        measured(quick(eval_sequences=11))
    monkeypatch.undo()
    monkeypatch.setattr(LatentReasoner, "read", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        measured(quick(eval_sequences=11))
