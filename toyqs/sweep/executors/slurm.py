"""Train stacks as tasks of Slurm job arrays, and watch them by their files and squeue.

The submitting process may die at any time: the same command finds the tasks in the queue by the name of their
job and the keys of their runs, and goes on watching them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from toyqs.config.errors import Refusal
from toyqs.config.identity import run_key
from toyqs.evidence.states import ENDED
from toyqs.files import read_json
from toyqs.sweep.executors import slurm_queue
from toyqs.sweep.executors.executor import Entry, Executor
from toyqs.sweep.executors.settings import SlurmSettings
from toyqs.sweep.executors.slurm_array import FOLDER, log_of, state_file, submit, submitted_earlier
from toyqs.sweep.executors.slurm_queue import NoAnswer, Queued
from toyqs.sweep.plan import Stack
from toyqs.sweep.worker import StackOutcome, record_death

LOOK_SECONDS, QUEUE_SECONDS = 1.0, 5.0  # between two looks at the tasks' files, and two calls of squeue
LATE_SECONDS = 90.0  # in which the last file of a task that ended well arrives, from a node over a network
LATE_AFTER_FAILURE = 2.0


@dataclass
class Watched:
    """A task in Slurm's queue, and what it does for a stack."""

    index: int  # of the stack
    seeds: list[int]  # those of the stack that it trains
    place: tuple[str, int]  # the name of its job, and its number in the array
    id: str
    queued: bool = True
    share: float = 0.0  # of its work that is done
    loss: float | None = None
    heard: int = 0  # how many lines for the user
    stamp: int = 0  # of its file when it was last read
    gone: float | None = None  # since when it is missing from the queue
    outcome: StackOutcome | None = None


