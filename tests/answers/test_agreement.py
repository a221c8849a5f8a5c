"""All commands of `python -m toyqs.answers` say which arm a run is, and answer one mistake alike."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from tests.answers import asked
from tests.answers.thoughts.runs import trained
from tests.run_folders import written
from toyqs.answers.__main__ import _parser, main
from toyqs.evidence.__main__ import main as evidence
from toyqs.evidence.cells import write_cell

OF_A_TEXT = ("say", "exact", "choose")
OF_ANY_RUN = ("latency",)
OF_A_PLAIN_RUN = ("losses",)
OF_REASONING = ("baked",)
THINKING = (
    "look",
    "coherence",
    "interventions",
    "language",
    "lengths",
    "probe",
    "record",
    "theatre",
    "tokens",
)
EVERY = (*OF_A_TEXT, *OF_ANY_RUN, *OF_A_PLAIN_RUN, *OF_REASONING, *THINKING)


def words(name: str, run: str, folder: Path, control: str) -> list[str]:
    """Return a command line of a command for one run."""
    asking: dict[str, Any] = {"exact": asked.SUMS, "choose": asked.CHOICES}
    more: dict[str, list[str]] = {"say": ["1+", "--tokens", "1"], "latency": ["--tokens", "1"]}
    more["losses"] = [str(folder / "losses.npy")]
    if name in asking:
        more[name] = [asked.lines(folder / f"{name}.jsonl", asking[name])]
    more |= {"exact": [*more.get("exact", []), "--most", "2"], "theatre": ["--against", control]}
    return [name, run, *more.get(name, [])]


def test_no_command_is_forgotten_here() -> None:
    (commands,) = (x for x in _parser()._actions if isinstance(x, argparse._SubParsersAction))
    assert {*commands.choices} == {*EVERY}


@pytest.mark.parametrize("name", EVERY)
def test_what_is_no_run_is_refused_alike(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for given, why in [
        ("gone", "there is no such folder; give the folder of a finished run, runs/KEY"),
        (".", "is not the folder of a finished run: it has no config.json that can be read"),
        ("file", "; give the folder of a finished run, runs/KEY"),
    ]:
        assert main(words(name, str(tmp_path / given), tmp_path, str(tmp_path))) == 2
        out, err = capsys.readouterr()
        assert err.startswith(f"toyqs: {tmp_path / given}: ") and why in err
        assert err.count("\n") == 1 and not out


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Train a run without thoughts; return its folder."""
    return trained(tmp_path_factory.mktemp("plain"), [5], use_reasoner=False)[0]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Train a run that thinks, on no text; return its folder."""
    return trained(tmp_path_factory.mktemp("thinking"), [5])[0]


@pytest.mark.parametrize("name", THINKING)
def test_a_run_without_thoughts_is_refused_alike(
    name: str, plain: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(name, plain, tmp_path, plain)) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"toyqs: {plain}: this run has no thoughts; give one that thinks\n")


@pytest.mark.parametrize("name", [*OF_A_TEXT, *OF_REASONING])
def test_a_run_on_no_text_is_refused_with_a_command_that_trains_one(
    name: str, own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(name, own, tmp_path, own)) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and not out
    assert err.startswith(f"toyqs: {own}: its task is rev_prog, and only a run on a text can be asked; train")
    assert err.endswith(
        ": python run.py task=char_text task.dataset=shake seq_len=32 max_steps=300 controls=none\n"
    )


def listed_arms(runs: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Return the arm of each run, by its key, as `list` prints it."""
    capsys.readouterr()
    assert evidence(["list", str(runs)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    return {x[0]: x[1] for x in lines if len(x) > 4 and x[0] in {path.name for path in runs.iterdir()}}


def test_the_arm_is_named_as_list_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    ((own, more), (pause,)) = (
        trained(runs, [5, 6], eval_sequences=400),
        trained(runs, [5], eval_sequences=400, thought_vocab=1),
    )
    keys = [Path(x).name for x in (own, more, pause)]
    arms = {"thinking": {5: keys[0], 6: keys[1]}, "pause": {5: keys[2]}}
    write_cell(runs, {"task": "rev_prog"}, arms, arms)
    assert (listed := listed_arms(runs, capsys)) == dict(
        zip(keys, ("thinking", "thinking", "pause"), strict=True)
    )
    for name in (name for name in THINKING if name != "record"):
        few = ["--sequences", "400", "--features", "answer"] if name == "probe" else ["--sequences", "9"]
        for run in (own, pause):
            assert main([*words(name, run, tmp_path, own), *few]) == 0
            head = " ".join(capsys.readouterr().out.split())
            assert head.startswith(f"{run}, {listed[Path(run).name]}, seed 5: rev_prog"), name
    assert main(["tokens", own, more, "--against", own, more]) == 0
    head = " ".join(capsys.readouterr().out.split())
    assert head.startswith(f"2 runs in {runs}, thinking, seeds 5, 6: rev_prog")
    assert f" against 2 runs in {runs}, thinking, seeds 5, 6 nats" in head
    write_cell(runs, {"task": "rev_prog", "a": 1}, {"thinking": {5: keys[2]}}, ["thinking"])
    assert main(["lengths", pause, "--sequences", "9"]) == 0
    assert f"{pause}, thinking (also pause), seed 5: " in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", [*OF_A_TEXT, *OF_ANY_RUN])
def test_the_arm_of_a_run_on_a_text(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = asked.config(asked.corpus(tmp_path))
    run = written(tmp_path / "runs" / "a", settings, asked.model(settings)[0])
    write_cell(tmp_path / "runs", {"task": "char_text"}, {"thinking": {3: "b"}, "policy_off": {3: "a"}}, [])
    assert main(words(name, run, tmp_path, run)) == 0
    out = " ".join(capsys.readouterr().out.split())  # however long the folder's name is, which ends a line
    assert out.startswith(f"{run}, policy_off, seed 3: char_text")
