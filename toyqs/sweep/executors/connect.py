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
    given = next((config.processes for config in configs if config.processes), None)
    if isinstance(cluster, RaySettings):
        return RayTasks(cluster, configs[0].runs_dir, cluster.processes or given)
    return local_executor(local_processes(configs, num_stacks), isolate=isolate)


def local_processes(configs: Sequence[RunConfig], num_stacks: int) -> int:
    """Return how many stacks train at once on this machine."""
    given = next((config.processes for config in configs if config.processes), None)
    on_gpu = any(config.device == "cuda" for config in configs)
    return min(num_stacks, given or (1 if on_gpu else len(os.sched_getaffinity(0))))
