"""A GPT-2 with native kernels: its whole training step beside torch's, and which runs take it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("transformers")

from tests.training.test_pieces import gradients
from tests.training.test_transformer_training import configured, saved
from toyqs.config.builders.cost import count_cost
from toyqs.config.builders.kernels import settled
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import build_training_params
from toyqs.config.identity import canonical, run_key
from toyqs.config.run_config import RunConfig
from toyqs.model.backbones import gpt2
from toyqs.model.backbones.kernels import library
from toyqs.training.batches import draw_batches

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, library.COMPILERS)), reason="there is no C++ compiler here"
)
APART = {"weight_groups": list("ABBC"), "interpreter_start": "afresh", "max_reasoning_len": 3}
CASES: dict[str, dict[str, Any]] = {
    "onward": {},
    "afresh": APART,
    "layers run again": {"gradient_checkpointing": True},
    "lengths": {"variable_len": True, "thought_kl_beta": 0.1, "reference": "ema"},
    "gaussian": {"thoughts": "gaussian", "prior_beta": 0.1, "objective": "ppo_clip", "inner_steps": 2},
    "read again": {"add_last_context_token": True, "increment_pos_id_for_last_context_token": True},
    "another width": {
        **{"weight_groups": list("ABCD"), "model_hidden_dim": None, "interpreter_hidden_dim": 4},
        **{"base_lm_hidden_dim": 4, "reasoner_hidden_dim": 8},
    },
    "tokens ahead": {"n_tokens_ahead": 2, "ahead": "continue"},
    "positions": {"positions_up_to": 24},
    "no thoughts": {"use_reasoner": False},
}


def pair(**changes: Any) -> tuple[RunConfig, RunConfig]:
    plain = configured("gpt2", dtype="float64", **changes)
    return replace(plain, kernels="torch"), replace(plain, kernels="native")


def furthest(*pair: RunConfig) -> float:
    """Return how far gradients and values are apart, as a share of each parameter's largest gradient."""
    (wanted, values), (found, others) = (gradients(config, [3]) for config in pair)
    assert wanted.keys() == found.keys() and values.keys() == others.keys()
    assert any(".weights." in name and x.any() for name, x in wanted.items())
    both = [(wanted[name], found[name]) for name in wanted] + [
        (values[name], others[name]) for name in values
    ]
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-2)) for a, b in both)


@pytest.mark.parametrize("name", CASES)
def test_a_step_is_torchs_to_rounding(name: str) -> None:
    assert furthest(*pair(**CASES[name])) < 1e-12


@pytest.mark.parametrize("part", ["gelu", "layer_norm", "embedding"])
def test_another_function_is_noticed(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(gpt2, part)

    def wrong(*given: Any, **more: Any) -> Tensor:
        return right(given[0], approximate="none") if part == "gelu" else 1.001 * right(*given, **more)

    monkeypatch.setattr(gpt2, part, wrong)
    assert furthest(*pair()) > 1e-6


class Operations(TorchDispatchMode):
    """Count the operations of a step."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func._overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_it_makes_fewer_operations_and_saves_less() -> None:
    found, kept = {}, {}
    for config in pair(model_n_layer=4):
        model, settings = build_model(config, [0]), build_training_params(config)
        drawn = next(draw_batches(config.task, [0], settings, next(model.parameters())))
        with Operations() as operations, saved() as numbers:
            trace = model(drawn.inputs, drawn.positions, drawn.noise)
            sum(x.sum() for x in trace if isinstance(x, Tensor) and x.requires_grad).backward()
        found[config.kernels], kept[config.kernels] = operations.names, numbers[0]
    assert len(found["native"]) < 0.8 * len(found["torch"])
    assert "gelu" in found["native"] and "tanh" not in found["native"] and "tanh" in found["torch"]
    assert kept["native"] < 0.8 * kept["torch"]


def test_which_runs_take_it() -> None:
    plain = configured("gpt2", kernels="auto")
    found, note = settled([plain, replace(plain, autocast=True), configured("llama", kernels="auto")])
    assert [config.kernels for config in found] == ["native", "torch", "torch"] and note is None
    keys = {word: run_key(replace(plain, kernels=word), 0) for word in ("auto", "native", "torch")}
    assert keys["auto"] == keys["torch"] != keys["native"]
    assert canonical(replace(plain, kernels="native", autocast=True)).kernels == "torch"
    assert plain.takes_native_kernels and not replace(plain, pretrained="gpt2").takes_native_kernels
    again = replace(plain, kernels="native", gradient_checkpointing=True)
    assert run_key(again, 0) == keys["native"] and count_cost(again) == count_cost(plain)


def test_a_model_takes_what_its_settings_say() -> None:
    for word, native in (("auto", False), ("torch", False), ("native", True)):
        model = build_model(configured("gpt2", kernels=word), [0])
        assert {core.backbone.native for core in model.cores.values()} == {native}
