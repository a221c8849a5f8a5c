"""Choose what trains the stacks of a command."""

from __future__ import annotations

import os
from collections.abc import Sequence

from toyqs.config.errors import Refusal
from toyqs.config.run_config import RunConfig
from toyqs.sweep.executors.executor import Executor
from toyqs.sweep.executors.local import local_executor
from toyqs.sweep.executors.ray_tasks import RayTasks
from toyqs.sweep.executors.settings import RaySettings, SlurmSettings
from toyqs.sweep.executors.slurm import SlurmArrays
from toyqs.training import distributed

UNKNOWN = 16  # stacks that a cluster of unknown size may train at once


def connect(cluster: object, configs: Sequence[RunConfig], num_stacks: int, *, isolate: bool) -> Executor:
    """Return the executor for a command.

    Args:
        cluster: settings of a launcher in CLUSTERS; anything else: this machine.
        configs: of the command, with one folder of runs.
        num_stacks: how many stacks there are to train.
        isolate: on this machine, train in worker processes even one stack at a time.

    Raises:
        Refusal: torchrun's processes would stand idle beside a cluster.
    """
    if cluster is not None and distributed.ranks() > 1:
        why = "torchrun's processes train on this machine, and these jobs on others"
        raise Refusal(f"hydra/launcher: {why}; give the command without torchrun")
    if isinstance(cluster, SlurmSettings):
        return SlurmArrays(cluster, configs[0].runs_dir)
    if isinstance(cluster, RaySettings):
        return RayTasks(cluster, configs[0].runs_dir, cluster.processes or _given(configs))
    return local_executor(local_processes(configs, num_stacks), isolate=isolate)


def local_processes(configs: Sequence[RunConfig], num_stacks: int) -> int:
    """Return how many stacks train at once on this machine."""
    return min(num_stacks, most_at_once(None, configs))


def most_at_once(cluster: object, configs: Sequence[RunConfig]) -> int:
    """Return how many stacks may train at once, as far as it is known before any is started.

    Args:
        cluster: settings of a launcher in CLUSTERS; anything else: this machine.
        configs: of the command.
    """
    if isinstance(cluster, SlurmSettings):
        return cluster.array_parallelism
    cores, given = len(os.sched_getaffinity(0)), _given(configs)
    if isinstance(cluster, RaySettings):
        starts = (cluster.address or os.environ.get("RAY_ADDRESS") or "local") == "local"
        return cluster.processes or given or (max(1, cores // cluster.cpus) if starts else UNKNOWN)
    if distributed.ranks() > 1:
        return 1
    return given or (1 if any(config.device == "cuda" for config in configs) else cores)


def _given(configs: Sequence[RunConfig]) -> int | None:
    return next((config.processes for config in configs if config.processes), None)
