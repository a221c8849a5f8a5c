"""Launch a sweep, here or on a cluster: all jobs in one call, so that they can share cores and controls.

Every Hydra program of the environment imports this file, which therefore imports toyqs, and torch, when used.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import deepcopy
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, ValueNode, open_dict
from omegaconf._utils import split_key


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
        common = frozenset.intersection(*map(frozenset, job_overrides))
        jobs = [Job(overrides, self._composed(overrides, common)) for overrides in job_overrides]
        self.task_function(Sweep(jobs, launcher_of(self.config.hydra)))
        return []

    def _composed(self, words: Sequence[str], common: Collection[str]) -> DictConfig | Exception:
        """Compose a job; what follows from the words that are common to all jobs is composed once."""
        try:
            groups = tuple(word for word in words if self._is_group(word))
            values = [word for word in words if not self._is_group(word)]
            varying = {self._name(word) for word in values if word not in common}
            ours = tuple(word for word in values if self._name(word) not in varying)
            job = self._changed(self._begun(groups, ours), [word for word in values if word not in ours])
        except Exception as error:  # one job that cannot be composed stops no other
            return error
        if self.processes is not None:
            job["processes"] = self.processes
        return job

    @cache  # noqa: B019, a launcher lives as long as its sweep
    def _begun(self, groups: tuple[str, ...], words: tuple[str, ...]) -> DictConfig:
        """Compose what jobs with the same presets and task have in common."""
        return self._changed(self._chosen(*groups), words)

    def _changed(self, config: DictConfig, words: Sequence[str]) -> DictConfig:
        """Return a configuration with other values; the values that stay are the same objects in both."""
        named = {*map(self._name, words), "processes"}
        nodes = [node for name, node in config._content.items() if name not in named]
        stay = {id(x): x for x in nodes if isinstance(x, ValueNode) and not x._is_interpolation()}
        config = deepcopy(config, stay)
        self.context.config_loader._apply_overrides_to_config([*map(self._parsed, words)], config)
        return config

    @cache  # noqa: B019
    def _parsed(self, word: str) -> Override:
        return OverridesParser.create().parse_override(word)

    def _name(self, word: str) -> str:
        """Return the setting that a word gives a value, or a part of one."""
        name: str = split_key(self._parsed(word).key_or_group)[0]
        return name

    @cache  # noqa: B019
    def _is_group(self, word: str) -> bool:
        """Tell whether a word chooses a task or a preset."""
        name = self._parsed(word).key_or_group
        return bool(self.context.config_loader.repository.group_exists(name))

    @cache  # noqa: B019
    def _chosen(self, *groups: str) -> DictConfig:
        """Compose presets and task alone: slow to read, and the same in most of a sweep's jobs."""
        config = self.context.config_loader.load_sweep_config(self.config, list(groups))
        with open_dict(config):
            del config["hydra"]
        return config
