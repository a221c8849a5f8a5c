"""What Slurm says of jobs, by squeue and scontrol alone: many clusters keep no accounts, so no sacct."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import NamedTuple

ANSWER_SECONDS = 60  # a busy controller answers late

# Reasons for waiting that pass by themselves; of others the user is told.
PATIENT = {
    *("None", "Priority", "Resources", "BeginTime", "Dependency", "JobArrayTaskLimit", "Prolog", "Cleaning"),
    *("Reservation", "QOSMaxJobsPerUserLimit", "AssocMaxJobsLimit", "QOSGrpCpuLimit", "AssocGrpCpuLimit"),
    *("QOSMaxCpuPerUserLimit", "QOSMaxGRESPerUser", "QOSGrpGRES", "AssocGrpGRES", "Licenses"),
}


class NoAnswer(RuntimeError):
    """Slurm's controller did not answer; the message is its own, in one line."""


class Queued(NamedTuple):
    """A task in Slurm's queue."""

    id: str  # as scancel takes it, such as 12_3
    state: str  # PENDING, RUNNING, COMPLETING, ...
    reason: str  # why it waits


def queue() -> dict[tuple[str, int], Queued]:
    """List this user's tasks that have not ended, by the name of the job and the task's number in its array.

    Raises:
        NoAnswer: the controller does not answer.
    """
    found = {}
    for line in _ask("squeue", "--me", "-h", "-r", "-o", "%i|%K|%T|%r|%j").splitlines():
        id_, number, state, reason, name = line.split("|", 4)
        found[name, int(number) if number.isdecimal() else 0] = Queued(id_, state, reason)
    return found


def ended(id_: str) -> tuple[str, str]:
    """Return the last state of a task, such as CANCELLED, and its exit code; "" where Slurm forgot it."""
    try:
        words = _ask("scontrol", "-o", "show", "job", id_).split()
    except NoAnswer:
        return "", ""
    known = dict(word.split("=", 1) for word in words if "=" in word)
    return known.get("JobState", ""), known.get("ExitCode", "")


def _ask(*words: str) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoAnswer(f"{words[0]}: {error}") from error
    if done.returncode:
        raise NoAnswer(" ".join(done.stderr.split()) or f"{words[0]} ended with exit code {done.returncode}")
    return done.stdout


def refusal_in(stderr: str) -> str:
    """Return what sbatch says in its refusal, in one line without its own name."""
    lines = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in stderr.splitlines()]
    return "; ".join(line.strip() for line in lines if line.strip()) or "it gives no reason"


def why_it_ended(id_: str, state: str, code: str, *, begun: bool) -> str:
    """Say in words how a job has ended that left no outcome."""
    if not state and not begun:  # Slurm keeps no record of a task that never ran
        state = "CANCELLED"
    words = {
        "": "is no longer in Slurm's queue, and Slurm has forgotten how it ended",
        "CANCELLED": "was cancelled",
        "OUT_OF_MEMORY": "was killed for want of memory; give a larger hydra.launcher.memory",
        "TIMEOUT": "reached its time limit; give a larger hydra.launcher.time",
        "NODE_FAIL": "was lost with its node",
        "PREEMPTED": "gave way to another, and Slurm does not queue it again; the same command does",
    }
    return f"job {id_} {words.get(state, f'ended as {state}, exit code {code}')}"


def listed(ids: Sequence[str]) -> str:
    """Write ids of tasks as scancel takes them, whole arrays by their own number."""
    return " ".join(dict.fromkeys(id_.partition("_")[0] for id_ in ids))
