"""toyqs.run and toyqs.run_sweep: the command line from Python, which leaves the process as it was."""

from __future__ import annotations

import os
import runpy
import sys
import threading
from collections.abc import Sequence
from decimal import Decimal
from enum import Enum
from multiprocessing.spawn import get_preparation_data
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from nbclient import NotebookClient
from omegaconf import OmegaConf

import toyqs
from tests import killing
from toyqs.config.plugins import load
from toyqs.config.run_config import RunConfig
from toyqs.files import Refusal
from toyqs.sweep import calls
from toyqs.sweep.main import Done

ROOT = Path(__file__).resolve().parents[2]
QUICK = {**killing.SMALL, "max_steps": 3, "processes": 1}


class Words(Enum):
    """An enumeration of a caller's own."""

    BEST = "best_of"


class Called:
    """Stands in for the training: notes the configurations, and the words that they came from."""

    def __init__(self, faults: Sequence[str] = ()) -> None:
        self.configs: list[RunConfig] = []
        self.words: list[str] = []
        self.faults = faults

    def __call__(self, configs: Sequence[RunConfig], *, isolate: bool, **how: object) -> Done:
        self.configs, self.words = [*configs], sys.argv[:]
        started = get_preparation_data("a process")
        assert "init_main_from_path" not in started, "the caller's script would run again"
        assert started["init_main_from_name"] == "toyqs.__main__", "a name that new processes leave alone"
        assert isolate, "in processes of their own"
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        assert torch.empty(1).dtype == torch.float32 and torch.empty(1).is_cpu
        return Done(1 if self.faults else 0, {}, self.faults)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Called:
    """Let calls train nothing, and find no rows."""
    stand_in = Called()
    monkeypatch.setattr(calls, "train_and_report", stand_in)
    monkeypatch.setattr(calls, "load_rows", lambda folder, keys: pd.DataFrame({"key": []}))
    return stand_in


def test_a_run_and_its_controls_as_rows_and_what_was_typed_is_noted(tmp_path: Path) -> None:
    """Call it in another thread than the main one, as some notebooks do."""
    words = QUICK | {"controls": "fair", "runs_dir": tmp_path / "runs", "task.k": 2}
    found: list[pd.DataFrame] = []
    thread = threading.Thread(target=lambda: found.append(toyqs.run(seed=[1, 2], **words)))
    thread.start()
    thread.join()
    (rows,) = found
    assert list(rows["arm"].unique())[:2] == ["thinking", "no_reasoner"]
    assert list(rows["seed"]) == [1, 2] * rows["arm"].nunique()
    assert rows["nll"].notna().all() and set(rows["task.k"]) == {2}
    noted = [file.read_text(encoding="utf-8") for file in (tmp_path / "runs").glob("*/env.json")]
    assert len(noted) == len(rows)
    assert all('"command": "toyqs seed=[1,2] ' in text or "toyqs 'seed=[1,2]' " in text for text in noted)


def test_lists_are_swept_or_change_together_and_complete_runs_are_not_trained_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one = QUICK | {"runs_dir": tmp_path / "runs", "seed": range(1, 3)}
    both = {"base_lm_hidden_dim": np.array([3, 4]), "reasoner_hidden_dim": [4, 5]}
    words = {**one, **both, "zip": [*both]}
    assert toyqs.run_sweep(**words, plan=True).empty and not (tmp_path / "runs").exists()
    rows = toyqs.run_sweep(**words)
    found = zip(rows["base_lm_hidden_dim"], rows["reasoner_hidden_dim"], rows["seed"], strict=True)
    assert list(found) == [(3, 4, 1), (3, 4, 2), (4, 5, 1), (4, 5, 2)]
    assert "2 cells" in capfd.readouterr().out
    for plan in (False, True):
        again = toyqs.run_sweep(**words, plan=plan)
        assert ("4 of 4 runs are finished already" in capfd.readouterr().err) is not plan
        pd.testing.assert_frame_equal(rows, again)
    alone = toyqs.run_sweep(**one | {"base_lm_hidden_dim": [4], "reasoner_hidden_dim": 5})
    assert "2 of 2 runs are finished already" in capfd.readouterr().err, "zip is no part of a run"
    pd.testing.assert_frame_equal(rows[2:].reset_index(drop=True), alone)


