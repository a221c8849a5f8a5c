"""Kill a sweep at random moments and run it again: `python tests/killing.py 20 [SEED]`.

Each time the sweep's whole process group is killed (SIGKILL), then the same command runs to its end. Its
folder must then be that of an undisturbed sweep: the same files, the same rows but for the times.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from toyqs.files import SEAL  # noqa: E402

WORDS = (
    *("-m", "base_lm_hidden_dim=4,6", "reasoner_hidden_dim=4", "seed=1,2,3", "controls=fair"),
    *("max_steps=30", "data_loader_batch_size=4", "eval_sequences=16"),
    *("trice_samples=2", "max_reasoning_len=1", "kernels=torch", "hydra.launcher.processes=2"),
)
SMALL: dict[str, Any] = {  # settings of short runs
    "reasoner_hidden_dim": 4,
    "controls": "none",
    "kernels": "torch",
    "max_steps": 20,
    "data_loader_batch_size": 4,
    "eval_sequences": 8,
    "trice_samples": 2,
    "max_reasoning_len": 1,
}
# columns of a row that are not the same in two trainings of one run
TIMES = ("cpu_seconds", "wall_seconds", "tokens_per_second", "peak_memory_bytes", SEAL)
SAME_BYTES = ("config.json", "metrics.jsonl", "model.safetensors", "thoughts.json.gz")
START_UP = 0.35  # share of the kills before any row is written
GONE_SECONDS = 5.0
AT_ONCE = 2


class Moment(NamedTuple):
    """When to kill: so many seconds after so many rows are written."""

    rows: int
    seconds: float


class Whole(NamedTuple):
    """The files that a sweep leaves, and the seconds to its first row."""

    files: set[str]
    rows: dict[str, dict[str, Any]]
    bytes: dict[str, bytes]
    start_up: float


def command(*words: str) -> list[str]:
    """Return the command line of a sweep."""
    return [sys.executable, str(ROOT / "run.py"), *words]


def started(words: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own; its output goes to the files `out` and `err` of the folder."""
    folder.mkdir(exist_ok=True)
    with (folder / "out").open("a") as out, (folder / "err").open("a") as err:
        return subprocess.Popen(words, cwd=folder, stdout=out, stderr=err, start_new_session=True)


def alive(session: int) -> list[int]:
    """List the processes of a session that are alive."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has just ended
            continue
        if int(of) == session and state not in "ZX":
            found.append(int(stat.parent.name))
    return found


def until(true: Any, seconds: float, pause: float = 0.002) -> bool:
    """Wait for a condition; return whether it became true."""
    end = time.monotonic() + seconds
    while not (held := true()) and time.monotonic() < end:
        time.sleep(pause)
    return bool(held)


def stderr_of(folder: Path) -> list[str]:
    """Return what commands printed to stderr, without the lines of plans and of progress."""
    told = re.compile(r" *\d+%: |toyqs: .* runs? (to train in|are finished already)")
    return [line for line in (folder / "err").read_text().splitlines() if not told.match(line)]


def num_rows(folder: Path) -> int:
    return sum(1 for _ in (folder / "runs").glob("*/summary.json"))


def tree(folder: Path) -> Iterator[Path]:
    """Yield every file of a folder of runs but the lock files, which stay for the next writer."""
    return (path for path in sorted((folder / "runs").rglob("*")) if path.is_file() and path.name != ".lock")


def whole(folder: Path) -> Whole:
    """Run a sweep undisturbed; return what it leaves."""
    start = time.monotonic()
    process = started(command(*WORDS), folder)
    until(lambda: process.poll() is not None or num_rows(folder), 300)
    start_up = time.monotonic() - start
    if process.wait():
        raise RuntimeError((folder / "err").read_text())
    return found_in(folder, start_up)


def found_in(folder: Path, start_up: float = 0.0) -> Whole:
    """Return what a sweep has left in a folder."""
    runs = folder / "runs"
    return Whole(
        {str(path.relative_to(runs)) for path in tree(folder)},
        {path.parent.name: row_of(path) for path in runs.glob("*/summary.json")},
        {str(p.relative_to(runs)): p.read_bytes() for p in tree(folder) if p.name in SAME_BYTES},
        start_up,
    )


def row_of(summary: Path) -> dict[str, Any]:
    """Return a run's row without its times."""
    return {name: value for name, value in json.loads(summary.read_text()).items() if name not in TIMES}


