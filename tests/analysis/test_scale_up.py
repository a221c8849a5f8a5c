"""From the rows of a GRU sweep to commands for a transformer: which cells, and the same run."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from analysis import scale_up
from tests.analysis.synthetic import write
from toyqs.config.checks import backbone
from toyqs.config.finished_run import REMOVED
from toyqs.config.identity import canonical, settings
from toyqs.config.keys import RATES
from toyqs.config.run_config import RunConfig
from toyqs.evidence.cells import load_cells
from toyqs.evidence.rows import load_rows
from toyqs.sweep.words import spelling
from toyqs.sweep.words.compose import compose_checked
from toyqs.sweep.words.presets import register
from toyqs.tasks.rev_prog import RevProg
from toyqs.tasks.texts.char_text import CharText

ROOT = Path(__file__).resolve().parents[2]
THINKING = {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}
ZERO = {1: 1.1, 2: 1.3, 3: 1.2, 4: 1.4}
ONE = ["A"] * 4
# Runs whose settings are far from the defaults, or have to be quoted.
RUNS: dict[str, dict[str, Any]] = {
    "default": {},
    "one trunk": {
        **{"weight_groups": ONE, "model_hidden_dim": 16, "interpreter_start": "onward", "mixing": "thought"},
        **{"add_last_context_token": True, "different_eot": False, "thought_vocab": None},
    },
    "gaussian": {
        **{"thoughts": "gaussian", "latent_dim": 3, "entropy_encouragement_coef": 0.0, "trice_samples": 8},
        **{"train_nll_num": 2, "baseline": "value", "value_sees": "greedy_thought", "max_steps": 900},
    },
    "vargrad": {"objective": "vargrad", "temperature_scale": "spread", "clip_gradients": 0.5},
    "two ahead": {"n_tokens_ahead": 2, "ahead_decay": 0.9, "teacher_forcing_weight": 0.5},
    "plain base": {"use_base_lm": False, "reward": "accuracy"},
    "a label": {"info": "it's (a) label, $HOME; null", "simple_lm_head": True},
    "a number for a label": {"info": "12"},
    "rates": {"reasoner_lr": 0.01, "base_lm_lr": 0.04, "optimizer": "sgd", "lm_head_layers": 2},
    "another task": {"task": RevProg(k=2, label_noise=0.1), "base_lm_hidden_dim": 5},
}


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that transformers is installed: the commands do not depend on it."""
    monkeypatch.setattr(backbone, "find_spec", lambda name: object())


def columns(**changes: Any) -> dict[str, Any]:
    found = settings(replace(RunConfig(), **{"max_steps": 450, **changes}), 0)
    del found["seed"]
    return found


def sweep(folder: Path, *runs: dict[str, Any], gain: float = 1.0, **controls: dict[int, float]) -> None:
    arms = {"thinking": THINKING, "zero_length": {s: x - 1 + gain for s, x in ZERO.items()}, **controls}
    for changes in runs:
        write(folder, columns(**changes), arms)


def call(capsys: Any, *typed: str) -> tuple[int, str, str]:
    code = scale_up.main(list(typed))
    return code, *capsys.readouterr()


def commands(out: str) -> list[str]:
    lines = [line for line in out.splitlines() if line and not line.startswith("#")]
    assert all(line.startswith("python run.py ") for line in lines)
    return lines


def composed(line: str) -> RunConfig:
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose_checked(compose("config", shlex.split(line)[2:]))[0]


