"""Two thousand finished runs: the time to list them and to print them as a table."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.evidence.commands.planned import ENVIRONMENT
from toyqs.evidence.__main__ import main
from toyqs.evidence.arms import JUDGED
from toyqs.evidence.cells import write_cell
from toyqs.files import sealed

ARMS = ("thinking", "no_reasoner", *JUDGED)
CELLS, SEEDS = 50, range(5)
MOST_SECONDS = 10.0  # of CPU time, with the rows' checksums; a page of them may take as long
SETTINGS = {"task": "rev_prog", "base_lm_hidden_dim": 4, "info": "", **{f"setting_{n}": n for n in range(95)}}
RESULTS = {**{f"result_{n}": n / 7 for n in range(35)}, "accuracy": 0.5, "started": True, "uniform_nll": 2.2}


def write(runs: Path, cell: int) -> None:
    settings = SETTINGS | {"base_lm_hidden_dim": cell + 1}
    keys = {a: {s: f"{cell:04}{n:04}{s:08}" for s in SEEDS} for n, a in enumerate(ARMS)}
    write_cell(runs, settings, keys, ARMS)
    for place, (arm, by_seed) in enumerate(keys.items()):
        for seed, key in by_seed.items():
            folder = runs / key
            folder.mkdir()
            texts = {
                "config.json": json.dumps(settings | {"seed": seed}),
                "env.json": json.dumps(ENVIRONMENT),
            }
            texts |= {"metrics.jsonl": "x" * 10_000, "model.safetensors": "y" * 54_000}
            for name, text in texts.items():
                (folder / name).write_text(text)
            row = {"key": key, "commit": "abc1234", **settings, "seed": seed, **RESULTS}
            row |= {"nll": 1.0 + place / 10 + seed / 100, "started": arm == "thinking"}
            (folder / "summary.json").write_text(json.dumps(sealed(row, folder, texts)))


@pytest.mark.slow
def test_two_thousand_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for cell in range(CELLS):
        write(tmp_path, cell)
    seconds = {}
    for words in (["list"], ["table"], ["table", "--csv"]):
        start = time.process_time()
        assert main([words[0], str(tmp_path), *words[1:]]) == 0
        seconds[" ".join(words)] = time.process_time() - start
        out = capsys.readouterr().out
        assert len(out.splitlines()) > (400 if words == ["table"] else 2000)
    print(seconds)
    assert sum(seconds.values()) < MOST_SECONDS, seconds
