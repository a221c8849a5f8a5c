"""Every control of a run that predicts tokens together does so, too."""

from __future__ import annotations

import pytest
import torch

from tests import tiny
from tests.controls.arms import control, run
from toyqs.config.builders.training import thought_sizes
from toyqs.config.controls import matched_controls, unmatched_controls
from toyqs.config.identity import canonical
from toyqs.config.resolve import resolved
from toyqs.evidence.arms import CONTROLS
from toyqs.positions import thinking_positions
from toyqs.training.flops import Cost

JOINT = {"n_tokens_ahead": 3, "ahead": "joint", "objective": "multi_sample"}
# How many predictions each arm mixes at a position.
READINGS = {
    **dict.fromkeys(("no_reasoner", "zero_length", "state_handed_on"), 1),
    **dict.fromkeys(("pause", "deterministic", "constant"), 1),
    **dict.fromkeys(("policy_off", "random", "reward_shuffled", "policy_reversed"), 4),
}


def test_the_table_names_every_control() -> None:
    assert [*unmatched_controls(run(**JOINT))] == [name for name in CONTROLS if name in READINGS]
    assert READINGS.keys() == unmatched_controls(run(**JOINT)).keys()


@pytest.mark.parametrize("name", READINGS)
def test_a_control_predicts_the_same_tokens_from_the_same(name: str) -> None:
    settings = control(name, **JOINT, trice_samples=4)
    assert settings.predicts_jointly and settings.num_ahead == 3
    model, batch = tiny.model(settings), tiny.batch()
    sizes = thought_sizes(settings)
    noise = tiny.noise((1, 3, 2, sizes.number, sizes.length))
    trace = model(batch.inputs, thinking_positions(batch), noise)
    assert trace.logits.shape == (1, 3, 2, READINGS[name], 3, tiny.SYMBOLS)
    later = batch.inputs.clone()
    later[:, :, -1] = (later[:, :, -1] + 1) % tiny.SYMBOLS
    counted = batch.think[..., :-1]
    same = model(later, thinking_positions(batch), noise).logits == trace.logits
    before = torch.ones(1, 3, 2, dtype=torch.bool)
    before[..., -1] = counted.sum(-1) == 2  # the last of the two thinking positions is not the last of all
    assert bool(same.flatten(3).all(-1)[before].all())


def test_matched_controls_do_as_well() -> None:
    cost = Cost(10, 100, 1.0, 1.0)
    for settings in matched_controls(run(**JOINT), lambda _: cost, lambda c: c.base_lm_hidden_dim).values():
        assert resolved(canonical(settings)).predicts_jointly and settings.n_tokens_ahead == 3
    for name, settings in unmatched_controls(run(n_tokens_ahead=3)).items():
        assert not settings.predicts_jointly and canonical(settings).num_ahead == (
            1 if name == "no_reasoner" else 3
        )
