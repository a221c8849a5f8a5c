"""Plug-ins that cannot be used, and words about them: one line each, with the user's file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import lab
from toyqs.config.plugins import load
from toyqs.evidence.rows import load_rows
from toyqs.sweep import main
from toyqs.sweep.words.arguments import plugins_in
from toyqs.tasks.rev_prog import RevProg

outside = pytest.fixture(autouse=True)(lab.outside)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "plugin.power.expo=1",
            "plugin.power.expo: no plug-in has this setting; did you mean plugin.power.exponent?",
        ),
        (
            "plugin.powr.exponent=1",
            "plugin.powr.exponent: no plug-in has this setting; did you mean plugin.power",
        ),
        (
            "plugin.power.exponent=x",
            "plugin.power.exponent=x: takes a number; give for example plugin.power.exp",
        ),
        ("plugin.power.exponent=nan", "plugin.power.exponent=nan: is not finite; give a finite number$"),
        ("task=delay task.back=1.5", "task.back=1.5: takes a whole number"),
        ("reward=powr", "reward=powr: is not a choice; give one of likelihood, .*, power$"),
        ("task=dela", "task=dela: there is no such task; did you mean delay"),
        ("plugin=1", "plugin: is no setting by itself; give plugins=FILE, or plugin.NAME.SETTING=VALUE$"),
    ],
)
def test_words_are_checked(tmp_path: Path, words: str, line: str) -> None:
    lab.written(tmp_path)
    with lab.refused(line):
        lab.composed("plugins=./lab", *words.split())


def test_without_a_plug_in_its_words_are_ours_alone() -> None:
    with lab.refused("plugin.power.exponent: .*; give the one that has it, plugins=FILE$"):
        lab.composed("plugin.power.exponent=1")
    with lab.refused("plugins=a.py,b.py: one command has all of its plug-ins; give plugins="):
        plugins_in(["plugins=a.py,b.py"])
    assert plugins_in(["plugins=[a.py,./b]"]) == ["a.py", "./b"] and plugins_in(["reward=x"]) == []
    with lab.refused("plugins=there.py: there is no such Python file, folder or installed"):
        load.load(["there.py"])
    lab.file("late.py", lab.scores("late"))
    with lab.refused("plugins=late.py: is read before any preset; type it as a word"):
        load.as_list("late.py")


DELAY, FILM = lab.FILES["delay.py"], lab.FILES["film.py"]
TASK = "from dataclasses import dataclass\nfrom toyqs.tasks.task import Task\n\n"
TASK += "@dataclass\nclass X(Task):\n    name = 'x'\n"
HEADS = "from toyqs.model.thoughts import ThoughtHead\n\nclass X(ThoughtHead):\n    name = 'x'\n"
DRAW = "    def draw(self, hidden, given, *, forced): ...\n"
OBJECTIVE = (
    "from toyqs.objectives.policy.reinforce import Reinforce\n\n\nclass X(Reinforce):\n    name = 'x'\n"
)
BASELINE = "from toyqs.objectives.advantages import Baseline\n\ndef f(a, b): ...\n\n"
X = lab.scores("x")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("import nowhere", ":1: ModuleNotFoundError: No module named 'nowhere'; mend it"),
        ("x = 1\nx = = 2", r":2: SyntaxError: invalid syntax \(mine.py, line 2\); mend it"),
        ("import math\nmath.sqrt(-1)", ":2: ValueError: math domain error; mend it"),
        ("raise SystemExit(3)", ":1: SystemExit: 3; mend it"),
        (TASK, ":4: class X lacks length, sample, vocab_size, which every task has; write it$"),
        (HEADS, ":3: class X lacks draw, which every head has; write it$"),
        (f"{HEADS}{DRAW}", ":3: class X says of no kind what its symbols are; inherit from TokenHead"),
        (OBJECTIVE, r":4: class X is no dataclass; write @dataclass\(frozen=True\) above it$"),
        (
            lab.scores("likelihood"),
            ":12: there is a reward 'likelihood' already; give this reward another name$",
        ),
        (lab.scores("s5"), ":12: there is a task 's5' already; give this reward another name$"),
        *(
            (lab.scores(name), f":12: '{name}' is no word that can be typed; give letters, digits and _$")
            for name in ("no word", "größe", "null", "True")
        ),
        (FILM.replace('"film"', '"auto"'), ":11: there is a mixer 'auto' already; give this mixer another"),
        (f"{HEADS}    kind = 'new'\n{DRAW}", ":3: class X says of no kind what its symbols are"),
        (
            DELAY.replace("name: ClassVar[str]", "name: str"),
            ":14: class Delay has its name as a setting; write",
        ),
        (
            DELAY.replace("k: int = 4 ", "k: int "),
            ":14: its setting k needs a type, int, float, bool or str, and a",
        ),
        (DELAY.replace("k: int = 4 ", "k: tuple = (1, 'a') "), ":14: its setting k needs a type, int"),
        (
            DELAY.replace("    k: int = 4", "    k: int = 'a'"),
            ":14: the default of its setting k is not of its type",
        ),
        (
            DELAY.replace("    @property", "    def __post_init__(self): self.gone()\n\n    @property", 1),
            ":14: it cannot be made of its defaults: AttributeError: 'Delay' object has no attribute 'gone'",
        ),
        ("REWARDS = {'x': len}", ": a reward is called with log_q, trace, batch: too many positional"),
        (f"{BASELINE}BASELINES = {{'x': f}}", ":3: a line of BASELINES is no Baseline; write Baseline"),
        (f"{BASELINE}BASELINES = {{'x': Baseline(f)}}", ":3: a baseline is called with rewards: missing"),
        (X.replace("exponent: float", "exponent"), ":12: its setting exponent needs a type, int"),
        (
            X.replace("float = 1.0", "float = 1e999"),
            ":12: the default of its setting exponent is inf; give a",
        ),
        (X.replace("float = 1.0", "list = 1.0"), ":12: its setting exponent needs a type, int"),
        (X.replace(": float = 1.0", ": float"), ":12: .* missing a required argument: 'exponent'"),
        (
            X.replace("float = 1.0", "int = 'a'"),
            ":12: the default of its setting exponent is not of its type",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_said_in_one_line(text: str, line: str) -> None:
    lab.file("mine.py", text)
    with lab.refused(f"mine.py{line}"):
        load.load(["mine.py"])
    with lab.refused("plugins=none.py: has no task, objective, reward, baseline, mixer or head; see"):
        load.load([lab.file("none.py", "x = 1")])
    assert not load.added()


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("return counted_from(", "return (", "sample returns a tuple; return a Batch of toyqs.types$"),
        ("inputs[0, :, -1] = last", "inputs = inputs[0]", "sample of the split train returns inputs of"),
        ("return self.positions", "return 7", r".* \(1, 4, 8\); make it \(1, B, T\), here \(1, 4, 7\)$"),
        ("return self.k", "return self.k - 1", ".* returns inputs from 0 to 3; vocab_size=3 allows 0 to 2$"),
        ("inputs.roll", "inputs.float().roll", r".* returns targets of torch.float32; make it torch.int64$"),
        ("counted_from(self.back", "counted_from(99", ".* lets unequally many positions think, or none;"),
        ("generator=generator)", ")", "sample of the split train draws other sequences from a generator in"),
    ],
)  # fmt: skip
def test_a_task_that_draws_what_cannot_be_trained_on_is_refused(old: str, new: str, line: str) -> None:
    lab.file("mine.py", DELAY.replace(old, new))
    with lab.refused(f"mine.py:14: {line}"):
        lab.composed("plugins=mine.py", "task=delay", "seq_len=4")


@pytest.mark.parametrize("line", ["import beside", "from .beside import x"])
def test_a_file_that_imports_another_is_to_be_given_with_its_folder(line: str) -> None:
    Path("both").mkdir()
    lab.file("both/beside.py", "x = 1\n")
    lab.file("both/mine.py", f"{line}\n{X.replace('from __future__ import annotations', '')}")
    with lab.refused(
        "both/mine.py:1: .*; write from .NAME import .* give the folder of both files, plugins=both/$"
    ):
        load.load(["both/mine.py"])
    if "." in line:
        load.load(["both/"])
    else:
        with lab.refused("both/mine.py:1: .*; write from .NAME import ... for a file beside it$"):
            load.load(["both"])


def test_two_plug_ins_may_not_give_one_name() -> None:
    load.load([lab.file("a.py", lab.scores("x"))])
    with lab.refused("b.py:12: there is a reward 'x' already; give this reward another name$"):
        load.load([lab.file("b.py", lab.scores("x"))])
    load.load(["./a.py"])
    assert [x.name for x in load.added()] == ["x"], "the same file again"


def test_an_error_while_training_names_the_users_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Evaluation is on 64 sequences at once, and a step on 8: so a step is counted, and the run fails."""
    text = lab.scores("x").replace(
        "    return over", "    assert trace.logits.shape[1] != 64\n    return over"
    )
    load.load([lab.file("mine.py", text)])
    line = next(i for i, each in enumerate(text.splitlines(), 1) if "assert" in each)
    assert main.main([lab.config(reward="x", plugins=["mine.py"], controls="fair")]) == 1
    errors = capsys.readouterr().err
    (failed,) = [each for each in errors.splitlines() if each.startswith("toyqs: failed: ")]
    assert (
        failed.startswith("toyqs: failed: thinking, seed 1 (key ")
        and f": mine.py:{line}: AssertionError" in failed
    )
    assert f'mine.py", line {line}' in Path(failed.partition("; log ")[2]).read_text()
    assert len(load_rows("runs")) >= 6, "controls that use nothing of it are trained"