@pytest.mark.parametrize("name", RUNS)
def test_the_line_is_the_same_run_on_a_transformer(name: str, tmp_path: Path, capsys: Any) -> None:
    sweep(tmp_path, RUNS[name])
    options = ("--layers", "3", "--heads", "2", "--width", "48", "--lr", "0.002", "--backbone", "llama")
    code, out, err = call(capsys, str(tmp_path), *options)
    assert (code, err) == (0, "")
    (line,) = commands(out)
    found = composed(line)
    assert (found.seed, found.controls) == ([1, 2, 3, 4], "none")
    added = {"backbone": "llama", "model_n_layer": 3, "model_n_head": 2, "base_lr": 0.002}
    assert {key: getattr(found, key) for key in added} == added
    widths = {key: getattr(found, key) for key in spelling.WIDTHS}
    assert max(widths.values()) == 48 and all(width % 4 == 0 for width in widths.values())
    rates = {key: value / 10 for key, value in RUNS[name].items() if key in RATES}  # as base_lr is divided
    before = replace(RunConfig(), **{"max_steps": 450, **RUNS[name]} | added | rates)
    wanted = canonical(replace(before, model_hidden_dim=None, **widths, seed=[1, 2, 3, 4], controls="none"))
    unlike = {
        x.name for x in fields(RunConfig) if getattr(canonical(found), x.name) != getattr(wanted, x.name)
    }
    assert unlike == set()


def test_nothing_is_typed_that_is_so_anyway(tmp_path: Path, capsys: Any) -> None:
    sweep(tmp_path, {}, param_matched=ZERO)
    out = call(capsys, str(tmp_path))[1]
    (line,) = commands(out)
    wanted = "backbone=gpt2 model_n_head=4 base_lm_hidden_dim=32 reasoner_hidden_dim=64 base_lr=0.001"
    assert line == f"python run.py {wanted} max_steps=450 'seed=[1,2,3,4]'"


def test_roles_of_one_width_share_a_key_and_a_narrow_one_keeps_a_head(tmp_path: Path, capsys: Any) -> None:
    sweep(tmp_path, RUNS["one trunk"], {"base_lm_hidden_dim": 2, "reasoner_hidden_dim": 64})
    narrow, one = sorted(commands(call(capsys, str(tmp_path))[1]))
    assert "base_lm_hidden_dim=4 reasoner_hidden_dim=64" in narrow
    assert "model_hidden_dim=64" in one and "_lm_hidden_dim" not in one and "'weight_groups=[A,A,A,A]'" in one


def test_the_best_come_first_and_what_capacity_explains_is_said(tmp_path: Path, capsys: Any) -> None:
    better, worse = {s: 2.0 for s in ZERO}, {s: 0.01 for s in ZERO}
    sweep(tmp_path, {"base_lm_hidden_dim": 4}, param_matched=worse, compute_matched=worse)
    beaten = dict.fromkeys(("state_handed_on", "pause", "param_matched", "compute_matched"), better)
    sweep(tmp_path, {"base_lm_hidden_dim": 6}, gain=0.5, **beaten)
    sweep(tmp_path, {"base_lm_hidden_dim": 8}, gain=0.7)
    sweep(tmp_path, {"base_lm_hidden_dim": 10}, gain=-0.5)
    code, out, _ = call(capsys, str(tmp_path), "--best", "2")
    assert code == 0
    first, second = (part for part in out.split("\n\n")[1:])
    first, second = (part.replace("\n# ", " ") for part in (first, second))
    assert first.startswith("# 1. base_lm_hidden_dim=6. Verdict: beats every matched control. ")
    assert second.startswith("# 2. base_lm_hidden_dim=4. Verdict: beats the same base, not compute_matched, ")
    assert "But better than the thoughts: more training, more parameters." in second
    assert "+1.000±0.130" in out and "+0.500±0.130" in out
    assert max(map(len, (line for line in out.splitlines() if line.startswith("#")))) <= 112
    best = scale_up.ranked(tmp_path, load_cells(tmp_path))[0].finding.verdict
    assert best is not None and best.cells == 4, "all cells to choose from, not those printed"
    assert len(commands(call(capsys, str(tmp_path))[1])) == 3, "a cell that thinking hurts is none of them"
    assert len(commands(call(capsys, str(tmp_path), "base_lm_hidden_dim=4,8")[1])) == 2


