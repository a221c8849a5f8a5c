"""What a sweep found: a line per cell, and all of its numbers to load."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from toyqs.evidence import JUDGED, interval, reasoning_gain, verdict
from toyqs.report import WIDTH, comparison_frame, plus_minus, task_words
from toyqs.results import write_text

Arms = Mapping[str, pd.DataFrame]


def sweep_table(cells: Mapping[str, Arms]) -> str:
    """A line per cell: its loss, what thinking gains over the controls that are judged, the verdict.

    Args:
        cells: what tells a cell from the others -> its arms, one row per finished seed in each; the run
            itself first, then its controls.

    Returns:
        Lines without a newline at the end.
    """
    controls = [arm for arm in JUDGED if any(arm in list(arms)[1:] for arms in cells.values())]
    started = any("started" in _run(arms) and _run(arms)["started"].notna().any() for arms in cells.values())
    columns = [_labels(cells), _seeds(cells), _losses(cells)]
    columns += [_gains(cells, control) for control in controls]
    columns += [_started(cells)] if started else []
    columns += [_verdicts(cells)] if controls else []
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join([cell[0].ljust(widths[0]), *map(str.rjust, cell[1:], widths[1:])]).rstrip()
        for cell in zip(*columns, strict=True)
    ]
    text = [*_title(cells), "", *lines[:2], "-" * max(map(len, lines)), *lines[2:], ""]
    text.append("±: half of a 95 % t-interval over seeds")
    if controls:
        text[-1] += "; gain: the control's NLL minus thinking's, paired by seed"
    if started:
        text.append("started: seeds whose thoughts are used; a seed that never starts stays in every mean")
    return "\n".join(text + _missing(cells))


def _run(arms: Arms) -> pd.DataFrame:
    return next(iter(arms.values()))


def _title(cells: Mapping[str, Arms]) -> list[str]:
    first = next(_run(arms) for arms in cells.values() if not _run(arms).empty)
    tasks = sorted({task_words(_run(arms).iloc[0]) for arms in cells.values() if not _run(arms).empty})
    floor = first["bayes_floor"].iloc[0] if len(tasks) == 1 and "bayes_floor" in first else None
    best = "" if floor is None or pd.isna(floor) else f", best possible NLL (Bayes) {floor:.3f}"
    return textwrap.wrap(f"{len(cells)} cells: {'; '.join(tasks)}{best}", WIDTH)


def _labels(cells: Mapping[str, Arms]) -> list[str]:
    return ["", "cell", *cells]


def _seeds(cells: Mapping[str, Arms]) -> list[str]:
    return ["", "seeds", *(str(len(_run(arms))) for arms in cells.values())]


def _losses(cells: Mapping[str, Arms]) -> list[str]:
    found = []
    for arms in cells.values():
        values = (
            pd.Series(dtype=float) if _run(arms).empty else pd.to_numeric(_run(arms)["nll"]).astype(float)
        )
        mean = interval(values) if len(values) else None
        found.append(plus_minus(mean.mean, mean.half_width, ".3f", "diverged") if mean else "not finished")
    return ["NLL", "nats", *found]


def _gain(arms: Arms, control: str) -> pd.Series | None:
    """Of thinking over a control; None where no seed has both."""
    run, other = _run(arms), arms.get(control)
    if other is None or other.empty or run.empty or not set(run["seed"]) & set(other["seed"]):
        return None
    return reasoning_gain(run, other)


def _gains(cells: Mapping[str, Arms], control: str) -> list[str]:
    found = []
    for arms in cells.values():
        gain = _gain(arms, control)
        mean = None if gain is None else interval(gain)
        found.append("–" if mean is None else plus_minus(mean.mean, mean.half_width, "+.3f", "diverged"))
    return ["gain over", control, *found]


def _started(cells: Mapping[str, Arms]) -> list[str]:
    counts = []
    for arms in cells.values():
        flags = _run(arms)["started"].dropna() if "started" in _run(arms) else pd.Series(dtype=bool)
        counts.append(f"{int(flags.sum())} of {len(flags)}" if len(flags) else "–")
    return ["", "started", *counts]


def _verdicts(cells: Mapping[str, Arms]) -> list[str]:
    words = []
    for arms in cells.values():
        gains = {control: gain for control in JUDGED if (gain := _gain(arms, control)) is not None}
        words.append(verdict(gains).word if gains else "–")
    return ["", "verdict", *words]


def _missing(cells: Mapping[str, Arms]) -> list[str]:
    """Arms with fewer seeds than another arm of their cell, or none."""
    lacking = []
    for label, arms in cells.items():
        seeds = set().union(*(set(frame["seed"]) for frame in arms.values() if not frame.empty))
        for arm, frame in arms.items():
            if left := seeds - (set() if frame.empty else set(frame["seed"])):
                lacking.append(f"{arm} ({label}) seed {', '.join(map(str, sorted(left)))}")
    return textwrap.wrap(f"Not finished: {'; '.join(lacking)}.", WIDTH) if lacking else []


def sweep_csv(cells: Mapping[str, Arms], path: Path | str) -> None:
    """Write every cell's `comparison_frame` as one CSV, so that a reader sees the whole file or none.

    Args:
        cells: as for `sweep_table`.
        path: its folder exists.
    """
    frames = {
        label: comparison_frame(arms) for label, arms in cells.items() if not next(iter(arms.values())).empty
    }
    table = pd.concat(frames, names=["cell"]) if frames else pd.DataFrame()
    write_text(path, table.to_csv())
