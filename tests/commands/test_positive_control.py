"""The positive control ends in *beats every matched control*, the negative one does not: both in short."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests import lab
from toyqs.config.builders.held_out import draw_held_out, known_losses
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.evidence import load_cells
from toyqs.evidence.judging.decision import BEATS_ALL
from toyqs.evidence.judging.findings import Finding, find
from toyqs.evidence.judging.gain import estimate
from toyqs.sweep import main

# Of the preset's 200 steps of 64 sequences; every arm has as many.
SHORT = ("max_steps=90", "data_loader_batch_size=16", "eval_sequences=400", "processes=1")


def found(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Finding:
    monkeypatch.setattr("toyqs.evidence.figures.comparison.comparison_figure", lambda *_: None)
    config = lab.composed(f"+run_modifier={name}", *SHORT, f"runs_dir={folder}")
    assert main.main([config]) == 0
    (finding,) = find(load_cells(folder))
    assert finding.cell.loss == "nll_joint" and len(next(iter(finding.cell.arms.values()))) == 4
    return finding


def floors(finding: Finding) -> dict[str, float]:
    return {arm: round(float(rows["joint_floor"].iloc[0]), 4) for arm, rows in finding.cell.arms.items()}


def test_the_positive_control_says_yes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finding = found("PositiveControlRunConfig", tmp_path / "runs", monkeypatch)
    assert finding.verdict is not None and finding.verdict.text == BEATS_ALL
    plain, known = 2.6007, floors(finding)
    assert known.pop("thinking") == 0.3251 and known.pop("policy_off") == 0.6931
    assert known == dict.fromkeys(known, plain) and len(known) == 6
    for arm, losses in finding.losses.items():
        assert losses.min() > floors(finding)[arm] - 1e-3, arm
    printed = capsys.readouterr().out
    assert "Verdict: beats every matched control." in printed and "teacher forcing" in printed
    assert "joint NLL  floor" in printed and "summed over all" in printed


def test_the_negative_control_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = found("NegativeControlRunConfig", tmp_path / "runs", monkeypatch)
    assert finding.verdict is not None and finding.verdict.judged
    assert not finding.verdict.text.startswith(BEATS_ALL)
    assert {floors(finding)[arm] for arm in ("thinking", "policy_off")} == {0.6931}
    assert finding.losses["thinking"].mean() < 2, "its thoughts do express the choice: 5.545 without"
    assert not estimate(finding.gains["policy_off"]).lower > 0, "and so do those never rewarded"


@pytest.mark.parametrize(
    ("words", "floor"),
    [
        (["policy_loss_beta=0"], 0.6931),
        (["policy_loss_beta=0", "entropy_encouragement_coef=0"], None),
        (["random_thoughts=true"], 0.6931),
        (["max_reasoning_len=0", "entropy_encouragement_coef=0"], 2.6007),
    ],
)
def test_a_floor_of_equal_weights_needs_something_that_makes_them_equal(
    words: list[str], floor: float | None
) -> None:
    config = resolved(lab.composed("+run_modifier=PositiveControlRunConfig", *words))
    known = known_losses(config, draw_held_out(config, 1, torch.zeros(1), 8))["joint_floor"]
    assert known == (None if floor is None else pytest.approx(floor, abs=1e-4))


def test_the_two_differ_in_one_setting() -> None:
    positive, negative = (
        lab.composed(f"+run_modifier={name}ControlRunConfig") for name in ("Positive", "Negative")
    )
    assert negative.task.equal and not positive.task.equal
    assert replace(negative, task=positive.task) == positive
    assert positive.controls == RunConfig().controls == "fair" and positive.seed == [0, 1, 2, 3]
    assert positive.n_tokens_ahead == positive.task.tokens and positive.thought_vocab == positive.task.modes
