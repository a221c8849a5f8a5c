"""Show what a folder of runs holds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from toyqs.command_line import Parser, protected
from toyqs.evidence.commands import difference, listing, report, show, table

# Modules with `add_to(commands)`, which adds a command; its `work` takes the parsed words and returns an exit
# code, None for 0.
COMMANDS: Sequence[Any] = (listing, show, difference, table, report)

EXAMPLES = """\
examples:
  python -m toyqs.evidence list runs
  python -m toyqs.evidence show runs/KEY
  python -m toyqs.evidence diff runs/KEY runs/KEY2
  python -m toyqs.evidence report runs -o report.html
  python -m toyqs.evidence table runs
  python -m toyqs.evidence table runs base_lm_hidden_dim=4,8 --latex -o table.tex

`python -m toyqs.evidence COMMAND --help` lists the options of a command.
"""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return protected("toyqs", lambda: _work(words), (OSError, ValueError))  # a folder that cannot be read


def _work(words: Sequence[str] | None) -> int | None:
    parser = _parser()
    given, rest = parser.parse_known_args(words)
    if rest:  # argparse takes no more words KEY=VALUE after an option
        if not hasattr(given, "choices") or any(word.startswith("-") for word in rest):
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        given.choices = [*given.choices, *rest]
    code: int | None = given.work(given)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m toyqs.evidence",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add_to(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