@pytest.mark.parametrize(
    ("sweep", "settings", "typed"),
    [
        (False, {"seed": [7, 8]}, "seed=[7,8]"),
        (False, {"seed": np.int64(7), "base_lr": 0.5, "force": True, "processes": None},
         "seed=7 base_lr=0.5 force=true processes=null"),
        (False, {"run_modifier": ["Quick", "SameHdim"]}, "+run_modifier=[Quick,SameHdim]"),
        (False, {"info": "it's, a=b"}, "info='it\\'s, a=b'"),
        (False, {"objective": Words.BEST, "max_steps": np.str_("7")}, "objective=best_of max_steps='7'"),
        (False, {"weight_groups": ("A", "B", "C", "D")}, "weight_groups=[A,B,C,D]"),
        (True, {"seed": [7, 8], "run_modifier": "Quick"}, "-m seed=7,8 +run_modifier=Quick"),
        (True, {"weight_groups": [list("ABCD"), list("ABCC")]}, "-m weight_groups=[A,B,C,D],[A,B,C,C]"),
        (True, {"zip": ("seed", "task.k"), "seed": [7], "task.k": [2]},
         "-m zip=[seed,task.k] seed=7 task.k=2"),
    ],
)  # fmt: skip
def test_settings_are_what_would_be_typed(
    sweep: bool, settings: dict[str, object], typed: str, called: Called
) -> None:
    (toyqs.run_sweep if sweep else toyqs.run)(**settings)
    assert called.words == ["toyqs", *([typed] if "info" in typed else typed.split())]
    assert called.configs


@pytest.mark.parametrize(
    "settings",
    [{"trice_sample": 3}, {"max_steps": 0}, {"seed": "x"}, {"task": "shake"}, {"trice_samples": 1}],
)
def test_a_refusal_is_the_line_of_the_command(
    settings: dict[str, object],
    tmp_path: Path,
    called: Called,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(Refusal) as refused:
        toyqs.run(**settings)
    assert capfd.readouterr() == ("", "")
    error = refused.value
    before = None if error.__suppress_context__ else error.__context__
    assert error.__cause__ is None and before is None, "its traceback shows none of Hydra's"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run.py", *(f"{key}={value}" for key, value in settings.items())])
    for name in ("HYDRA_FULL_ERROR", "TOYQS_SCRATCH"):
        monkeypatch.setenv(name, "")
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(ROOT / "run.py"), run_name="__main__")
    assert capfd.readouterr().err == f"toyqs: {refused.value}\n" and left.value.code == refused.value.code
    assert not called.configs


@pytest.mark.parametrize(
    "text", ["\\", "a\\'b\\", "\\\\'", "'", 'a"b', "a,b=c d", "null", "1", "ü", "[a]", "{a}", " "]
)
def test_a_word_arrives_as_it_is(text: str, called: Called) -> None:
    toyqs.run(info=text)
    assert called.configs[0].info == text


@pytest.mark.parametrize(
    "value", [{"task.k": 2}, {1, 2}, (i for i in "ab"), b"x", 1j, Decimal("0.1"), [None, {}]]
)
def test_what_cannot_be_typed_is_refused(value: object, called: Called) -> None:
    for call in (toyqs.run, toyqs.run_sweep):
        with pytest.raises(
            Refusal, match=r"^seed: a \w+ is no value of a setting; give a word, a number, True"
        ):
            call(seed=value)
    assert not called.configs


@pytest.mark.parametrize("key", ["--cfg", "-m", "a=b", "a b", "", "+"])
def test_what_is_no_setting_is_refused(key: str, called: Called) -> None:
    with pytest.raises(Refusal, match=r": is no setting; give KEY=VALUE, as max_steps=200 or \*\*"):
        toyqs.run(**{key: "job"})
    assert not called.configs