def test_an_error_before_training_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    text = lab.scores("x").replace("    return over", "    return trace.nothing\n    return over")
    load.load([lab.file("mine.py", text)])
    assert main.main([lab.config(reward="x", plugins=["mine.py"], controls="none")]) == 1
    assert (
        "toyqs: this run cannot be trained: mine.py:14: AttributeError: 'Trace' object"
        in capsys.readouterr().err
    )
    text = lab.scores("x").replace("    return over", "    return log_q[..., :1]\n    return over")
    load.reset()
    load.load([lab.file("shape.py", text)])
    assert main.main([lab.config(reward="x", plugins=["shape.py"], controls="none")]) == 1
    line = capsys.readouterr().err
    assert "cannot be trained: ValueError: reward has shape (1, 8, 4, 1), needs (1, 8, 4, 4)" in line
    assert line.endswith("; the run has reward x of shape.py:12\n") and line.count("\n") == 1
    lab.file("task.py", lab.FILES["delay.py"].replace("if not 0 < self.back", "if not {}[1] < self.back"))
    with lab.refused("task.py:[0-9]+: KeyError: 1$"):
        lab.composed("plugins=task.py", "task=delay")


def test_our_own_errors_are_described_as_before() -> None:
    load.load([lab.file("mine.py", lab.scores("x"))])
    try:
        RevProg(k=0).check(1)
    except ValueError as error:
        assert load.described(error) is None
