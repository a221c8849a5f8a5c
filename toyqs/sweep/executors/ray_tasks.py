"""Train stacks as tasks of a Ray cluster."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toyqs.config.errors import Refusal
from toyqs.evidence.states import ENDED
from toyqs.files import make_folder, read_json
from toyqs.sweep.executors.executor import Entry, Executor
from toyqs.sweep.executors.ray_cluster import RayCluster
from toyqs.sweep.executors.settings import RaySettings
from toyqs.sweep.executors.stack_task import StackTask, with_checkpoints
from toyqs.sweep.plan import Stack
from toyqs.sweep.worker import StackOutcome, log_path, record_death

FOLDER = ".ray"  # in the folder of runs; a file per task says how far it is
MOST = 1000  # tasks handed to Ray at once
LOOK_SECONDS = 1.0  # between two looks at the tasks' files

# Errors of Ray -> how the process of a task has ended.
DEATHS = {
    "WorkerCrashedError": "was killed, by hand or by the system for want of memory, or it crashed",
    "OutOfMemoryError": "was killed by Ray, for its machine had hardly any memory left",
    "NodeDiedError": "was lost with its machine",
}


@dataclass
class Watched:
    """A stack and the file in which its task says how far it is."""

    index: int
    stack: Stack
    file: Path
    stamp: int = 0  # of the file when it was last read
    heard: int = 0  # how many lines for the user


class RayTasks(Executor):
    """Trains each stack in a task of a Ray cluster, which is joined or started when the first stack comes.

    Args:
        settings: of the launcher.
        runs_dir: the folder of runs.
        processes: most stacks trained at once; None: as many as the cluster has room for.
    """

    def __init__(self, settings: RaySettings, runs_dir: str, processes: int | None) -> None:
        self.settings, self.folder, self.most = settings, Path(runs_dir) / FOLDER, processes or MOST
        self.tasks: dict[Any, Watched] = {}  # by Ray's reference to what the task will return
        self._cluster: RayCluster | None = None
        self._looked = 0.0
        self._warned = False

    def free(self) -> int:
        """Return how many more tasks Ray may be given; it starts those for which it has room."""
        return self.most - len(self.tasks)

    def start(self, entries: Sequence[Entry]) -> None:
        """Hand stacks to Ray.

        Raises:
            Refusal: there is no cluster to join, or none can be started, or one started here has no room.
        """
        for index, stack in entries:
            if self._cluster is None:
                self._cluster = RayCluster(self.settings)
                self.tell(index, "say", self._cluster.describe())
            gpus = self.settings.gpus
            if gpus is None:
                gpus = 1 if stack.config.device == "cuda" else 0
            self._require_room(index, {"CPU": self.settings.cpus, "GPU": gpus})
            task = Watched(index, stack, self.folder / f"{log_path(stack).parent.name}.json")
            make_folder(self.folder)
            task.file.unlink(missing_ok=True)  # of a command that was killed
            # A task whose process died is not tried again by Ray: the scheduler alone decides on that.
            train = self._cluster.ray.remote(num_cpus=self.settings.cpus, num_gpus=gpus, max_retries=0)(
                _train
            )
            plain = with_checkpoints(stack).to_plain()
            self.tasks[train.remote(plain, str(task.file), list(sys.argv), os.getcwd())] = task
            self.tell(index, "queued", True)

    def _require_room(self, index: int, needed: dict[str, float]) -> None:
        """Say that no machine can take a task; of Ray on this machine alone there will never be another."""
        assert self._cluster is not None
        if self._warned or self._cluster.has_room(needed):
            return
        asked = " and ".join(f"{number:g} {name}s" for name, number in needed.items() if number)
        if self._cluster.address is None:
            why = f"a stack is to have {asked}, which this machine has not"
            raise Refusal(f"hydra/launcher=ray: {why}; give hydra.launcher.gpus=N or device=cpu")
        self._warned = True
        self.tell(index, "say", f"no machine of the Ray cluster has {asked}; stacks wait for one")

    def wait(self, seconds: float) -> None:
        """Wait for the end of a task, and tell what the tasks' files say."""
        if not self.tasks or self._cluster is None:
            return time.sleep(seconds)
        ended, _ = self._cluster.ray.wait(list(self.tasks), timeout=seconds)
        if ended:
            ended, _ = self._cluster.ray.wait(list(self.tasks), num_returns=len(self.tasks), timeout=0)
        if (now := time.monotonic()) - self._looked >= LOOK_SECONDS:
            self._looked = now
            for task in self.tasks.values():
                self._look(task)
        for reference in ended:
            self._tell_outcome(reference, self.tasks.pop(reference))

    def _look(self, task: Watched) -> None:
        """Tell what a task has written since the last look."""
        with suppress(OSError, ValueError):  # it has not begun
            stamp = task.file.stat().st_mtime_ns
            if stamp != task.stamp:
                task.stamp = stamp
                self._tell_news(task, read_json(task.file))

    def _tell_news(self, task: Watched, state: dict[str, Any]) -> None:
        self.tell(task.index, "queued", False)
        self.tell(task.index, "progress", (state["share"] * task.stack.work, state["loss"]))
        for line in state["says"][task.heard :]:
            self.tell(task.index, "say", line)
        task.heard = len(state["says"])

    def _tell_outcome(self, reference: Any, task: Watched) -> None:
        """Tell how a task has ended."""
        assert self._cluster is not None
        try:
            state = self._cluster.ray.get(reference)
            self._tell_news(task, state)
            outcome = StackOutcome(*state["outcome"])
        except Exception as error:  # Ray's, or what the task has raised
            outcome = record_death(task.stack, f"{ENDED}{_in_words(error)}")
        task.file.unlink(missing_ok=True)
        self.tell(task.index, "outcome", outcome)

    def stop(self) -> None:
        """End all tasks at once, with their processes."""
        for reference in self.tasks:
            with suppress(Exception):  # it has ended, or the cluster has
                assert self._cluster is not None
                self._cluster.ray.cancel(reference, force=True)

    def close(self) -> None:
        """Leave the cluster; end one that was started here."""
        if self._cluster is not None:
            self._cluster.close()
        for task in self.tasks.values():
            task.file.unlink(missing_ok=True)
        with suppress(OSError):  # another command uses it, or it was never made
            self.folder.rmdir()


def _in_words(error: Exception) -> str:
    """Say how the process of a task has ended, after "its process "."""
    names = [kind.__name__ for kind in type(error).__mro__]
    for name, death in DEATHS.items():
        if name in names:
            return death
    cause = getattr(error, "cause", None) or error
    return f"ended: {type(cause).__name__}: {' '.join(str(cause).split())[:300]}"


def _train(plain: Sequence[Any], file: str, command: Sequence[str], folder: str) -> dict[str, Any]:
    """Train a stack in a process of Ray; return what its file says at the end.

    Args:
        plain: of `Stack.to_plain`.
        file: where the news is written.
        command: the words of the command, which the runs note.
        folder: in which the command was given, where relative paths begin.

    Raises:
        FileNotFoundError: this machine does not see the folder of runs.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray's answer would be noted as a failure of the training
    if not (place := Path(folder, file).parent).is_dir():
        there = f"{socket.gethostname()} has no folder {place}"
        raise FileNotFoundError(f"{there}; all machines of the cluster must share the folder of runs")
    os.chdir(folder)
    task = StackTask(plain, file, command)
    task()
    return task.state
