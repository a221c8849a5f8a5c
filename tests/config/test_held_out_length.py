"""Held-out sequences that are longer than those of training: what has to have room for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests import tiny
from tests.config.checks.checking import accepted, refused
from toyqs.config.builders.training import build_training_params
from toyqs.config.plugins.batches import fault_of_sample
from toyqs.config.run_config import RunConfig
from toyqs.experiment.stack import Training
from toyqs.tasks.depo import Depo
from toyqs.tasks.iterate import Iterate
from toyqs.tasks.task import Task

LONGER: dict[str, Any] = {"task": Iterate(k=3, reach=2), "backbone": "gpt2"}  # T = 4, held out 7


def test_learned_positions_have_room_for_them() -> None:
    plain = {"use_reasoner": False, "controls": "none"}
    assert replace(RunConfig(), **LONGER, **plain).num_positions == 7
    assert replace(RunConfig(), **LONGER).num_positions == 7 + 3 + 2 + 1
    refused("positions_up_to=6: a sequence takes 7 positions", positions_up_to=6, **LONGER, **plain)
    assert accepted(positions_up_to=7, **LONGER, **plain) == []


def test_sequences_of_training_begin_at_every_position_from_which_they_fit() -> None:
    """So that the last positions, which only held-out sequences reach, are trained as well."""
    params = build_training_params(replace(RunConfig(), **LONGER, positions_up_to=20, max_steps=5))
    assert (params.offsets, params.fitting_offsets) == (20 - 4 + 1, 20 - (4 + 6) + 1)


@pytest.mark.parametrize("task", [Iterate(k=3, reach=2), Depo(n=5, k=2)], ids=repr)
def test_samples_of_a_plug_in_may_be_longer(task: Task) -> None:
    assert fault_of_sample(task, 128) is None


def test_speed_counts_the_tokens_of_training() -> None:
    settings = tiny.config(task=Iterate(k=3, reach=2), data_loader_batch_size=8, max_steps=5)
    training = Training(settings, [1, 2])
    assert training.held_out.inputs.shape[2] == 7 and training.num_tokens(5) == 5 * 8 * 4 * 2
