"""What Slurm does to a job by itself: its time is over, and a job of a higher partition takes its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import killing
from tests.one_node import Node
from tests.slurm.test_slurm_sweep import SECONDS, SHORT, typed
from toyqs.evidence.states import UNFINISHED, state_of
from toyqs.sweep.executors.settings import SlurmSettings
from toyqs.sweep.executors.slurm_array import FOLDER, SUBMITTED

WORDS = f"{SHORT} seed=7 controls=none checkpoint_every=50 max_steps=2000 reasoner_hidden_dim=8"


@pytest.mark.slow
def test_a_job_goes_on_after_its_time_and_after_another_took_its_place(node: Node, tmp_path: Path) -> None:
    from submitit.helpers import DelayedSubmission

    here, whole = tmp_path / "here", tmp_path / "whole"
    command = typed(f"{WORDS} hydra/launcher=slurm hydra.launcher.time=1", here)  # without -m
    assert killing.until(lambda: [*here.glob("runs/*/checkpoint.pt")], SECONDS)
    (submitted,) = (here / "runs" / FOLDER).glob(f"*/{SUBMITTED}")
    job = node.ask("squeue", "-h", "-n", submitted.parent.name, "-o", "%i")

    def restarts() -> int:
        """Count how often it has started again; -1 while it does not run."""
        shown = node.ask("scontrol", "-o", "show", "job", job)
        return int(shown.partition(" Restarts=")[2].split()[0]) if "JobState=RUNNING" in shown else -1

    def curve() -> int:
        """Count the lines of the learning curve, two for every 40 steps, none where one begins anew."""
        return sum(path.read_text().count("\n") for path in here.glob("runs/*/metrics.jsonl"))

    (run,) = here.glob("runs/*/checkpoint.pt")
    assert killing.until(lambda: "PENDING" in node.ask("squeue", "-h", "-j", job, "-o", "%T"), SECONDS, 0.1)
    assert state_of(run.parent).word == UNFINISHED
    left = vars(DelayedSubmission.load(submitted.parent / f"{job}_submitted.pkl"))["_timeout_countdown"]
    assert left == SlurmSettings().max_timeouts - 1, "it was not warned that its time was over"
    assert killing.until(lambda: restarts() > 0, SECONDS, 0.1)
    assert node.ask("scontrol", "update", f"job={job}", "TimeLimit=60") == ""  # from now on it has time

    before, times = curve(), restarts()
    assert killing.until(lambda: curve() > before, SECONDS, 0.05)
    urgent = ("sbatch", "-p", "urgent", "-c", "2", "-o", "/dev/null", "--wrap", "sleep 1")
    assert node.ask(*urgent).startswith("Submitted")
    assert killing.until(lambda: restarts() > times, SECONDS, 0.1)
    assert f"preempted JobId={job} " in (node.folder / "slurmctld.log").read_text()
    assert curve() >= before, "it began anew"
    assert command.wait() == 0, killing.stderr_of(here)

    assert typed(WORDS, whole).wait() == 0, killing.stderr_of(whole)
    shared = killing.found_in(here)
    ours = {name for name in shared.files if not name.startswith(FOLDER)}
    assert killing.differences(shared._replace(files=ours), killing.found_in(whole)) == []
