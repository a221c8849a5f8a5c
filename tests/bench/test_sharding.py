"""bench/sharding.py prints a line for each way."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench import sharding
from tests import killing


@pytest.mark.slow
def test_every_way_is_measured() -> None:
    pytest.importorskip("transformers")
    command = [sys.executable, str(killing.ROOT / "bench" / "sharding.py"), "--width=16", "--layers=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[3:]
    assert [line[:30].strip() for line in lines] == list(sharding.WAYS)
    for line in lines:
        held, _, most, *_ = line[30:].split()
        assert float(held) <= float(most)
