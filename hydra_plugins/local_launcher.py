"""The launcher of sweeps on one machine: all jobs at once, so that they can share cores and controls."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hydra.core.utils import JobReturn, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class LocalLauncher(Launcher):
    """Hands the task function the list of all jobs, composed, or for a job what kept it from being so.

    Args:
        processes: stacks of runs trained at once; None leaves it to the key of that name.
        partition: of a Slurm cluster; said to be unused.
    """

    def __init__(self, processes: int | None = None, partition: str | None = None) -> None:
        self.processes = processes
        self.partition = partition

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what `launch` needs."""
        self.context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; what became of them is the task function's to say."""
        setup_globals()
        if self.partition is not None:
            note = f"hydra.launcher.partition={self.partition} is for Slurm: unused on this machine"
            print(f"toyqs: {note}", file=sys.stderr)
        self.task_function([self._composed(overrides) for overrides in job_overrides])
        return []

    def _composed(self, overrides: Sequence[str]) -> DictConfig | Exception:
        try:
            job = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        except Exception as error:  # one job that cannot be composed stops no other
            return error
        with open_dict(job):
            del job["hydra"]
            if self.processes is not None:
                job["processes"] = self.processes
        return job
