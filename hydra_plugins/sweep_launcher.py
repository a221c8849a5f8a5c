"""Launch a sweep, here or on a cluster: all jobs in one call, so that they can share cores and controls.

Every Hydra program of the environment imports this file, which therefore imports toyqs, and torch, when used.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class SweepLauncher(Launcher):
    """Hydra launcher that calls the task function once, with all jobs and the launcher's own settings."""

    def __init__(self, **settings: Any) -> None:
        self.processes = settings.get("processes")

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what `launch` needs."""
        self.context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; the task function reports their outcome itself."""
        from toyqs.sweep.executors.settings import launcher_of
        from toyqs.sweep.words.compose import Job, Sweep

        setup_globals()
        jobs = [Job(overrides, self._composed(overrides)) for overrides in job_overrides]
        self.task_function(Sweep(jobs, launcher_of(self.config.hydra)))
        return []

    def _composed(self, overrides: Sequence[str]) -> DictConfig | Exception:
        loader = self.context.config_loader
        try:
            words = [self._parsed(word) for word in overrides]
            values = [word for word in words if not loader.repository.group_exists(word.key_or_group)]
            job = deepcopy(self._chosen(*(word.input_line for word in words if word not in values)))
            loader._apply_overrides_to_config(values, job)
        except Exception as error:  # one job that cannot be composed stops no other
            return error
        if self.processes is not None:
            job["processes"] = self.processes
        return job

    @cache  # noqa: B019, a launcher lives as long as its sweep
    def _parsed(self, word: str) -> Override:
        return OverridesParser.create().parse_override(word)

    @cache  # noqa: B019, a launcher lives as long as its sweep
    def _chosen(self, *groups: str) -> DictConfig:
        """Compose presets and task alone: slow to read, and the same in most of a sweep's jobs."""
        config = self.context.config_loader.load_sweep_config(self.config, list(groups))
        with open_dict(config):
            del config["hydra"]
        return config
