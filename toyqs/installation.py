"""Where conf/ and analysis/ are, and how commands are typed: in a checkout, or where toyqs is installed."""

from __future__ import annotations

import sys
from pathlib import Path

COMMAND = "toyqs"  # the command that pip installs
PACKAGE = Path(__file__).resolve().parent
# Words that a command line may begin with -> the room whose main they are for; tests hold this to the rooms'
# own lists, which are slow to import.
VERBS = {
    **dict.fromkeys(("list", "show", "diff", "table", "report"), "toyqs.evidence"),
    **dict.fromkeys(("say", "look", "exact", "choose", "latency", "interventions"), "toyqs.answers"),
    **dict.fromkeys(
        ("baked", "coherence", "language", "lengths", "losses", "probe", "record", "theatre", "tokens"),
        "toyqs.answers",
    ),
}


def folder(name: str) -> Path:
    """Return a folder that lies beside the package in a checkout, and in it where it is installed.

    Args:
        name: conf or analysis.
    """
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def source(name: str) -> str:
    """Return the path of a file of the package: within a checkout, or where it is installed.

    Args:
        name: as from the package, such as config/keys.py.
    """
    path = PACKAGE / name
    return str(path.relative_to(PACKAGE.parent) if (PACKAGE.parent / "run.py").is_file() else path)


def scripts() -> dict[str, Path]:
    """Return the analysis scripts by the names that they have as commands."""
    return {path.stem: path for path in sorted(folder("analysis").glob("*.py"))}


def program(of: str = "") -> str:
    """Return how a command line begins: as in a checkout, or by the command `toyqs` where that was called.

    Args:
        of: the room whose main it is for, such as toyqs.evidence, or an analysis script; none: training.
    """
    script, called = of in scripts(), Path(sys.argv[0]).name.partition(" ")[0]
    if called == COMMAND or not (PACKAGE.parent / "run.py").is_file():
        return f"{COMMAND} {of}" if script else COMMAND
    if script:
        return f"python analysis/{of}.py"
    return f"python -m {of}" if of else "python run.py"
