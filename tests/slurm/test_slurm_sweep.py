"""The logbook's line on a real Slurm: the submitter is killed, a job is cancelled, and another is killed."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path

from tests import killing, lab, warm
from tests.logbook import LINES
from tests.one_node import Node
from toyqs.files import read_json
from toyqs.sweep.executors.slurm_array import FOLDER, SUBMITTED

LINE = next(line.text for line in LINES if "kargo-lab" in line.text)
# a plug-in's task, reward and setting: the folder lab, beside the runs
PLUGGED = "plugins=./lab task=delay reward=power plugin.power.exponent=0.5"
SHORT = "max_steps=40 data_loader_batch_size=2 eval_sequences=4 trice_samples=2 max_reasoning_len=2"
SECONDS = 200.0


def typed(words: str, folder: Path, **environment: str) -> warm.Started:
    """Type a line in a folder, without the seconds of importing what the command needs."""
    line = [str(killing.ROOT / "run.py"), *shlex.split(words)]
    return warm.started(line, folder, ("submitit",), **environment)


def started(folder: Path, launcher: str, *more: str) -> warm.Started:
    """Type the logbook's line, shortened, with a plug-in, in a folder."""
    line = LINE.removeprefix("python run.py ")
    return typed(" ".join((line, SHORT, PLUGGED, *more)), folder, TOYQS_LAUNCHER=launcher)


def begun(folder: Path) -> dict[int, bool]:
    """Return the numbers of the tasks that have begun, and whether they have ended."""
    files = [path for path in (folder / "runs" / FOLDER).glob("*/*.json") if path.stem.isdecimal()]
    return {int(path.stem): read_json(path)["outcome"] is not None for path in files}


def process_of(node: Node, number: int) -> int:
    """Return the process that trains the task of this number."""
    wanted = {f"SLURM_CONF={node.folder / 'slurm.conf'}", f"SLURM_ARRAY_TASK_ID={number}"}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_text().split("\0")
            if "submitit.core._submit" not in words or "srun" in words[0]:
                continue
            if wanted <= set((path / "environ").read_text().split("\0")):
                return int(path.name)
        except OSError:  # it has just ended
            continue
    raise LookupError(number)


def test_the_logbooks_line(node: Node, tmp_path: Path) -> None:
    """Kill the submitter, then under the next one two jobs; the third command completes the sweep."""
    here, whole = tmp_path / "here", tmp_path / "whole"
    for folder in (here, whole):
        folder.mkdir()
        lab.written(folder)
    first = started(here, "slurm")
    assert killing.until(lambda: begun(here) or first.poll() is not None, SECONDS), killing.stderr_of(here)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    (submitted,) = (here / "runs" / FOLDER).glob(f"*/{SUBMITTED}")
    job = node.ask("squeue", "-h", "-n", submitted.parent.name, "-o", "%F").split()[0]
    for number in (3, 4, 5):  # as if it had died before submitit had named these
        (submitted.parent / f"{job}_{number}_submitted.pkl").unlink()

    second = started(here, "slurm")
    attached = f"found in Slurm's queue: job {job}"
    assert killing.until(lambda: attached in (here / "err").read_text(), SECONDS)
    earlier = begun(here)
    assert killing.until(lambda: begun(here).keys() - earlier.keys(), SECONDS)
    (victim, *_) = begun(here).keys() - earlier.keys()  # has just begun
    os.kill(process_of(node, victim), signal.SIGKILL)
    cancelled = next(number for number in (5, 4, 3) if number != victim)  # it waits or trains
    assert node.ask("scancel", f"{job}_{cancelled}") == ""
    assert second.wait() == 1
    assert [*(here / "runs" / FOLDER).glob(f"*/{SUBMITTED}")] == [submitted], "submitted twice"
    lines = [line for line in killing.stderr_of(here) if "failed: " in line]
    assert len(lines) == 2, lines
    assert any(f"Slurm's job {job}_{cancelled} was cancelled" in line for line in lines), lines
    assert any(f"Slurm's job {job}_{victim} ended as FAILED" in line for line in lines), lines
    for line in lines:
        assert Path(here, line.rpartition("; log ")[2]).is_file()
    rows = {path: path.read_bytes() for path in here.glob("runs/*/summary.json")}
    assert len(rows) == 12

    assert started(here, "slurm").wait() == 0, killing.stderr_of(here)
    assert len([*(here / "runs" / FOLDER).glob(f"*/{SUBMITTED}")]) == 2
    assert all(path.read_bytes() == row for path, row in rows.items()), "trained twice"
    assert started(whole, "local", "hydra.launcher.processes=1").wait() == 0, killing.stderr_of(whole)
    shared = killing.found_in(here)
    ours = {name for name in shared.files if not name.startswith(FOLDER)}
    assert killing.differences(shared._replace(files=ours), killing.found_in(whole)) == []
