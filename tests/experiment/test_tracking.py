"""The metrics file, its copy in a tracker, which can stop nothing, and the environment."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from toyqs.experiment import tracking
from toyqs.experiment.trackers import Place, Shown, Wandb
from toyqs.experiment.tracking import RunLog, environment

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(tracking.__file__)


@pytest.fixture(autouse=True)
def tracker_not_given_up(monkeypatch):
    monkeypatch.setattr(tracking, "_given_up", threading.Event())


class Recorder:
    """A stand-in for a wandb run."""

    def __init__(self):
        self.records, self.summary, self.finished = [], {}, False

    def define_metric(self, *_, **__): ...

    def log(self, record):
        self.records.append(record)

    def finish(self, exit_code=0):
        self.finished, self.exit_code = True, exit_code


def mirror(folder, *, online=False, seed=1, **settings):
    """Return a tracker for a run in a folder, of an arm of a cell."""
    shown = Shown(folder, Place("pause", "task.k=2", "task.k=2 (1a2b3c)"), seed, settings)
    return Wandb(shown, {"project": None, "entity": "us"}, ["first", "x" * 99], online=online)


def stand_in(monkeypatch, init, login=lambda **_: True):
    module = types.SimpleNamespace(init=init, login=login, Settings=dict)
    monkeypatch.setitem(sys.modules, "wandb", module)


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_every_line_is_on_disk_at_once_and_nan_is_null(tmp_path):
    log = RunLog(tmp_path)
    log.write(1, "train", {"nll": 1.5})
    assert lines(tmp_path) == [{"step": 1, "kind": "train", "nll": 1.5}]
    log.write(2, "held_out", {"nll": math.nan, "accuracy": math.inf, "information": None})
    assert lines(tmp_path)[1] == {
        "step": 2, "kind": "held_out", "nll": None, "accuracy": None, "information": None,
    }  # fmt: skip
    log.close({"nll": 1.0})
    RunLog(tmp_path).close()
    assert lines(tmp_path) == [], "an older metrics.jsonl is emptied"


def test_no_tracker_is_imported_unless_asked_for(tmp_path):
    code = "import sys; from toyqs.experiment.tracking import RunLog; "
    code += "log = RunLog(sys.argv[1]); log.close(); "
    code += "sys.exit(not {'wandb', 'tensorboard'}.isdisjoint(sys.modules))"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=ROOT)


def test_wandb_gets_the_same_names(tmp_path, monkeypatch):
    runs, asked = [Recorder(), Recorder()], []
    fresh = iter(runs)
    stand_in(monkeypatch, lambda **words: asked.append(words) or next(fresh))
    for seed in (1, 2):
        (tmp_path / f"key{seed}").mkdir()
    logs = [
        RunLog(tmp_path / f"key{seed}", mirror(tmp_path / f"key{seed}", online=True, seed=seed, k=2))
        for seed in (1, 2)
    ]
    logs[0].write(5, "held_out", {"nll": 1.5, "accuracy": 0.5})
    logs[0].write(5, "train", {"nll": 1.25})
    for log in logs:
        log.close({"nll": 1.0, "task.p": 6})
    index, words = next((i, x) for i, x in enumerate(asked) if x["config"]["key"] == "key1")
    mine = runs[index]
    assert words["name"] == "pause task.k=2 seed 1" and words["config"]["k"] == 2
    assert (words["project"], words["entity"], words["mode"]) == ("toyqs", "us", "online")
    assert (words["group"], words["job_type"]) == ("task.k=2 (1a2b3c)", "pause")
    assert (words["config"]["cell"], words["config"]["arm"]) == ("task.k=2 (1a2b3c)", "pause")
    assert words["tags"] == ["first", "x" * 64]
    written = [
        {"step": line["step"]}
        | {f"{line['kind']}/{n}": v for n, v in line.items() if n not in ("step", "kind")}
        for line in lines(tmp_path / "key1")
    ]
    assert mine.records == written and mine.summary == {"nll": 1.0, "task.p": 6}
    assert all(run.finished and run.exit_code == 0 for run in runs)
    assert {words["reinit"] for words in asked} == {"create_new"}
    assert {words["settings"]["init_timeout"] for words in asked} == {20}


def test_long_names_keep_the_end_that_tells_them_apart(tmp_path, monkeypatch):
    asked = []
    stand_in(monkeypatch, lambda **words: asked.append(words) or Recorder())
    long = "task.path=" + "x" * 200
    for digits in ("1a2b3c", "4d5e6f"):
        shown = Shown(tmp_path, Place("pause", long, f"{long} ({digits})"), 7, {})
        RunLog(tmp_path, Wandb(shown, {"project": None, "entity": None}, ["", "a"], online=False)).close()
    groups, names = [words["group"] for words in asked], {words["name"] for words in asked}
    assert len(groups) == 2 and groups[0].endswith("(1a2b3c)") and groups[1].endswith("(4d5e6f)")
    assert {len(x) for x in (*groups, *names)} == {128} and all(name.endswith(" seed 7") for name in names)
    assert [words["tags"] for words in asked] == [["a"], ["a"]], "wandb takes no empty tag"


def test_offline_files_of_an_earlier_attempt_are_replaced(tmp_path, monkeypatch):
    stand_in(monkeypatch, lambda **words: Recorder())
    for name in ("offline-run-1", "run-2"):
        (tmp_path / "wandb" / name).mkdir(parents=True)
    RunLog(tmp_path, mirror(tmp_path, online=True)).close()
    assert len(list(tmp_path.glob("wandb/*"))) == 2
    RunLog(tmp_path, mirror(tmp_path)).close()
    assert [path.name for path in tmp_path.glob("wandb/*")] == ["run-2"]


def test_a_run_without_a_row_has_failed(tmp_path, monkeypatch):
    run = Recorder()
    stand_in(monkeypatch, lambda **words: run)
    RunLog(tmp_path, mirror(tmp_path)).close()
    assert run.finished and run.exit_code == 1


def raises(**_):
    raise ConnectionError("no server\nsecond line")


def interrupts(**_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("init", [raises, interrupts])
def test_a_failing_wandb_is_one_line_for_all_runs(tmp_path, monkeypatch, capsys, init):
    stand_in(monkeypatch, init)
    for _ in range(3):
        log = RunLog(tmp_path, mirror(tmp_path))
        log.write(1, "train", {"nll": 1.5})
        log.close({})
        assert len(lines(tmp_path)) == 1
    warned = capsys.readouterr().err
    assert warned.count("\n") == 1 and warned.startswith("toyqs: wandb: ") and "continuing without" in warned


def test_a_failure_is_said_to_whoever_listens(tmp_path, monkeypatch):
    stand_in(monkeypatch, raises)
    said = []
    log = RunLog(tmp_path, mirror(tmp_path), say=said.append)
    log._mirror._thread.join(5)
    log.write(1, "train", {"nll": 1.5})
    assert said == ["wandb: ConnectionError: no server; continuing without it, the files have all numbers"]
    log.write(2, "train", {"nll": 1.5})
    log.close({})
    assert len(said) == 1 and len(lines(tmp_path)) == 2


def test_no_key_asks_no_question(tmp_path, monkeypatch, capsys):
    asked = []
    stand_in(monkeypatch, raises, login=lambda **words: asked.append(words) or False)
    RunLog(tmp_path, mirror(tmp_path, online=True)).close()
    assert asked == [{"prompt": False, "verify": False}]
    assert "no API key" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_a_hanging_wandb_holds_up_nothing(tmp_path, monkeypatch, capsys, where):
    released = threading.Event()

    def hang(*_, **__):
        released.wait(20)

    run = Recorder()
    if where != "init":
        setattr(run, where, hang)
    stand_in(monkeypatch, hang if where == "init" else lambda **_: run)
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 0.2)
    clock = time.monotonic()
    logs = [RunLog(tmp_path, mirror(tmp_path)) for _ in range(4)]
    mirrors = [log._mirror for log in logs]
    for log in logs:
        log.write(1, "train", {"nll": 1.5})
    assert time.monotonic() - clock < 0.15, "training waited"
    for log in logs:
        log.close({})
    assert time.monotonic() - clock < 2
    assert capsys.readouterr().err.count("continuing without it") == 1
    released.set()
    for each in mirrors:
        each._thread.join(5)


def test_a_hanging_wandb_does_not_keep_the_process(tmp_path):
    (tmp_path / "wandb.py").write_text("import time\ntime.sleep(300)\n")
    code = (
        "import pathlib, sys; sys.path.insert(0, sys.argv[1]); from toyqs.experiment import tracking\n"
        "from toyqs.experiment.trackers import NOWHERE, Shown, Wandb\n"
        "tracking.CLOSE_SECONDS = 0.1\n"
        "shown = Shown(pathlib.Path(sys.argv[1]), NOWHERE, 1, {})\n"
        "where = {'project': None, 'entity': None}\n"
        "tracking.RunLog(sys.argv[1], Wandb(shown, where, [], online=False)).close()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=100, capture_output=True)


def git(folder, *words):
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", *name, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_environment_tells_the_commit_of_its_own_source_only(tmp_path, monkeypatch):
    package = tmp_path / "toyqs"
    package.mkdir()
    copy = shutil.copy(SOURCE, package)
    monkeypatch.setattr(tracking, "__file__", copy)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment()["commit"] is None and environment()["dirty"] is None
    git(tmp_path, "init", "-q")
    (tmp_path / "other").write_text("")
    git(tmp_path, "add", "other")
    git(tmp_path, "commit", "-qm", "another project around it")
    assert environment()["commit"] is None
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "source")
    assert (environment()["commit"], environment()["dirty"]) == (git(tmp_path, "rev-parse", "HEAD"), False)
    Path(copy).write_text("changed")
    assert environment()["dirty"] is True


def test_environment_names_versions_and_can_be_written():
    found = environment()
    assert (
        found["python"].count(".") == 2 and found["torch"] and found["hydra-core"] and found["cpu_count"] >= 1
    )
    json.dumps(found, allow_nan=False)
