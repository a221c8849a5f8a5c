"""Every command of the project but run.py ends in one line: on a mistake, on Ctrl-C, on a full disk."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from toyqs import command_line
from toyqs.answers import __main__ as answers
from toyqs.command_line import Parser
from toyqs.evidence import __main__ as evidence


def script(words: list[str]) -> int:
    return command_line.run(lambda given: None, Parser(prog="toyqs"), words)


MAINS = {
    "answers": (answers, answers.main, "_parser"),
    "evidence": (evidence, evidence.main, "_parser"),
    "scripts": (Parser, script, "parse_intermixed_args"),
}


@pytest.mark.parametrize("name", MAINS)
def test_ctrl_c_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    module, main, work = MAINS[name]

    def interrupted(*given: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(module, work, interrupted)
    run: Callable[[list[str]], int] = main
    assert run([]) == 130
    assert capsys.readouterr().err == "toyqs: interrupted\n"


@pytest.mark.parametrize("room", ["answers", "evidence"])
def test_help_that_cannot_be_printed_is_no_success(room: str) -> None:
    command = f'"{sys.executable}" -m toyqs.{room} --help >/dev/full'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("toyqs: what was printed is not complete") and done.stderr.count("\n") == 1
