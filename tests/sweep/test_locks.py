"""One writer per run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from toyqs.evidence.states import owner_of
from toyqs.files import Refusal
from toyqs.sweep import locks
from toyqs.sweep.locks import acquire, check_locks

ROOT = Path(__file__).resolve().parents[2]


def hold(folder):
    """Start another process that locks a run and keeps the lock."""
    code = (
        "import sys, time; from pathlib import Path; from toyqs.sweep.locks import acquire;"
        "held = acquire(Path(sys.argv[1])); print(held is not None, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def test_a_lock_is_released_at_the_end_of_its_block(tmp_path):
    with acquire(tmp_path / "run") as held:
        assert held is not None
        assert f"process {os.getpid()} on " in owner_of(tmp_path / "run")
    assert not (tmp_path / "run" / "owner.json").exists()
    again = acquire(tmp_path / "run")
    assert again is not None
    again.__exit__()


def test_another_process_is_kept_out_and_a_killed_owner_leaves_no_lock(tmp_path):
    other = hold(tmp_path / "run")
    try:
        assert acquire(tmp_path / "run") is None
        assert f"process {other.pid} on " in owner_of(tmp_path / "run")
        assert acquire(tmp_path / "another") is not None
        other.send_signal(signal.SIGKILL)
        other.wait()
        start = time.monotonic()
        recovered = acquire(tmp_path / "run")
        assert recovered is not None and time.monotonic() - start < 1
        assert f"process {os.getpid()} on " in owner_of(tmp_path / "run")
        recovered.__exit__()
    finally:
        other.kill()
        other.wait()
        assert other.stdout is not None
        other.stdout.close()


def test_an_owner_that_is_not_readable_has_no_name(tmp_path):
    assert owner_of(tmp_path) == "another process"
    (tmp_path / "owner.json").write_text("{")
    assert owner_of(tmp_path) == "another process"


@pytest.mark.parametrize(
    ("kind", "options", "how"),
    [
        ("ext4", "rw,relatime", ""),
        ("nfs4", "rw,vers=4.2,local_lock=none", ""),
        ("nfs", "rw,vers=3,local_lock=all", "(nfs, mounted with local_lock=all)"),
        ("nfs", "rw,nolock", "(nfs, mounted with nolock)"),
        ("lustre", "rw,flock", ""),
        ("lustre", "rw,localflock", "(lustre)"),
        ("fuse.sshfs", "rw", "(fuse.sshfs)"),
    ],
)
def test_locks_that_stay_on_one_machine_are_told(tmp_path, kind, options, how):
    folder = tmp_path / "a b" / "runs"
    folder.mkdir(parents=True)
    mounts = tmp_path / "mounts"
    point = str(tmp_path / "a b").replace(" ", "\\040")
    lines = [
        "/dev/sda / fuse.sshfs rw 0 0",
        f"server:/x {point} {kind} {options} 0 0",
        "none /nowhere nfs nolock 0 0",
    ]
    mounts.write_text("\n".join(lines) + "\n")
    note = check_locks(folder, mounts)
    assert how in note and (note == "" or note.startswith(f"runs_dir={folder}: ")) and bool(how) == bool(note)
    assert list(folder.iterdir()) == []


def test_a_folder_without_locks_is_refused(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", fails)
    with pytest.raises(Refusal, match=r"has no locks \(No locks available\).*give a folder on another"):
        check_locks(tmp_path)
    monkeypatch.setattr(locks.fcntl, "flock", lambda *_: None)  # says that it locks, and does not
    assert "do not reach other machines" in check_locks(tmp_path)
    assert list(tmp_path.iterdir()) == []
