"""A real Slurm for the tests of this folder, which are skipped where none can be started."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.one_node import Node, NoSlurm


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Start Slurm on one node, with the partition kargo-lab; its commands work in the tests' environment."""
    pytest.importorskip("submitit")
    try:
        running = Node(tmp_path_factory.mktemp("slurm"))
    except NoSlurm as error:
        pytest.skip(str(error))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        patch.setenv("OMP_NUM_THREADS", "1")
        yield running
    running.close()
    assert not [name for name, process in running.daemons.items() if process.poll() is None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if os.path.dirname(__file__) in str(item.path):
            item.add_marker(pytest.mark.slurm)
