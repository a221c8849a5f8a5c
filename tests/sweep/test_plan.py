"""From configurations to cells and stacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from toyqs.config.builders.cost import count_cost
from toyqs.config.identity import canonical, named, run_key, settings
from toyqs.config.inactive import inactive_keys
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.evidence.arms import CONTROLS
from toyqs.sweep import plan
from toyqs.sweep.plan import differences, label, plan_cell, stacks_of
from toyqs.tasks.group import S5
from toyqs.tasks.rev_prog import RevProg
from toyqs.tasks.texts.char_text import CharText
from toyqs.training.flops import Cost

GAUSSIAN, VARGRAD = {"thoughts": "gaussian"}, {"objective": "vargrad"}
MATCHED = ("compute_matched", "param_matched")
CHEAP = Cost(1, 100, 1.0, 1.0)


def config(**changes: object) -> RunConfig:
    return resolved(replace(RunConfig(), **{"max_steps": 10, "seed": [0, 1, 2], **changes}))


def cost(config: RunConfig) -> Cost:
    """Count the widths as FLOPs, the reasoner's twice."""
    width = config.base_lm_hidden_dim + (2 * config.reasoner_hidden_dim if config.use_reasoner else 0)
    return Cost(width, 100 * width, 1.0, 1.0)


def test_a_cell_has_its_controls_and_the_steps_of_its_task():
    cell = plan_cell(config(max_steps=-1), cost)
    assert cell.config.max_steps == cell.config.task.num_steps
    fair = [*("no_reasoner", "zero_length", "state_handed_on", "pause", "policy_off"), *MATCHED]
    assert list(cell.arms) == ["thinking", *fair] == list(cell.keys)
    assert cell.arms["compute_matched"].max_steps == 5 * cell.config.max_steps
    assert cell.keys["thinking"] == {seed: run_key(cell.config, seed) for seed in (0, 1, 2)}


def test_all_controls_are_trained_where_all_are_asked_for():
    more = ["deterministic", "random", "constant", "reward_shuffled", "policy_reversed"]
    assert list(plan_cell(config(controls="all"), cost).arms) == [
        *("thinking", "no_reasoner", "zero_length", "state_handed_on", "pause", "policy_off"),
        *(*more, *MATCHED),
    ]


def test_without_controls_those_that_cost_nothing_to_name_are_still_known():
    cell = plan_cell(config(controls="none"), cost)
    assert list(cell.arms) == ["thinking"]
    named = ["thinking", "no_reasoner", "zero_length", "state_handed_on", "pause", "policy_off"]
    assert list(cell.keys) == named
    plain = plan_cell(config(use_reasoner=False), cost)
    assert list(plain.keys) == ["no_reasoner"]
    assert plain.keys["no_reasoner"] == cell.keys["no_reasoner"]


def test_all_controls_are_planned_once_and_shared_between_cells():
    cells = [plan_cell(config(controls="all", **changes), cost) for changes in ({}, GAUSSIAN, VARGRAD)]
    assert [*cells[0].arms] == ["thinking", *CONTROLS] and not cells[0].same
    for name in ("zero_length", "state_handed_on", "pause", "deterministic", "constant"):
        keys = [cell.keys[name] for cell in cells]
        assert keys[0] == keys[1] == keys[2], name
    assert len({key for cell in cells for key in cell.run_keys}) == 3 * (13 + 5 + 3)
    path = plan_cell(config(controls="all", **GAUSSIAN, objective="pathwise"), cost)
    assert set(CONTROLS) - set(path.arms) == {"policy_off", "reward_shuffled", "policy_reversed"}
    off = plan_cell(config(controls="all", policy_loss_beta=0.0), cost)
    assert off.same == {"policy_off": "thinking"}
    assert set(CONTROLS) - set(off.arms) == {"policy_off", "reward_shuffled", "policy_reversed"}
    coconut = plan_cell(config(controls="all", thoughts="deterministic", objective="pathwise"), cost)
    assert coconut.same == {"deterministic": "thinking"} and "random" not in coconut.arms


def test_a_control_that_is_one_run_with_another_arm_is_trained_once():
    onward = plan_cell(config(interpreter_start="onward"), cost)
    assert onward.same == {"state_handed_on": "zero_length"}
    assert onward.keys["state_handed_on"] == onward.keys["zero_length"]
    assert "zero_length" in onward.arms and "state_handed_on" not in onward.arms
    every = plan_cell(config(interpreter_start="onward", controls="all"), cost)
    assert every.same == {"state_handed_on": "zero_length", "constant": "pause"}
    off = plan_cell(config(policy_loss_beta=0.0), cost)
    assert off.same == {"policy_off": "thinking"} and list(off.arms)[:2] == ["thinking", "no_reasoner"]
    assert not plan_cell(config(), cost).same


def test_differences_name_what_differs():
    cells = [
        config(base_lm_hidden_dim=width, policy_loss_beta=beta) for width in (4, 8) for beta in (1.0, 0.1)
    ]
    assert differences(cells)[1] == {"base_lm_hidden_dim": 4, "policy_loss_beta": 0.1}
    assert differences(cells[:2]) == [{"policy_loss_beta": 1.0}, {"policy_loss_beta": 0.1}]
    assert differences(cells[:1]) == [{}]
    seeds = [config(seed=seed) for seed in (1, [2, 3])]
    assert differences(seeds) == [{"seed": [1]}, {"seed": [2, 3]}]
    assert label({"a": 1, "b": 0.5}) == "a=1 b=0.5"


