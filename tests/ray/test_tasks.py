"""What Ray is given and told of a task, by a stand-in for Ray; with a real one in tests/sweep/test_ray.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.sweep.test_ray import Joined, executor
from tests.sweep.test_scheduler import stack
from toyqs.config.errors import Refusal
from toyqs.files import write_json
from toyqs.sweep.executors import ray_cluster
from toyqs.sweep.executors.ray_cluster import RayCluster
from toyqs.sweep.executors.ray_tasks import FOLDER
from toyqs.sweep.executors.settings import RaySettings
from toyqs.sweep.executors.stack_task import with_checkpoints
from toyqs.sweep.worker import StackOutcome


class Slow(Joined):
    """A cluster whose tasks end when they are let, and which notes what it was given."""

    def __init__(self) -> None:
        state = {"share": 1.0, "loss": None, "says": ["one", "two"], "outcome": [[0], [], [], None]}
        super().__init__(state, "a:1")
        self.given: list[Any] = []
        self.ended = False

    def remote(self, **resources: Any) -> Any:
        self.asked.append(resources)
        return lambda train: SimpleNamespace(remote=self.note)

    def note(self, *given: Any) -> Any:
        self.given.append(given)
        return given[1]

    def wait(self, references: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return (references[:1], references[1:]) if self.ended else ([], references)


def test_a_task_gets_what_it_needs(tmp_path: Path) -> None:
    one, _ = executor(tmp_path, slow := Slow())
    plain, on_gpu = stack(tmp_path, [0], max_steps=60), stack(tmp_path, [1], max_steps=60, device="cuda")
    one.start([(0, plain), (1, on_gpu)])
    assert [resources["num_gpus"] for resources in slow.asked] == [0, 1]
    (given, file, *rest), _ = slow.given
    assert given == with_checkpoints(plain).to_plain() != plain.to_plain()
    assert Path(file).parent == tmp_path / FOLDER and rest == [sys.argv, os.getcwd()]
    part, _ = executor(tmp_path, slow := Slow(), gpus=0.25, cpus=2)
    part.start([(0, on_gpu)])
    assert slow.asked == [{"num_cpus": 2, "num_gpus": 0.25, "max_retries": 0}]


def test_news_of_a_task_is_told_once_and_its_file_ends_with_it(tmp_path: Path) -> None:
    one, news = executor(tmp_path, slow := Slow())
    other = stack(tmp_path, [1])
    one.start([(0, stack(tmp_path, [0])), (1, other)])
    files = [task.file for task in one.tasks.values()]
    one.wait(0.0)
    assert [told for told in news if told[1] != "queued"] == [], "nothing is written yet"
    write_json(files[0], {"share": 0.5, "loss": 0.25, "says": ["one"], "outcome": None})
    one._looked = 0.0
    one.wait(0.0)
    assert news[-3][1:] == ("queued", False) and news[-2][1] == "progress" and news[-1][1:] == ("say", "one")
    slow.ended = True
    one.wait(0.0)
    assert [told[2] for told in news if told[1] == "say"] == ["one", "two"]
    assert news[-1] == (0, "outcome", StackOutcome([0], [], []))
    assert not files[0].exists() and len(one.tasks) == 1

    files[1].write_text("of a command that was killed")
    again, news = executor(tmp_path, Slow())
    again.start([(0, other)])
    assert not files[1].exists()


def test_room_is_that_of_one_machine_that_is_there() -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 1.0, "GPU": 1.0}},
        {"Alive": False, "Resources": {"CPU": 9.0, "GPU": 9.0}},
    ]
    cluster: Any = SimpleNamespace(ray=SimpleNamespace(nodes=lambda: nodes))
    asked = ({"CPU": 2, "GPU": 0}, {"CPU": 1, "GPU": 1}, {"CPU": 2, "GPU": 1}, {"CPU": 3})
    assert [RayCluster.has_room(cluster, needed) for needed in asked] == [True, True, False, False]


def test_other_machines_get_our_variables_and_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"TOYQS_CACHE": "/a", "HOME": "/b"})
    monkeypatch.setattr(ray_cluster, "checkout", lambda: "/code")
    assert ray_cluster._environment()["env_vars"] == {"TOYQS_CACHE": "/a", "PYTHONPATH": "/code"}


@pytest.mark.parametrize("fault", [None, RuntimeError("no\nroom")])
def test_a_ray_of_this_machine_is_started_quietly_and_leaves_nothing(
    fault: Exception | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    started: dict[str, Any] = {}

    def init(**options: Any) -> None:
        started.update(options)
        os.write(2, b"from below")  # as what is no Python does
        if fault is not None:
            raise fault

    cluster: Any = RayCluster.__new__(RayCluster)
    cluster.ray, cluster.address = SimpleNamespace(init=init, shutdown=lambda: None), None
    cluster._folder, cluster._joined = None, False
    if fault is None:
        cluster._connect(RaySettings(cpus=64))
        assert Path(started["_temp_dir"]).is_dir()
        cluster.close()
    else:
        with pytest.raises(
            Refusal, match="Ray cannot be started on this machine: no room from below"
        ) as said:
            cluster._connect(RaySettings(cpus=64))
        assert said.value.code == 1
    assert (started["address"], started["num_cpus"], started["log_to_driver"]) == ("local", 64, False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ray
@pytest.mark.parametrize(
    ("typed", "environment", "found"),
    [(None, None, None), (None, "a:1", "a:1"), ("b:2", "a:1", "b:2"), (None, "local", None)],
)
def test_the_environment_says_which_ray_where_the_command_does_not(
    typed: str | None, environment: str | None, found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    given = {} if environment is None else {"RAY_ADDRESS": environment}
    monkeypatch.setattr(os, "environ", os.environ | given)
    monkeypatch.setattr(RayCluster, "_connect", lambda *_: None)
    assert RayCluster(RaySettings(address=typed)).address == found


def test_what_ray_says_of_an_address_is_put_in_our_words() -> None:
    token = str(ray_cluster._refusal("a:1", "RPC error: InvalidAuthToken: missing"))
    assert token.startswith(
        "hydra.launcher.address=a:1: asks for a token; give RAY_AUTH_TOKEN=TOKEN in the env"
    )
    other = str(ray_cluster._refusal("a:1", "RPC error: Method not found! rpc_code: 12"))
    assert "cannot be joined: another of Ray's ports answers there than the one that ray start" in other


def test_a_command_that_stops_ends_its_tasks_also_on_a_ray_that_goes_on(tmp_path: Path) -> None:
    one, _ = executor(tmp_path, slow := Slow())
    cancelled: list[Any] = []
    slow.cancel = lambda reference, *, force: cancelled.append((reference, force))  # type: ignore[attr-defined]
    one.start([(seed, stack(tmp_path, [seed])) for seed in (0, 1)])
    one.stop()
    assert cancelled == [(reference, True) for reference in one.tasks] and len(cancelled) == 2
