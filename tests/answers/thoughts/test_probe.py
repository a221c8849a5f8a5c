"""The command `probe`: the controls that it finds, what it prints, what it refuses."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from tests.answers.thoughts import runs as small
from toyqs.answers.__main__ import main
from toyqs.answers.thoughts import probe
from toyqs.answers.thoughts.arm import load_arm
from toyqs.answers.thoughts.probe import evidence
from toyqs.answers.thoughts.probing import Found
from toyqs.answers.thoughts.siblings import command, control_folders, siblings
from toyqs.config.controls import ONE_SYMBOL
from toyqs.sweep.plan import plan_cell
from toyqs.sweep.words.compose import compose_checked
from toyqs.sweep.words.presets import register
from toyqs.tasks.group import S5
from toyqs.training.flops import Cost

ROOT = Path(__file__).resolve().parents[3]
HANDED_ON = {"max_reasoning_len": 0, "interpreter_start": "onward"}
PAUSE = {**ONE_SYMBOL, "interpreter_start": "onward"}
OFF = {"policy_loss_beta": 0.0}


def trained(folder: Path, seeds: Sequence[int], **changes: Any) -> list[str]:
    """Train runs whose evaluation has enough programs."""
    return small.trained(folder, seeds, eval_sequences=80, **changes)


def probed(words: list[str], folder: Path) -> dict[str, Any]:
    out = folder / "out.json"
    assert main(["probe", *words, "-o", str(out)]) == 0
    return json.loads(out.read_text())


LLAMA = {"backbone": "llama", "model_n_layer": 1, "base_lm_hidden_dim": 4, "reasoner_hidden_dim": 8}


@pytest.mark.parametrize(("settings", "seeds"), [({}, [1, 2]), (LLAMA, [1])], ids=["gru", "llama"])
def test_controls_are_found_next_to_the_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, Any], seeds: list[int]
) -> None:
    if settings:
        pytest.importorskip("transformers")
    runs = trained(tmp_path, seeds, **settings)
    for changes in (HANDED_ON, PAUSE, OFF):
        trained(tmp_path, seeds, **settings, **changes)
    found = probed([*runs, "--features", "op1(x)"], tmp_path)
    out, err = capsys.readouterr()
    assert found["classes"] == {"op1(x)": 6} == dict.fromkeys(found["features"], 6)
    assert found["missing"] == {} and "Not trained" not in out and not err
    places = found["features"]["op1(x)"]
    arms = ["thinking", "state_handed_on", "pause", "policy_off"]
    assert list(places["reading"])[:4] == arms == list(places["base state"])[:4]
    assert list(places["symbol 2"])[:3] == ["thinking", "pause", "policy_off"], "no symbol is handed on"
    assert places["reading"]["pause"]["seeds"] == seeds
    assert places["symbol 1"]["pause"]["nll"] == places["nothing read"]["pause"]["nll"], "constant: nothing"
    title = r"op1\(x\): 6 classes\. A probe that reads nothing: \d+\.\d % right, \d\.\d{3} nats"
    assert re.search(title, out) and max(map(len, out.splitlines())) <= 110
    assert re.search(r"state after 3 +% +– +– +\d+\.\d ± \d+\.\d +–", out), "pause alone goes on from it"
    over = "over 2 seeds" if len(seeds) > 1 else "over different programs; one run"
    assert f"t-interval {over}" in " ".join(out.split())


def test_a_control_that_was_not_trained_is_named_with_the_command_that_trains_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = trained(tmp_path, [1, 2], reasoner_hidden_dim=6, interpreter_hidden_dim=4)
    trained(tmp_path, [2], reasoner_hidden_dim=6, interpreter_hidden_dim=4, **OFF)
    found = probed([*runs, "--features", "answer"], tmp_path)
    assert found["missing"] == {"state_handed_on": [1, 2], "pause": [1, 2], "policy_off": [1]}
    lines = capsys.readouterr().out.splitlines()
    named = "Not trained: state_handed_on (seed 1, 2), pause (seed 1, 2), policy_off (seed 1)."
    assert lines[-2] == f"{named} This trains what is missing:"
    assert lines[-1].startswith("  python run.py ") and "seed=[1,2]" in lines[-1]
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config, _ = compose_checked(compose("config", shlex.split(lines[-1])[2:]))
    assert config.runs_dir == str(tmp_path) and config.controls == "fair"
    arm = load_arm(runs)
    planned = plan_cell(config, lambda config: Cost(1, 100, 1.0, 1.0))
    assert planned.keys["thinking"] == {seed: Path(run.folder).name for seed, run in arm.runs.items()}
    for name in found["missing"]:
        assert planned.keys[name] == {seed: x.name for seed, x in control_folders(arm, name).items()}
        assert name in planned.arms


def test_one_run_is_probed_over_its_sequences_and_against_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,), (other,) = trained(tmp_path / "a", [1]), trained(tmp_path / "b", [1], trice_samples=3)
    (zero,) = trained(tmp_path / "b", [1], max_reasoning_len=0)
    found = probed([run, "--features", "answer", "--against", other, "--against", zero], tmp_path)
    assert list(found["features"]["answer"]["base state"])[:3] == [
        "thinking",
        Path(other).name,
        "zero_length",
    ]
    out = " ".join(capsys.readouterr().out.split())
    assert "t-interval over different programs; one run, so it says nothing about other seeds" in out
    assert "seed 1" in out and "seed 1, " not in out


def test_many_arms_are_printed_in_blocks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = trained(tmp_path / "a", [1])
    arms = [
        word
        for k in (2, 3, 5, 6, 7)
        for word in ("--against", *trained(tmp_path / "b", [1], trice_samples=k))
    ]
    found = probed([run, "--features", "answer", *arms], tmp_path)
    out = capsys.readouterr().out
    heads = [line.split()[:-2] for line in out.splitlines() if line.split()[:1] == ["thinking"]]
    names = [
        name for name in found["features"]["answer"]["reading"] if name.count("_") == 0 and len(name) == 16
    ]
    assert heads == [["thinking", *names[:3]], ["thinking", *names[3:]]] and len(names) == 5
    assert max(map(len, out.splitlines()[:-1])) <= 110


def test_a_control_that_is_one_run_with_another_arm_is_probed_once(tmp_path: Path) -> None:
    """A policy that is never rewarded is its own policy_off."""
    arm = load_arm(trained(tmp_path, [1], **OFF))
    assert list(siblings(arm, probe.CONTROLS).missing) == ["state_handed_on", "pause"]
    arm = load_arm(trained(tmp_path / "pause", [1], **PAUSE))
    assert list(siblings(arm, probe.CONTROLS).missing) == ["state_handed_on"]
    arm = load_arm(trained(tmp_path / "pathwise", [1], thoughts="gaussian", objective="pathwise"))
    assert list(siblings(arm, probe.CONTROLS).missing) == ["state_handed_on", "pause"], "no score function"
    assert "objective=pathwise" in command(arm)


def row(**nll: tuple[float, ...]) -> dict[str, dict[int, Found]]:
    """Arms whose probes have these NLLs, by seed; shuffled labels cost 2 nats."""
    tables = {}
    for arm, values in nll.items():
        columns = [torch.tensor([x]) for x in values]
        tables[arm] = {seed: Found(x, x, x, torch.tensor([2.0])) for seed, x in enumerate(columns)}
    return tables


@pytest.mark.parametrize(
    ("found", "word", "alike"),
    [
        ({"thinking": (1.0, 1.1, 0.9)}, "no control", []),
        ({"thinking": (1.0, 1.1, 0.9), "pause": (1.8, 1.9, 1.75)}, "above controls", []),
        ({"thinking": (1.0, 1.1, 0.9), "pause": (1.0, 1.3, 0.9)}, "no evidence", ["pause"]),
        ({"thinking": (1.0, 1.1, 0.9), "pause": (0.2, 0.3, 0.1)}, "no evidence", ["pause"]),
        (
            {"thinking": (1.0, 1.1, 0.9), "pause": (1.8, 1.9, 1.7), "off": (1.0, 1.1, 0.8)},
            "no evidence",
            ["off"],
        ),
        ({"thinking": (1.9, 2.1, 1.7), "pause": (3.0, 3.1, 3.2)}, "nothing found", []),
        ({"thinking": (2.2, 2.2, 2.1), "pause": (3.0, 3.1, 3.2)}, "nothing found", []),
    ],
)
def test_the_judgement(found: dict[str, tuple[float, ...]], word: str, alike: list[str]) -> None:
    nothing = row(thinking=(1.95, 1.9, 2.0))["thinking"]
    assert evidence(row(**found), nothing) == (word, alike)


@pytest.mark.parametrize(
    ("found", "missing", "word"),
    [
        ({"thinking": (1.0, 1.1, 0.9), "pause": (1.8,)}, [], "controls missing"),
        ({"thinking": (1.0, 1.1, 0.9), "pause": (1.0,)}, [], "controls missing"),
        ({"thinking": (1.0, 1.1, 0.9), "pause": (1.8, 1.9)}, [], "above controls"),
        ({"thinking": (1.0, 1.1, 0.9), "pause": (1.8, 1.9, 1.7)}, ["policy_off"], "controls missing"),
        ({"thinking": (1.0, 1.1, 0.9)}, ["pause"], "controls missing"),
        ({"thinking": (1.0, 1.1, 0.9), "pause": (1.0, 1.3, 0.9), "off": (1.8,)}, ["x"], "no evidence"),
        ({"thinking": (1.9, 2.1, 1.7)}, ["pause"], "nothing found"),
    ],
)
def test_a_control_of_which_too_few_seeds_were_trained_decides_nothing(
    found: dict[str, tuple[float, ...]], missing: list[str], word: str
) -> None:
    nothing = row(thinking=(1.95, 1.9, 2.0))["thinking"]
    assert evidence(row(**found), nothing, missing) == (word, ["pause"] if word == "no evidence" else [])


def test_a_probe_must_beat_one_of_shuffled_labels() -> None:
    own = row(thinking=(1.0, 1.1, 0.9))["thinking"]
    low = {seed: x._replace(shuffled_nll=x.nll + 0.1 * seed - 0.1) for seed, x in own.items()}
    nothing = row(thinking=(1.95, 1.9, 2.0))["thinking"]
    assert evidence({"thinking": low}, nothing) == ("nothing found", [])


def test_refusals_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,), (zero,) = trained(tmp_path, [1]), trained(tmp_path, [1], max_reasoning_len=0)
    (later,) = trained(tmp_path, [2])
    (other,) = trained(tmp_path, [1], task=S5(group="s3"))
    for words, message in [
        ([zero], f"{zero}: this run has no thoughts; give one that thinks"),
        (
            [run, "--sequences", "12"],
            "10 different programs among 12 held-out sequences are too few for pro",
        ),
        (
            [run, "--features", "next"],
            "--features next: its task has no such feature; it has operator 1, operat",
        ),
        (
            [run, "--against", other],
            f"--against {other}: its held-out sequences are not those of {run}; give ",
        ),
        (
            [run, "--against", later],
            f"--against {later}: has no seed in common with the runs, which have 1; ",
        ),
        ([run, later, zero], "has max_reasoning_len=0, and"),
        ([run, later, run], "has seed 1, as"),
        ([str(tmp_path / "none")], "there is no such folder"),
    ]:
        assert main(["probe", *words]) == 2
        out, err = capsys.readouterr()
        assert message in err and err.count("\n") == 1 and not out, (words, err)
    monkeypatch.setattr("toyqs.tasks.rev_prog.RevProg.features", None)
    assert main(["probe", run]) == 2
    assert "its task, rev_prog, names no features to probe for; docs/" in capsys.readouterr().err
