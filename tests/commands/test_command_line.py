"""run.py as a command: exit codes, one line on stderr, no file where it fails."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from toyqs.config.keys import TASKS
from toyqs.config.run_config import RunConfig
from toyqs.evidence.arms import CONTROLS

ROOT = Path(__file__).resolve().parents[2]
Experiment = Callable[[RunConfig], int]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., object]:
    """Run run.py in this process, in an empty folder, with a stand-in experiment; return the exit code."""

    def type_words(*words: str, experiment: Experiment = lambda config: 0) -> object:
        stub = ModuleType("toyqs.sweep.main")
        stub.main = lambda configs, **_: max(map(experiment, configs))  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "toyqs.sweep.main", stub)
        monkeypatch.setattr(sys, "argv", [str(ROOT / "run.py"), *words])
        for name in ("HYDRA_FULL_ERROR", "TOYQS_SCRATCH"):
            monkeypatch.setenv(name, "")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(ROOT / "run.py"), run_name="__main__")
        assert list(tmp_path.iterdir()) == []
        return left.value.code

    return type_words


def test_a_refusal_by_the_real_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), "+foo=1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"toyqs: foo: .+\n", done.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "word", ["trice_samples=x", "bas_lr=1", "--seed=3", "max_steps=0", "a=[1", "-x", "~seed", "seed=glob(*)"]
)
@pytest.mark.parametrize("sweep", [[], ["-m"]])
def test_refusals_are_one_line_and_exit_code_2(
    word: str, sweep: list[str], typed: Callable[..., object], capfd: pytest.CaptureFixture[str]
) -> None:
    assert typed(*sweep, word) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n"), err[:7]) == ("", 1, "toyqs: ")


def test_a_sweep_with_a_refused_job_trains_none_or_with_keep_going_the_others(
    typed: Callable[..., object], capfd: pytest.CaptureFixture[str]
) -> None:
    ran = []

    def experiment(config: RunConfig) -> int:
        ran.append((config.seed, config.trice_samples))
        return 0

    assert typed("-m", "seed=7,8", "trice_samples=1,2", experiment=experiment) == 2
    refusal, summary = capfd.readouterr().err.splitlines()
    assert ran == [] and refusal.startswith("toyqs: trice_samples=1: ")
    assert summary.startswith("toyqs: 1 of 2 combinations are refused")
    assert typed("-m", "seed=7,8", "trice_samples=1,2", "keep_going=true", experiment=experiment) == 2
    first, last = capfd.readouterr().err.splitlines()
    assert ran == [([7, 8], 2)] and first == refusal
    assert last.startswith("toyqs: 1 of 2 combinations were refused, and so not run: trice_samples=1: ")


@pytest.mark.parametrize("words", [["--cfg", "job"], ["report", "--help"], ["capacity_vs_gain", "--help"]])
def test_what_is_imported_is_kept_from_the_garbage_collector(words: list[str]) -> None:
    code = f"""\
import atexit, gc, sys
from toyqs.__main__ import main
atexit.register(lambda: print(gc.get_freeze_count() > 10_000, gc.isenabled(), file=sys.stderr))
sys.argv = ["run.py", *{words}]
main()"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "True True"


def test_options_may_come_last(typed: Callable[..., object]) -> None:
    ran = []

    def experiment(config: RunConfig) -> int:
        ran.append(config.seed)
        return 0

    assert typed("max_steps=1", "-m", "seed=0,1", experiment=experiment) == 0
    assert ran == [[0, 1]]


@pytest.mark.parametrize(
    "start", [["-P", "run.py"], ["-c", "import runpy; runpy.run_path('run.py', None, '__main__')"]]
)
def test_the_plugins_are_found_however_the_command_starts(tmp_path: Path, start: list[str]) -> None:
    """A link stands for run.py, from whose folder nothing else can be imported."""
    (tmp_path / "run.py").symlink_to(ROOT / "run.py")
    words = ["-m", "seed=x"]  # refused by the launcher of ours
    done = subprocess.run(
        [sys.executable, *start, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.split(":")[:2]) == (2, ["toyqs", " seed=x"])


@pytest.mark.parametrize("launcher", ["local", "basic"])
def test_jobs_are_packed_whatever_the_launcher(
    launcher: str, typed: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOYQS_LAUNCHER", launcher)
    ran = []

    def experiment(config: RunConfig) -> int:
        ran.append((config.base_lm_hidden_dim, config.seed))
        return 0

    assert typed("-m", "seed=7,8", "base_lm_hidden_dim=4,6", experiment=experiment) == 0
    assert ran == [(4, [7, 8]), (6, [7, 8])]


PAIRED = """\
# @package _global_
zip: [base_lm_hidden_dim, base_lr]
hydra:
  sweeper:
    params:
      base_lm_hidden_dim: "4,6"
      base_lr: "0.1,0.2"
"""


@pytest.mark.parametrize("launcher", ["local", "basic"])
def test_keys_change_together_whatever_the_launcher_as_typed_or_as_a_preset_says(
    launcher: str,
    typed: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TOYQS_LAUNCHER", launcher)
    presets = tmp_path_factory.mktemp("presets")
    (presets / "run_modifier").mkdir()
    (presets / "run_modifier" / "Paired.yaml").write_text(PAIRED)
    ran = []

    def experiment(config: RunConfig) -> int:
        ran.append((config.base_lm_hidden_dim, config.base_lr, config.trice_samples, config.seed))
        return 0

    words = ["zip=[base_lm_hidden_dim,base_lr]", "base_lm_hidden_dim=4,6", "base_lr=0.1,0.2"]
    preset = ["--config-dir", str(presets), "+run_modifier=Paired"]
    for given in (words, preset):
        assert typed("-m", *given, "trice_samples=2,3", "seed=7,8", experiment=experiment) == 0
        assert ran == [(*pair, k, [7, 8]) for pair in [(4, 0.1), (6, 0.2)] for k in (2, 3)]
        ran.clear()
    if launcher == "basic":
        return
    assert typed("-m", *preset, "zip=null", "seed=7", experiment=experiment) == 0
    assert [x[:2] for x in ran] == [(4, 0.1), (4, 0.2), (6, 0.1), (6, 0.2)]
    capfd.readouterr()
    assert typed(*preset, experiment=experiment) == 2
    line = "toyqs: zip=[base_lm_hidden_dim,base_lr]: says which settings of a sweep change together; give -m"
    assert capfd.readouterr().err.startswith(line)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("zip=[seed,base_lr] seed=7", "zip=[seed,base_lr]: says which settings of a sweep change together"),
        ("-m zip=[seed,base_lr] seed=7,8 base_lr=1,2,3", "zip=[seed,base_lr]: needs as many values of each"),
        ("-m zpi=[seed,base_lr] seed=7,8", "zpi: there is no such setting; did you mean zip?"),
        ("-m --zip=[seed,base_lr] seed=7,8", "settings are written without dashes; give zip=[seed,base_lr]"),
    ],
)
def test_what_cannot_change_together_is_refused_before_any_work(
    words: str, message: str, typed: Callable[..., object], capfd: pytest.CaptureFixture[str]
) -> None:
    assert typed(*words.split()) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1) and message in err


