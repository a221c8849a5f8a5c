"""The budget curve: finished runs asked at every length of thought, beside their controls' rows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import budget
from tests.analysis.synthetic import Figures, Script, key_of, settings, write_run
from tests.answers.thoughts.runs import SMALL, row, trained
from toyqs.config.identity import named
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.evidence.cells import write_cell

SEEDS = (1, 2, 3)
LENGTHS = {"max_reasoning_len": 3, "length_schedule": "constant"}


@pytest.fixture
def call(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Script:
    monkeypatch.chdir(tmp_path)
    return Script(budget.main, "budget.png", Figures(monkeypatch), capsys)


def nll(seed: int, length: int, trained_with: int) -> float:
    """Return a loss that is least at the trained length."""
    return 0.1 * seed + abs(length - trained_with)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int, int | None]]:
    """Answer for runs that were never trained."""
    calls: list[tuple[str, int, int, int | None]] = []

    def curve(folder: str, seed: int, most: int, count: int | None) -> dict[int, tuple[float, float]]:
        calls.append((folder, seed, most, count))
        with_ = json.loads((Path(folder) / "summary.json").read_text())["max_reasoning_len"]
        return {length: (nll(seed, length, with_), 0.5 + 0.01 * length) for length in range(most + 1)}

    monkeypatch.setattr(budget, "curve", curve)
    return calls


# Control -> the settings that it does not depend on.
WITHOUT = {
    "zero_length": ("max_reasoning_len", "length_schedule"),
    "state_handed_on": ("max_reasoning_len", "length_schedule"),
    "pause": (),
    "compute_matched": (),
    "param_matched": (),
}


def cell(
    lost: Mapping[str, int] | None = None, unfinished: Mapping[str, int] | None = None, **changes: Any
) -> dict[str, dict[int, str]]:
    """Write a cell with its controls; `lost` and `unfinished` name a seed of an arm."""
    chosen = settings(**LENGTHS | changes)
    arms: dict[str, dict[int, str]] = {}
    for place, (arm, without) in enumerate({"thinking": (), **WITHOUT}.items()):
        own = {name: value for name, value in chosen.items() if name not in without}
        arms[arm] = {seed: key_of(own, arm, seed) for seed in SEEDS}
        for seed, key in arms[arm].items():
            loss = None if (lost or {}).get(arm) == seed else place + 0.1 * seed
            line = {"seed": seed, "nll": loss, "accuracy": 0.25, "commit": "abc1234", "results_version": 1}
            if (unfinished or {}).get(arm) != seed:
                write_run(Path("runs"), key, line | {"train_steps": 450, "bayes_floor": 0.0} | chosen)
    write_cell("runs", chosen, arms, list(arms))
    return arms


def rows_of(table: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    for name, value in wanted.items():
        table = table[table[name] == value]
    return table


def interval_of(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


def test_a_line_for_each_cell_at_every_length(call: Script, asked: list[Any]) -> None:
    arms = cell()
    cell(length_schedule="random", max_reasoning_len=2, min_reasoning_len=1)
    code, out, err, figure, table = call()
    assert (code, err) == (0, "")
    assert {most for _, _, most, _ in asked} == {6}, "twice the largest L"
    assert [folder for folder, *_ in asked[:3]] == [f"runs/{key}" for key in arms["thinking"].values()]
    for schedule, length in (("constant", 3), ("random", 2)):
        found = rows_of(table, arm="thinking", length_schedule=schedule)
        assert list(found["length"]) == list(range(7)) and set(found["seeds"]) == {3}
        for place, line in found.set_index("length").iterrows():
            mean, half_width = interval_of([nll(seed, place, length) for seed in SEEDS])
            assert (line["nll"], line["nll_half_width"]) == pytest.approx((mean, half_width))
            assert line["accuracy"] == pytest.approx(0.5 + 0.01 * place)
    (axes,) = figure.axes
    drawn = [x.get_xydata() for x in axes.lines if x.get_marker() in "os" and len(x.get_xdata()) == 7]
    assert len(drawn) == 2
    for points, length in zip(drawn, (3, 2), strict=True):
        assert np.allclose(points[:, 0], range(7), atol=0.3)
        assert points[:, 1] == pytest.approx([np.mean([nll(s, x, length) for s in SEEDS]) for x in range(7)])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:2] == ["L = 3", "L = 1 to 2, random"]
    lines = out.splitlines()
    assert any(x.split() == ["3", "0.200", "±", "0.248", "*", "1.200", "±", "0.248"] for x in lines), out
    assert "Missing: nothing" in out and "figure budget.png\ntable  budget.csv" in out


def test_controls_come_from_their_rows(call: Script, asked: list[Any]) -> None:
    """Draw what is one run in all cells as a level line, the rest at the L of its cell."""
    cell()
    cell(max_reasoning_len=6)
    _, out, _, figure, table = call()
    (axes,) = figure.axes
    for place, arm in enumerate(("zero_length", "state_handed_on"), start=1):
        (line,) = (x for _, x in rows_of(table, arm=arm).iterrows())
        mean, half_width = interval_of([place + 0.1 * seed for seed in SEEDS])
        assert (line["nll"], line["nll_half_width"]) == pytest.approx((mean, half_width))
        assert math.isnan(line["length"]) and math.isnan(line["max_reasoning_len"])
        assert line["accuracy"] == 0.25
        assert any(list(x.get_ydata()) == pytest.approx([mean, mean]) for x in axes.lines), arm
    pause = rows_of(table, arm="pause")
    assert list(pause["length"]) == list(pause["max_reasoning_len"]) == [3, 6]
    matched = rows_of(table, arm="compute_matched")
    assert list(matched["max_reasoning_len"]) == [3, 6] and matched["length"].isna().all()
    points = {tuple(np.round(x.get_xydata()[0], 2)) for x in axes.lines if len(x.get_xdata()) == 1}
    assert {(2.65, 3.2), (5.65, 3.2), (2.65, 4.2), (5.65, 4.2)} <= points
    assert "param_matched" not in set(table["arm"]) and "param_matched" not in out
    assert "pause (L = 6): 3.200 ± 0.248" in out and "zero_length: 1.200 ± 0.248" in out


def test_points_of_cells_of_one_length_stand_side_by_side_and_are_named(
    call: Script, asked: list[Any]
) -> None:
    cell()
    cell(length_schedule="random")
    figure = call().figure
    (legend,) = figure.legends

    def hollow(lines: Any) -> list[Any]:
        return [x for x in lines if str(x.get_markerfacecolor()) == "white" and x.get_marker() in ("o", "s")]

    points = hollow(figure.axes[0].lines)
    assert len(points) == 4 and {x.get_marker() for x in points} == {"o", "s"}
    for colour in {x.get_color() for x in points}:
        places = sorted(x.get_xdata()[0] for x in points if x.get_color() == colour)
        # left of their L = 3 by the mean of 70 % of 4 % of an axis that is 7 wide, 30 % of that apart
        assert places == pytest.approx([3 - 0.28 * 0.85, 3 - 0.28 * 0.55])
    squares = [x.get_label() for x in hollow(legend.get_lines()) if x.get_marker() == "s"]
    assert squares == ["a control's point, random"]


def test_a_control_far_below_leaves_the_curves_legible(call: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves from 5 to 5.3 nats, controls from 1.2 to 4.2, Bayes at 0: what is not shown is written down."""
    cell()
    close = {length: (5.0 + 0.05 * length, 0.5) for length in range(7)}
    monkeypatch.setattr(budget, "curve", lambda *_: close)
    figure = call().figure
    (axes,) = figure.axes
    shares = axes.transAxes.inverted().transform(axes.transData.transform([(0, 5.0), (6, 5.3)]))[:, 1]
    assert 0 < shares[0] < shares[1] < 1 and shares[1] - shares[0] > 0.15
    low, high = axes.get_ylim()
    assert low < 4.2 + 0.3 and len([x for x in axes.get_yticks() if low <= x <= high]) > 1
    title = axes.get_title().replace("\n", " ")
    assert title.startswith("below what is shown: best possible (Bayes) 0, zero-length thoughts 1.2, ")


