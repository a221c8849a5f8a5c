"""The trackers by the real thing: what a command's runs leave in wandb's files and in TensorBoard's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import warm
from tests.config.checks.checking import accepted, refused
from toyqs import thought_record
from toyqs.config.run_config import RunConfig
from toyqs.evidence import load_curve, load_rows
from toyqs.experiment import tracking
from toyqs.experiment.thought_table import HEADINGS, MOST_ROWS, thought_rows
from toyqs.experiment.trackers import FOLDER, NOWHERE, Place, Shown, TensorBoard
from toyqs.experiment.tracking import RunLog
from toyqs.thought_record import Record

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "+run_modifier=Quick",
    "seed=[7,8]",
    "controls=none",
    "processes=1",
    "info=mine",
    "max_steps=4",
    "kernels=torch",
)
GROUP = r"rev_prog \([0-9a-f]{6}\)"


def command(folder: Path, *words: str) -> str:
    """Run a command; return what it says on stderr."""
    assert warm.started([str(ROOT / "run.py"), *SMALL, *words], folder).wait() == 0
    return (folder / "err").read_text()


def runs_of(folder: Path) -> dict[int, Path]:
    """Return the folders of a command's runs, by their seeds."""
    return {row["seed"]: folder / "runs" / row["key"] for _, row in load_rows(folder / "runs").iterrows()}


def curve_of(run: Path) -> list[tuple[int, str, float]]:
    """Return what metrics.jsonl holds: step, kind/metric, value."""
    points = []
    for row in load_curve(run.parent, run.name).to_dict("records"):
        step, kind = int(row.pop("step")), row.pop("kind")
        known = {name: x for name, x in row.items() if x is not None and not np.isnan(x)}
        points += [(step, f"{kind}/{name}", x) for name, x in known.items()]
    return sorted(points)


def records(run: Path) -> list[dict[str, Any]]:
    """Read an offline run with wandb's own reader."""
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    words = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_wandb_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    (tmp_path / "home").mkdir()
    environ = {"HOME": str(tmp_path / "home"), "WANDB_PROJECT": "ours"}
    words = [str(ROOT / "run.py"), *SMALL, "tracker=wandb", "wandb_entity=us", "wandb_tags=[first,second]"]
    assert warm.started(words, tmp_path, **environ).wait() == 0
    assert "continuing without" not in (tmp_path / "err").read_text()
    for seed, run in runs_of(tmp_path).items():
        of_kind: dict[str, list[Any]] = {}
        for record in records(run):
            of_kind.setdefault(record["type"], []).append(record[record["type"]])
        (begun,) = of_kind["run"]
        config = begun["config"]["update"]
        assert (begun["project"], begun["entity"], begun["tags"]) == (
            "ours",
            "us",
            ["first", "second", "mine"],
        )
        assert (begun["display_name"], begun["job_type"]) == (f"thinking seed {seed}", "thinking")
        assert re.fullmatch(GROUP, begun["run_group"]) and config["cell"] == begun["run_group"]
        assert (config["arm"], config["key"], config["seed"]) == ("thinking", run.name, seed)
        logged = [
            (item["step"], name, value)
            for item in (record["item"] for record in of_kind["history"])
            for name, value in item.items()
            if name.startswith(("train/", "held_out/"))
        ]
        ours = curve_of(run)
        assert [x[:2] for x in sorted(logged)] == [x[:2] for x in ours]
        assert [x[2] for x in sorted(logged)] == pytest.approx([x[2] for x in ours])
        summary = {name: x for record in of_kind["summary"] for name, x in record["update"].items()}
        assert summary["nll"] == json.loads((run / "summary.json").read_text())["nll"]
        (table,) = run.glob("wandb/offline-run-*/files/media/table/thoughts_*.table.json")
        shown = json.loads(table.read_text())
        assert shown["columns"] == list(HEADINGS) and shown["data"] == thoughts(run)


def thoughts(run: Path) -> list[list[Any]]:
    """Return the rows of a run's table, but for the rounding of its record's file."""
    return [
        [*row[:3], *(pytest.approx(x, abs=1e-3) for x in row[3:])]
        for row in thought_rows(thought_record.read(run))
    ]


