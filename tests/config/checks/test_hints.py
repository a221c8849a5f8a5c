"""Refusals about hints and about stage=bake."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.config.checks.checking import accepted, refused
from tests.keys import same
from tests.run_folders import written
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.tasks.depo import Depo
from toyqs.tasks.iterate import Iterate
from toyqs.tasks.rev_prog import RevProg

PLAIN: dict[str, Any] = {"use_reasoner": False}
HINTS = PLAIN | {"hint_share": 0.5}
BAKE = PLAIN | {"stage": "bake"}


def test_hints_are_read_by_plain_models_of_tasks_that_have_some() -> None:
    assert (
        accepted(**HINTS) == accepted(**HINTS, task=Depo()) == accepted(**HINTS | {"hint_share": 1.0}) == []
    )
    refused("hint_share=0.5: .*start_from=RUN", hint_share=0.5)
    refused("stage=bake: .*use_reasoner=false", stage="bake")
    refused("hint_share=0.5: task=iterate has no hints", **HINTS, task=Iterate())
    refused("hint_share=0.5: task.k=1 has no step", **HINTS, task=RevProg(k=1))
    refused("hint_share=1.5: is a share", **HINTS | {"hint_share": 1.5})
    refused("hint_share=-1", **HINTS | {"hint_share": -1.0})
    refused("hint_share=0.1: is none of the 4", **HINTS | {"hint_share": 0.1}, data_loader_batch_size=4)
    refused("hint_share=0.1: is none of the 4", **HINTS | {"hint_share": 0.1}, grad_acc=16)
    refused("hint_share=0.5: a graph", **HINTS, cuda_graphs=True)


def test_baking_learns_from_a_run_that_read_hints(tmp_path: Path) -> None:
    refused("stage=bake: no run is given", **BAKE)
    refused("start_from=nowhere: there is no such folder|reference_run", **BAKE, start_from="nowhere")
    unhinted = written(tmp_path / "unhinted", resolved(RunConfig(**PLAIN)))
    refused(f"start_from={unhinted}: that run never read a hint", **BAKE, start_from=unhinted)
    refused(f"reference_run={unhinted}: that run never", **BAKE, reference_run=unhinted)
    teacher = written(tmp_path / "teacher", resolved(RunConfig(**HINTS)))
    assert len(accepted(**BAKE, start_from=teacher)) == 1, "what is taken over"
    assert accepted(**BAKE, reference_run=teacher) == [], "a student that begins anew"
    refused("hint_share=0.5: stage=bake reads no hint", **BAKE, start_from=teacher, hint_share=0.5)
    refused("reward=accuracy: stage=bake learns", **BAKE, start_from=teacher, reward="accuracy")
    refused("reference=ema: stage=bake learns", **BAKE, start_from=teacher, reference="ema")
    given = resolved(replace(RunConfig(), **BAKE, start_from=teacher))
    assert (given.reward, given.reference, given.reference_run) == ("kl_forward", "checkpoint", teacher)
    assert same(
        BAKE | {"start_from": teacher},
        BAKE | {"start_from": teacher, "reference_run": teacher, "reward": "kl_forward"},
    )
    assert not same(BAKE | {"start_from": teacher}, PLAIN | {"start_from": teacher})


def test_positions_leave_room_for_a_hint() -> None:
    gpt2 = PLAIN | {"backbone": "gpt2", "model_n_head": 2}
    length = RunConfig().task.length(0)
    hint = RunConfig().task.hint_length(0)
    assert resolved(RunConfig(**gpt2)).num_positions == length
    for stage in ({"hint_share": 0.5}, {"stage": "bake"}):
        assert resolved(RunConfig(**gpt2 | stage)).num_positions == length + hint
    short = {"positions_up_to": length + hint - 1}
    refused(f"positions_up_to={length + hint - 1}: .*{length + hint}", **gpt2, **short, hint_share=0.5)