def test_the_local_launcher_passes_its_processes_on_and_reports_a_partition(
    typed: Callable[..., object], capfd: pytest.CaptureFixture[str]
) -> None:
    ran = []

    def experiment(config: RunConfig) -> int:
        ran.append(config.processes)
        return 0

    words = ["hydra.launcher.processes=3", "hydra.launcher.partition='kargo-lab'", "seed=7,8"]
    assert typed("-m", *words, experiment=experiment) == 0
    assert typed("-m", "processes=2", experiment=experiment) == 0
    assert ran == [3, 2]
    note = "toyqs: hydra.launcher.partition=kargo-lab: this sweep stays on this machine; "
    assert capfd.readouterr().err == f"{note}add hydra/launcher=slurm to submit it\n"
    assert typed("-m", "hydra.launcher.processes=x", experiment=experiment) == 2
    assert capfd.readouterr().err.startswith("toyqs: processes=x: takes a whole number")


def test_the_experiment_gets_a_checked_config(typed: Callable[..., object]) -> None:
    ran = []

    def experiment(config: RunConfig) -> int:
        ran.append(config)
        return 0

    assert typed("model_hidden_dim=16", "weight_groups=[A,A,A,A]", "task.k=2", experiment=experiment) == 0
    assert (ran[0].base_lm_hidden_dim, ran[0].weight_groups, ran[0].task.k) == (16, ["A"] * 4, 2)


def test_exit_codes_of_the_experiment(
    typed: Callable[..., object], capfd: pytest.CaptureFixture[str]
) -> None:
    def stop(config: RunConfig) -> int:
        raise KeyboardInterrupt

    assert typed(experiment=lambda config: 3) == 3
    assert typed(experiment=stop) == 130
    assert "Traceback" not in capfd.readouterr().err


def test_a_failure_of_the_experiment_is_not_taken_for_a_refusal(
    monkeypatch: pytest.MonkeyPatch, typed: Callable[..., object]
) -> None:
    def fail(config: RunConfig) -> int:
        raise ValueError("a fault of ours")

    with pytest.raises(ValueError, match="a fault of ours"):
        typed(experiment=fail)


def test_help_is_true(typed: Callable[..., object], capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("--help") == 0
    text = capsys.readouterr().out
    heads = r"\nCommands:\n|\nThe ten keys.*\n|\nResults:|\nPresets, .*\n"
    _, commands, keys, _, presets = re.split(heads, text)
    named = re.findall(r"^    (\w+)  ", presets, re.MULTILINE)
    assert sorted(named) == sorted(f.stem for f in (ROOT / "conf" / "run_modifier").glob("*.yaml"))
    shown = dict(re.findall(r"^  (\w+)=(\[.*?\]|\S+) ", keys, re.MULTILINE))
    assert len(shown) == 10
    defaults = RunConfig()
    for key, value in shown.items():
        default = "rev_prog" if key == "task" else str(getattr(defaults, key))
        assert value == default
    known = {x.name for x in fields(RunConfig)} | {"run_modifier", "KEY", "zip"}
    assert set(re.findall(r"(?<![\w./])(\w+)=", text)) <= known
    assert commands.count("python run.py") == 3


def test_help_names_every_task(typed: Callable[..., object], capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("--help") == 0
    tasks = capsys.readouterr().out.split("\nTasks")[1].split("\nControls")[0]
    assert sorted(re.findall(r"^  (\w+)  ", tasks, re.MULTILINE)) == sorted(TASKS)


def test_help_says_what_every_control_is(
    typed: Callable[..., object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed("--help") == 0
    shown = capsys.readouterr().out.split("\nControls")[1].split("\nValues")[0]
    assert re.findall(r"^  (\w+)  ", shown, re.MULTILINE) == list(CONTROLS)
    assert "zero_length      zero-length thoughts (read afresh: without base_reasoner and reasoner)" in shown
