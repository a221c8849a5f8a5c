"""Start programs without the seconds of importing torch: fork them from a process that has imported it.

`started` is for tests of what a program does, not of how it starts. A process with a single thread has
imported what run.py imports; for each program it forks a child that starts a session of its own, changes to
the folder, takes the environment and runs the file as `python FILE WORDS` would.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
IMPORTED = ("toyqs.sweep.words.compose", "toyqs.sweep.main")  # by run.py, before it trains
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Started:
    """A started program, with as much of the interface of subprocess.Popen as tests use."""

    def __init__(self, pid: int, server: _Server) -> None:
        self.pid, self._server = pid, server
        self.returncode: int | None = None
        self.cpu_seconds = 0.0  # of the program and its workers, once it has ended

    def poll(self) -> int | None:
        """Return the exit code, or minus the signal that ended the program; None while it runs."""
        if self.returncode is None:
            self.returncode, self.cpu_seconds = self._server.ask({"poll": self.pid})
        return self.returncode

    def wait(self) -> int:
        """Wait for the end of the program; return what `poll` does."""
        while (code := self.poll()) is None:
            time.sleep(0.005)
        return code


def started(
    words: Sequence[str],
    folder: Path,
    loaded: tuple[str, ...] = (),
    **environment: str,
) -> Started:
    """Start a Python program in a session of its own; its output goes to `out` and `err` in the folder.

    Args:
        words: its file and its arguments.
        folder: its working directory.
        loaded: further modules that have been imported.
        environment: variables added to this process's own.
    """
    folder.mkdir(exist_ok=True)
    request = {"words": words, "folder": str(folder), "environment": os.environ | environment}
    return Started(_server(loaded).ask(request), _server(loaded))


def context() -> Any:
    """Return the way in which a test's own workers start: as copies of one with all imports."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["toyqs.sweep.worker"])
    return found


def workers_environment() -> dict[str, str]:
    """Return what `context` needs: a process with more threads is better not forked.

    And before Python 3.13 the process that is copied does not learn sys.path from the one that starts it.
    """
    return {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


class _Server:
    def __init__(self, loaded: tuple[str, ...]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, *loaded],
            env=os.environ | ONE_THREAD,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.lock = threading.Lock()
        atexit.register(self.process.__exit__, None, None, None)  # it ends when its input does; wait for that

    def ask(self, request: dict[str, Any]) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        with self.lock:
            print(json.dumps(request), file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())


_server = cache(_Server)


def serve() -> None:
    """Fork a child for every request read from stdin, or answer what has become of one."""
    sys.path[0] = str(ROOT)
    import hydra  # noqa: F401

    for name in (*IMPORTED, *sys.argv[1:]):
        importlib.import_module(name)
    assert "torch" in sys.modules, "IMPORTED is no longer what run.py imports"
    assert len(os.listdir("/proc/self/task")) == 1, "a process with several threads cannot be forked"
    gc.freeze()  # a child's garbage collector skips all objects from before the fork
    while line := sys.stdin.readline():
        given = json.loads(line)
        if "poll" in given:
            pid, status, used = os.wait4(given["poll"], os.WNOHANG)
            code = os.waitstatus_to_exitcode(status) if pid else None
            print(json.dumps([code, used.ru_utime + used.ru_stime]), flush=True)
        elif not os.fork():
            return become(**given)


def become(words: list[str], folder: str, environment: dict[str, str]) -> None:
    """Turn this process into the program."""
    os.setsid()
    print(os.getpid(), flush=True)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644), stream)
    sys.argv, sys.path[0] = words, str(Path(words[0]).parent)
    runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    serve()