def test_texts_are_told_apart_by_their_names(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    for path in paths:
        Path(path).write_text(f"to be or not to be in {Path(path).name} " * 20)
    configs = [config(task=CharText(path=path), seq_len=8) for path in paths]
    assert differences(configs) == [{"task.path": path} for path in paths]
    cells = [plan_cell(given, cost) for given in configs]
    assert all("task.identity" in cell.columns and "task.identity" not in cell.settings for cell in cells)


def test_a_setting_without_effect_is_no_difference():
    thinking = [config(trice_samples=number) for number in (2, 4)]
    plain = config(use_reasoner=False)
    assert differences([thinking[1], plain]) == [{"use_reasoner": True}, {"use_reasoner": False}]
    two = [{"use_reasoner": True, "trice_samples": 2}, {"use_reasoner": True, "trice_samples": 4}]
    found = differences([*thinking, plain])
    assert [{name: each[name] for name in each if name != "train_nll_num"} for each in found] == [
        *two,
        {"use_reasoner": False},
    ]
    tasks = [config(task=task) for task in (RevProg(k=2), RevProg(k=3), S5())]
    assert [each.get("task.k") for each in differences(tasks)] == [2, 3, None]
    assert not any("task.positions" in each for each in differences(tasks))


def test_each_arm_is_spelled_once_and_what_a_cell_holds_is_that(monkeypatch):
    """Whatever is asked of a cell later: its keys, its note, its table."""
    spelled = []
    monkeypatch.setattr(plan, "canonical", lambda x: spelled.append(x) or canonical(x))
    for changes in ({}, {"use_base_lm": False, "base_lm_hidden_dim": 8}, {"use_reasoner": False}):
        given = config(controls="none", **changes)
        spelled.clear()
        cell = plan_cell(given, cost)
        assert len(spelled) == len(cell.keys), "the run itself, and each control"
        assert cell.columns == settings(cell.config, 0) and cell.config == canonical(given)
        for seed in cell.seeds:
            assert cell.keys[next(iter(cell.arms))][seed] == run_key(given, seed)
        alone = {
            name: x for name, x in named(given, 0).items() if name not in inactive_keys(canonical(given))
        }
        assert cell.settings == alone | cell.beside
        (first, *_) = stacks_of([cell], {*cell.run_keys}, cost)
        assert first.cell == f"rev_prog ({run_key(given, 0)[:6]})"


def test_what_cells_share_is_done_once_and_the_longest_first():
    cells = [plan_cell(config(policy_loss_beta=beta), cost) for beta in (1.0, 0.1)]
    wanted = {key for cell in cells for by_seed in cell.keys.values() for key in by_seed.values()}
    assert len(wanted) == 3 * (2 + 7)
    stacks = stacks_of(cells, wanted, cost)
    done = [run_key(stack.config, seed) for stack in stacks for seed in stack.seeds]
    assert sorted(done) == sorted(wanted)
    assert [stack.work for stack in stacks] == sorted((stack.work for stack in stacks), reverse=True)
    assert {stack.label for stack in stacks} == {"policy_loss_beta=1.0", "policy_loss_beta=0.1"}


def test_only_what_is_undone_is_in_a_stack():
    cell = plan_cell(config(controls="none"), cost)
    (stack,) = stacks_of([cell], {cell.keys["thinking"][1]}, cost)
    assert (stack.arm, stack.seeds) == ("thinking", [1])
    assert stacks_of([cell], set(), cost) == []


def test_what_a_key_names_is_what_is_trained_whatever_was_typed():
    """Without a policy loss the control was trained with a critic or inner steps where those were typed."""
    typed = [
        {"objective": objective, "think_at": "all"} for objective in ("reinforce", "logz_learned", "ppo_clip")
    ]
    cells = [plan_cell(config(**changes), count_cost) for changes in typed]
    for name in ("policy_off", "no_reasoner", "zero_length"):
        first, *others = (cell.arms[name] for cell in cells)
        assert all(replace(arm, controls="none") == replace(first, controls="none") for arm in others), name
    marked = plan_cell(config(), count_cost)
    assert marked.arms["no_reasoner"] == cells[0].arms["no_reasoner"]


@pytest.mark.parametrize("without_base", [{"use_base_lm": False}, {"mixing": "thought"}])
def test_the_plain_controls_of_a_run_without_a_base_are_as_wide_as_was_typed(without_base):
    typed = [{"base_lm_hidden_dim": width, "base_lm_lr": 0.03, **without_base} for width in (8, 24)]
    narrow, wide = (plan_cell(config(**changes), count_cost) for changes in typed)
    differing = [name for name in narrow.keys if narrow.keys[name] != wide.keys[name]]
    assert differing == ["no_reasoner", "compute_matched"]
    for cell, width in ((narrow, 8), (wide, 24)):
        given = {"base_lm_hidden_dim": width, "base_lm_lr": 0.03}
        plain = plan_cell(config(use_reasoner=False, **given), count_cost)
        assert cell.keys["no_reasoner"] == plain.keys["no_reasoner"]
        matched = cell.arms["compute_matched"]
        assert (matched.base_lm_hidden_dim, matched.base_lm_lr) == (width, 0.03)
        spent, same = (count_cost(x).flops_per_step * x.max_steps for x in (cell.config, matched))
        assert same == pytest.approx(spent, rel=0.06)
        assert cell.beside == given and not cell.inactive & given.keys()
    labels = {stack.label for stack in stacks_of([narrow, wide], set(wide.run_keys), count_cost)}
    assert labels == {"base_lm_hidden_dim=8", "base_lm_hidden_dim=24"}  # what both share is the first's
    assert not plan_cell(config(), count_cost).beside
