"""A sweep as a line per cell, and all of its numbers to load."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from toyqs.evidence import cells as planned
from toyqs.evidence.arms import one_run
from toyqs.evidence.comparison import comparison_frame
from toyqs.evidence.decision import JUDGED
from toyqs.evidence.divergence import divergence_notes
from toyqs.evidence.findings import OTHERS_ALONE, Finding, estimate_text, find, floor_of, started_text
from toyqs.evidence.text import WIDTH, aligned, listed, task_words
from toyqs.files import write_text

# A cell: the settings that tell it from the others, and its arms with one row per finished seed in each;
# the run itself first, then its controls.
Cell = tuple[Mapping[str, Any], Mapping[str, pd.DataFrame]]


def sweep_table(cells: Sequence[Cell], same: Sequence[Mapping[str, str]] = ()) -> str:
    """Return a line per cell: its loss, what thinking gains over the controls that are judged, the verdict.

    Args:
        cells: in the order of display.
        same: for each, control -> the arm that is one run with it, and is shown for both.

    Returns:
        Lines without a newline at the end.
    """
    findings = [find(planned.Cell(dict(settings), dict(arms), {})) for settings, arms in cells]
    runs = [_run(arms) for _, arms in cells]
    controls = [arm for arm in JUDGED if any(arm in list(arms)[1:] for _, arms in cells)]
    columns = [_settings(cells, name) for name in dict.fromkeys(name for cell, _ in cells for name in cell)]
    columns += [["", "seeds", *(str(len(run)) for run in runs)]]
    columns += [["NLL", "nats", *map(_loss, findings)]]
    columns += [
        ["gain over", arm, *(estimate_text(finding.gains.get(arm), "+.3f") for finding in findings)]
        for arm in controls
    ]
    started = [started_text(run) for run in runs]
    columns += [["", "started", *started]] if any(started) else []
    columns += [["", "verdict", *map(_verdict, findings)]] if controls else []
    title = _title(runs, floor_of(finding.cell for finding in findings))
    text = [*title, "", *aligned(columns, rule=True), "", "±: half of a 95 % t-interval over seeds"]
    if controls:
        text[-1] += "; over a control: its NLL minus thinking's, paired by seed"
    if any(started):
        text.append("started: seeds whose thoughts are used; one that never starts stays in every mean")
    if any("*" in each for each in started):
        text.append(f"*: {OTHERS_ALONE}")
    return "\n".join(text + _one_runs(cells, same) + _missing(cells) + _diverged(cells))


def _run(arms: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    return next(iter(arms.values()))


def _title(runs: Sequence[pd.DataFrame], floor: float | None) -> list[str]:
    finished = [frame for frame in runs if not frame.empty]
    tasks = sorted({task_words(frame.iloc[0].to_dict()) for frame in finished})
    lines = textwrap.wrap(f"{len(runs)} cells: {'; '.join(tasks)}", WIDTH)
    if len(tasks) == 1 and floor is not None:
        lines.append(f"Best possible NLL (Bayes), per counted position: {floor:.3f} nats")
    return lines


def _settings(cells: Sequence[Cell], name: str) -> list[str]:
    """Return a setting's column; its name is broken over two lines, for it is longer than its values."""
    values = [str(settings.get(name, "–")) for settings, _ in cells]
    middle = min(
        (place for place, letter in enumerate(name) if letter in "_."),
        key=lambda place: abs(2 * place - len(name)),
        default=-1,
    )
    return [name[: middle + 1], name[middle + 1 :], *values]


def _loss(finding: Finding) -> str:
    return estimate_text(finding.losses.get(next(iter(finding.cell.arms))), ".3f", "not finished")


def _verdict(finding: Finding) -> str:
    return finding.verdict if any(arm in JUDGED for arm in finding.gains) else "–"


def _one_runs(cells: Sequence[Cell], same: Sequence[Mapping[str, str]]) -> list[str]:
    """Return a line on each control that is one run with another arm, with its cells where not in all."""
    places: dict[str, list[str]] = {}
    for (settings, _), each in zip(cells, same, strict=False):
        for line in one_run(each):
            places.setdefault(line, []).append(_where(settings))
    return [
        wrapped
        for line, where in places.items()
        for wrapped in textwrap.wrap(
            line if len(where) == len(cells) else f"{line} ({'; '.join(where)})", WIDTH
        )
    ]


def _where(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.items())


def _missing(cells: Sequence[Cell]) -> list[str]:
    """Return a sentence that names the arms with fewer seeds than another arm of their cell."""
    lacking = []
    for settings, arms in cells:
        seeds = {arm: set() if frame.empty else set(frame["seed"]) for arm, frame in arms.items()}
        where = _where(settings)
        for arm, finished in seeds.items():
            if left := set().union(*seeds.values()) - finished:
                lacking.append(f"{arm} ({where}) seed {listed(left)}")
    return textwrap.wrap(f"Not finished: {'; '.join(lacking)}.", WIDTH) if lacking else []


def _diverged(cells: Sequence[Cell]) -> list[str]:
    """Return sentences on the seeds of each cell that diverged."""
    lines = []
    for settings, arms in cells:
        where = _where(settings)
        if notes := divergence_notes(arms):
            lines += textwrap.wrap(f"{where}: {' '.join(notes)}", WIDTH)
    return lines


def sweep_csv(cells: Sequence[Cell], path: Path | str) -> None:
    """Write every cell's `comparison_frame` as one CSV, so that a reader sees the whole file or none.

    Args:
        cells: as for `sweep_table`; their settings become columns, empty where a cell has no such setting.
        path: its folder exists.
    """
    frames, names = [], list(dict.fromkeys(name for settings, _ in cells for name in settings))
    for settings, arms in cells:
        if not _run(arms).empty:
            frame = comparison_frame(arms).reset_index()
            for place, name in enumerate(names):
                frame.insert(place, name, str(settings[name]) if name in settings else None)
            frames.append(frame)
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    write_text(path, table.to_csv(index=False))
