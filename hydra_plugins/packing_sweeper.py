"""Hydra's own sweeper, but jobs that differ only in their seed reach the launcher as one."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override

from toyqs.sweep.packing import pack


class PackingSweeper(BasicSweeper):
    """All combinations of the values typed, packed by `toyqs.sweep.packing.pack`."""

    @staticmethod
    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        """Overrides -> batches of jobs, each a list of overrides."""
        (jobs,) = BasicSweeper.split_arguments(overrides, None)
        return list(BasicSweeper.split_overrides_to_chunks(pack(jobs), max_batch_size))

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing: every launcher composes the jobs anyway, and composing twice costs twice the time."""
