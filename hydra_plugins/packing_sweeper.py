"""Hydra's basic sweeper, except that jobs that differ only in the seed are launched as one, and for `zip`.

Every Hydra program of the environment imports this file, which therefore imports toyqs, and torch, when used.
"""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf


class PackingSweeper(BasicSweeper):
    """Hydra sweeper over the combinations of the given values, packed by `toyqs.sweep.words.packing.pack`."""

    def split_arguments(self, overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        """Return batches of jobs, each job a list of overrides.

        Raises:
            Refusal: a sweep over no value, or a `zip` that cannot be.
        """
        from toyqs.sweep.words.combinations import combinations
        from toyqs.sweep.words.hydra_errors import refuse_empty_sweeps
        from toyqs.sweep.words.packing import pack

        refuse_empty_sweeps(overrides)
        jobs = combinations(overrides, OmegaConf.to_container(self.config)["zip"])
        return list(BasicSweeper.split_overrides_to_chunks(pack(jobs), max_batch_size))

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Accept every batch: the launcher composes the jobs anyway, and composing twice doubles the time."""
