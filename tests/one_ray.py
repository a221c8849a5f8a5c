"""A real Ray on this machine, and the processes of its tasks."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests import killing

CODE = """
import logging, ray, sys
from toyqs.sweep.executors.ray_cluster import STORE_BYTES
ray.init(
    "local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL,
    object_store_memory=STORE_BYTES, _temp_dir=sys.argv[1],
)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


class Ray:
    """A Ray cluster of one core, until `close`; commands join it at `address`."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="toyqs-ray-", ignore_cleanup_errors=True)
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, self._folder.name],
            cwd=killing.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        assert self.address, "Ray did not start"

    def tasks(self) -> list[int]:
        """List the processes that train now."""
        return tasks(self.process.pid)

    def close(self) -> None:
        """End it."""
        self.process.communicate()
        assert killing.until(lambda: not killing.alive(self.process.pid), 20), "Ray did not end"
        self._folder.cleanup()


def tasks(session: int) -> list[int]:
    """List the processes of a session that train now: Ray titles them by the function that they run."""
    found = []
    for pid in killing.alive(session):
        try:
            title = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:  # it has just ended
            continue
        if title.startswith("ray::_train"):
            found.append(pid)
    return found
