"""Show one run: what it is, what it was made with, its results, its files."""

from __future__ import annotations

from typing import Any

from toyqs.command_line import path_of
from toyqs.evidence.commands import description
from toyqs.evidence.measures import MEASURES, OF_COST, OF_PREDICTIONS, OF_THOUGHTS, measure_of, written
from toyqs.evidence.runs import Run, RunsFolder, load_run
from toyqs.evidence.states import DIVERGED, FINISHED, LOG, RUNNING
from toyqs.evidence.text import aligned
from toyqs.files import ROW, SEAL, damage, visible

NOT_NOTED = "not noted by the version that trained it; its config.json has all settings"
NOT_RESULTS = {"key", "commit", "results_version", SEAL}  # columns of a row beside settings and results


def add_to(commands: Any) -> None:
    """Add the command `show`."""
    text = "one run: its arms and cells, settings, command, results, versions, files"
    part = commands.add_parser("show", help=text, description=text)
    part.add_argument("run", metavar="RUN", type=path_of, help="folder of a run, runs/KEY")
    part.set_defaults(work=lambda given: print("\n".join(lines_of(load_run(given.run)))))


def lines_of(folder: RunsFolder) -> list[str]:
    """Return what is known of a folder's one run, in lines of at most 110 columns."""
    (run,) = folder.runs
    environment, settings = description.environment_of(run), description.settings_of(run)
    changed = environment.get(description.CHANGED)
    words = [description.typed(name, value) for name, value in (changed or {}).items()]
    machine = f"{environment.get('platform')}, {environment.get('cpu_count')} CPUs"
    side = environment.get("stack_size")
    about = [
        ("run", f"{run.folder}"),
        ("state", description.state_text(run)),
        *(("arm", text) for text in description.places_of(folder)),
        ("label", str(settings.get("info") or "")),
        ("command", _command(run, environment)),
        ("not the defaults", NOT_NOTED if changed is None else " ".join(words) or "nothing"),
        *(("start", text) for text in description.starts_of(environment)),
        ("commit", description.commit_of(environment)),
        ("versions", f"{description.versions_of(environment)}; results {settings.get('results_version')}"),
        ("machine", machine if environment else description.UNKNOWN),
        ("side by side", f"{side} seeds" if side else ""),
        ("out of memory", description.shortages_of(environment)),
    ]
    lines = description.listed([each for each in about if each[1]])
    return [*lines, *_results(run, settings), "", "files", *_files(run)]


def _command(run: Run, environment: dict[str, Any]) -> str:
    """Return the command that trained a run, and what it does if it is given again."""
    command = description.command_of(environment)
    if command == description.UNKNOWN:
        return command
    again = "as typed; it trains this run again"
    if run.state.word in (FINISHED, DIVERGED):
        again = "as typed; it leaves this run as it is, with force=true it trains it again"
    return f"{command} ({'as typed' if run.state.word == RUNNING else again})"


def _results(run: Run, settings: dict[str, Any]) -> list[str]:
    row = {name: x for name, x in (run.state.row or {}).items() if name not in {*NOT_RESULTS, *settings}}
    rest = [name for name in row if name not in OF_PREDICTIONS | OF_THOUGHTS | OF_COST]
    groups = {
        "results, on held-out sequences": OF_PREDICTIONS,
        "thoughts": OF_THOUGHTS,
        "size, steps and times": OF_COST,
        "more": {name: measure_of(name) for name in rest},
    }
    lines: list[str] = []
    for title, names in groups.items():
        shown = [name for name in names if row.get(name) is not None]
        if shown:
            lines += ["", title, *_table(row, shown)]
    return lines


def _table(row: dict[str, Any], names: list[str]) -> list[str]:
    columns = [
        [f"  {visible(measure_of(name).words)}" for name in names],
        [written(name, row[name]) for name in names],
        [measure_of(name).unit for name in names],
        [name if name in MEASURES else "" for name in names],
    ]
    return aligned(columns, left=[0, 2, 3])


def _files(run: Run) -> list[str]:
    """Return a line for each file of a run: its bytes, and whether it is as it was written."""
    row = run.state.row
    noted = {note.partition("=")[0] for note in str((row or {}).get(SEAL, "")).split()}
    damaged = damage(row, run.folder) if row else []
    rows = []
    for path in sorted(path for path in run.folder.iterdir() if path.is_file()):
        kept = "" if path.name not in noted or ROW in damaged else "as it was written"
        word = "damaged" if path.name in damaged else kept
        word = "why it failed, and what its process printed" if path.name == LOG else word
        if path.name[0] != ".":
            rows.append((f"  {visible(path.name)}", f"{path.stat().st_size:,}", word))
    rows += [(f"  {name}", "–", "missing") for name in damaged if not (run.folder / name).is_file()]
    return aligned(list(zip(*rows, strict=True)), left=[0, 2])