def test_tensorboard(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    said = command(tmp_path, "tracker=tensorboard")
    assert "continuing without" not in said
    files = list((tmp_path / "runs" / FOLDER).rglob("events.*"))
    runs = runs_of(tmp_path)
    assert len(files) == len(runs) == 2
    for seed, run in runs.items():
        (folder,) = (file.parent for file in files if file.parent.name == f"seed {seed} {run.name}")
        assert folder.parent.name == "thinking" and re.fullmatch(GROUP, folder.parents[1].name)
        events = reader.EventAccumulator(str(folder), {reader.TENSORS: 0, reader.SCALARS: 0}).Reload()
        row = json.loads((run / "summary.json").read_text())
        shown = [(x.step, tag, x.value) for tag in events.Tags()["scalars"] for x in events.Scalars(tag)]
        curves = sorted(x for x in shown if not x[1].startswith("row/"))
        assert [x[:2] for x in curves] == [x[:2] for x in curve_of(run)]
        assert [x[2] for x in curves] == pytest.approx([x[2] for x in curve_of(run)])
        results = {tag.removeprefix("row/"): value for _, tag, value in shown if tag.startswith("row/")}
        assert results["nll"] == pytest.approx(row["nll"]) and "seed" not in results
        assert "_hparams_/session_start_info" in events.summary_metadata
        start = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        assert b"arm" in start and b"thinking" in start and run.name.encode() in start
        (text,) = events.Tensors("thoughts/text_summary")
        lines = text.tensor_proto.string_val[0].decode().splitlines()
        assert len(lines) == 2 + len(thoughts(run)) and lines[0].startswith(
            "| read | truth | thought | p with"
        )
        cells = lines[2].strip("| ").split(" | ")
        assert cells[:3] == thoughts(run)[0][:3] and float(cells[3]) == thoughts(run)[0][3]


def test_a_tracker_that_is_not_installed_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracking, "_given_up", threading.Event())
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    for seed in (7, 8):
        log = RunLog(tmp_path, TensorBoard(Shown(tmp_path, NOWHERE, seed, {})))
        log.write(1, "train", {"nll": 1.5})
        log.close({"nll": 1.5})
    assert capsys.readouterr().err == (
        "toyqs: tensorboard: ImportError: it is not installed; pip install 'toyqs[tensorboard]'; "
        "continuing without it, the files have all numbers\n"
    )
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def test_an_earlier_attempts_events_are_replaced(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = tmp_path / "runs" / "key"
    run.mkdir(parents=True)
    other = run.with_name("other")
    RunLog(tmp_path, TensorBoard(Shown(other, NOWHERE, 7, {}))).close()
    for step in (1, 2):  # the second time in a command that names its cell otherwise
        tracker = TensorBoard(Shown(run, Place("pause", "", f"task.path=/{'x' * 300} ({step})"), 7, {}))
        log = RunLog(run, tracker)
        log.write(step, "train", {"nll": 1.5, "reward": float("nan"), "information": None})
        log.close()
    (file,) = (tmp_path / "runs" / FOLDER).rglob("seed 7 key/events.*")
    assert file.parents[2].name.startswith("task.path=_xxx") and file.parents[2].name.endswith("x (2)")
    assert len(list((tmp_path / "runs" / FOLDER).rglob("events.*"))) == 2, "another run's stay"
    events = reader.EventAccumulator(str(file)).Reload()
    assert [x.step for x in events.Scalars("train/nll")] == [2]
    assert "train/information" not in events.Tags()["scalars"]


def record_of(**arrays: Any) -> Record:
    """Return a record of one sequence, whose two positions think two thoughts of two symbols."""
    common = {
        "inputs": [[0, 1, 2]],
        "positions": [[1, 2]],
        "truth": [[2, 0]],
        "counted": [[0, 1]],
        "log_q": np.log([[[0.1, 0.2], [0.5, 0.4]]]),
        "log_q_shuffled": np.log([[[0.1, 0.2], [0.25, 0.4]]]),
    }
    found = {name: np.asarray(value) for name, value in (common | arrays).items()}
    return Record("toy", 1, [0], ["a", "b", "c|d"], ["x", "y"], found, {}, [])


def test_a_row_of_the_table() -> None:
    symbols = [[[[0, 0], [0, 0]], [[1, 2], [0, 0]]]]
    (row,) = thought_rows(record_of(symbols=symbols, log_q_none=np.log([[0.1, 0.125]])))
    assert row == ["a b c|d", "a", "y", pytest.approx(0.5), pytest.approx(0.125), pytest.approx(0.25)]
    vectors = np.arange(8.0).reshape(1, 2, 2, 2, 1)
    (row,) = thought_rows(record_of(vectors=vectors))
    assert row[2] == "4.00; 5.00" and row[4] is None, "it does not predict without a thought"
    (row,) = thought_rows(record_of(vectors=vectors, nearest=symbols))
    assert row[2] == "y"
    rows = thought_rows(record_of(symbols=symbols, counted=[[1, 1]]))
    assert [row[:3] for row in rows] == [["a b", "c|d", "x x"], ["a b c|d", "a", "y"]], (
        "what was read by then"
    )
    none = record_of(symbols=symbols, counted=[[0, 0]])
    assert thought_rows(none) == []


def test_a_large_record_is_sampled_evenly() -> None:
    many = 50 * MOST_ROWS
    arrays = {
        "inputs": np.zeros((many, 1), int),
        "positions": np.zeros((many, 1), int),
        "truth": np.zeros((many, 1), int),
        "counted": np.ones((many, 1), int),
        "log_q": np.log(np.linspace(0.1, 0.9, many)).reshape(many, 1, 1),
        "log_q_shuffled": np.zeros((many, 1, 1)),
        "symbols": np.zeros((many, 1, 1, 1), int),
    }
    rows = thought_rows(Record("toy", many, list(range(many)), ["a"], ["x"], arrays, {}, []))
    assert len(rows) == MOST_ROWS
    assert [row[3] for row in rows] == pytest.approx(np.linspace(0.1, 0.9, MOST_ROWS), abs=1e-3)


def test_one_tracker_at_a_time() -> None:
    assert RunConfig().tracked_by == "none"
    assert RunConfig(wandb_mode="offline").tracked_by == "wandb" == RunConfig(tracker="wandb").tracked_by
    refused("wandb_mode=online: tracker=tensorboard is another", tracker="tensorboard", wandb_mode="online")
    assert accepted(tracker="wandb", wandb_mode="online") == [] == accepted(wandb_mode="offline")