class SlurmArrays(Executor):
    """Trains each stack in a task of a job array."""

    retry_seconds = 60.0  # a task that finds its runs held by another command has cost a job

    def __init__(self, settings: SlurmSettings, runs_dir: str) -> None:
        self.settings, self.runs_dir = settings, runs_dir
        self.stacks: dict[int, Stack] = {}  # that have not ended
        # of each, its tasks: several where an earlier command has submitted some of its runs
        self.tasks: dict[int, list[Watched]] = {}
        self.queue: dict[tuple[str, int], Queued] = {}
        self._looked = self._asked = 0.0
        self._said: set[str] = set()

    def free(self) -> int:
        """Return how many tasks the queue may take; 0 until half have ended, so that arrays stay large."""
        num = sum(map(len, self.tasks.values()))
        return 0 if num > self.settings.max_tasks // 2 else self.settings.max_tasks - num

    def start(self, entries: Sequence[Entry]) -> None:
        """Watch the tasks that are in the queue already, and submit the others as one array.

        Raises:
            Refusal: Slurm does not answer, or refuses the jobs.
        """
        if not entries:
            return
        try:
            self.queue = slurm_queue.queue()
        except NoAnswer as error:
            raise Refusal(f"hydra/launcher=slurm: Slurm does not answer: {error}; try again later") from error
        earlier = list(submitted_earlier(self.runs_dir, self.queue.keys()))
        found: list[Watched] = []
        rest: list[Entry] = []
        for index, stack in entries:
            self.stacks[index], self.tasks[index] = stack, []
            left = {run_key(stack.config, seed): seed for seed in stack.seeds}
            for place, keys, force in earlier:
                ours = [key for key in left if key in keys and force == stack.config.force]
                if seeds := [left.pop(key) for key in ours]:
                    found.append(Watched(index, seeds, place, self.queue[place].id))
            if left:
                rest.append((index, stack._replace(seeds=list(left.values()))))
        self._watch(found, "found in Slurm's queue")
        if rest:
            name, ids = submit(self.runs_dir, [stack for _, stack in rest], self.settings)
            tasks = [
                Watched(index, stack.seeds, (name, number), id_)
                for number, ((index, stack), id_) in enumerate(zip(rest, ids, strict=True))
            ]
            self._watch(tasks, "submitted to Slurm")
            self._asked = time.monotonic()  # squeue may not list them at once

    def _watch(self, tasks: Sequence[Watched], what: str) -> None:
        for task in tasks:
            self.tasks[task.index].append(task)
            self.tell(task.index, "queued", True)
        if tasks:
            num = "1 task" if len(tasks) == 1 else f"{len(tasks)} tasks"
            self.tell(tasks[0].index, "say", f"{num} {what}: {self._jobs(tasks)}")

    @staticmethod
    def _jobs(tasks: Sequence[Watched]) -> str:
        return f"job {slurm_queue.listed([task.id for task in tasks])}"

    def wait(self, seconds: float) -> None:
        """Sleep, then look at the tasks' files and now and then into Slurm's queue, for those that died."""
        time.sleep(seconds)
        now = time.monotonic()
        if not self.tasks or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        if asked := now - self._asked >= QUEUE_SECONDS:
            asked, self._asked = self._ask_queue(), now
        for index, tasks in list(self.tasks.items()):
            for task in tasks:
                if task.outcome is None:
                    self._look(task)
                if task.outcome is None and asked:
                    self._notice_its_end(task, now)
            self._tell(index, tasks)

    def _ask_queue(self) -> bool:
        """Ask for the queue, before files are read: a task that has left it has written its own."""
        try:
            self.queue = slurm_queue.queue()
            return True
        except NoAnswer as error:
            self._say_once(next(iter(self.tasks)), f"Slurm does not answer, waiting for it: {error}")
            return False

    def _look(self, task: Watched) -> None:
        """Take in what a task has written since the last look."""
        name, number = task.place
        file = state_file(Path(self.runs_dir) / FOLDER / name, number)
        with suppress(OSError, ValueError):  # it has not begun
            stamp = file.stat().st_mtime_ns
            if stamp == task.stamp:
                return
            state = read_json(file)
            task.stamp, task.share, task.loss = stamp, state["share"], state["loss"]
            for line in state["says"][task.heard :]:
                self.tell(task.index, "say", line)
            task.heard, task.queued = len(state["says"]), False
            if state["outcome"] is not None:
                task.outcome = StackOutcome(*state["outcome"])

    def _notice_its_end(self, task: Watched, now: float) -> None:
        """Make an outcome of a task that has left the queue without writing one."""
        if (entry := self.queue.get(task.place)) is not None:
            task.gone, task.id = None, entry.id
            task.queued = entry.state == "PENDING"  # also after it was queued again
            if task.queued and entry.reason not in slurm_queue.PATIENT:
                self._say_once(
                    task.index, f"job {entry.id.partition('_')[0]} waits in Slurm's queue: {entry.reason}"
                )
            return
        task.gone = now if task.gone is None else task.gone
        state, code = slurm_queue.ended(task.id)
        begun = task.stamp > 0
        late = state == "COMPLETED" or (begun and not state)
        if now - task.gone < (LATE_SECONDS if late else LATE_AFTER_FAILURE):
            return
        log = log_of(Path(self.runs_dir) / FOLDER / task.place[0], task.id)
        why = f"{ENDED}ended: Slurm's {slurm_queue.why_it_ended(task.id, state, code, begun=begun)}"
        stack = self.stacks[task.index]._replace(seeds=task.seeds)
        task.outcome = record_death(stack, f"{why}; it printed {log}" if log.is_file() else why)

    def _tell(self, index: int, tasks: Sequence[Watched]) -> None:
        """Tell how far a stack is; where all its tasks have ended, its outcome."""
        stack = self.stacks[index]
        self.tell(index, "queued", all(task.queued for task in tasks))
        losses = [task.loss for task in tasks if task.loss is not None]
        share = sum(task.share * len(task.seeds) for task in tasks) / len(stack.seeds)
        self.tell(index, "progress", (share * stack.work, losses[0] if losses else None))
        outcomes = [task.outcome for task in tasks if task.outcome is not None]
        if len(outcomes) < len(tasks):
            return
        del self.stacks[index], self.tasks[index]
        # A task may have trained other runs as well, for the command that submitted it.
        done = [seed for outcome in outcomes for seed in outcome.done if seed in stack.seeds]
        complete = [seed for outcome in outcomes for seed in outcome.complete if seed in stack.seeds]
        elsewhere = [seed for outcome in outcomes for seed in outcome.elsewhere if seed in stack.seeds]
        failure = next((outcome.failure for outcome in outcomes if outcome.failure is not None), None)
        self.tell(index, "outcome", StackOutcome(done, complete, elsewhere, failure))

    def _say_once(self, index: int, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self.tell(index, "say", line)

    def stop(self) -> None:
        """Leave the jobs in the queue, and say how to end them."""
        if tasks := [task for part in self.tasks.values() for task in part if task.outcome is None]:
            jobs = slurm_queue.listed([task.id for task in tasks])
            line = f"Slurm goes on with job {jobs}: the same command watches it again, scancel {jobs} ends it"
            self.tell(tasks[0].index, "say", line)
