"""One thread for every test: small tensors gain nothing from two, and sums keep their order."""

from __future__ import annotations

import pytest
import torch

torch.set_num_threads(1)

# Files that start whole programs, the longest first. The workers take files in this order, so that short ones
# come last and both end together.
LONGEST = (
    *("test_quick", "test_killing", "test_interruption", "test_logbook", "test_faults", "test_two_sweeps"),
    *("test_sweep", "test_setup", "test_workers", "test_command_line", "test_many_runs", "test_compose"),
    *("test_presets", "test_family", "test_enumeration", "test_train"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the others stay in their order."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(LONGEST)))
