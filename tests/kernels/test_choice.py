"""`kernels=`: settled once, part of the key where bits differ, the same for controls and workers."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import toyqs
from tests import tiny
from tests.config.checks.checking import accepted, refused
from tests.run_folders import written
from toyqs.answers.loaded.load import load_run
from toyqs.config.builders import kernels
from toyqs.config.builders.cost import count_cost
from toyqs.config.builders.kernels import settled
from toyqs.config.builders.model import build_model, count_parameters
from toyqs.config.builders.reference_model import build_reference_model
from toyqs.config.checks.values import check
from toyqs.config.finished_run import config_of, settings_of
from toyqs.config.identity import canonical, named, run_key
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.evidence.cells import load_cells
from toyqs.evidence.rows import load_rows
from toyqs.files import Refusal
from toyqs.model.backbones.gru import GRU
from toyqs.model.backbones.kernels import library
from toyqs.sweep import costs, main
from toyqs.sweep.costs import cached_cost
from toyqs.sweep.plan import plan_cell
from toyqs.sweep.words.spelling import Size, on_transformer, typed_words

NONE_HERE = "there is no C++ compiler (none of c++, g++, clang++)"
SMALL = {"max_steps": 3, "data_loader_batch_size": 4, "eval_sequences": 16, "seed": [1, 2], "processes": 1}


def config(**changes: Any) -> RunConfig:
    widths = {"base_lm_hidden_dim": 6, "reasoner_hidden_dim": 6}
    return resolved(replace(RunConfig(), **{**SMALL, **widths, "controls": "none", **changes}))


@pytest.fixture
def no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toyqs.evidence.figures.comparison.comparison_figure", lambda *_: None)


@pytest.fixture
def with_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this machine have native kernels, whether it has a compiler or not."""
    monkeypatch.setattr(kernels, "_fault", lambda: None)


def natives(model: torch.nn.Module) -> set[bool]:
    """Return whether the GRUs of a model take native kernels."""
    return {part.native for part in model.modules() if isinstance(part, GRU)}


def test_auto_is_what_the_machine_can_for_grus_on_a_cpu(with_kernels: None) -> None:
    asked = [config(), config(device="cuda"), config(backbone="llama"), config(kernels="torch")]
    found, note = settled([*asked, config(kernels="native")])
    assert [x.kernels for x in found] == ["native", "torch", "torch", "torch", "native"] and note is None
    assert [replace(x, kernels="auto", chunk_positions=None) for x in found[:3]] == [
        replace(x, chunk_positions=None) for x in asked[:3]
    ]
    assert [x.chunk_positions for x in found] == [0] * 5, "settled with the kernels"


def test_without_a_compiler_auto_is_torch_and_one_line_says_why(without_compiler: None) -> None:
    found, note = settled([config(), config(base_lm_hidden_dim=7)])
    assert {x.kernels for x in found} == {"torch"}
    assert note == f"kernels=auto: {NONE_HERE}, so torch's are taken, which are slower; {kernels.REMEDY}"
    assert settled([config(kernels="torch"), config(backbone="llama")])[1] is None, "none is asked for"


def test_the_library_is_asked_for_only_where_it_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "load", lambda: pytest.fail("nobody needs it"))
    settled([config(kernels="torch"), config(backbone="llama"), config(kernels="native")])
    accepted(kernels="torch"), accepted(kernels="auto")
    count_cost(config(kernels="native")), count_parameters(config(kernels="native"))


def test_native_is_in_the_key_and_torch_is_what_was_before() -> None:
    keys = {word: run_key(config(kernels=word), 1) for word in ("auto", "native", "torch")}
    assert keys["auto"] == keys["torch"] != keys["native"]
    for other in ({"device": "cuda"}, {"backbone": "llama"}):
        assert run_key(config(kernels="native", **other), 1) == run_key(config(**other), 1)
        assert canonical(config(kernels="native", **other)).kernels == "torch"


def test_a_run_of_before_is_one_with_torchs() -> None:
    columns = named(config(), 1)
    assert columns.pop("kernels") == "torch"
    assert config_of(columns).kernels == "torch"


def test_what_has_to_be_typed_for_a_run() -> None:
    words = {word: typed_words(config(kernels=word)) for word in ("auto", "native", "torch")}
    assert words["auto"] == words["native"] and {*words["torch"]} - {*words["auto"]} == {"kernels=torch"}
    assert not any("kernels" in word for word in typed_words(config(kernels="torch", device="cuda")))


def test_a_run_with_native_kernels_can_be_typed_for_a_transformer() -> None:
    pytest.importorskip("transformers")
    scaled = on_transformer(config(kernels="native"), Size("gpt2", 1, 2, 8, 1e-3))
    check(scaled)
    assert not any("kernels" in word for word in typed_words(scaled))


def test_native_is_refused_where_there_are_none(without_compiler: None) -> None:
    refused(f"kernels=native: there is no C.. compiler .*; {re.escape(kernels.REMEDY)}", kernels="native")
    refused(
        "kernels=native: are a GRU's or a GPT-2's.* give kernels=auto", kernels="native", backbone="llama"
    )
    refused("autocast=true; give kernels=auto", kernels="native", backbone="gpt2", autocast=True)
    with pytest.MonkeyPatch.context() as there:
        there.setattr(torch.cuda, "is_available", lambda: True)
        refused("kernels=native: run on a CPU.* give kernels=auto", kernels="native", device="cuda")
    refused("kernels=fast: is not a choice", kernels="fast")


