"""What a finished run whose thoughts are handed on can be asked, and what it refuses in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.answers.asked import corpus
from tests.answers.thoughts.runs import row, trained
from toyqs.answers.__main__ import main

IN_TURN = {"weight_groups": list("AABC"), "base_lm_hidden_dim": 5}
KINDS: dict[str, dict[str, Any]] = {"apart": {}, "in turn": IN_TURN}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return kind -> the folder of a run, and that of its control."""
    folder = tmp_path_factory.mktemp("runs")
    found = {}
    for kind, changes in KINDS.items():
        settings = {"thought_into": "state", **changes}
        (found[kind],) = trained(folder, [3], **settings)
        (found[f"{kind}, silent"],) = trained(folder, [3], **settings, max_reasoning_len=0)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_measured_is_what_the_row_has(runs: dict[str, str], kind: str, tmp_path: Path) -> None:
    out, nll = tmp_path / "out.json", pytest.approx(row(runs[kind])["nll"], abs=1e-9)
    assert main(["lengths", runs[kind], "-o", str(out)]) == 0
    assert nll in _numbers(json.loads(out.read_text()))
    if kind == "apart":
        assert main(["interventions", runs[kind], "-o", str(out)]) == 0
        assert json.loads(out.read_text())["own"]["mean"] == nll
    assert main(["language", runs[kind]]) == 0
    assert main(["look", runs[kind]]) == 0
    assert main(["theatre", runs[kind], "--against", runs[f"{kind}, silent"]]) == 0


def _numbers(x: Any) -> list[float]:
    parts = x.values() if isinstance(x, dict) else x if isinstance(x, list) else []
    return [x] if isinstance(x, float) else [number for part in parts for number in _numbers(part)]


def test_what_takes_positions_apart_is_refused(
    runs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (text,) = trained(tmp_path, [3], thought_into="state", task=corpus(tmp_path), seq_len=16)
    for words, said in (
        (["say", text, "Question"], "from token to token"),
        (["latency", text], "from token to token"),
        (["probe", runs["apart"]], "a base state for each of its chains"),
        (["interventions", runs["in turn"]], "depends on those before it"),
    ):
        assert main(words) == 2, words
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line and "; give " in line
