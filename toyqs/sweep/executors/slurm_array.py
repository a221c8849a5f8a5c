"""Submit stacks as a Slurm job array, whose script submitit writes, and find the tasks of earlier arrays.

All that is shared with the tasks is in RUNS_DIR/.slurm/NAME, a folder per array, named like its job: what was
submitted, what the tasks printed, and a file per task in which it tells how far it is.
"""

from __future__ import annotations

import io
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any, NamedTuple

from toyqs.config.errors import Refusal
from toyqs.config.identity import run_key
from toyqs.files import make_folder, read_json, write_json
from toyqs.sweep.executors.settings import SlurmSettings
from toyqs.sweep.executors.slurm_queue import refusal_in
from toyqs.sweep.executors.stack_task import StackTask, checkout, with_checkpoints
from toyqs.sweep.plan import Stack

FOLDER, SUBMITTED = ".slurm", "submitted.json"
TIMED_OUT = "timed out"  # is said by sbatch when a busy controller has not answered
WARNING_SECONDS = 90  # before a task's time is over; where that is little, a third of it


class Submitted(NamedTuple):
    """A task of an earlier array: what it trains."""

    place: tuple[str, int]  # the name of its job, and its number in the array
    keys: set[str]  # of its runs
    force: bool


def submit(runs_dir: str, stacks: Sequence[Stack], settings: SlurmSettings) -> tuple[str, list[str]]:
    """Submit stacks as one array; return the name of its job, and the id of each task.

    What is submitted is noted before, and lies where its tasks find it by themselves: wherever a command dies
    in here, it leaves a note of no job, or jobs that the same command finds and that can run.

    Raises:
        Refusal: sbatch refuses it.
    """
    name = f"toyqs-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
    folder = Path(runs_dir).absolute() / FOLDER / name
    make_folder(folder)
    tasks = [
        {"keys": [run_key(x.config, seed) for seed in x.seeds], "force": x.config.force, "stack": x.name}
        for x in stacks
    ]
    write_json(folder / SUBMITTED, {"command": sys.argv, "tasks": tasks})
    try:
        return name, _submit(folder, stacks, settings)
    except Refusal as refusal:
        if TIMED_OUT not in str(refusal).lower():  # then Slurm may have taken the jobs
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _submit(folder: Path, stacks: Sequence[Stack], settings: SlurmSettings) -> list[str]:
    import submitit
    from submitit.helpers import DelayedSubmission

    executor = submitit.SlurmExecutor(folder, max_num_timeout=settings.max_timeouts, python=settings.python)
    executor.update_parameters(job_name=folder.name, **_parameters(settings, folder))
    tasks = [
        StackTask(with_checkpoints(stack).to_plain(), str(state_file(folder, number)), sys.argv)
        for number, stack in enumerate(stacks)
    ]
    for number, task in enumerate(tasks):
        submission = DelayedSubmission(task)
        submission.set_timeout(settings.time, settings.max_timeouts)
        submission.dump(folder / f"{number}.pkl")
    try:
        with redirect_stderr(io.StringIO()):  # submitit prints what it raises as well
            return [str(job.job_id) for job in executor.submit_array(tasks)]
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, OSError) as error:
        where = "" if settings.partition is None else f" for hydra.launcher.partition={settings.partition}"
        why = refusal_in(str(error))
        line = f"hydra/launcher=slurm: sbatch refuses the jobs{where}: {why}; {_remedy(why)}"
        raise Refusal(line) from None


def _remedy(why: str) -> str:
    """Say what to do about sbatch's refusal."""
    if TIMED_OUT in why.lower():
        return "give the same command again, which finds the jobs if Slurm has taken them"
    if "partition" in why.lower():
        return "give hydra.launcher.partition=NAME, one that sinfo lists"
    if "array" in why.lower() or "limit" in why.lower():
        return "give a smaller hydra.launcher.max_tasks or hydra.launcher.time"
    return "give other values of hydra.launcher.KEY"


def _parameters(settings: SlurmSettings, folder: Path) -> dict[str, Any]:
    """Return the settings as submitit names them, those that are given."""
    setup = [*settings.setup, *_own_pickle(folder)]
    if (source := checkout()) is not None:  # which jobs must find
        setup.append(f"export PYTHONPATH={shlex.quote(source)}${{PYTHONPATH:+:$PYTHONPATH}}")
    given = {
        "partition": settings.partition,
        "time": settings.time,
        "signal_delay_s": min(WARNING_SECONDS, settings.time * 60 // 3),
        "mem": settings.memory,
        "cpus_per_task": settings.cpus,
        "gpus_per_node": settings.gpus,
        "qos": settings.qos,
        "account": settings.account,
        "constraint": settings.constraint,
        "exclude": settings.exclude,
        "array_parallelism": settings.array_parallelism,
        "setup": setup,
        "additional_parameters": {"requeue": True},  # also where the cluster does not by itself
        "srun_args": [f"--cpus-per-task={settings.cpus}"],  # since 22.05 srun does not take it from sbatch
    }
    return {name: value for name, value in given.items() if value is not None}


def _own_pickle(folder: Path) -> list[str]:
    """Return lines of shell by which a task puts what it is to do where submitit looks for it.

    submitit names that file by the job's number, so only once sbatch has answered.
    """
    job = "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
    here, there = (
        f"{shlex.quote(str(folder))}/{name}.pkl" for name in ("${SLURM_ARRAY_TASK_ID:-0}", f"{job}_submitted")
    )
    return [f"[ -e {there} ] || cp {here} {there}"]


def state_file(folder: Path, number: int) -> Path:
    """Return the file in which a task tells how far it is."""
    return folder / f"{number}.json"


def log_of(folder: Path, id_: str) -> Path:
    """Return the file with what submitit and the job's shell have printed of errors."""
    return folder / f"{id_}_0_log.err"


def submitted_earlier(runs_dir: str, live: Collection[tuple[str, int]]) -> Iterator[Submitted]:
    """Yield the tasks of a folder of runs that are among the live ones."""
    for name in {name for name, _ in live}:
        with suppress(OSError, ValueError, KeyError):  # a job of something else
            tasks = read_json(Path(runs_dir) / FOLDER / name / SUBMITTED)["tasks"]
            for number, task in enumerate(tasks):
                if (name, number) in live:
                    yield Submitted((name, number), set(task["keys"]), task["force"])
