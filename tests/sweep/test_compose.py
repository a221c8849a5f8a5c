"""Composition: presets, the lines of the research logbook, and what is refused on the way."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests import tiny
from tests.logbook import RUNNING, TEXT, Line, jobs
from toyqs.config.checks import backbone
from toyqs.config.errors import Refusal
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.model.roles import WeightGroups
from toyqs.sweep.words.compose import Job, compose_checked, compose_jobs
from toyqs.sweep.words.hydra_errors import refusal_of
from toyqs.sweep.words.packing import pack
from toyqs.sweep.words.presets import register

ROOT = Path(__file__).resolve().parents[2]
# Those that start from a pretrained model are in tests/commands/test_pretrained_preset.py.
PRESETS = sorted(x for x in (ROOT / "conf" / "run_modifier").glob("*.yaml") if "Pretrained" not in x.stem)
READER = "+run_modifier=ReasonerInterpreterGRURunConfig"
QUIET = "+run_modifier=QuietSTaRDiscreteRunConfig"


@pytest.fixture(scope="module")
def composed() -> Iterator[Callable[..., RunConfig]]:
    """Compose the words of a command line as run.py does."""
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):

        def compose_words(*words: str) -> RunConfig:
            try:
                cfg = compose("config", list(words))
            except Exception as error:
                raise refusal_of(error) from error
            config, notes = compose_checked(cfg)
            print("".join(f"toyqs: {note}\n" for note in notes), end="", file=sys.stderr)
            return config

        yield compose_words


def test_bare_command_is_the_defaults(composed: Callable[..., RunConfig]) -> None:
    assert composed() == resolved(RunConfig())


def test_jobs_of_a_line() -> None:
    assert jobs("+a=x b=[p,q],[r] 'c=1,2'") == [
        ["+a=x", "b=[p,q]", "c=1"],
        ["+a=x", "b=[p,q]", "c=2"],
        ["+a=x", "b=[r]", "c=1"],
        ["+a=x", "b=[r]", "c=2"],
    ]


@pytest.mark.parametrize("which", ["ends", pytest.param("all", marks=pytest.mark.slow)])
@pytest.mark.parametrize("line", RUNNING, ids=lambda line: line.name)
def test_logbook_lines_compose(line: Line, which: str, composed: Callable[..., RunConfig]) -> None:
    packed = pack(jobs(line.text.removeprefix("python run.py -m")))
    for words in [packed[0], packed[-1]] if which == "ends" else packed:
        config = composed(*words)
        seed = f"seed={config.seed}".replace(" ", "")
        assert seed in words or not any(word.startswith("seed") for word in words)


@pytest.mark.parametrize("file", PRESETS, ids=lambda file: file.stem)
def test_the_line_in_a_preset_composes(
    file: Path, composed: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = re.findall(r"^# python run\.py (.+)$", file.read_text(), re.MULTILINE)
    assert file.stem in line
    sweep = line.startswith("-m ")
    for words in pack(jobs(line.removeprefix("-m "))):
        monkeypatch.setattr(backbone, "find_spec", lambda name: name)  # as if it were installed
        # -1: the task's own number, which is CPU-sized where the preset keeps the default job's widths
        text = TEXT if file.stem.startswith("Logbook") else ()
        assert composed(*words, *text).max_steps in ((20, -1) if sweep else (900, 300, 200, 40, 4000, -1))


@pytest.mark.parametrize("file", PRESETS, ids=lambda file: file.stem)
def test_presets_are_short_and_yield_to_what_is_typed(
    file: Path, composed: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone, "find_spec", lambda name: name)  # as if it were installed
    lines = [x for x in file.read_text().splitlines() if x and not x.startswith("#")]
    assert len(lines) <= 16
    text = TEXT if file.stem.startswith("Logbook") else ()
    config = composed(f"+run_modifier={file.stem}", "max_steps=5", "base_lr=0.5", "controls=none", *text)
    read = file.read_text()
    if inherited := re.search(r"^  - (\w+RunConfig)$", read, re.MULTILINE):
        read = (file.parent / f"{inherited[1]}.yaml").read_text()
    (task,) = re.findall(r"override /task: (\w+)", read) or ["char_text" if text else "rev_prog"]
    assert (config.max_steps, config.base_lr, config.task.name) == (5, 0.5, task)


def test_all_weight_groups_sweeps_over_the_fifteen_patterns() -> None:
    given = OmegaConf.load(ROOT / "conf" / "run_modifier" / "AllWeightGroups.yaml")
    (sweep,) = given.hydra.sweeper.params.items()
    patterns = [words[0].partition("=")[2] for words in jobs("=".join(sweep))]
    labels = [WeightGroups.parse(pattern.strip("[]").split(",")).label for pattern in patterns]
    assert sorted(labels) == tiny.PATTERNS


def test_presets_named_after_the_literature(composed: Callable[..., RunConfig]) -> None:
    config = composed(READER)
    assert (config.base_lm_hidden_dim, config.reasoner_hidden_dim, config.interpreter_hidden_dim) == (
        100,
    ) * 3
    assert (config.trice_samples, config.max_reasoning_len, config.controls) == (10, 10, "none")
    assert (config.base_lr, config.use_scheduler, config.clip_gradients) == (1e-3, False, 0)
    assert (config.mixing, config.linear_lm_head, config.share_lm_head) == ("auto", False, False)
    simple = composed(READER, "simple_lm_head=True")
    assert (simple.mixer, simple.linear_lm_head) == ("add", True)
    assert composed(READER, "simple_lm_head=True", "use_base_lm=False").mixer == "add"
    low = composed("+run_modifier=InterpreterLowVarGRURunConfig")
    assert (low.use_base_lm, low.trice_samples, low.base_lr) == (False, 100, config.base_lr)
    assert not composed("+run_modifier=InterpreterGRURunConfig").use_reasoner
    quiet = composed(QUIET, "model_hidden_dim=16")
    assert (quiet.base_lm_hidden_dim, quiet.reasoner_hidden_dim, quiet.interpreter_hidden_dim) == (16,) * 3
    assert (quiet.weight_groups, quiet.interpreter_start, quiet.mixing) == (["A"] * 4, "onward", "thought")
    assert (quiet.linear_lm_head, quiet.share_lm_head, quiet.use_scheduler) == (True, True, False)


def test_the_logbooks_text_goes_with_its_presets(composed: Callable[..., RunConfig]) -> None:
    """Check it after another preset, with a path in place of the data set, which would be downloaded."""
    given = OmegaConf.load(ROOT / "conf" / "run_modifier" / "Logbook.yaml")
    assert given.task.dataset == "shake"
    for preset in (READER, QUIET):
        alone, config = composed(preset), composed(f"{READER[:14]}[{preset[14:]},Logbook]", *TEXT)
        assert (alone.task.name, alone.weight_decay) == ("rev_prog", 0.0)
        assert (config.task.name, config.epochs, config.weight_decay) == ("char_text", 50, 0.01)
        same = {"task": alone.task, "epochs": alone.epochs, "weight_decay": 0.0}
        assert replace(config, **same) == alone
    with pytest.raises(Refusal, match=r"task.dataset=shake: .*task.dataset=null"):
        composed("+run_modifier=Logbook", TEXT[1])


@pytest.mark.parametrize(
    "names", ["ReasonerInterpreterGRURunConfig,SameHdim", "QuietSTaRDiscreteRunConfig,SameHdim"]
)
def test_presets_combine(names: str, composed: Callable[..., RunConfig]) -> None:
    width = "model_hidden_dim" if "Quiet" in names else "base_lm_hidden_dim"
    config = composed(f"+run_modifier=[{names}]", f"{width}=12")
    assert (config.base_lm_hidden_dim, config.reasoner_hidden_dim, config.interpreter_hidden_dim) == (12,) * 3


def test_without_the_base_a_note_says_what_carries_the_context(
    composed: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    config = composed(QUIET, "use_base_lm=False")
    assert config.interpreter_start == "onward"
    assert re.fullmatch(r"toyqs: .*use_base_lm.*onward.*afresh.*\n", capsys.readouterr().err)


def test_debug_variant(composed: Callable[..., RunConfig]) -> None:
    config = composed(QUIET, "debug_cfg=seperateInterpreter")
    assert (config.weight_groups, config.interpreter_start) == (["A", "A", "A", "B"], "afresh")
    assert not config.share_lm_head  # the LM head reads the interpreter's state, and no longer the reasoner's


def test_a_task_and_its_knobs(composed: Callable[..., RunConfig], tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be, " * 100)
    config = composed("task=char_text", f"task.path={text}", "task.held_out_fraction=0.2")
    assert (config.task.name, config.task.path, config.task.held_out_fraction) == (
        "char_text",
        str(text),
        0.2,
    )
    assert composed("task.k=2", "task.label_noise=0").task.k == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("+foo=1", "foo: there is no such setting"),
        ("++foo=1", "foo: there is no such setting"),
        ("bas_lr=1", r"did you mean base_lr\?"),
        ("lr=1", r"lr: there is no such setting; did you mean base_lr or base_lm_lr or reasoner_lr\?"),
        ("batch_size=1", r"did you mean data_loader_batch_size\?"),
        ("seed=???", "seed=\\?\\?\\?: stands for no value"),
        ("task.k=???", "task.k=\\?\\?\\?: stands for no value"),
        ("info='a\x1b[31m'", r"^info=a\\x1b\[31m: holds a character"),
        ("se\x1bd=1", r"^se\\x1bd=1: is not KEY=VALUE"),
        ("+run_modifier=Quick +run_modifier=GLMRunConfig", r"give \+run_modifier=\[NAME,NAME\]"),
        ("seed=glob(*)", r"seed=glob\(\*\): is a sweep; give -m"),
        ("task.path=~/x.txt", "task.path=~/x.txt: .* give \"task.path='~/x.txt'\"$"),
        ("runs_dir='~nobody_at_all/x'", "runs_dir=~nobody_at_all/x: there is no such home"),
        ("+run_modifer=SameHdim", r"did you mean run_modifier\?"),
        ("+run_modifier=SameHdm", r"did you mean SameHdim\? python run.py --help lists all of them$"),
        ("+run_modifier=GRPO", r"there is no such preset; did you mean GRPORunConfig\? python"),
        ("+run_modifier=[SameHdim,Some]", "run_modifier=Some: there is no such preset; python run.py --help"),
        ("run_modifier=SameHdim", r"\+run_modifier=NAME"),
        ("task.pp=3", "task.pp: there is no such setting"),
        ("+task.pp=3", "task.pp: there is no such setting"),
        ("task.path=x", "task=char_text"),
        ("task=rev_porg", r"did you mean rev_prog\?"),
        ("+task=char_text", "task=NAME without the plus"),
        ("task=null", "give for example task=rev_prog"),
        ("~task", "give for example task=rev_prog"),
        ("+seed=3", "seed=VALUE without the plus"),
        ("trice_samples=four", "trice_samples=four: takes a whole number; .*trice_samples="),
        ("trice_samples=4.5", "trice_samples=4.5: takes a whole number"),
        ("task.p=six", "task.p=six: takes a whole number; .*task.p="),
        ("base_lr=true", "base_lr=True: takes a number"),
        ("base_lr=null", "base_lr: takes a number; .*base_lr="),
        ("use_reasoner=maybe", "takes true or false"),
        ("weight_groups=ABCD", r"takes a list; .*weight_groups=\[A,B,C,D\]"),
        ("weight_groups=[A,B,C,[D]]", "weight_groups=.*takes letters"),
        ("info=[a]", "info"),
        ("base_lr=${foo}", "base_lr"),
        ("seed=7,8", "seed=7,8: .*-m"),
        ("seed=[7,8", r"seed=\[7,8: is not KEY=VALUE"),
        ("seed", r"seed: is not KEY=VALUE; give for example seed=\[0,1,2,3\]$"),
        ("max_steps=3 report", "report: is a command, .* give python -m toyqs.evidence report ...$"),
        ("analysis/budget.py", "budget.py: is a command, .* give python analysis/budget.py ...$"),
        ("plugin=./lab.py", "^plugin: is no setting by itself; give plugins=FILE, or plugin.NAME"),
        ("hydra.launchr=x", "hydra.launchr: there is no such setting"),
        ("max_steps=0", "max_steps=0"),
        ("task.p=1", "task.p=1"),
        ("task=char_text task.path=/nowhere.txt", "task.path=/nowhere.txt"),
    ],
)
def test_refused_in_one_line(words: str, message: str, composed: Callable[..., RunConfig]) -> None:
    with pytest.raises(Refusal, match=message) as refused:
        composed(*words.split())
    assert "\n" not in str(refused.value)


def test_a_tilde_at_the_start_of_a_path_is_the_home_folder(
    composed: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "text.txt").write_text("to be or not to be, " * 100)
    config = composed("task=char_text", "task.path='~/text.txt'", "runs_dir='~/runs'", "info='~'")
    assert (config.task.path, config.runs_dir, config.info) == (
        str(tmp_path / "text.txt"),
        str(tmp_path / "runs"),
        "~",
    )


def jobs_of(*lines: str) -> list[Job]:
    return [Job(line.split(), compose("config", line.split())) for line in lines]


@pytest.mark.usefixtures("composed")
def test_a_sweep_with_refused_combinations_stops_and_says_how_many(
    capsys: pytest.CaptureFixture[str],
) -> None:
    groups = "+run_modifier=[AllWeightGroups]"
    lines = [f"{groups} model_hidden_dim={width}" for width in (4, 16, 32)]
    assert compose_jobs(jobs_of(*lines)) == ([], 2, "")
    *refused, summary = capsys.readouterr().err.splitlines()
    assert len(refused) == 2
    for line in refused:
        assert line.startswith("toyqs: base_lm_hidden_dim=16: ")
        assert line.endswith("; base_lm_hidden_dim is set by +run_modifier=AllWeightGroups")
    assert "2 of 3 combinations are refused" in summary and "keep_going=true" in summary

    configs, code, closing = compose_jobs(jobs_of(*(f"{line} keep_going=true" for line in lines)))
    assert [config.base_lm_hidden_dim for config in configs] == [16] and code == 2
    assert closing.startswith("2 of 3 combinations were refused") and "base_lm_hidden_dim=16" in closing
    assert len(capsys.readouterr().err.splitlines()) == 2


@pytest.mark.usefixtures("composed")
def test_equal_refusals_and_notes_are_printed_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lines = ["seed=1 use_base_lm=false", "seed=2 use_base_lm=false", "seed=x", "seed=x", "max_steps=0"]
    jobs = jobs_of(*(f"{QUIET} keep_going=true {line}" for line in lines))
    configs, code, _ = compose_jobs([*jobs, Job([], ValueError("a fault"))])
    assert [config.seed for config in configs] == [1, 2]
    assert code == 2
    printed = [line.removeprefix("toyqs: ") for line in capsys.readouterr().err.splitlines()]
    assert [re.split(r"\W", line)[0] for line in printed] == ["use_base_lm", "seed", "max_steps", "a"]
    assert compose_jobs(jobs[:2])[1:] == (0, "")
    apart = jobs_of(*(f"runs_dir={tmp_path / name}" for name in "ab"))
    assert compose_jobs(apart) == ([], 2, "")
    assert "one sweep fills one folder" in capsys.readouterr().err
