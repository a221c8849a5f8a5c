"""Write the record of finished runs' thoughts, as their training writes it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from toyqs import thought_record
from toyqs.answers.command import add_runs_measure
from toyqs.answers.loaded.load import load_run
from toyqs.config.builders.held_out import draw_held_out
from toyqs.config.builders.recording import build_recorded
from toyqs.config.errors import Refusal
from toyqs.config.finished_run import SETTINGS, columns_of
from toyqs.evidence.cells import FOLDER
from toyqs.files import ROW, damage, read_json
from toyqs.thought_record import NoRecord
from toyqs.training.evaluation.recording import Recording

BESIDE_RUNS = (FOLDER, "reports")


def add_to(measures: Any) -> None:
    """Add the measure to the command line."""
    text = "write the record of a run's thoughts (thoughts.json.gz), where it has none yet"
    part = add_runs_measure(measures, "record", _record, text)
    part.set_defaults(code=lambda given, result: 2 if result["failed"] or not result["records"] else 0)


def _record(given: argparse.Namespace) -> Any:
    torch.set_num_threads(given.threads or 1)  # as in the training, whose bits it is to have
    result: dict[str, dict[str, str]] = {"records": {}, "left_out": {}, "failed": {}}
    for folder in given.runs:
        if len(given.runs) > 1 and _is_no_run(Path(folder)):
            continue
        try:
            result["records"][folder] = write_record(folder, given.device)
        except Refusal as refusal:
            if len(given.runs) == 1:
                raise
            kind = "left_out" if isinstance(refusal, NoRecord) else "failed"
            result[kind][folder] = str(refusal)
            print(f"toyqs: {'left out: ' if kind == 'left_out' else ''}{refusal}", file=sys.stderr)
    return result


def _is_no_run(path: Path) -> bool:
    """Tell whether this is one of the other folders in a folder of runs, which runs/* names as well."""
    return path.name in BESIDE_RUNS and path.is_dir() and not (path / SETTINGS).exists()


def write_record(folder: str, device: str = "cpu") -> str:
    """Write a finished run's record into its folder, unless it has one that can be read; return its path.

    Args:
        folder: the run's, runs/KEY.
        device: cpu or cuda.

    Raises:
        Refusal: as `load_run`; its text is not that of its training, or the folder cannot be written.
        NoRecord: the run has no thoughts, or diverged.
    """
    path = Path(folder) / thought_record.NAME
    try:
        thought_record.read(folder)
        print(f"{path}: is there already")
        return str(path)
    except NoRecord:
        raise
    except Refusal:  # there is none yet, or a damaged one
        run = load_run(folder, device)
    run.check_thoughts()
    recorded = build_recorded(run.config)
    assert recorded is not None
    run.check_data()
    held_out = draw_held_out(run.config, 1, next(run.model.parameters()))
    recording = Recording(run.model, held_out, [int(columns_of(folder)["seed"])], recorded)
    recording.evaluate()
    try:
        thought_record.write(folder, recording.record(0))
    except OSError as error:
        raise Refusal(f"{path}: cannot be written: {error.strerror or error}", 1) from error
    print(f"{path}: {len(recording.sequences)} sequences, {path.stat().st_size:,} bytes")
    if thought_record.NAME in damage(read_json(Path(folder) / ROW), Path(folder)):
        print(
            f"toyqs: {path}: has not the bytes of the training, which the row notes (its thoughts_every, or "
            "another version of torch), so a command would train the run again",
            file=sys.stderr,
        )
    return str(path)
