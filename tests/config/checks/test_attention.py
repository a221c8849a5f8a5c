"""One prediction from all thoughts, and their coherence: what is refused, and what controls keep."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.config.checks.checking import accepted, refused
from tests.keys import same
from toyqs.config.controls import unmatched_controls
from toyqs.config.identity import canonical, run_key
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig

ATTEND: dict[str, Any] = {"mixing": "attend", "baseline": "none"}
PAID = ATTEND | {"reward": "contribution"}


def test_what_it_goes_with() -> None:
    for changes in (
        {},
        {"reward": "likelihood"},
        {"reward": "accuracy"},
        {"baseline": "ema"},
        {"baseline": "value", "value_sees": "target"},
        {"baseline": "null_thought", "reward": "likelihood"},
        {"advantage_scale": "none"},
        {"think_at": "all", "n_tokens_ahead": 2},
        {"think_at": "hard"},
        {"variable_len": True, "punish_unfinished": 0.1},
        {"thoughts": "gaussian", "objective": "pathwise", "reward": "likelihood"},
        {"backbone": "gpt2"},
        {"learned_reward": True},
        {"policy_loss_beta": 0.0, "baseline": "leave_one_out"},
        {"attend_by": "scores", "thought_vocab": None},
        {"attend_by": "scores", "interpreter_hidden_dim": 12},
        {"coherence_beta": 0.5, "log_coherence": True},
    ):
        assert accepted(**{**PAID, **changes}) == []


@pytest.mark.parametrize(
    ("said", "changes"),
    [
        (
            "baseline=leave_one_out: .*biased; give baseline=none, or baseline=value",
            {"baseline": "leave_one_out"},
        ),
        ("baseline=group_mean: ", {"baseline": "group_mean"}),
        ("baseline=leave_one_out: ", {"baseline": "leave_one_out", "reward": "likelihood"}),
        ("baseline=null_thought: .*reward=contribution", {"baseline": "null_thought"}),
        ("value_sees=average_thought: .*value_sees=target", {"baseline": "value"}),
        ("advantage_scale=group_std: .*biased", {"advantage_scale": "group_std"}),
        ("trice_samples=1: .*trice_samples=2 or more", {"trice_samples": 1}),
        ("reward=contribution: .*mixing=attend", {"mixing": "gate"}),
        ("reward=contribution: .*mixing=attend", {"mixing": "auto"}),
        ("objective=maxent: .*objective=pathwise or reinforce", {"objective": "maxent"}),
        ("objective=ppo_clip: ", {"objective": "ppo_clip"}),
        ("credit=prefix: .*mixing=concat", {"credit": "prefix"}),
        ("reward=trajectory: .*reward=contribution", {"reward": "trajectory"}),
        ("prefix_nll_beta=0.5: ", {"prefix_nll_beta": 0.5}),
        (
            "reward_sees=prediction: ",
            {"learned_reward": True, "reward_sees": "prediction", "reward": "likelihood"},
        ),
        ("mixing=attend: .*thought_into=prediction", {"thought_into": "state"}),
        ("mixing=attend: .*ahead=persist", {"n_tokens_ahead": 2, "ahead": "joint"}),
        ("mixing=attend: needs the base state", {"use_base_lm": False}),
        ("attend_by=scores: no score that may weigh thoughts", {"attend_by": "scores"}),
        (
            "attend_by=scores: no score that may weigh",
            {"attend_by": "scores", "thought_vocab": None, "coherence_syntactic": 0.0},
        ),
        ("coherence_beta=0.5: no score", {"coherence_beta": 0.5, "coherence_predictive": 0.0}),
        ("log_coherence=true: no score", {"log_coherence": True, "coherence_predictive": 0.0}),
    ],
)
def test_what_it_refuses(said: str, changes: dict[str, Any]) -> None:
    refused(said, **{**PAID, **changes})


def test_a_bound_on_the_likelihood_pays_nothing_beside() -> None:
    refused("coherence_beta=0.5: objective=multi_sample", objective="multi_sample", coherence_beta=0.5)


def test_one_thought_weighs_all() -> None:
    (note,) = accepted(**ATTEND, trice_samples=1)
    assert note.startswith("mixing=attend of one thought is mixing=concat")
    one = {"trice_samples": 1, "baseline": "none"}
    assert same(one | {"mixing": "attend"}, one | {"mixing": "concat"})
    assert not same(ATTEND, ATTEND | {"mixing": "concat"})


def test_what_no_setting_can_reach() -> None:
    assert same(PAID, PAID | {"train_nll_num": 2})
    assert same(PAID, PAID | {"attend_temperature": 0.5})
    assert same({}, {"coherence_semantic": 0.9}) and same({}, {"attend_by": "scores"})
    assert same({}, {"log_coherence": True})
    scores = PAID | {"attend_by": "scores", "thought_vocab": None}
    assert same(scores, scores | {"coherence_predictive": 0.9})  # no weight knows the target
    assert same(scores, scores | {"coherence_semantic": 0.9})  # another width: it does not exist


def test_controls_without_several_thoughts_are_those_of_another_mixing() -> None:
    """K equal readings, or one, have all the weight: such a control is one run whatever weighs thoughts."""
    ours, others = (
        unmatched_controls(resolved(replace(RunConfig(), controls="all", **x)))
        for x in (PAID, {"mixing": "concat", "baseline": "none"})
    )
    assert list(ours) == list(others)
    alike = {name for name in ours if run_key(ours[name], 0) == run_key(others[name], 0)}
    assert alike == {"no_reasoner", "zero_length", "state_handed_on", "pause", "constant", "deterministic"}
    assert canonical(ours["policy_off"]).mixing == "attend"
    assert canonical(ours["policy_off"]).reward == "likelihood"  # nobody is paid
    assert not resolved(ours["policy_off"]).pays_contributions
    assert canonical(ours["reward_shuffled"]).reward == "contribution"
