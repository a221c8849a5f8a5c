"""The two steps from the first command to the last: hints, learning without them, and thoughts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.test_loop import quick
from toyqs.answers.loaded.load import load_run
from toyqs.config.builders.cost import count_cost
from toyqs.config.builders.held_out import draw_held_out
from toyqs.config.builders.reference_model import finished_model
from toyqs.config.identity import run_key
from toyqs.config.run_config import RunConfig
from toyqs.experiment.stack import run_stack
from toyqs.tasks.rev_prog import RevProg
from toyqs.tasks.task import Task
from toyqs.tasks.texts.char_text import CharText

STILL = {"base_lr": 1e-12}  # a run that stays where it starts


def trained(runs: Path, **settings: Any) -> tuple[RunConfig, dict[str, Any]]:
    """Train one run; return its settings and its row."""
    plain = {"seed": [5], "max_steps": 4, "eval_sequences": 32, "controls": "none", "runs_dir": str(runs)}
    config = quick(**plain | settings)
    run_stack(config, [5], count_cost(config), lambda step, nll: None)
    return config, json.loads((runs / run_key(config, 5) / "summary.json").read_text())


def check_steps(runs: Path, task: Task, **sizes: Any) -> None:
    shared = {"task": task, "dtype": "float64", "base_lr": 0.05, **sizes}
    plain = shared | {"use_reasoner": False}
    _, hinted = trained(runs, **plain, hint_share=0.5)
    assert hinted["nll_hinted"] > 0 and 0 <= hinted["accuracy_hinted"] <= 1
    assert hinted["nll_hinted"] != hinted["nll"] and "kl_teacher" not in hinted
    folder = str(runs / hinted["key"])
    settings, still = trained(runs, **plain | STILL, stage="bake", start_from=folder)
    assert (still["reward"], still["reference"], still["reference_run"]) == (
        "kl_forward",
        "checkpoint",
        folder,
    )
    for name, of_teacher in (("nll", "nll"), ("nll_teacher", "nll_hinted"), ("accuracy", "accuracy")):
        assert still[name] == pytest.approx(hinted[of_teacher], abs=1e-6), name
    assert still["accuracy_teacher"] == pytest.approx(hinted["accuracy_hinted"], abs=1e-6)
    assert still["kl_teacher"] == pytest.approx(by_hand(settings, folder), abs=1e-6)
    _, baked = trained(runs, **plain, stage="bake", start_from=folder, max_steps=30)
    assert 0 <= baked["kl_teacher"] < still["kl_teacher"], "it learns"
    start = str(runs / baked["key"])
    _, thinking = trained(runs, **shared | STILL, start_from=start)
    ours, theirs = (load_file(runs / row["key"] / "model.safetensors") for row in (thinking, baked))
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-6)
    assert load_run(str(runs / thinking["key"])).thinks


@torch.no_grad()
def by_hand(settings: RunConfig, folder: str) -> float:
    """Compute the divergence of one model without its hint from itself with it, on the held-out sequences."""
    model = finished_model(folder, 1)
    held_out = draw_held_out(settings, 1, next(model.parameters()))
    hinted = torch.cat([held_out.hint, held_out.inputs], -1)
    given, own = (
        model.talk(model.read(inputs, None), None).logits[..., 0, 0, :].log_softmax(-1)
        for inputs in (hinted, held_out.inputs)
    )
    given = given[:, :, held_out.hint.shape[-1] :]
    each = torch.nn.functional.kl_div(own, given, log_target=True, reduction="none").sum(-1)
    return float((each * held_out.weights).sum() / held_out.weights.sum())


def test_the_two_steps_with_programs(tmp_path: Path) -> None:
    check_steps(tmp_path / "runs", RevProg(p=4, m=2, k=2, queries=2))


def test_the_two_steps_with_a_text(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("to be\nor not\nto be that is\n" * 60)
    check_steps(tmp_path / "runs", CharText(path=str(tmp_path / "text.txt")), seq_len=6)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["gpt2", "llama"])
def test_the_two_steps_of_a_transformer(tmp_path: Path, backbone: str) -> None:
    sizes = {"base_lm_hidden_dim": 8, "reasoner_hidden_dim": 8, "model_n_layer": 1}
    check_steps(
        *(tmp_path / "runs", RevProg(p=4, m=2, k=2, queries=2)),
        **sizes,
        backbone=backbone,
        positions_up_to=20 if backbone == "gpt2" else None,
    )
