"""What torchrun puts into the environment, where something else has left it there."""

from __future__ import annotations

import pytest

from toyqs.config.errors import Refusal
from toyqs.sweep.torchrun import prepare


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "without MASTER_ADDR and MASTER_PORT"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}, "without MASTER_PORT"),
        ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}, "no number"),
        ({"RANK": "x", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}, "no number"),
    ],
)
def test_what_torchrun_left_in_the_environment_is_named(
    given: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Refusal, match=rf"^RANK=\w WORLD_SIZE=2: .*{named}.*; unset RANK WORLD_SIZE"):
        prepare()
