"""The words of a command line before Hydra sees them: their order, and what has no effect."""

from __future__ import annotations

import re

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from toyqs.config.errors import Refusal
from toyqs.sweep.words.arguments import options_first
from toyqs.sweep.words.hydra_errors import refuse_empty_sweeps
from toyqs.sweep.words.presets import preset_that_sets


@pytest.mark.parametrize(
    ("typed", "arranged"),
    [
        ("seed=0", "seed=0"),
        ("max_steps=1 -m seed=0,1", "-m max_steps=1 seed=0,1"),
        ("seed=0 --cfg job task.k=2 -p task", "--cfg job -p task seed=0 task.k=2"),
        ("seed=0 --cfg=job", "--cfg=job seed=0"),
        ("--cfg all hydra.launcher.processes=0", "--cfg all hydra.launcher.processes=0"),
        (
            "-m hydra.launcher.processes=2 hydra/launcher=basic",
            "-m hydra.launcher.processes=2 hydra/launcher=basic",
        ),
        ("hydra.mode=MULTIRUN hydra.launcher.processes=2", "hydra.mode=MULTIRUN hydra.launcher.processes=2"),
        ("-m +run_modifier=AllWeightGroups", "-m +run_modifier=AllWeightGroups"),
        ("-sc install=bash", "-sc install=bash"),
        ("-1", "-1"),  # Hydra says that it is not KEY=VALUE
    ],
)
def test_options_come_first(typed: str, arranged: str) -> None:
    assert options_first(typed.split()) == arranged.split()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("-x", "-x: there is no such option; settings are KEY=VALUE, see --help"),
        ("seed=0 --nosuch", "--nosuch: there is no such option"),
        ("--multi", r"did you mean --multirun\?"),
        ("--info x", "--info: settings are written without dashes; give info=VALUE"),
        ("--experimental-rerun x", "there is no such option"),
        ("--max_steps=5", "--max_steps=5: .* give max_steps=5"),
        ("--run_modifier=Quick", r"give \+run_modifier=Quick"),
        ("-m+run_modifier=Quick", r"a blank is missing; give -m \+run_modifier=Quick"),
        ("-max_steps=5", "-max_steps=5: .* give max_steps=5"),
        ("-mmax_steps=5", "a blank is missing; give -m max_steps=5"),
        ("-m~task", "a blank is missing; give -m ~task"),
        ("--multirun=x", "--multirun=x: takes no value; give --multirun"),
        ("--cfg", "--cfg: needs a value; give for example --cfg job"),
        ("--cfg= seed=0", "--cfg: needs a value"),
        ("seed=0 --config-name", "--config-name: needs a value"),
        ("--config-name -m", "--config-name: needs a value"),
        ("--cfg jobs", "--cfg jobs: prints one of job, hydra, all"),
        ("--package x", "--package x: .* give --cfg job --package x"),
        ("--config-dir /nowhere", "--config-dir /nowhere: there is no such folder"),
        ("+run_modifier=A +run_modifier=[B,C]", r"presets are given once; give \+run_modifier=\[A,B,C\]"),
        ("-m +run_modifier=A,B +run_modifier=C", "presets are given once"),
        ("hydra.launcher.processes=0", "has no effect without -m; give -m as well, or processes=N"),
        ("hydra/launcher=local", "has no effect without -m; give -m as well$"),
        ("hydra.sweeper.params.seed=1,2", "has no effect without -m"),
        ("hydra.run.dir=x", "has no effect here; give runs_dir=FOLDER"),
        ("-m hydra.sweep.dir=x", "has no effect here; give runs_dir=FOLDER"),
        ("hydra.job.chdir=true", "has no effect here"),
        ("~seed", "~seed: no setting can be deleted"),
        ("-m ~task.k", "~task.k: no setting can be deleted"),
        (
            "+run_modifier=[Quick,AllWeightGroups]",
            r"=AllWeightGroups: is a sweep over weight_groups; give -m",
        ),
    ],
)
def test_what_cannot_be_meant_is_one_line(typed: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOYQS_LAUNCHER", raising=False)
    with pytest.raises(Refusal, match=message) as refused:
        options_first(typed.split())
    assert "\n" not in str(refused.value)


def test_a_key_that_was_typed_is_no_preset_s() -> None:
    typed = ["+run_modifier=[Quick,AllWeightGroups]", "base_lm_hidden_dim=4"]
    assert preset_that_sets("base_lm_hidden_dim", typed) is None
    assert preset_that_sets("max_steps", typed) == "Quick"
    assert preset_that_sets("weight_groups", typed) == "AllWeightGroups"  # over which it sweeps
    assert preset_that_sets("seed", typed) is None


@pytest.mark.parametrize(
    "word", ["seed=range(3,1)", "seed=glob(*)", "seed=range(0,1,0)", "base_lr=interval(0,1)"]
)
def test_a_sweep_over_nothing_is_refused_by_name(word: str) -> None:
    overrides = OverridesParser.create().parse_overrides(["max_steps=1,2", "seed=7", word])
    with pytest.raises(Refusal, match=rf"^{re.escape(word)}: [^:]+; give values"):
        refuse_empty_sweeps(overrides)
    refuse_empty_sweeps(overrides[:2])
