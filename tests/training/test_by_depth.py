"""Held-out losses by depth, against each sequence's own, in whatever parts they are computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from toyqs.config.builders.held_out import draw_held_out
from toyqs.config.builders.training import build_training_params
from toyqs.config.identity import run_key
from toyqs.config.run_config import RunConfig
from toyqs.evidence.rows import by_depth as loaded
from toyqs.evidence.rows import read_row
from toyqs.experiment.stack import run_stack
from toyqs.files import ROW
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.tasks.depo import Depo
from toyqs.tasks.group import Group
from toyqs.tasks.hidden_markov import HiddenMarkov
from toyqs.tasks.iterate import Iterate
from toyqs.tasks.rev_prog import RevProg
from toyqs.tasks.task import Task
from toyqs.training.evaluation.by_depth import ByDepth, by_depth
from toyqs.training.evaluation.metrics import evaluate
from toyqs.training.flops import Cost
from toyqs.types import Batch

PLAIN = {"use_reasoner": False, "controls": "none"}


def measured(
    changes: dict[str, Any], at_once: int = 8192
) -> tuple[ByDepth, dict[str, torch.Tensor], LatentReasoner, Batch]:
    settings: RunConfig = tiny.config(**changes)
    model = tiny.model(settings, copies=2)
    with torch.no_grad():  # seeds that differ
        for weight in model.parameters():
            weight[1] *= 1.5
    held_out = draw_held_out(settings, 2, next(model.parameters()), 60)
    watcher = by_depth(settings.task, held_out)
    assert watcher is not None
    sizes = build_training_params(settings).eval_sizes_at(0)
    given: dict[str, Any] = {"full": True, "at_once": at_once, "watcher": watcher}
    return watcher, evaluate(model, held_out, [1, 2], sizes, **given), model, held_out


@pytest.mark.parametrize("task", [Iterate(n=8, k=3, reach=2), Depo(n=5, k=2), Group(positions=3)], ids=repr)
def test_of_a_plain_model_as_sequence_by_sequence(task: Task) -> None:
    watcher, _, model, held_out = measured({"task": task, **PLAIN})
    assert task.depth is not None
    depth = task.depth(held_out.inputs)
    logits = model.talk(model.read(held_out.inputs, None), None).logits.detach()
    log_prob = logits[:, :, :, 0, 0].log_softmax(-1)
    for seed in (0, 1):
        lines = watcher.lines(seed)
        assert [line["depth"] for line in lines] == sorted({*depth[held_out.think].tolist()})
        for line in lines:
            nll, right = [], []
            for row in range(60):
                for t in range(held_out.inputs.shape[2]):
                    if depth[seed, row, t] == line["depth"]:
                        target = int(held_out.targets[seed, row, t])
                        nll.append(-float(log_prob[seed, row, t, target]))
                        right.append(int(log_prob[seed, row, t].argmax()) == target)
            assert line["positions"] == len(nll) and line["trained"] == (line["depth"] <= task.trained_depth)
            assert line["nll"] == pytest.approx(sum(nll) / len(nll), rel=1e-9)
            assert line["accuracy"] == pytest.approx(sum(right) / len(right))
        deeper = [line for line in lines if not line["trained"]]
        count = sum(line["positions"] for line in deeper)
        for name in ("nll", "accuracy"):
            mean = sum(line[name] * line["positions"] for line in deeper) / count
            assert float(watcher.deeper()[f"{name}_deeper"][seed]) == pytest.approx(mean)


@pytest.mark.parametrize(
    "changes",
    [
        {"task": Depo(n=5, k=2), "adaptive_len": True},
        {"task": Group(positions=3), "think_at": "hard", "hard_quantile": 0.5},
        {"task": Group(positions=3, asked="end", group="a4")},
    ],
    ids=str,
)
def test_of_a_thinking_model_they_add_up_whatever_is_computed_at_once(changes: dict[str, Any]) -> None:
    watcher, found, _, _ = measured(changes)
    parts = measured(changes, at_once=40)[0]
    for seed in (0, 1):
        lines = watcher.lines(seed)
        count = sum(line["positions"] for line in lines)
        for name in ("nll", "accuracy"):
            mean = sum(line[name] * line["positions"] for line in lines) / count
            assert float(found[name][seed]) == pytest.approx(mean, rel=1e-9)
        counts = [[(line["depth"], line["positions"]) for line in x.lines(seed)] for x in (watcher, parts)]
        assert counts[0] == counts[1]


def test_tasks_of_one_depth_or_none_have_no_such_losses() -> None:
    for task in (RevProg(k=2, queries=2), HiddenMarkov(states=2, vocab=2, positions=4)):
        settings = tiny.config(task=task)
        assert by_depth(task, draw_held_out(settings, 1, torch.zeros(1), 20)) is None


def test_a_run_leaves_them_in_its_curve_and_its_row(tmp_path: Path) -> None:
    task = Iterate(n=8, k=2, reach=2)
    changes: dict[str, Any] = {"eval_sequences": 40, "max_steps": 3, "runs_dir": str(tmp_path)}
    for more in ({}, PLAIN):
        settings = tiny.config(task=task, **changes, **more)
        run_stack(settings, [1, 2], Cost(1, 2, 3.0, 4.0), lambda step, loss: None)
        for seed in (1, 2):
            key = run_key(settings, seed)
            frame, row = loaded(tmp_path, key), read_row(tmp_path / key / ROW)
            assert frame.index.tolist() == [2, 3, 4] and frame["trained"].tolist() == [1, 0, 0]
            lines = (tmp_path / key / "metrics.jsonl").read_text().splitlines()
            counts = {x["depth"]: x["positions"] for x in map(json.loads, lines) if x["kind"] == "by_depth"}
            means = {
                name: sum(frame[name][d] * counts[d] for d in (3, 4)) / (counts[3] + counts[4])
                for name in ("nll", "accuracy")
            }
            assert row["nll_deeper"] == pytest.approx(means["nll"])
            assert row["accuracy_deeper"] == pytest.approx(means["accuracy"])
    assert loaded(tmp_path, "none").empty