def test_a_sweep_has_all_of_its_plug_ins(tmp_path: Path, called: Called) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.py").write_text(f"REWARDS = {{'{name}': lambda log_q, trace, batch: log_q}}\n")
    toyqs.run_sweep(plugins=[tmp_path / "a.py", tmp_path / "b.py"], reward=["a", "b"])
    assert [config.reward for config in called.configs] == ["a", "b"]
    load.reset()


def test_a_sweep_of_which_some_is_refused_runs_none_and_says_so_in_one_line(called: Called) -> None:
    with pytest.raises(
        Refusal, match=r"trice_samples=1: .*; 1 of 2 combinations are refused, so none is run"
    ):
        toyqs.run_sweep(trice_samples=[1, 2])
    with pytest.raises(Refusal, match=r"seed=\[\]: is a sweep over nothing"):
        toyqs.run_sweep(seed=[])
    assert not called.configs
    toyqs.run_sweep(trice_samples=[1, 2], keep_going=True)
    assert [config.trice_samples for config in called.configs] == [2]


def test_what_the_caller_has_set_of_torch_changes_nothing(called: Called) -> None:
    """The cost of a step is counted in this process."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.device("meta"):
            toyqs.run(seed=1)
            assert torch.is_inference_mode_enabled() and not torch.is_grad_enabled()
            assert torch.empty(1).is_meta and torch.empty(1).dtype == torch.float64
    finally:
        torch.set_default_dtype(dtype)
    assert called.configs


def test_a_failed_run_raises_with_the_lines_that_were_printed(
    called: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "train_and_report", Called(["failed: thinking, seed 1", "failed: pause"]))
    with pytest.raises(RuntimeError, match="failed: thinking, seed 1\nfailed: pause"):
        toyqs.run()


def test_a_folder_that_cannot_be_made_is_a_refusal() -> None:
    with pytest.raises(Refusal, match=r"^runs_dir=.*: cannot be made \(.*\); give a folder of your own$"):
        toyqs.run(**QUICK, runs_dir="/proc/nowhere/runs", seed=1)


def test_the_process_is_left_as_it_was_also_in_another_use_of_hydra(called: Called) -> None:
    """A program of Hydra's own, with a resolver and a schema that have names of ours."""
    OmegaConf.register_new_resolver("presets", lambda: "theirs", replace=True)
    ConfigStore.instance().store(name="run_schema", node={"theirs": 1})
    main = sys.modules["__main__"]
    before = (sys.argv[:], dict(os.environ), main.__spec__)
    try:
        with initialize_config_dir(str(ROOT / "conf" / "run_modifier"), version_base="1.3"):
            toyqs.run(seed=3)
            with pytest.raises(Refusal):
                toyqs.run(sede=3)
            assert GlobalHydra.instance().is_initialized()
            assert compose("Quick").max_steps == 20
        assert (sys.argv, dict(os.environ), main.__spec__) == before
        assert OmegaConf.create({"x": "${presets:}"}).x == "theirs"
        assert ConfigStore.instance().load("run_schema.yaml").node == {"theirs": 1}
        assert called.configs[0].seed == 3
    finally:
        OmegaConf.clear_resolver("presets")
        del ConfigStore.instance().repo["run_schema.yaml"]


@pytest.mark.slow
def test_a_notebook_may_call(tmp_path: Path) -> None:
    words = {**QUICK, "runs_dir": str(tmp_path / "runs"), "seed": [1, 2]}
    cells = [f"import toyqs\ntoyqs.run(**{words!r})[['arm', 'seed']].to_dict('list')", "toyqs.run(sede=1)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    resources = {"metadata": {"path": str(ROOT)}}
    NotebookClient(notebook, timeout=300, allow_errors=True, resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    results = [output["data"]["text/plain"] for output in outputs if output.output_type == "execute_result"]
    assert results == ["{'arm': ['thinking', 'thinking'], 'seed': [1, 2]}"]
    assert (outputs[-1]["ename"], outputs[-1]["evalue"][:5]) == ("Refusal", "sede:")


def test_torchrun_s_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(Refusal, match="train in one process"):
        toyqs.run()