def test_on_a_clusters_machine_there_may_be_a_compiler(without_compiler: None) -> None:
    check(config(kernels="native"), elsewhere=True)


@pytest.mark.parametrize("changes", [{}, {"use_reasoner": False}, {"length_schedule": "long_to_short"}])
def test_flops_are_those_of_torch(changes: dict[str, Any], without_compiler: None) -> None:
    """Else compute_matched would train for more steps: torch does not see what a native kernel multiplies."""
    one, other = (config(kernels=word, controls="fair", **changes) for word in ("torch", "native"))
    assert count_cost(one) == count_cost(other)
    if one.use_reasoner:
        cells = [plan_cell(x, cached_cost()) for x in (one, other)]
        steps = {cell.arms["compute_matched"].max_steps for cell in cells}
        assert len(steps) == 1 and steps.pop() > one.max_steps
        widths = {cell.arms["param_matched"].base_lm_hidden_dim for cell in cells}
        assert len(widths) == 1
        assert {arm.kernels for arm in cells[1].arms.values()} == {"native"}, "controls have the same"


def test_a_cost_is_counted_once_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[RunConfig] = []
    monkeypatch.setattr(costs, "count_cost", lambda x: counted.append(x) or count_cost(x))
    cost = cached_cost()
    assert cost(config(kernels="native")) == cost(config(kernels="torch")) and len(counted) == 1


def test_a_model_takes_the_kernels_of_its_settings(with_kernels: None) -> None:
    found = {word: natives(build_model(config(kernels=word), [1])) for word in ("auto", "native", "torch")}
    assert found == {"auto": {False}, "native": {True}, "torch": {False}}
    assert natives(build_model(tiny.config(), [1])) == {False}


def test_no_model_is_built_with_others_than_it_asks_for(without_compiler: None) -> None:
    """So no process that trains falls back by itself, such as a rank of torchrun."""
    with pytest.raises(Refusal, match=f"kernels=native: there is no C.. compiler .*{kernels.REMEDY[:11]}"):
        build_model(config(kernels="native"), [1])


@pytest.mark.skipif(not any(map(shutil.which, library.COMPILERS)), reason="there is no C++ compiler here")
def test_auto_and_what_it_comes_to_are_one_cell(
    no_figure: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [config(kernels=word, runs_dir=str(tmp_path)) for word in ("auto", "native", "torch")]
    assert main.main(asked) == 0
    rows = load_rows(tmp_path)
    assert sorted(rows["kernels"]) == ["native", "native", "torch", "torch"]
    assert sorted(cell.settings["kernels"] for cell in load_cells(tmp_path)) == ["native", "torch"]
    assert "kernels" in capsys.readouterr().out, "a column tells them apart"
    for _, row in rows.iterrows():
        noted = json.loads((tmp_path / row["key"] / "env.json").read_text())
        assert noted.get("kernels") == (library.description() if row["kernels"] == "native" else None)
        assert noted["changed"].get("kernels") == (None if row["kernels"] == "native" else "torch")
    assert main.main(asked[:1]) == 0
    assert "2 of 2 runs are finished already" in capsys.readouterr().out
    assert main.main([replace(asked[0], plan=True)]) == 0
    assert len(load_rows(tmp_path)) == 4


def test_a_command_without_a_compiler_says_it_once(
    no_figure: None, without_compiler: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [config(base_lm_hidden_dim=width, runs_dir=str(tmp_path)) for width in (3, 4)]
    assert main.main(asked) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"toyqs: kernels=auto: {NONE_HERE}")
    assert {*load_rows(tmp_path)["kernels"]} == {"torch"}


def test_a_worker_without_native_kernels_refuses_in_a_line(
    no_figure: None, without_compiler: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The machine that planned had a compiler; here there is none."""
    asked = config(kernels="native", runs_dir=str(tmp_path), seed=[1])
    assert main.main([asked]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    key = run_key(asked, 1)
    refusal = f"kernels=native: {NONE_HERE}; {kernels.REMEDY}"
    assert line.startswith(f"toyqs: failed: thinking, seed 1 (key {key}): {refusal}; log ")
    assert load_rows(tmp_path).empty and not (tmp_path / run_key(config(), 1)).exists()


def test_a_finished_run_is_asked_with_its_own_or_else_with_torchs(
    tmp_path: Path, without_compiler: None
) -> None:
    with pytest.MonkeyPatch.context() as machine:
        machine.setattr(kernels, "_fault", lambda: None)
        folder = written(tmp_path / "native", config(kernels="native"))
        plain = written(tmp_path / "torch", config(kernels="torch"))
        assert natives(load_run(folder).model) == {True} and natives(load_run(plain).model) == {False}
        assert settings_of(folder).kernels == "native"
    assert natives(load_run(folder).model) == {False}
    assert load_run(folder).config.kernels == "native", "its name stays"


@pytest.mark.parametrize("word", ["native", "torch"])
def test_a_reference_takes_the_kernels_of_the_run_that_refers_to_it(
    tmp_path: Path, with_kernels: None, word: str
) -> None:
    """Else the bits of a run would depend on the machine that its reference was trained on."""
    for other in ("native", "torch"):
        folder = written(tmp_path / other, config(kernels=other, use_reasoner=False))
        beside = {"reward": "log_ratio", "reference": "checkpoint", "reference_run": folder}
        run = config(kernels=word, **beside)
        reference = build_reference_model(run, build_model(run, [1]))
        assert reference is not None and natives(reference.model) == {word == "native"}


def test_a_sweep_from_python_may_name_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refusal, match="kernels=fast: is not a choice"):
        toyqs.run(kernels="fast")
