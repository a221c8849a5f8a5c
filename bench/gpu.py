"""All that this project wants to know of a GPU, in one call of at most 8 minutes: see bench/gpu.sh.

Each part is a process with a time limit of its own: one that crashes, hangs or lacks a package is a row of
the table, and the others run. The table, gpu.md, and the same as gpu.json are written anew after each part.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toyqs.command_line import Parser, path_of, positive, run, writing
from toyqs.files import Refusal, write_text

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 450.0  # of all parts
LEAST = 10.0  # seconds in which a part is worth its start
PACKAGES = ("triton", "transformers", "hydra-core", "numpy", "pandas", "scipy", "pytest")

Row = dict[str, Any]  # part, what, values


class Part(NamedTuple):
    """One process."""

    name: str
    file: str  # in bench/
    seconds: float  # that it may take


PARTS = (
    Part("card", "gpu_parts.py", 30),
    Part("tests", "gpu_parts.py", 110),
    Part("gru", "gpu_parts.py", 90),
    Part("graphs", "gpu_parts.py", 40),
    Part("optimisers", "gpu_parts.py", 50),
    Part("job", "gpu_parts.py", 120),
    Part("transformer", "gpu_transformer.py", 110),
    Part("thoughts", "gpu_transformer.py", 110),
    Part("largest", "gpu_transformer.py", 90),
)


class Process(Protocol):
    """As much of a process as is used here."""

    pid: int

    def poll(self) -> int | None:
        """Return the exit code, minus the signal that ended it; None while it is at work."""
        ...


def started(words: list[str], folder: Path) -> Process:
    """Start a Python program in a session of its own.

    Args:
        words: its file and what is typed after it.
        folder: its working folder; its output goes there, to the files out and err.
    """
    folder.mkdir(exist_ok=True)
    with (folder / "out").open("ab") as out, (folder / "err").open("ab") as err:
        command = [sys.executable, *words]
        return subprocess.Popen(command, cwd=folder, stdout=out, stderr=err, start_new_session=True)


def done(part: Part, device: str, left: float, folder: Path) -> tuple[list[Row], str]:
    """Do a part.

    Args:
        part: one of `PARTS`.
        device: cuda, or cpu for a trial of small sizes.
        left: seconds for all parts that are still to come.
        folder: a place for its files.

    Returns:
        Its rows, the last of which says why it ended early, if it did; the end of its output then.
    """
    limit = min(part.seconds, left)
    if limit < LEAST:
        return [_told(part, "out of time: not run")], ""
    file = folder / "rows"
    words = [str(ROOT / "bench" / part.file), part.name, f"--device={device}", f"--rows={file}"]
    process = started([*words, f"--seconds={limit}"], folder)
    end = time.monotonic() + limit
    while (code := process.poll()) is None and time.monotonic() < end:
        time.sleep(0.05)
    if code is None:
        os.killpg(process.pid, signal.SIGKILL)
        while process.poll() is None:
            time.sleep(0.05)
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    rows: list[Row] = [{"part": part.name, **json.loads(line)} for line in lines if line.endswith("}}")]
    output = (folder / "err").read_text(encoding="utf-8", errors="replace").strip()
    if code is None:
        rows.append(_told(part, f"stopped after {limit:.0f} s"))
    elif code:
        why = output.rpartition("\n")[2][:200] or f"it ended with {code}"
        rows.append(_told(part, f"failed: {why}" if code > 0 else f"ended by signal {-code}"))
    elif not rows:
        rows.append(_told(part, "found nothing"))
    return rows, output[-4000:] if code or code is None else ""


def _told(part: Part, note: str) -> Row:
    return {"part": part.name, "what": "the part", "values": {"note": note}}


def described(device: str) -> dict[str, str]:
    """Return the card, its driver, the versions and the commit."""
    smi = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader", "--id=0"]
    card, driver, memory = (*asked(smi).split(", "), "", "")[:3] if device == "cuda" else ("none", "", "")
    if device == "cuda":
        card = card or torch.cuda.get_device_name()
    return {
        "card": f"{card}, {memory}" if memory else card,
        "driver": driver or "not known",
        "CUDA": torch.version.cuda or "none",
        "torch": torch.__version__,
        **{name: version(name) for name in PACKAGES},
        "Python": platform.python_version(),
        "cores": str(len(os.sched_getaffinity(0))),
        "commit": commit(),
    }


def commit() -> str:
    """Return the commit of this checkout, with -dirty where files have changed since."""
    found = asked(["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"])
    return found or os.environ.get("COMMIT") or "not known"


def asked(command: list[str]) -> str:
    """Return what a program answers; nothing where there is no such program, or it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def version(name: str) -> str:
    """Return the version of an installed package."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def number(value: float) -> str:
    """Write a number with three digits or more."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def table(head: dict[str, str], rows: list[Row], title: str) -> str:
    """Return the page: card, versions, and a table with a line for every row."""
    lines = [f"# {title}", "", *(f"- {name}: {value}" for name, value in head.items()), ""]
    lines += ["| part | what | result |", "| --- | --- | --- |"]
    for row in rows:
        numbers = [f"{number(x)} {unit}" for unit, x in row["values"].items() if not isinstance(x, str)]
        words = [x for x in row["values"].values() if isinstance(x, str)]
        cells = (row["part"], row["what"], "; ".join([*numbers, *words]))
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join([*lines, ""])


def main(words: Sequence[str] | None = None) -> int:
    """Do all parts and write the table; 1 where there is no GPU."""
    return run(_measure, parser(), words)


def _measure(given: argparse.Namespace) -> int:
    if given.device == "cuda" and not torch.cuda.is_available():
        print(
            "gpu: torch finds no CUDA device here; bash bench/gpu.sh try does all parts in small on the CPU",
            file=sys.stderr,
        )
        return 1
    if given.out.exists() and not given.out.is_dir():
        raise Refusal(f"--out {given.out}: is no folder; give one, or a name that is not taken")
    with writing(given.out, "--out"):
        given.out.mkdir(parents=True, exist_ok=True)
    trial = " (a trial on the CPU: its numbers mean nothing)" if given.device == "cpu" else ""
    title, head = f"toyqs on a GPU{trial}", described(given.device)
    end, rows, logs = time.monotonic() + given.seconds, [], {}
    for part in PARTS:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            found, log = done(part, given.device, end - begun, Path(folder))
        took = time.monotonic() - begun
        rows += found
        logs |= {part.name: log} if log else {}
        print(f"{part.name:<12}{took:>6.0f} s  {len(found)} rows", flush=True)
        whole = {"title": title, **head, "rows": rows, "logs": logs}
        with writing(given.out, "--out"):
            write_text(given.out / "gpu.md", table(head, rows, title))
            write_text(given.out / "gpu.json", json.dumps(whole, indent=1) + "\n")
    print(f"table       {given.out / 'gpu.md'}")
    return 0


def parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a trial (cuda)")
    parser.add_argument("--seconds", type=positive, default=SECONDS, help=f"for all parts ({SECONDS:.0f})")
    place = Path(os.environ.get("OUT") or "bench-gpu")
    parser.add_argument("--out", type=path_of, default=place, help="folder of the table ($OUT, or bench-gpu)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