def moments(number: int, rows: int, start_up: float, seed: int) -> list[Moment]:
    """Choose random moments, spread over the whole sweep.

    Args:
        number: how many.
        rows: that the sweep writes.
        start_up: seconds to the first of them.
        seed: of the choice.
    """
    source, found = random.Random(seed), []
    for index in range(number):
        share = (index + source.random()) / number
        if share < START_UP:
            found.append(Moment(0, share / START_UP * start_up))
        else:
            written = 1 + int((share - START_UP) / (1 - START_UP) * rows)
            found.append(Moment(written, source.choice((0.0, source.uniform(0, 0.3)))))
    return found


def killed(process: Any, folder: Path, moment: Moment) -> str:
    """Kill a sweep at a moment; say how far it was."""
    until(lambda: process.poll() is not None or num_rows(folder) >= moment.rows, 300)
    time.sleep(moment.seconds)
    finished = process.poll() is not None
    if not finished:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if not until(lambda: not alive(process.pid), GONE_SECONDS):
        raise AssertionError(f"still alive: {alive(process.pid)}")
    return "had finished" if finished else f"killed with {num_rows(folder)} rows"


def differences(found: Whole, wanted: Whole) -> list[str]:
    """List in words how one sweep's folder differs from another's."""
    lines = [f"missing {name}" for name in sorted(wanted.files - found.files)]
    lines += [f"left behind {name}" for name in sorted(found.files - wanted.files)]
    for name in sorted(wanted.bytes.keys() & found.bytes.keys()):
        if wanted.bytes[name] != found.bytes[name]:
            lines.append(f"other bytes in {name}")
    for key in sorted(wanted.rows.keys() & found.rows.keys()):
        row, other = wanted.rows[key], found.rows[key]
        names = [name for name in {**row, **other} if row.get(name) != other.get(name)]
        lines += [f"row {key} differs in {', '.join(names)}"] if names else []
    return lines


def trial(folder: Path, moment: Moment, wanted: Whole) -> tuple[str, list[str]]:
    """Kill a sweep, run its command again; return what happened, and what is wrong in the end."""
    kill = killed(started(command(*WORDS), folder), folder, moment)
    process = started(command(*WORDS), folder)
    code = process.wait()
    faults = differences(found_in(folder), wanted)
    if code:
        faults.append(f"exit code {code}: {(folder / 'err').read_text()[-500:]}")
    if not until(lambda: not alive(process.pid), GONE_SECONDS):
        faults.append(f"still alive: {alive(process.pid)}")
    return f"{kill} ({moment.seconds:.2f} s after row {moment.rows})", faults


def trials(number: int, seed: int, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Kill a number of sweeps, each at another moment; yield the result of each `trial` in that order."""
    wanted = whole(folder / "whole")
    chosen = moments(number, len(wanted.rows), wanted.start_up, seed)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(lambda at: trial(folder / str(at[0]), at[1], wanted), enumerate(chosen))


def main(number: int, seed: int) -> int:
    """Print a line per kill, and a summary; return 1 where a folder was not whole in the end."""
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for count, (kill, faults) in enumerate(trials(number, seed, Path(folder)), start=1):
            wrong += bool(faults)
            print(f"{count:3d}  {kill}: {'; '.join(faults) or 'whole at the end'}", flush=True)
    print(f"{number - wrong} of {number} ended whole (seed {seed})")
    return 1 if wrong else 0


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]] or [20]
    sys.exit(main(given[0], given[1] if len(given) > 1 else int(time.time())))
