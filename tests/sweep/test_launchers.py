"""The settings of launchers: read, checked, refused in one line; the task that runs in a Slurm job."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir

from tests.sweep.test_scheduler import folder_of, stack
from toyqs.config.errors import Refusal
from toyqs.evidence.rows import is_complete
from toyqs.sweep.costs import cached_cost
from toyqs.sweep.executors import settings, slurm_array, slurm_queue, stack_task
from toyqs.sweep.executors.connect import connect
from toyqs.sweep.executors.local import InThisProcess, WorkerPool
from toyqs.sweep.executors.settings import LAUNCHERS, Launcher, SlurmSettings, checked, unknown_launcher_key
from toyqs.sweep.executors.slurm import SlurmArrays, Watched
from toyqs.sweep.progress import Progress
from toyqs.sweep.words.compose import compose_checked
from toyqs.sweep.words.presets import register
from toyqs.sweep.worker import StackOutcome
from toyqs.training import distributed

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def slurm_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(settings, "find_spec", lambda name: name)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_files_have_the_settings_defaults_each_with_a_comment(name: str) -> None:
    text = (ROOT / f"conf/hydra/launcher/{name}.yaml").read_text()
    given = yaml.safe_load(text)
    assert given.pop("_target_") == "hydra_plugins.sweep_launcher.SweepLauncher"
    assert given == dataclasses.asdict(LAUNCHERS[name]())
    lines = [line for line in text.splitlines() if not line.startswith(("#", "_target_"))]
    assert len(lines) == len(given) and all("  # " in line for line in lines)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"time": "x"}, "hydra.launcher.time=x: takes a whole number; see conf/hydra/launcher/slurm.yaml"),
        ({"time": 1.5}, "hydra.launcher.time=1.5: takes a whole number"),
        ({"partition": ["a"]}, "hydra.launcher.partition=.*: takes a word"),
        ({"setup": "module load x"}, "hydra.launcher.setup=module load x: takes a list of words"),
        ({"cpus": 0}, "hydra.launcher.cpus=0: takes at least 1; give hydra.launcher.cpus=1"),
        ({"max_timeouts": -1}, "hydra.launcher.max_timeouts=-1: takes at least 0"),
        ({"partition": "a\nb"}, "hydra.launcher.partition: holds a character that cannot be shown"),
        ({"setup": ["a\nb"]}, "hydra.launcher.setup: holds a character that cannot be shown"),
        ({"processes": 2}, "hydra.launcher.processes: is a setting of hydra/launcher=local"),
        ({"tim": 2}, "hydra.launcher.tim: there is no such setting; did you mean hydra.launcher.time"),
    ],
)
def test_what_is_wrong_is_one_line(given: Mapping[str, Any], message: str, slurm_is_here: None) -> None:
    with pytest.raises(Refusal, match=message) as refused:
        checked(Launcher("slurm", given))
    assert "\n" not in str(refused.value)


def test_settings_are_read(slurm_is_here: None) -> None:
    given = {"partition": "a", "memory": "8GB", "gpus": 1, "setup": ["module load x"]}
    found = checked(Launcher("slurm", given))
    assert found == SlurmSettings(partition="a", memory="8GB", gpus=1, setup=["module load x"])
    assert checked(Launcher("basic", {"anything": 1})) is None
    line = str(unknown_launcher_key("hydra.launcher.time"))
    assert line == "hydra.launcher.time: is a setting of hydra/launcher=slurm; give that as well"


def test_every_setting_reaches_sbatch(tmp_path: Path) -> None:
    words = dict.fromkeys(("partition", "qos", "account", "constraint", "exclude"), "x")
    given = SlurmSettings(**words, time=4, memory="8GB", cpus=3, gpus=2, setup=["first"], array_parallelism=5)
    found = slurm_array._parameters(given, tmp_path)
    assert found.pop("setup")[0] == "first"
    numbers = {"time": 4, "mem": "8GB", "cpus_per_task": 3, "gpus_per_node": 2, "array_parallelism": 5}
    fixed = {"additional_parameters": {"requeue": True}, "srun_args": ["--cpus-per-task=3"]}
    assert found == words | numbers | fixed | {"signal_delay_s": 80}
    assert slurm_array._parameters(SlurmSettings(), tmp_path)["signal_delay_s"] == 90


def test_a_stack_in_several_tasks_has_one_outcome(tmp_path: Path) -> None:
    one, news = SlurmArrays(SlurmSettings(), str(tmp_path)), list[Any]()
    one.tell = lambda *told: news.append(told)
    outcomes = {(0,): StackOutcome([0, 9], [], []), (1, 2): StackOutcome([], [1], [2])}
    tasks = [Watched(3, [*seeds], ("a", 0), "1", outcome=found) for seeds, found in outcomes.items()]
    one.stacks[3], one.tasks[3] = stack(tmp_path, [0, 1, 2]), tasks
    one._tell(3, [*tasks[:1], Watched(3, [1, 2], ("a", 1), "1")])
    assert [told[1] for told in news] == ["queued", "progress"]
    one._tell(3, tasks)
    assert news[-1] == (3, "outcome", StackOutcome([0], [1], [2])) and not one.tasks


def test_without_slurm_or_submitit_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(settings, "find_spec", lambda name: name)
    with pytest.raises(
        Refusal, match="slurm: there is no sbatch nor squeue nor scontrol nor srun here; give the"
    ):
        checked(Launcher("slurm", {}))
    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    with pytest.raises(Refusal, match=r"needs the package submitit; give pip install 'toyqs\[cluster\]'"):
        checked(Launcher("slurm", {}))


def test_a_task_writes_its_progress_and_its_outcome(tmp_path: Path) -> None:
    one = stack(tmp_path / "runs", [0, 1])
    folder_of(one, 0).mkdir(parents=True)
    (folder_of(one, 0) / "checkpoint.pt").write_bytes(b"x")  # of which a line is told
    file = tmp_path / "0.json"
    plain = json.loads(json.dumps(one.to_plain()))
    task = stack_task.StackTask(plain, str(file), ["run.py", "seed=0"])
    states = run_aside(task, file)
    assert states["outcome"] == [[0, 1], [], [], None] and states["share"] == 1.0
    assert len(states["says"]) == 1 and "begins anew" in states["says"][0]
    assert all(is_complete(tmp_path / "runs", folder_of(one, seed).name) for seed in (0, 1))
    env = json.loads((folder_of(one, 0) / "env.json").read_text())
    assert env["command"] == "run.py seed=0"


def run_aside(task: stack_task.StackTask, file: Path) -> dict[str, Any]:
    """Run a task in a process of its own, as a job does; return what its file holds."""
    process = multiprocessing.get_context("spawn").Process(target=task)
    process.start()
    process.join()
    assert process.exitcode == 0
    return dict(json.loads(file.read_text()))


def test_a_warned_task_leaves_no_outcome_unless_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, log = stack(tmp_path, [0]), folder_of(stack(tmp_path, [0]), 0) / "log.txt"
    log.parent.mkdir()

    def ends(failure: str, *, warned: bool = True) -> stack_task.StackTask:
        log.write_text(f"Traceback (most recent call last):\n{failure}")
        task = stack_task.StackTask(one.to_plain(), str(tmp_path / "0.json"), ["run.py"])
        told = [("progress", [0.0, None]), ("outcome", [[], [], [], failure])]
        monkeypatch.setattr(stack_task, "train", lambda _, tell: [tell(*news) for news in told])
        monkeypatch.setattr("sys.argv", [])
        if warned:
            task.checkpoint()
        task()
        return task

    with pytest.raises(SystemExit):
        ends("SystemExit: -1 (job_environment.py:1)")
    assert not log.exists(), "taken for a failure"
    assert json.loads((tmp_path / "0.json").read_text())["outcome"] is None
    ends("SystemExit: 3 (mine.py:1)", warned=False)
    assert log.exists()
    assert "mine.py" in json.loads((tmp_path / "0.json").read_text())["outcome"][3]
    ends("UncompletedJobError: Job not requeued because: timed-out too many times.")
    assert "too many times" in json.loads((tmp_path / "0.json").read_text())["outcome"][3]


def test_a_task_whose_settings_are_refused_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(plain: Any) -> Any:
        raise Refusal("plugins=./mine.py: has changed")

    monkeypatch.setattr("toyqs.sweep.plan.Stack.from_plain", refuse)
    monkeypatch.setattr("sys.argv", [])
    stack_task.StackTask([], str(tmp_path / "0.json"), ["run.py"])()
    outcome = json.loads((tmp_path / "0.json").read_text())["outcome"]
    assert outcome == [[], [], [], "its process could not begin: plugins=./mine.py: has changed"]


def test_a_queued_task_has_checkpoints_also_where_the_run_has_none(tmp_path: Path) -> None:
    one = stack(tmp_path, [0], max_steps=60)
    given = stack_task.with_checkpoints(one)
    assert given.config.checkpoint_every == 3 and folder_of(given, 0) == folder_of(one, 0)
    own = stack(tmp_path, [0], max_steps=60, checkpoint_every=7)
    assert stack_task.with_checkpoints(own) == own


def test_endings_in_words() -> None:
    def told(state: str, begun: bool = True) -> str:
        return slurm_queue.why_it_ended("1_2", state, "1:0", begun=begun)

    assert told("CANCELLED") == told("", begun=False) == "job 1_2 was cancelled"
    assert told("") == "job 1_2 is no longer in Slurm's queue, and Slurm has forgotten how it ended"
    assert told("OUT_OF_MEMORY").endswith("for want of memory; give a larger hydra.launcher.memory")
    assert told("FAILED") == "job 1_2 ended as FAILED, exit code 1:0"
    assert slurm_queue.listed(["12_3", "12_4", "15"]) == "12 15"


def test_a_controller_that_does_not_answer_is_no_empty_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("squeue", "scontrol"):
        (tmp_path / name).write_text(
            "#!/bin/sh\necho 'slurm_load_jobs error:\n cannot be reached' >&2\nexit 1\n"
        )
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(slurm_queue.NoAnswer, match=r"^slurm_load_jobs error: cannot be reached$"):
        slurm_queue.queue()
    assert slurm_queue.ended("1_2") == ("", "")


def test_what_waits_for_a_machine_is_counted_apart(tmp_path: Path) -> None:
    one, other = stack(tmp_path, [0, 1]), stack(tmp_path, [5])
    progress = Progress([one, other], 0)
    for index, each in enumerate((one, other)):
        progress.start(index, each)
    progress.queue(0, waits=True)
    assert progress.line().startswith("0 of 3 runs finished, 1 training, 2 queued")
    progress.queue(0, waits=False)
    assert progress.line().startswith("0 of 3 runs finished, 3 training")
    progress.queue(1, waits=True)
    progress.finish(1, 1, 0, 0)
    assert progress.line().startswith("1 of 3 runs finished, 2 training")
    progress.close()


def test_torchrun_and_a_cluster_do_not_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = [stack(tmp_path, [0]).config]
    assert isinstance(connect(SlurmSettings(), configs, 1, isolate=True), SlurmArrays)
    assert isinstance(connect(None, configs, 1, isolate=True), WorkerPool)
    assert isinstance(connect(None, configs, 1, isolate=False), InThisProcess)
    monkeypatch.setattr(distributed, "ranks", lambda: 2)
    with pytest.raises(Refusal, match="give the command without torchrun"):
        connect(SlurmSettings(), configs, 1, isolate=True)
    assert isinstance(connect(None, configs, 1, isolate=True), InThisProcess)


def test_a_gpu_is_needed_where_runs_train_not_where_they_are_submitted(tmp_path: Path) -> None:
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = compose("config", ["device=cuda", f"runs_dir={tmp_path}", "max_steps=3"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: False)
        with pytest.raises(Refusal, match="device=cuda: torch finds no CUDA device here"):
            compose_checked(composed)
        config, _ = compose_checked(composed, elsewhere=True)
        assert config.device == "cuda"
        assert cached_cost()(config) == cached_cost()(dataclasses.replace(config, device="cpu"))