def test_one_cell_has_one_pause_at_its_length(call: Script, asked: list[Any]) -> None:
    cell()
    _, _, _, figure, table = call("--upto", "4", "--sequences", "50")
    assert {(most, count) for _, _, most, count in asked} == {(4, 50)}
    assert list(rows_of(table, arm="pause")["length"]) == [3]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sum("at its cell's L" in x for x in labels) == 1


def test_other_settings_have_panels_of_their_own(call: Script, asked: list[Any]) -> None:
    for width in (4, 8):
        for schedule in ("constant", "random"):
            cell(base_lm_hidden_dim=width, length_schedule=schedule)
    _, out, _, figure, table = call()
    assert [x.get_title() for x in figure.axes] == ["base_lm_hidden_dim=4", "base_lm_hidden_dim=8"]
    assert set(table["panel"]) == {"base_lm_hidden_dim=4", "base_lm_hidden_dim=8"}
    assert len(rows_of(table, arm="zero_length")) == 2 and len(rows_of(table, arm="pause")) == 4
    assert "base_lm_hidden_dim=8\n" in out
    one = call("base_lm_hidden_dim=4")
    assert [x.get_title() for x in one.figure.axes] == [""] and len(rows_of(one.table, arm="thinking")) == 14
    for width in (16, 32, 64):
        cell(base_lm_hidden_dim=width)
    assert "5 panels, 4 at most; choose with base_lm_hidden_dim=VALUE" in call().err


