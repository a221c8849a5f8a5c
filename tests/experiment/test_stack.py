"""A stack of runs: its files, and that other seeds, repetition and restarts change no result."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.killing import TIMES
from toyqs.config.builders.held_out import draw_held_out
from toyqs.config.builders.kernels import can_be_native
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import build_training_params
from toyqs.config.identity import run_key
from toyqs.config.key_table import RESULTS_VERSION
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.experiment import stack
from toyqs.experiment.stack import run_stack
from toyqs.tasks.depo import Depo
from toyqs.tasks.group import Group
from toyqs.tasks.iterate import Iterate
from toyqs.tasks.texts.char_text import CharText
from toyqs.training.evaluation.metrics import evaluate
from toyqs.training.flops import Cost

COST = Cost(1, 2, 3.0, 4.0)
needs_native = pytest.mark.skipif(not can_be_native(), reason="there is no C++ compiler here")


def config(folder: Path, **changes: object) -> RunConfig:
    small = {"max_steps": 6, "data_loader_batch_size": 5, "eval_sequences": 64, "runs_dir": str(folder)}
    widths = {"base_lm_hidden_dim": 3, "reasoner_hidden_dim": 5}
    return resolved(replace(RunConfig(), **{**small, **widths, **changes}))


def rows(config: RunConfig, seeds: list[int]) -> dict[int, dict[str, object]]:
    run_stack(config, seeds, COST, lambda step, loss: None)
    found = {}
    for seed in seeds:
        path = Path(config.runs_dir) / run_key(config, seed) / "summary.json"
        found[seed] = {k: v for k, v in json.loads(path.read_text()).items() if k not in TIMES}
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_reasoner": False},
        {"max_reasoning_len": 0},
        {"interpreter_start": "onward", "mixing": "gate"},
        {"variable_len": True, "length_penalty": 0.1, "punish_unfinished": 0.2, "schedule_punfinished": True},
        {"variable_len": True, "interpreter_start": "onward"},
        {"adaptive_len": True, "task": Iterate()},
        {"adaptive_len": True, "task": Depo(n=5, k=2)},
        {"task": Group(positions=3)},
        {"mixing": "attend", "baseline": "none", "reward": "contribution", "log_coherence": True},
        pytest.param({"kernels": "native"}, marks=needs_native),
        pytest.param({"kernels": "native", "use_reasoner": False}, marks=needs_native),
    ],
)
def test_a_seed_gives_the_same_row_alone_in_company_and_again(tmp_path, changes):
    together = rows(config(tmp_path / "four", **changes), [0, 1, 2, 3])
    alone = rows(config(tmp_path / "one", **changes), [2])
    again = rows(config(tmp_path / "again", **changes), [0, 1, 2, 3])
    assert alone[2] == together[2]
    assert again == together
    assert together[0]["nll"] != together[1]["nll"]


def test_records(tmp_path):
    reported: list[tuple[int, float | None]] = []
    settings = config(tmp_path, eval_every=4, info="a label")
    run_stack(settings, [7, 9], COST, lambda step, loss: reported.append((step, loss)))
    assert [step for step, _ in reported] == [1, 2, 3, 4, 5, 6]
    assert [step for step, loss in reported if loss is not None] == [4, 6]
    folder = tmp_path / run_key(settings, 9)
    names = {"config.json", "env.json", "metrics.jsonl", "model.safetensors", "summary.json"}
    names |= {"thoughts.json.gz"}
    assert {path.name for path in folder.iterdir()} == names
    os.umask(mask := os.umask(0))
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o666 & ~mask}
    row = json.loads((folder / "summary.json").read_text())
    assert row["key"] == folder.name and row["seed"] == 9 and row["task"] == "rev_prog"
    assert (row["info"], row["train_steps"], row["sequences_seen"]) == ("a label", 6, 30)
    environment = json.loads((folder / "env.json").read_text())
    assert environment["stack_size"] == 2
    assert environment["changed"]["base_lm_hidden_dim"] == 3 and "mixing" not in environment["changed"]
    assert not {"seed", "runs_dir"} & environment["changed"].keys()
    assert (row["parameters"], row["flops_per_step"], row["flops_per_token"]) == (1, 2, 3.0)
    assert row["results_version"] == RESULTS_VERSION and row["bayes_floor"] == 0.0
    assert row["started"] is False and row["cpu_seconds"] > 0
    for name in ("nll_marginal", "nll_shuffled", "nll_constant", "nll_no_thought", "information"):
        assert isinstance(row[name], float)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(x["step"], x["kind"]) for x in lines] == [
        (4, "train"), (4, "held_out"), (6, "train"), (6, "held_out")
    ]  # fmt: skip
    assert {"nll", "policy", "entropy", "reward"} <= set(lines[0])
    assert {"nll", "accuracy"} <= set(lines[1])
    assert json.loads((folder / "config.json").read_text())["base_lm_hidden_dim"] == 3


@pytest.mark.parametrize(
    ("own", "shuffled", "without", "started"),
    [
        (2.599, 2.625, 2.584, False),  # thoughts that hurt, though another sequence's hurt more
        (2.599, 2.625, 2.602, False),
        (2.599, 2.625, 2.610, True),
        (2.599, 2.602, 2.625, False),
        (2.599, 2.625, None, True),  # a model that does not predict without a thought
        (2.599, 2.602, None, False),
        (2.599, None, 2.625, None),  # no sampled symbols
        (2.599, 2.625, math.nan, False),
        (math.nan, 2.625, 2.625, None),
    ],
)
def test_started_is_that_other_thoughts_cost_and_none_does(own, shuffled, without, started):
    found = {"nll": own, "nll_shuffled": shuffled, "nll_no_thought": without}
    assert stack._started({name: nll for name, nll in found.items() if nll is not None}) is started


@pytest.mark.parametrize(("mixing", "measured"), [("concat", True), ("thought", False)])
def test_only_some_models_predict_without_a_thought(mixing, measured, tmp_path):
    row = rows(config(tmp_path, mixing=mixing, max_steps=1), [0])[0]
    assert ("nll_no_thought" in row) == measured and row["started"] is False


def test_a_last_step_that_breaks_the_weights_is_named(tmp_path):
    wild = {"max_steps": 1, "base_lr": 1e30, "use_scheduler": False, "clip_gradients": 0.0}
    row = rows(config(tmp_path, **wild), [0])[0]
    assert (row["diverged_at"], row["diverged_parts"], row["nll"]) == (1, "held-out nll", None)
    assert row["started"] is None


def test_saved_weights_give_the_row(tmp_path):
    settings = config(tmp_path)
    row = rows(settings, [4, 5])[5]
    model = build_model(settings, [123])
    saved = load_file(Path(settings.runs_dir) / str(row["key"]) / "model.safetensors")
    parameters = dict(model.named_parameters())
    assert set(parameters) == set(saved)
    for name, value in saved.items():
        parameters[name].data.copy_(value)
    sizes = build_training_params(settings)
    held_out = draw_held_out(settings, 1, next(model.parameters()))
    found = evaluate(model, held_out, [5], sizes.thoughts, full=True)
    assert {name: float(value) for name, value in found.items()} == {name: row[name] for name in found}


def test_a_run_started_again_has_no_row_until_it_ends(tmp_path):
    settings = config(tmp_path)
    rows(settings, [0])
    summary = tmp_path / run_key(settings, 0) / "summary.json"
    assert summary.is_file()

    def stop(step: int, loss: float | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stack(settings, [0], COST, stop)
    assert not summary.exists()
    assert (summary.parent / "config.json").is_file()


def test_text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat. " * 40)
    settings = config(tmp_path / "runs", task=CharText(path=str(path)), seq_len=12, thought_vocab=None)
    row = rows(settings, [0])[0]
    assert row["bayes_floor"] is None and row["task.path"] == str(path)
    held_out = draw_held_out(settings, 2, torch.zeros(1))
    # As many windows as the held-out tenth has room for, not 64.
    assert held_out.inputs.shape == (2, (96 - 1) // 12, 12)


def test_long_sequences_leave_two_for_the_curve(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat. " * 2000)
    task = CharText(path=str(path))
    row = rows(config(tmp_path / "runs", task=task, seq_len=1100, max_steps=1, eval_sequences=3), [0])[0]
    assert row["nll"] is not None


# Raise key_table.RESULTS_VERSION when these change on purpose.
GOLDEN_VERSION = 3
GOLDEN = {"nll": 1.9080364989633474, "nll_shuffled": 1.9071584635135732, "thought_entropy": 5.322827954629406}


def test_golden(tmp_path):
    settings = config(tmp_path, dtype="float64", max_steps=20)
    row = rows(settings, [0])[0]
    assert RESULTS_VERSION == GOLDEN_VERSION
    assert {name: row[name] for name in GOLDEN} == pytest.approx(GOLDEN, rel=1e-9)
