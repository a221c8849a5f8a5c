"""The live line."""

from __future__ import annotations

import math
import sys
import threading
from dataclasses import replace

import pytest
from tqdm import tqdm

from toyqs.config.run_config import RunConfig
from toyqs.sweep import plan, progress
from toyqs.sweep.plan import Stack
from toyqs.sweep.progress import Progress
from toyqs.training.flops import Cost


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


def stack(arm: str, label: str = "", seeds: int = 2) -> Stack:
    """Make a stack of 10 seconds of work, whatever its seeds: see `table`."""
    config = replace(RunConfig(), max_steps=4000)  # of 2.5 ms
    return Stack(arm, label, config, list(range(seeds)), Cost(1, 0, 0.0, 1.0))


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every step take 2.5 ms."""
    monkeypatch.setattr(plan, "step_seconds", lambda *_: 2.5e-3)


def test_counts_add_up_to_the_runs(monkeypatch):
    clock = Clock(monkeypatch)
    stacks = [stack("thinking", "a=1"), stack("zero_length", "a=1", 3), stack("thinking", "a=2", 1)]
    assert [each.work for each in stacks] == [10, 10, 10]
    bar = Progress(stacks, 4)
    assert bar.line() == "4 of 10 runs finished"
    bar.start(0, stacks[0])
    bar.start(1, stacks[1])
    clock.now = 6.0
    bar.update(0, 5.0, 0.5)
    assert bar.line() == "4 of 10 runs finished, 5 training; about 00:30 left"
    bar.finish(0, 2, 0, 0)
    bar.update(1, 10.0, None)
    assert bar.line() == "6 of 10 runs finished, 3 training; about 00:03 left"
    bar.update(2, 10.0, None)
    assert bar.line() == "6 of 10 runs finished, 3 training; evaluating at the end"
    bar.update(2, 0.0, None)
    bar.finish(1, 1, 1, 1)
    assert bar.line() == "8 of 10 runs finished, 1 failed; about 00:03 left"


def test_a_run_beside_its_controls_shows_its_gain(monkeypatch):
    Clock(monkeypatch)
    stacks = [stack("thinking"), stack("zero_length")]
    bar = Progress(stacks, 0)
    for index, each in enumerate(stacks):
        bar.start(index, each)
    bar.update(1, math.nan, 1.75)
    assert "loss" not in bar.line()
    bar.update(0, 1.0, 0.5)
    bar.update(0, 2.0, math.nan)
    assert bar.line().endswith("left; held-out loss 0.500, gain over zero_length so far +1.250")
    bar.update(0, 3.0, 996304608256.0)
    assert bar.line().endswith("left; held-out loss 9.96e+11, gain over zero_length so far -9.96e+11")


def test_plain_lines_come_now_and_then(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    one = stack("thinking")
    bar = Progress([one], 0)
    bar.start(0, one)
    for second in range(1, 26):
        clock.now = second
        bar.update(0, second / 5, None)
    bar.close()
    first, second = capsys.readouterr().err.splitlines()
    assert first == " 20%: 0 of 2 runs finished, 2 training; about 00:40 left"
    assert second.startswith(" 40%: ")


def test_on_a_terminal_it_is_one_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    one = stack("thinking")
    bar = Progress([one], 0)
    bar.start(0, one)
    bar.finish(0, 2, 0, 0)
    bar.close()
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and "100% |" in shown
    assert shown.rstrip().split("\r")[-1].endswith("elapsed, 2 of 2 runs finished; about 00:00 left")


def test_with_nothing_to_do_it_is_silent(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bar = Progress([], 7)
    clock.now = 60
    bar.close()
    assert capsys.readouterr().err == ""


def test_the_bar_has_no_semaphore():
    assert isinstance(tqdm.get_lock(), type(threading.RLock()))


def test_what_several_processes_say_is_printed_once(capsys):
    bar = Progress([], 0)
    for text in ("no server", "no server", "another"):
        bar.say(text)
    assert capsys.readouterr().err == "toyqs: no server\ntoyqs: another\n"
