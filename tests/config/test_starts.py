"""Runs that start from finished runs: which weights they take over, and what their controls take over."""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.run_folders import written
from toyqs.assets import cache
from toyqs.config.builders.cost import count_cost
from toyqs.config.builders.model import build_model
from toyqs.config.builders.starts import letters_of, take_over
from toyqs.config.identity import run_key, settings
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.sweep.plan import plan_cell

SMALL: dict[str, Any] = {"base_lm_hidden_dim": 4, "reasoner_hidden_dim": 4, "max_steps": 4}
PLAIN = {"use_reasoner": False, "controls": "none"}
HEADS = ["head.bias", "head.weight_0"]
GRU_AND_GPT2, GRU_AND_LLAMA = (["gru", *[x] * bool(find_spec("transformers"))] for x in ("gpt2", "llama"))


def settings_of(**changes: Any) -> RunConfig:
    return resolved(RunConfig(**{**SMALL, **changes}))


def run(folder: Path, **changes: Any) -> str:
    """Write a finished run, whose weights no other has."""
    config = settings_of(**changes)
    model = build_model(config, [3])
    for number, parameter in enumerate(model.parameters()):
        parameter.data += 1 + number / 100
    return written(folder, config, model)


def weights(config: RunConfig, *seeds: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights with which a run starts, and what is noted of it."""
    model = build_model(config, seeds)
    note = take_over(config, model)
    return {name: p.detach() for name, p in model.named_parameters()}, note


def taken(config: RunConfig, folder: str, there: dict[str, str] | None = None) -> set[str]:
    """Check each weight of a run's start, and its note; return the names of those that were taken over.

    Args:
        config: of the run.
        folder: of the run that it starts from.
        there: letter of a core here -> there, where they differ.
    """
    ours, note = weights(config, 7)
    fresh = dict(build_model(config, [7]).named_parameters())
    given = load_file(Path(folder) / "model.safetensors")
    names = set()
    for name, weight in ours.items():
        if not torch.equal(weight, fresh[name]):
            letter, rest = name[6:7], name[7:]
            source = f"cores.{(there or {}).get(letter, letter)}{rest}" if name[:5] == "cores" else name
            assert torch.equal(weight, given[source]), name
            names.add(name)
    (key,) = note.keys() - {"new"}
    assert set(note[key]["taken"]) == names and set(note["new"]) == ours.keys() - names
    return names


def of_cores(config: RunConfig, letters: str) -> set[str]:
    names = [name for name, _ in build_model(config, [7]).named_parameters()]
    return {name for name in names if name[:5] == "cores" and name[6] in letters}


@pytest.mark.parametrize("family", GRU_AND_LLAMA)
def test_all_weights_of_a_run_of_the_same_sizes(tmp_path: Path, family: str) -> None:
    folder = run(tmp_path / "run", backbone=family)
    config = settings_of(backbone=family, start_from=folder, policy_loss_beta=0.5)
    assert taken(config, folder) == dict(build_model(config, [7]).named_parameters()).keys()


def test_all_seeds_of_a_stack_start_alike(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", **PLAIN)
    config = settings_of(start_from=folder)
    ours, _ = weights(config, 7, 8)
    fresh = dict(build_model(config, [7, 8]).named_parameters())
    assert torch.equal(ours["cores.A.tokens.weight"][0], ours["cores.A.tokens.weight"][1])
    assert torch.equal(ours["cores.B.tokens.weight"], fresh["cores.B.tokens.weight"])
    assert not torch.equal(ours["cores.B.tokens.weight"][0], ours["cores.B.tokens.weight"][1])


@pytest.mark.parametrize("family", GRU_AND_GPT2)
def test_a_plain_models_weights_and_the_rest_as_without_a_start(tmp_path: Path, family: str) -> None:
    many = {"backbone": family} | ({"positions_up_to": 40} if family == "gpt2" else {})
    folder = run(tmp_path / "run", **PLAIN, **many)
    config = settings_of(start_from=folder, **many)
    assert taken(config, folder) == {*of_cores(config, "A"), *HEADS}
    base = replace(config, start_from=None, infer_pretrained_base=folder)
    assert taken(base, folder) == of_cores(config, "A"), "the LM head is no role's"
    assert weights(base, 7)[1]["infer_pretrained_base"]["left"] == HEADS


def test_a_reasoner_with_its_head_and_interpreter(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", thoughts="gaussian")
    config = settings_of(thoughts="gaussian", infer_pretrained_reasoner=folder)
    names = taken(config, folder)
    assert names - of_cores(config, "BCD") == {
        *("interpreter.start_state", "thought_head.mean.weight", "thought_head.mean.bias"),
        *("thought_head.spread.weight", "thought_head.spread.bias"),
    }
    assert names >= of_cores(config, "BCD")


def test_weights_go_by_roles_where_runs_share_them_otherwise(tmp_path: Path) -> None:
    shared = run(tmp_path / "shared", weight_groups=list("AAAA"))
    config = settings_of(infer_pretrained_base_reasoner=shared)
    names = taken(config, shared, dict.fromkeys("ABCD", "A"))
    assert names == dict(build_model(config, [7]).named_parameters()).keys()
    apart = run(tmp_path / "apart", weight_groups=list("ABBC"))
    config = settings_of(infer_pretrained_reasoner=apart)
    assert of_cores(config, "BCD") <= taken(config, apart, {"B": "B", "C": "B", "D": "C"})
    plain = run(tmp_path / "plain", **PLAIN)
    config = settings_of(weight_groups=list("AAAA"), infer_pretrained_base=plain)
    kept = {"cores.A.thoughts.weight", "cores.A.markers.weight"}
    assert taken(config, plain) == of_cores(config, "A") - kept, "a core's tables that a plain one has not"


def test_a_role_that_a_run_does_not_have_gives_nothing() -> None:
    """Though another one of its core does."""
    here, there = settings_of(), settings_of(weight_groups=list("AABB"), max_reasoning_len=0)
    assert there.roles_in_use == ["base_lm", "interpreter"]
    assert letters_of("start_from", here, there) == {"A": ["A"], "D": ["B"]}


def test_two_runs_give_base_and_reasoner(tmp_path: Path) -> None:
    plain, thinking = run(tmp_path / "plain", **PLAIN), run(tmp_path / "thinking", policy_loss_beta=0.0)
    both = {"infer_pretrained_base": plain, "infer_pretrained_reasoner": thinking}
    ours, note = weights(settings_of(**both), 7)
    for name, folder in (("A", plain), ("B", thinking), ("C", thinking), ("D", thinking)):
        given = load_file(Path(folder) / "model.safetensors")
        weight = f"cores.{name}.backbone.weight_hh"
        assert torch.equal(ours[weight], given[weight])
    assert note.keys() == {*both, "new"} and note["new"] == [*HEADS, "head.weight_1"]


# Control -> what it takes over of a thinking run, of the weights beside cores, and of those of its cores not.
BESIDE = {*HEADS, "head.weight_1"}
CONTROLS: dict[str, tuple[set[str], set[str]]] = {
    "no_reasoner": (set(HEADS), set()),
    "zero_length": (BESIDE | {"interpreter.start_state"}, set()),
    "state_handed_on": (BESIDE, set()),
    "pause": (BESIDE, {"cores.C.thoughts.weight"}),
    "policy_off": (
        BESIDE
        | {"interpreter.start_state", "thought_head.projection.weight", "thought_head.projection.bias"},
        set(),
    ),
    "deterministic": (BESIDE | {"interpreter.start_state"}, set()),
    "random": (BESIDE | {"interpreter.start_state"}, set()),
    "constant": (
        BESIDE | {"interpreter.start_state"},
        {"cores.C.thoughts.weight", "cores.D.thoughts.weight"},
    ),
    "compute_matched": (set(HEADS), set()),
}
CONTROLS |= dict.fromkeys(("reward_shuffled", "policy_reversed"), CONTROLS["policy_off"])


@pytest.mark.parametrize("key", ["start_from", "infer_pretrained_base_reasoner"])
def test_every_control_takes_over_what_it_has(tmp_path: Path, key: str) -> None:
    """All of it but symbols' tables and heads of other sizes, which no weights fit."""
    folder = run(tmp_path / "run")
    cell = plan_cell(settings_of(controls="all", **{key: folder}), count_cost)
    assert set(cell.arms) == {"thinking", *CONTROLS}, "and none as a wider base, which no weights fit"
    for name, (beside, lacking) in CONTROLS.items():
        config = resolved(cell.arms[name])
        assert taken(config, folder) == (of_cores(config, "ABCD") - lacking) | beside, name


def test_controls_start_from_the_base_alone_where_that_is_given(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", **PLAIN)
    cell = plan_cell(settings_of(controls="all", infer_pretrained_base=folder), count_cost)
    assert "param_matched" not in cell.keys
    for name, config in cell.arms.items():
        assert taken(resolved(config), folder) == of_cores(resolved(config), "A"), name


def test_controls_without_a_reasoner_are_those_of_a_run_without_a_start(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    started = plan_cell(settings_of(infer_pretrained_reasoner=folder), count_cost)
    plain = plan_cell(settings_of(), count_cost)
    for name in started.keys:
        without = name in ("no_reasoner", "compute_matched", "param_matched")
        assert (started.keys[name] == plain.keys[name]) == without, name
    config = resolved(started.arms["zero_length"])
    assert taken(config, folder) == of_cores(config, "D") | {"interpreter.start_state"}


def test_weights_are_hashed_once_however_many_keys_need_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, hashed = run(tmp_path / "run"), list[str]()
    digest = cache.hashlib.file_digest
    monkeypatch.setattr(
        cache.hashlib, "file_digest", lambda file, kind: hashed.append(kind) or digest(file, kind)
    )
    plan_cell(settings_of(controls="all", start_from=folder), count_cost)
    assert hashed == ["sha256"]


def test_with_a_shared_lm_head_the_reasoners_head_is_that(tmp_path: Path) -> None:
    shared = {"share_lm_head": True, "thought_vocab": None}
    folder = run(tmp_path / "run", **shared)
    config = settings_of(**shared, infer_pretrained_reasoner=folder)
    projection = {f"thought_head.projection.{x}" for x in ("weight", "bias")}
    beside = {*HEADS, "head.weight_1", "interpreter.start_state", *projection}
    assert taken(config, folder) == of_cores(config, "BCD") | beside
    silent = resolved(plan_cell(config, count_cost).arms["state_handed_on"])
    assert taken(silent, folder) >= {*HEADS, "head.weight_1"}, "a control's LM head starts as the run's"


def test_the_key_knows_a_run_by_what_it_holds(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    folder = Path(run(runs / "0123456789abcdef"))
    by_path = settings_of(start_from=str(folder))
    columns = settings(by_path, 7)
    assert columns["start_from"] == str(folder) and len(columns["start_from.identity"]) == 16
    by_key = settings_of(start_from=folder.name, runs_dir=str(runs))
    assert by_key.start_from == str(folder) and run_key(by_key, 7) == run_key(by_path, 7)
    moved = shutil.copytree(folder, tmp_path / "moved")
    elsewhere = settings_of(start_from=str(moved))
    assert run_key(elsewhere, 7) == run_key(by_path, 7) != run_key(settings_of(), 7)
    all_keys = {
        run_key(settings_of(**{key: str(folder)}), 7)
        for key in ("start_from", "infer_pretrained_base", "infer_pretrained_base_reasoner")
    }
    assert len(all_keys) == 3
    file = moved / "model.safetensors"
    save_file({name: weight + 1 for name, weight in load_file(file).items()}, file)
    assert run_key(elsewhere, 7) != run_key(by_path, 7)
