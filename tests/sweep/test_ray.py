"""A sweep on a real Ray: commands and a worker are killed, one is stopped; and what is said in words."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import killing, lab, one_ray, warm
from tests.sweep.test_scheduler import folder_of, stack
from toyqs.config.errors import Refusal
from toyqs.evidence.states import FAILED, state_of
from toyqs.sweep.executors import ray_cluster, ray_tasks, settings
from toyqs.sweep.executors.connect import connect
from toyqs.sweep.executors.settings import Launcher, RaySettings, checked
from toyqs.sweep.worker import StackOutcome

WORDS = (
    *("-m", "base_lm_hidden_dim=4,5,6", "reasoner_hidden_dim=4", "seed=1,2", "controls=none"),
    *("max_steps=200", "data_loader_batch_size=2", "eval_sequences=4"),
    *("trice_samples=2", "max_reasoning_len=1"),
    *("plugins=./lab", "task=delay", "reward=power", "plugin.power.exponent=0.5"),  # beside the runs
)
SECONDS = 120.0


@pytest.fixture(scope="module")
def ray() -> Iterator[one_ray.Ray]:
    """Start a Ray that commands join, with a token of its own."""
    pytest.importorskip("ray", reason="the package ray is not installed: pip install 'toyqs[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")  # else Ray writes one into the home folder
        patch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef0123456789abcdef")
        patch.setenv("OMP_NUM_THREADS", "1")
        running = one_ray.Ray()
        yield running
        running.close()


def started(folder: Path, *words: str) -> warm.Started:
    return warm.started([str(killing.ROOT / "run.py"), *WORDS, *words], folder)


def at_work(command: warm.Started, session: int, folder: Path, rows: int = 0) -> list[int]:
    """Wait until tasks train and so many rows are written; return the tasks' processes."""

    def trains() -> bool:
        begun = {path.parent for path in folder.glob("runs/*/checkpoint.pt")}
        kept = begun - {path.parent for path in folder.glob("runs/*/summary.json")}
        return bool(kept and killing.num_rows(folder) >= rows and one_ray.tasks(session)) or ended()

    def ended() -> bool:
        return command.poll() is not None

    assert killing.until(trains, SECONDS, 0.05) and not ended(), (folder / "err").read_text()
    return one_ray.tasks(session)


@pytest.mark.ray
def test_a_sweep_through_deaths(ray: one_ray.Ray, tmp_path: Path) -> None:
    """Kill a command with its Ray, stop one, kill a worker of one; the fourth completes the sweep."""
    here, whole = tmp_path / "here", tmp_path / "whole"
    for folder in (here, whole):
        folder.mkdir()
        lab.written(folder)
    joining = ("hydra/launcher=ray", f"hydra.launcher.address={ray.address}")
    first = started(here, "hydra/launcher=ray", "hydra.launcher.processes=1")
    at_work(first, first.pid, here)
    os.kill(first.pid, signal.SIGKILL)
    assert killing.until(lambda: not one_ray.tasks(first.pid), 20), "its tasks outlive it"
    (left,) = Path(tempfile.gettempdir()).glob(f"toyqs-ray-*/session_*_{first.pid}")
    shutil.rmtree(left.parent, ignore_errors=True)

    second = started(here, *joining)
    at_work(second, ray.process.pid, here)
    os.killpg(second.pid, signal.SIGINT)
    assert second.wait() == 130
    assert killing.until(lambda: not ray.tasks(), 20), "its tasks outlive it"
    assert not any(log.stat().st_size for log in here.glob("runs/*/log.txt")), "taken for a failure"

    third = started(here, *joining)
    os.kill(at_work(third, ray.process.pid, here, rows=2)[0], signal.SIGKILL)
    assert third.wait() == 1
    (line,) = [line for line in killing.stderr_of(here) if "failed: " in line]
    assert "its process was killed, by hand or by the system for want of memory" in line
    log = Path(here, line.rpartition("; log ")[2])
    assert state_of(log.parent).word == FAILED
    rows = {path: path.read_bytes() for path in here.glob("runs/*/summary.json")}

    assert started(here, *joining).wait() == 0, killing.stderr_of(here)
    assert rows and all(path.read_bytes() == row for path, row in rows.items()), "trained twice"
    assert all(line.startswith("toyqs: ") for line in killing.stderr_of(here)), "Ray prints as well"
    assert "raylet" not in (here / "out").read_text()
    assert started(whole, "processes=1").wait() == 0, killing.stderr_of(whole)
    found = killing.found_in(here)  # a task that is killed while it writes leaves a file of its own
    ours = {name for name in found.files if not name.startswith(ray_tasks.FOLDER)}
    assert killing.differences(found._replace(files=ours), killing.found_in(whole)) == []


def executor(folder: Path, cluster: Any, **changes: Any) -> tuple[ray_tasks.RayTasks, list[Any]]:
    """Return an executor on a cluster that has been joined, and the list of all that it tells."""
    one = ray_tasks.RayTasks(RaySettings(**changes), str(folder), None)
    one._cluster, news = cluster, list[Any]()
    one.tell = lambda *told: news.append(told)
    return one, news