def test_what_cannot_be_is_said_in_one_line(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:

    code, out, err = call(capsys)
    assert (code, out) == (2, "") and "give RUNS" in err
    code, out, err = call(capsys, str(tmp_path / "none"))
    assert (code, out) == (2, "") and "no such folder" in err
    sweep(tmp_path, {}, gain=-0.2)
    code, out, err = call(capsys, str(tmp_path))
    assert (code, out) == (1, "") and "nothing to scale up" in err
    code, out, err = call(capsys, str(tmp_path), "--heads", "0")
    assert (code, out, err.count("\n")) == (2, "", 1)
    sweep(tmp_path, {"backbone": "gpt2"}, {"thoughts": "state", "entropy_encouragement_coef": 0.0})
    code, out, err = call(capsys, str(tmp_path))
    assert (code, out) == (1, "") and "thoughts=state: are sampled states of a GRU" in err
    sweep(tmp_path, {"thoughts": "gaussian"}, gain=0.9)
    code, out, _ = call(capsys, str(tmp_path))
    assert code == 0 and len(commands(out)) == 1 and "# No command: thoughts=state" in out
    code, out, err = call(capsys, str(tmp_path), "--backbone", "bert")
    assert (code, out) == (1, "") and "backbone=bert: is not a choice" in err
    monkeypatch.setattr(backbone, "find_spec", lambda name: None)
    code, out, err = call(capsys, str(tmp_path))
    assert (code, out) == (1, "") and "transformers is not installed" in err


def test_settings_of_another_version_are_refused(tmp_path: Path, capsys: Any) -> None:
    for changes in ({"novel": 1}, {"task.novel": 1}, {"task": "novel"}):
        folder = tmp_path / str(changes)
        write(folder, columns() | changes, {"thinking": THINKING, "zero_length": ZERO})
        code, _, err = call(capsys, str(folder))
        assert code == 1 and "novel: not a" in err
    write(tmp_path / "typed", columns() | {"epochs": "many"}, {"thinking": THINKING, "zero_length": ZERO})
    code, _, err = call(capsys, str(tmp_path / "typed"))
    assert code == 1 and "epochs=many: Value 'many' of type 'str'" in err and err.count("\n") == 1


def test_a_removed_setting_is_passed_over_where_it_says_what_is_done_now(tmp_path: Path, capsys: Any) -> None:
    lines = []
    for number, changes in enumerate(({}, REMOVED, {"fsdp": True})):
        folder = tmp_path / str(number)
        write(folder, columns() | changes, {"thinking": THINKING, "zero_length": ZERO})
        code, out, err = call(capsys, str(folder))
        lines.append(commands(out) if code == 0 else err)
    assert lines[0] and lines[0] == lines[1] and "fsdp=true: this version does not have that" in lines[2]


def test_a_path_may_hold_what_shells_and_hydra_read(tmp_path: Path) -> None:
    path = tmp_path / "it's a {text}, $1 = [x].txt"
    path.write_text("to be or not to be " * 400)
    config = replace(RunConfig(), task=CharText(path=str(path)), max_steps=3)
    line = " ".join(["python run.py", *spelling.typed_words(config)])
    assert composed(line).task.path == str(path)


@pytest.mark.slow
def test_a_line_pasted_into_a_shell_trains(tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("transformers")
    sweep(tmp_path / "gru", RUNS["one trunk"] | {"info": "it's pasted"})
    (line,) = commands(call(capsys, str(tmp_path / "gru"), "--width", "16")[1])
    small = f"max_steps=2 data_loader_batch_size=4 eval_sequences=8 runs_dir={tmp_path}/runs"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    shell = ["bash", "-c", f"{line} {small}"]
    done = subprocess.run(
        shell, cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = load_rows(tmp_path / "runs")
    assert set(rows["backbone"]) == {"gpt2"} and sorted(rows["seed"]) == [1, 2, 3, 4]
    assert set(rows["info"]) == {"it's pasted"}
