"""How thoughts are used by the speed of their markers: pairs of seeds, Holm, what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis import marker_use
from tests.analysis.synthetic import Figures, Script, key_of, settings, write
from tests.evidence.judging.test_use import FIRST, SECOND, record
from toyqs.thought_record import write as write_record

SEEDS = (1, 2, 3)
PLAIN = {1: 0.10, 2: 0.20, 3: 0.15}
SHUFFLED = {"none": {1: 1.10, 2: 1.30, 3: 1.20}, "lr_multiplier": {1: 2.10, 2: 2.25, 3: 2.31}}


@pytest.fixture
def call(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Script(marker_use.main, "marker_use.png", Figures(monkeypatch), capsys)


def cell(mode: str, scale: float | None, more: float = 0.0, empty: bool = False, **changes) -> None:
    """Write a cell whose NLL is PLAIN and `more`, and whose records change half of the answers."""
    chosen = settings(meta_token_mode=mode, n_tokens_ahead=1, **changes)
    chosen |= {} if scale is None else {"meta_token_scale": scale}
    for seed in SEEDS:
        shuffled = SHUFFLED.get(mode, SHUFFLED["none"])[seed]
        write(
            Path("runs"),
            chosen,
            {"thinking": {seed: PLAIN[seed] + more}},
            {"thinking": SEEDS},
            nll_shuffled=shuffled,
        )
        symbols = np.full((1, 2, 2, 2), 2) if empty else record().arrays["symbols"]
        own = np.array([[[FIRST, SECOND], [SECOND, SECOND]]])
        write_record(
            Path("runs") / key_of(chosen, "thinking", seed), record(symbols=symbols, predicted_p=own)
        )


def test_scale_one_is_what_the_others_are_compared_with(call) -> None:
    cell("none", None)
    cell("lr_multiplier", 10.0)
    cell("grad_scale", 10.0, more=0.0)
    code, out, err, figure, table = call()
    assert (code, err) == (0, "")
    rows = table.set_index(["mode", "scale"])
    assert list(rows.index) == [("none", 1), ("grad_scale", 10), ("lr_multiplier", 10)]
    own = rows.loc[("lr_multiplier", 10)]
    each = np.array([SHUFFLED["lr_multiplier"][s] - SHUFFLED["none"][s] for s in SEEDS])
    assert own["exchanged"] == pytest.approx(
        np.mean([SHUFFLED["lr_multiplier"][s] - PLAIN[s] for s in SEEDS])
    )
    assert own["exchanged_difference"] == pytest.approx(each.mean())
    assert own["nll_difference"] == 0 and own["nll_p"] == 1
    assert own["exchanged_p"] < 0.05 / 4 and own["exchanged_beyond_chance"] in (True, "True")
    assert (rows["changed"] == 0.5).all() and (rows["non_empty"] == 0.5).all()
    assert "over 4 comparisons" in out and "68 % at 10" in out
    (line,) = (x for x in out.splitlines() if x.startswith("lr_multiplier"))
    assert f"{each.mean():+.2f} ± " in line and line.count("*") == 1
    assert [axes.get_title().split("\n")[0] for axes in figure.axes] == [
        *("another sequence's thoughts cost", "thoughts that change the answer"),
        *("thoughts that are not empty", "held-out NLL"),
    ]


def test_what_is_refused(call) -> None:
    cell("lr_multiplier", 10.0)
    assert "no finished run has meta_token_mode=none" in call().err
    cell("none", None)
    cell("none", None, base_lm_hidden_dim=4)
    assert "the cells differ in base_lm_hidden_dim too" in call().err
    assert call("base_lm_hidden_dim=12").code == 0


def test_gains_over_controls_are_printed(call) -> None:
    chosen = settings(meta_token_mode="none", n_tokens_ahead=1)
    found = {"thinking": PLAIN, "pause": {s: PLAIN[s] + 0.5 for s in SEEDS}}
    write(Path("runs"), chosen, found, nll_shuffled={"thinking": 1.0, "pause": None})
    for seed in SEEDS:
        write_record(Path("runs") / key_of(chosen, "thinking", seed), record())
    assert "gain of none at 1, nats: over pause +0.500 ± 0.000" in call().out
