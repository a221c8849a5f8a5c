"""The schema: every key has a meaning and a reader."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from toyqs.config.keys import STARTS, TASKS
from toyqs.config.run_config import RunConfig
from toyqs.objectives.registry import all_fields

ROOT = Path(__file__).resolve().parents[2]
KEYS = [x.name for x in fields(RunConfig)]


@pytest.mark.parametrize("key", KEYS)
def test_every_key_says_what_it_means(key: str) -> None:
    source = (ROOT / "toyqs" / "config" / "keys.py").read_text()
    assert re.search(rf"^    {key}: .+  # \S.{{5,}}$", source, re.MULTILINE)


def test_every_key_is_read_somewhere() -> None:
    """To be checked is not to be read; objective is by objectives/registry.py, STARTS are by getattr."""
    files = [f for f in (ROOT / "toyqs").rglob("*.py") if f.parent.name != "checks"]
    text = "\n".join(f.read_text() for f in files)
    unread = [
        key
        for key in KEYS
        if not re.search(rf"\b(config|c|self)\.{key}\b", text)
        and key not in all_fields() | {"objective", *STARTS}
    ]
    assert unread == []


def test_a_task_is_known_by_its_own_name() -> None:
    assert {name: kind().name for name, kind in TASKS.items()} == {name: name for name in TASKS}
    assert {"rev_prog", "char_text"} <= set(TASKS)


def test_two_configs_share_no_list() -> None:
    RunConfig().weight_groups.append("E")
    assert len(RunConfig().weight_groups) == 4
