"""What a sweep found: a line per cell, and all of its numbers to load."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from toyqs.evidence.comparison import WIDTH, comparison_frame, task_words
from toyqs.evidence.decision import JUDGED, verdict
from toyqs.evidence.gain import Interval, interval, reasoning_gain
from toyqs.evidence.text import plus_minus
from toyqs.files import write_text

# A cell: the settings that tell it from the others, and its arms with one row per finished seed in each;
# the run itself first, then its controls.
Cell = tuple[Mapping[str, Any], Mapping[str, pd.DataFrame]]


def sweep_table(cells: Sequence[Cell]) -> str:
    """A line per cell: its loss, what thinking gains over the controls that are judged, the verdict.

    Returns:
        Lines without a newline at the end.
    """
    names = list(dict.fromkeys(name for settings, _ in cells for name in settings))
    controls = [arm for arm in JUDGED if any(arm in list(arms)[1:] for _, arms in cells)]
    columns = [_settings(cells, name) for name in names]
    columns += [["", "seeds", *(str(len(_run(arms))) for _, arms in cells)]]
    columns += [["NLL", "nats", *(_shown(_loss(arms), ".3f", "not finished") for _, arms in cells)]]
    columns += [
        ["gain over", arm, *(_shown(_gain(arms, arm), "+.3f", "–") for _, arms in cells)] for arm in controls
    ]
    started = [_started(arms) for _, arms in cells]
    columns += [["", "started", *started]] if any(started) else []
    columns += [["", "verdict", *(_verdict(arms) for _, arms in cells)]] if controls else []
    text = [*_title(cells), "", *_aligned(columns), "", "±: half of a 95 % t-interval over seeds"]
    if controls:
        text[-1] += "; over a control: its NLL minus thinking's, paired by seed"
    if any(started):
        text.append("started: seeds whose thoughts are used; one that never starts stays in every mean")
    return "\n".join(text + _missing(cells))


def _aligned(columns: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in columns]
    lines = ["  ".join(map(str.rjust, line, widths)).rstrip() for line in zip(*columns, strict=True)]
    return [*lines[:2], "-" * max(map(len, lines)), *lines[2:]]


def _run(arms: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    return next(iter(arms.values()))


def _title(cells: Sequence[Cell]) -> list[str]:
    found = [_run(arms) for _, arms in cells if not _run(arms).empty]
    tasks = sorted({task_words(frame.iloc[0]) for frame in found})
    floors = {value for frame in found if "bayes_floor" in frame for value in frame["bayes_floor"].dropna()}
    lines = textwrap.wrap(f"{len(cells)} cells: {'; '.join(tasks)}", WIDTH)
    if len(tasks) == 1 and len(floors) == 1:
        lines.append(f"Best possible NLL (Bayes), per counted position: {floors.pop():.3f} nats")
    return lines


def _settings(cells: Sequence[Cell], name: str) -> list[str]:
    """A column of a setting; its name is broken over two lines, for it is longer than its values."""
    values = [str(settings.get(name, "–")) for settings, _ in cells]
    middle = min(
        (place for place, letter in enumerate(name) if letter in "_."),
        key=lambda place: abs(2 * place - len(name)),
        default=-1,
    )
    return [name[: middle + 1], name[middle + 1 :], *values]


def _shown(found: Interval | None, form: str, nothing: str) -> str:
    return nothing if found is None else plus_minus(found.mean, found.half_width, form, "diverged")


def _loss(arms: Mapping[str, pd.DataFrame]) -> Interval | None:
    run = _run(arms)
    return None if run.empty else interval(pd.to_numeric(run["nll"]).astype(float))


def _gains(arms: Mapping[str, pd.DataFrame]) -> dict[str, pd.Series]:
    """Of thinking over each judged control that shares a seed with it."""
    (_, run), *others = arms.items()
    seeds = set() if run.empty else set(run["seed"])
    shared = {arm: frame for arm, frame in others if not frame.empty and seeds & set(frame["seed"])}
    return {arm: reasoning_gain(run, frame) for arm, frame in shared.items() if arm in JUDGED}


def _gain(arms: Mapping[str, pd.DataFrame], control: str) -> Interval | None:
    gain = _gains(arms).get(control)
    return None if gain is None else interval(gain)


def _verdict(arms: Mapping[str, pd.DataFrame]) -> str:
    gains = _gains(arms)
    return verdict(gains).word if gains else "–"


def _started(arms: Mapping[str, pd.DataFrame]) -> str:
    run = _run(arms)
    flags = run["started"].dropna() if "started" in run else pd.Series(dtype=bool)
    return f"{int(flags.sum())} of {len(flags)}" if len(flags) else ""


def _missing(cells: Sequence[Cell]) -> list[str]:
    """Arms with fewer seeds than another arm of their cell."""
    lacking = []
    for settings, arms in cells:
        seeds = set().union(*(set(frame["seed"]) for frame in arms.values() if not frame.empty))
        where = " ".join(f"{name}={value}" for name, value in settings.items())
        for arm, frame in arms.items():
            if left := seeds - (set() if frame.empty else set(frame["seed"])):
                lacking.append(f"{arm} ({where}) seed {', '.join(map(str, sorted(left)))}")
    return textwrap.wrap(f"Not finished: {'; '.join(lacking)}.", WIDTH) if lacking else []


def sweep_csv(cells: Sequence[Cell], path: Path | str) -> None:
    """Write every cell's `comparison_frame` as one CSV, so that a reader sees the whole file or none.

    Args:
        cells: as for `sweep_table`; their settings become columns.
        path: its folder exists.
    """
    frames = []
    for settings, arms in cells:
        if not _run(arms).empty:
            frame = comparison_frame(arms).reset_index()
            for place, (name, value) in enumerate(settings.items()):
                frame.insert(place, name, str(value))
            frames.append(frame)
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    write_text(path, table.to_csv(index=False))
