"""Optimisers compared, each at its own best rate, chosen on other seeds; numbers worked by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from analysis import tuned_settings
from analysis.tuned_settings import compared
from tests.analysis.synthetic import settings, write
from toyqs.files import Refusal

# optimiser -> rate -> NLL by seed
TUNE = {
    "adamw": {0.01: [0.4, 0.6], 0.02: [0.2, 0.4], 0.04: [0.3, 1.7]},
    "muon": {0.01: [1.0, 1.2], 0.02: [0.3, 0.5], 0.04: [0.1, 0.1]},
    "sgd": {0.01: [2.0, 2.2], 0.02: [2.0, None], 0.04: [2.1, 2.3]},
}
REPORT = {
    "adamw": {0.01: [0.0, 0.0, 0.0], 0.02: [0.5, 0.6, 0.7]},
    "muon": {0.04: [0.2, 0.2, 0.2]},
    "sgd": {0.01: [0.5, 0.6, 0.8]},
}
COMPARE, BY = ["optimizer"], ["base_lr"]


def sweep(folder: Path, losses: Mapping[str, Mapping[float, list[float | None]]], first: int) -> None:
    for optimizer, grid in losses.items():
        for rate, nll in grid.items():
            chosen = settings(optimizer=optimizer, base_lr=rate)
            write(folder, chosen, {"thinking": dict(enumerate(nll, first))})


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    sweep(tmp_path / "tune", TUNE, 20)
    sweep(tmp_path / "report", REPORT, 1)
    return tmp_path


def test_each_arm_is_compared_at_its_own_best_point(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tune", "report", "--compare", "optimizer", "--by", "base_lr", "-o", "all.csv"]
    assert tuned_settings.main(words) == 0
    out, err = capsys.readouterr()
    found = compared(runs / "tune", runs / "report", COMPARE, BY)
    # means of TUNE: adamw .5 .3 1.0, muon 1.1 .4 .1, sgd 2.1, diverged, 2.2
    assert {arm: each.best for arm, each in found.arms.items()} == {
        **{("adamw",): (0.02,), ("muon",): (0.04,), ("sgd",): (0.01,)}
    }
    assert [each.at_edge for each in found.arms.values()] == [False, True, True]
    assert found.gains[("muon",)].tolist() == pytest.approx([0.3, 0.4, 0.5])
    assert found.gains[("sgd",)].tolist() == pytest.approx([0.0, 0.0, -0.1])
    # t = .4 / (.1 / √3) = √48, p of two degrees of freedom 1 − √(48 / 50), which is at most .05 / 2
    assert "+0.400 ± 0.248  0.02  better" in out and "undecided" in out
    assert "0.04 *" in out and "0.02 *" not in out
    assert "2 comparisons, Holm: p of 0.05 or less counts" in out and err == ""
    assert len((runs / "all.csv").read_text().splitlines()) == 1 + 18 + 12


def test_a_p_is_held_against_all_comparisons(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("tune", "report"):
        (runs / "both" / part).mkdir(parents=True)
        for question in ("one", "other"):
            sweep(
                runs / "both" / part / question,
                TUNE if part == "tune" else REPORT,
                20 if part == "tune" else 1,
            )
    assert tuned_settings.main(["both/tune", "both/report", "--compare", "optimizer"]) == 0
    out = capsys.readouterr().out
    assert "4 comparisons, Holm: p of 0.0125 or less counts" in out and "better" not in out


def test_what_cannot_be_compared_is_one_line(runs: Path) -> None:
    def refused(said: str, tune: str = "tune", report: str = "report") -> None:
        with pytest.raises(Refusal, match=said):
            compared(runs / tune, runs / report, COMPARE, BY)

    sweep(runs / "same", {"adamw": {0.02: [1.0, 1.0, 1.0]}}, 20)
    refused("same: seed 20, 21 was tuned with; report other seeds", report="same")
    sweep(runs / "few", {"adamw": REPORT["adamw"], "muon": {0.02: [1.0, 1.0, 1.0]}, "sgd": REPORT["sgd"]}, 1)
    refused("few: lacks muon at base_lr = 0.04; run it there", report="few")
    sweep(runs / "odd", {"adamw": REPORT["adamw"], "muon": {0.04: [1.0]}, "sgd": REPORT["sgd"]}, 1)
    refused("odd: muon has other seeds than adamw", report="odd")
    sweep(runs / "less", {"adamw": TUNE["adamw"], "muon": {0.01: [1.0, 1.0]}}, 20)
    refused(r"less: adamw has \[3, 2, 2, 2\] points and seeds of each, muon \[1, 2\]", tune="less")
    write(runs / "more", settings(optimizer="adamw", base_lr=0.1, k=2), {"thinking": {1: 1.0}})
    write(runs / "more", settings(optimizer="adamw", base_lr=0.1, k=4), {"thinking": {1: 1.0}})
    refused("more: the cells differ in k too; name it in --compare or --by", tune="more")
    refused("none", tune="none")


def test_rows_of_several_commits_are_named_in_a_line_and_warned_of_nowhere(
    runs: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    path = sorted((runs / "report").glob("*/summary.json"))[0]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"commit": "f" * 40}), encoding="utf-8")
    assert tuned_settings.main(["tune", "report", "--compare", "optimizer"]) == 0
    assert "fffffff" in capsys.readouterr().out.splitlines()[-1] and not recwarn.list
