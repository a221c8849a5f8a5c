"""Plug-ins for tests: the folder of docs/plugins.md, outside the checkout, and small ones of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from toyqs.config.checks.values import check
from toyqs.config.errors import Refusal
from toyqs.config.plugins import load
from toyqs.config.plugins.found import KINDS
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.sweep.words.arguments import plugins_in
from toyqs.sweep.words.compose import compose_checked
from toyqs.sweep.words.hydra_errors import refusal_of
from toyqs.sweep.words.presets import register

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`lab/(\w+\.py)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL))


def written(folder: Path) -> Path:
    """Write the page's folder `lab` into a folder; return its path."""
    lab = folder / "lab"
    lab.mkdir()
    for name, code in FILES.items():
        (lab / name).write_text(code, encoding="utf-8")
    return lab


SMALL: dict[str, Any] = {
    **{"max_steps": 3, "data_loader_batch_size": 8, "eval_sequences": 64, "seed": 1},
    **{"reasoner_hidden_dim": 6, "base_lm_hidden_dim": 6, "processes": 1},
}


def config(**changes: Any) -> RunConfig:
    given = resolved(replace(RunConfig(), **{**SMALL, **changes}))
    check(given)
    return given


def composed(*words: str) -> RunConfig:
    """Compose the words of a command as run.py does."""
    load.reset()
    load.load(plugins_in(words))
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        try:
            return compose_checked(compose("config", list(words)))[0]
        except Exception as error:
            raise (error if isinstance(error, Refusal) else refusal_of(error)) from error


def refused(line: str) -> Any:
    """Expect a refusal whose line begins as a pattern says."""
    return pytest.raises(Refusal, match=f"^{line}")


def file(name: str, text: str) -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def scores(*names: str, head: str = "") -> str:
    """Return a plug-in's source with rewards of these names."""
    code = FILES["scores.py"].partition("REWARDS")[0]
    return f"{code}\nREWARDS = {{{', '.join(f'{name!r}: power' for name in names)}}}\n{head}"


def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work outside the checkout; forget all plug-ins afterwards."""
    monkeypatch.chdir(tmp_path)
    before = {key: dict(kind.table) for key, kind in KINDS.items()}
    yield
    load.reset()
    assert {key: dict(kind.table) for key, kind in KINDS.items()} == before