class Joined:
    """A cluster of one machine with two cores, whose tasks end at once as `ends` says."""

    def __init__(self, ends: Any, address: str | None = None) -> None:
        self.ray, self.ends, self.address, self.asked = self, ends, address, list[Any]()

    def remote(self, **resources: Any) -> Any:
        self.asked.append(resources)
        return lambda train: SimpleNamespace(remote=lambda *given: given[1])

    def has_room(self, needed: dict[str, float]) -> bool:
        return needed["CPU"] <= 2 and not needed["GPU"]

    def wait(self, references: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return references, []

    def get(self, reference: Any) -> Any:
        if isinstance(self.ends, Exception):
            raise self.ends
        return self.ends

    def close(self) -> None:
        pass


def test_what_a_task_returns_is_told(tmp_path: Path) -> None:
    state = {"share": 1.0, "loss": 0.5, "says": ["a line"], "outcome": [[0], [], [1], None]}
    one, news = executor(tmp_path, joined := Joined(state), cpus=2)
    two = stack(tmp_path, [0, 1])
    assert one.free() == ray_tasks.MOST
    one.start([(3, two)])
    assert one.free() == ray_tasks.MOST - 1
    one.wait(0.1)
    assert news == [
        (3, "queued", True),
        (3, "queued", False),
        (3, "progress", (two.work, 0.5)),
        (3, "say", "a line"),
        (3, "outcome", StackOutcome([0], [], [1])),
    ]
    assert joined.asked == [{"num_cpus": 2, "num_gpus": 0, "max_retries": 0}]
    one.close()
    assert not (tmp_path / ray_tasks.FOLDER).exists()


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (type("WorkerCrashedError", (Exception,), {})("long"), "its process was killed, by hand or by the"),
        (
            type("OutOfMemoryError", (Exception,), {})("long"),
            "its process was killed by Ray, for its machine",
        ),
        (
            ModuleNotFoundError("No module\nnamed x"),
            "its process ended: ModuleNotFoundError: No module named",
        ),
    ],
)
def test_a_death_is_one_line_and_in_the_log(tmp_path: Path, error: Exception, why: str) -> None:
    one, news = executor(tmp_path, Joined(error))
    one.start([(0, stack(tmp_path, [0]))])
    one.wait(0.1)
    (index, kind, outcome) = news[-1]
    assert (index, kind, outcome[:3]) == (0, "outcome", ([], [], []))
    assert outcome.failure.startswith(why) and "\n" not in outcome.failure
    folder = folder_of(stack(tmp_path, [0]), 0)
    assert state_of(folder).why == f"{outcome.failure}; {folder.name}/log.txt"


def test_want_of_a_gpu_is_said(tmp_path: Path) -> None:
    on_gpu = stack(tmp_path, [0])
    one, news = executor(tmp_path, Joined({}), gpus=0.5)
    with pytest.raises(Refusal, match=r"to have 1 CPUs and 0.5 GPUs, which this machine has not; give hydra"):
        one.start([(0, on_gpu)])
    one, news = executor(tmp_path, Joined({}, "a:1"), gpus=1)
    one.start([(0, on_gpu), (1, on_gpu)])
    assert [told[2] for told in news if told[1] == "say"] == [
        "no machine of the Ray cluster has 1 CPUs and 1 GPUs; stacks wait for one"
    ]


def test_a_machine_without_the_folder_says_so(tmp_path: Path) -> None:
    plain = stack(tmp_path, [0]).to_plain()
    kept = signal.getsignal(signal.SIGTERM)
    with pytest.raises(
        FileNotFoundError, match=r"has no folder .*/none/runs/\.ray; all machines of the cluster"
    ):
        ray_tasks._train(plain, "runs/.ray/x.json", ["run.py"], str(tmp_path / "none"))
    signal.signal(signal.SIGTERM, kept)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gpus": "x"}, "hydra.launcher.gpus=x: takes a number; see conf/hydra/launcher/ray.yaml"),
        ({"gpus": 1.5}, "hydra.launcher.gpus=1.5: takes a whole number or less than 1; give hydra"),
        ({"gpus": float("nan")}, "hydra.launcher.gpus=nan: takes at least 0"),
        ({"cpus": 0}, "hydra.launcher.cpus=0: takes at least 1"),
        ({"partition": "a"}, "hydra.launcher.partition: is a setting of hydra/launcher=local"),
    ],
)
def test_what_is_wrong_is_one_line(
    given: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "find_spec", lambda name: True)
    with pytest.raises(Refusal, match=message):
        checked(Launcher("ray", given))
    assert checked(Launcher("ray", {"gpus": 0.25})) == RaySettings(gpus=0.25)
    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    with pytest.raises(Refusal, match=r"needs the package ray; give pip install 'toyqs\[ray\]'"):
        checked(Launcher("ray", {}))


def test_processes_bound_the_tasks(tmp_path: Path) -> None:
    configs = [stack(tmp_path, [0], processes=3).config]
    assert connect(RaySettings(), configs, 9, isolate=True).free() == 3
    assert connect(RaySettings(processes=2), configs, 9, isolate=True).free() == 2


@pytest.mark.ray
def test_a_ray_of_the_caller_is_used_and_left_running(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    for name in ray_cluster.QUIET:
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="a:1"))
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0, "GPU": 2.0})
    called: list[str] = []
    for name in ("init", "shutdown"):
        monkeypatch.setattr(ray, name, lambda **_: called.append("called"))
    cluster = ray_cluster.RayCluster(RaySettings())
    assert cluster.describe() == "Ray at a:1 has 8 CPUs and 2 GPUs"
    cluster.close()
    assert called == []


def test_a_python_in_a_folder_with_a_blank_is_given_in_quotes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/opt/my tools/python")
    assert ray_cluster._environment()["py_executable"] == "'/opt/my tools/python'"
    monkeypatch.setattr("sys.executable", "/usr/bin/python3")
    assert "py_executable" not in ray_cluster._environment()