def test_a_panel_is_named_by_the_kind_of_thoughts(call: Script, asked: list[Any]) -> None:
    """Whatever else goes with it."""
    cell(trice_samples=4, thoughts="token")
    cell(trice_samples=1, thoughts="deterministic", max_reasoning_len=6)
    assert [x.get_title() for x in call().figure.axes] == ["thoughts=deterministic", "thoughts=token"]


def test_another_difference_is_not_hidden_by_a_length_that_goes_with_it(
    call: Script, asked: list[Any]
) -> None:
    cell(zeal=1)
    cell(zeal=2, max_reasoning_len=6)
    assert [x.get_title() for x in call().figure.axes] == ["zeal=1", "zeal=2"]


def test_a_diverged_seed_has_no_mean_and_a_missing_one_is_named(call: Script, asked: list[Any]) -> None:
    cell(lost={"thinking": 2})
    cell(max_reasoning_len=6, unfinished={"thinking": 3, "pause": 1})
    code, out, _, _, table = call()
    assert code == 0 and len(asked) == 2 + 2, "a diverged run is not asked"
    lost, whole = (rows_of(table, arm="thinking", max_reasoning_len=length) for length in (3, 6))
    assert lost["nll"].isna().all() and set(lost["seeds"]) == {3}
    assert whole["nll"].notna().all() and set(whole["seeds"]) == {2}
    assert "diverged" in out
    assert "L = 6, thinking: seed 3" in out and "L = 6, pause: seed 1" in out


def test_refusals(call: Script, asked: list[Any]) -> None:
    assert call().code == 2, "no folder"
    cell(max_reasoning_len=0)
    refused = call()
    assert refused.code == 1 and "no run whose thoughts have symbols has finished" in refused.err
    cell()
    assert call("--upto", "x").code == 2
    assert call("-o", "budget.txt").code == 2


def test_the_runs_themselves_are_asked(call: Script, tmp_path: Path) -> None:
    """Train two cells, and find each row's NLL at its own length."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for schedule in ("constant", "random"):
        changes = {"length_schedule": schedule, "max_reasoning_len": 2}
        folders = trained(tmp_path / "runs", SEEDS, **changes)
        rows[schedule] = [row(folder) for folder in folders]
        config = resolved(replace(RunConfig(), **SMALL, **changes))
        arms = {"thinking": {seed: Path(x).name for seed, x in zip(SEEDS, folders, strict=True)}}
        write_cell("runs", named(config, 0), arms, ["thinking"])
    code, _, err, figure, table = call(really=True)
    assert (code, err) == (0, "") and figure is not None
    for schedule, each in rows.items():
        (line,) = (x for _, x in rows_of(table, length_schedule=schedule, length=2).iterrows())
        for name in ("nll", "accuracy"):
            mean, half_width = interval_of([x[name] for x in each])
            assert line[name] == pytest.approx(mean, abs=1e-12)
            assert line[f"{name}_half_width"] == pytest.approx(half_width, abs=1e-12)
    assert sorted(set(table["length"])) == [0, 1, 2, 3, 4]
    assert (tmp_path / "budget.png").read_bytes()[:4] == b"\x89PNG"
