"""Each arm at its own best point, chosen on other seeds; numbers worked by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from matplotlib.text import Text

from analysis import tuned_controls
from analysis.tuned_controls import questions
from tests.analysis.synthetic import Figures, key_of, settings, write
from toyqs.evidence.cells import FOLDER
from toyqs.files import Refusal

# arm -> weight decay -> NLL by seed
TUNE = {
    "thinking": {0.0: [0.4, 0.6], 0.1: [0.2, 0.4], 1.0: [0.1, 1.7]},
    "zero_length": {0.0: [1.0, 1.2], 0.1: [1.1, 1.3], 1.0: [1.2, 1.4]},
    "pause": {0.0: [2.0, 2.0], 0.1: [0.4, 0.4], 1.0: [0.1, 0.3]},
}
REPORT = {
    "thinking": {0.0: [9.0, 9.0, 9.0], 0.1: [0.2, 0.3, 0.4]},
    "zero_length": {0.0: [1.2, 1.3, 1.4], 0.1: [0.0, 0.0, 0.0]},
    "pause": {0.1: [0.0, 0.0, 0.0], 1.0: [0.5, 0.7, 0.9]},
}
BY, NLL = ["weight_decay"], ["nll"]

Losses = Mapping[str, Mapping[float, list[float | None]]]


def sweep(folder: Path, losses: Losses, first: int, accuracy: bool = False, **changes: Any) -> None:
    """Write a cell for each weight decay, seeds from `first` on; with accuracy 1 − NLL / 10."""
    for decay in sorted({decay for grid in losses.values() for decay in grid}):
        chosen = settings(weight_decay=decay, **changes)
        found = {arm: dict(enumerate(grid[decay], first)) for arm, grid in losses.items() if decay in grid}
        write(folder, chosen, {"thinking": {}} | found)
        for arm, by_seed in found.items() if accuracy else ():
            for seed, nll in by_seed.items():
                path = folder / key_of(chosen, arm, seed) / "summary.json"
                path.write_text(json.dumps(json.loads(path.read_text()) | {"accuracy": 1 - nll / 10}))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    sweep(tmp_path / "tune", TUNE, 20)
    sweep(tmp_path / "report", REPORT, 1)
    return tmp_path


def found(folder: Path, measures: list[str] = NLL) -> Any:
    (one,) = questions(folder / "tune", folder / "report", BY, measures).values()
    return one


def test_every_arm_is_compared_at_its_own_best_point(runs, capsys, monkeypatch):
    figures = Figures(monkeypatch)
    figures.really = True
    assert tuned_controls.main(["tune", "report", "--measure", "nll"]) == 0
    out, err = capsys.readouterr()
    tuned = found(runs)
    # means of TUNE: thinking .5 .3 .9, zero_length 1.1 1.2 1.3, pause 2 .4 .2
    assert tuned.chosen == {"thinking": (0.1,), "zero_length": (0.0,), "pause": (1.0,)}
    assert tuned.at_edge == {"thinking": False, "zero_length": False, "pause": True}
    assert tuned.gains["pause"].tolist() == pytest.approx([0.3, 0.4, 0.5])
    assert tuned.gains["zero_length"].tolist() == pytest.approx([1.0, 1.0, 1.0])
    # t = .4 / (.1 / √3) = √48, p of two degrees of freedom 1 − √(48 / 50); half width 4.30265 · .1 / √3
    assert "+0.400 ± 0.248" in out and "  0.02  " in out and "  1 * " in out
    assert tuned.verdict == "beats every control" and "Thinking beats every control (2 controls" in out
    assert err == "" and "best weight_decay by seeds 20, 21, report of 1–3" in out
    (figure,) = figures.drawn
    (axes,) = figure.axes
    drawn = {x.get_label(): x.lines[0].get_xdata()[0] for x in axes.containers}
    assert drawn == pytest.approx({"zero_length": 1.0, "pause": 0.4})
    lines = (runs / "tuned_controls.csv").read_text().splitlines()
    assert len(lines) == 1 + 18 + 18
    assert lines[0].startswith("question,part,arm,weight_decay,seed,nll,accuracy")
    assert lines[1].startswith("tune,tune,thinking,0,20,0.4,0.5")


def test_arms_are_compared_as_they_were_run(runs, capsys, monkeypatch):
    figures = Figures(monkeypatch)
    losses = {"thinking": {0.1: [0.2, 0.3, 0.4]}, "pause": {0.1: [0.5, 0.7, 0.9]}}
    sweep(runs / "plain", losses, 1)
    decays = settings(weight_decay=3.0, info="constant_length")
    write(runs / "plain", decays, {"thinking": dict(enumerate([0.6, 0.7, 0.8], 1))})
    for folder in (runs / "plain").glob("*/summary.json"):
        row = json.loads(folder.read_text())
        if row["nll"] in (0.2, 0.3, 0.4):
            folder.write_text(json.dumps(row | {"thought_length": 10 * row["nll"]}))
    figures.really = True
    assert tuned_controls.main(["plain", "--measure", "nll"]) == 0
    words = " ".join(text.get_text() for text in figures.drawn[0].findobj(Text))
    assert "over each other arm?" in words and "all arms as they were run" in words and "tuned" not in words
    out = " ".join(capsys.readouterr().out.split())
    assert "plain: nll, nats; all as run, report of 1–3" in out and "tuning" not in out
    # the lengths are 2, 3 and 4; pause's gains .3 .4 .5, p .0202, constant_length's .4 .4 .4
    assert "thinking 3.00 0.300 ± 0.248 – – pause 0.700 ± 0.497 +0.400 ± 0.248 0.02 better" in out
    assert "constant_length 0.700 ± 0.248 +0.400 ± 0.000 " in out
    table = (runs / "tuned_controls.csv").read_text().splitlines()
    assert table[0].startswith("question,part,arm,seed,nll") and len(table) == 10
    assert "thought_length" in table[0] and "thought_length" not in ",".join(found(runs).rows)
    write(runs / "plain", decays, {"thinking": {1: 0.6}}, {"thinking": [1]})
    (runs / "plain" / key_of(decays, "thinking", 2) / "summary.json").unlink()
    assert tuned_controls.main(["plain", "--measure", "nll"]) == 2
    assert "plain: constant_length lacks seed 2" in capsys.readouterr().err


def test_verdicts_are_corrected_for_the_number_of_controls(runs):
    both = {"no_reasoner": [0.7, 0.5, 0.9], "policy_off": [0.5, 0.7, 0.9]}  # gains .5 .2 .5, and pause's
    for arm, losses in both.items():
        tuned = {"thinking": TUNE["thinking"], arm: {key: [1.0, 1.0] for key in (0.0, 0.1, 1.0)}}
        sweep(runs / "tune", tuned, 20)
        sweep(runs / "report", {"thinking": REPORT["thinking"], arm: {0.0: losses}}, 1)
    more = found(runs)
    # p: zero_length 0, pause and policy_off .0202, no_reasoner .0572. Holm: 0 < .05 / 4, .0202 > .05 / 3
    assert more.words == {
        "no_reasoner": "undecided",
        "zero_length": "better",
        "pause": "undecided",
        "policy_off": "undecided",
    }
    assert more.verdict == "does not beat no_reasoner, pause, policy_off"


def test_more_accuracy_is_better(runs):
    for folder, losses, first in (("tune", TUNE, 20), ("report", REPORT, 1)):
        sweep(runs / folder, losses, first, accuracy=True)
    tuned = found(runs, ["accuracy"])
    assert tuned.chosen == {"thinking": (0.1,), "zero_length": (0.0,), "pause": (1.0,)}
    assert tuned.gains["pause"].tolist() == pytest.approx([0.03, 0.04, 0.05])


def test_what_beats_thinking_is_worse_and_equal_accuracies_are_chosen_by_loss(runs):
    tuned = found(runs, ["accuracy"])  # .5 everywhere, so the least NLL chooses
    assert tuned.chosen["pause"] == (1.0,) and tuned.words["pause"] == "undecided"
    swapped = {arm: REPORT[arm] for arm in ("thinking", "zero_length")} | {"pause": {1.0: [0.1, 0.1, 0.3]}}
    sweep(runs / "report", swapped, 1)  # gains −.1 −.2 −.1: t = −4, p .0572
    assert found(runs).words == {"zero_length": "better", "pause": "undecided"}
    sweep(runs / "report", swapped | {"pause": {1.0: [0.1, 0.2, 0.3]}}, 1)
    assert found(runs).words == {"zero_length": "better", "pause": "worse"}


def test_a_labelled_run_is_one_more_arm(runs):
    for folder, losses, first in (("tune", TUNE["pause"], 20), ("report", REPORT["pause"], 1)):
        sweep(runs / folder, {"thinking": losses}, first, info="coconut", thought_vocab=1)
    begun = settings(weight_decay=3.0, info="coconut", thought_vocab=1)
    write(runs / "tune", begun, {"thinking": {}}, {"thinking": [20, 21]})
    tuned = found(runs)
    assert list(tuned.chosen) == ["thinking", "zero_length", "pause", "coconut"]
    assert tuned.chosen["coconut"] == (1.0,) and tuned.gains["coconut"].tolist() == pytest.approx(
        [0.3, 0.4, 0.5]
    )


def test_a_point_at_which_a_seed_diverged_is_not_chosen(runs):
    sweep(runs / "tune", TUNE | {"pause": TUNE["pause"] | {1.0: [0.1, None]}}, 20)
    assert found(runs).chosen["pause"] == (0.1,)


def test_questions_have_a_measure_each(runs):
    for part in ("tune", "report"):
        for name in ("a", "b"):
            shutil.copytree(runs / part, runs / f"all_{part}" / name)
    both = questions(runs / "all_tune", runs / "all_report", BY, ["accuracy", "b=nll"])
    assert {name: each.measure for name, each in both.items()} == {"a": "accuracy", "b": "nll"}


def labelled(folder, name, **changes):
    sweep(folder / "tune", {"thinking": TUNE["pause"]}, 20, info=name, **changes)


def no_runs(folder):
    shutil.rmtree(folder / "tune")
    (folder / "tune").mkdir()


def point_lacking(folder):
    shutil.rmtree(folder / "tune")
    sweep(folder / "tune", TUNE | {"pause": {0.0: [2.0, 2.0], 0.1: [0.4, 0.4]}}, 20)


def seed_lacking(folder):
    shutil.rmtree(folder / "report" / key_of(settings(weight_decay=1.0), "pause", 2))


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (no_runs, "tune: no thinking run has finished here"),
        (point_lacking, "tune: pause lacks seed 20, 21 at weight_decay = 1; run it"),
        (seed_lacking, "report: pause lacks seed 2 at weight_decay = 1; run it"),
        (lambda folder: sweep(folder / "report", TUNE, 20), "chosen by seed 20, 21 in"),
        (lambda folder: sweep(folder / "tune", TUNE, 20, task_k=4), "the cells differ in task.k too"),
        (lambda folder: labelled(folder, "pause", max_steps=900), "pause has several runs of a seed at"),
        (lambda folder: sweep(folder / "report", {"random": {0.0: [1.0]}}, 1), "random is in"),
        (lambda folder: shutil.rmtree(folder / "report" / FOLDER), "report: no thinking run"),
    ],
)
def test_one_line_says_what_is_missing(runs, capsys, damage, line):
    damage(runs)
    assert tuned_controls.main(["tune", "report", "--measure", "nll"]) in (1, 2)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1) and line in err
    assert not (runs / "tuned_controls.png").exists()


def test_a_measure_that_is_not_there_is_named(runs):
    with pytest.raises(Refusal, match="the rows have no accuracy_deeper; give another column"):
        found(runs, ["accuracy_deeper"])
    with pytest.raises(Refusal, match="no such question; there is tune"):
        found(runs, ["nll", "mano=nll"])
