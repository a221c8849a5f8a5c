"""What a start is worth: kinds of start by lineage, steps and CPU time to a loss, paired by seed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import jump_start
from tests.analysis.synthetic import Figures, Script, settings, write
from toyqs.evidence.cells import by_key, load_cells
from toyqs.evidence.judging import head_start
from toyqs.evidence.judging.gain import by_seed
from toyqs.evidence.rows import load_rows

SEEDS = (1, 2, 3)
RUNS = Path("runs")
PLAIN = {"use_reasoner": False, "policy_loss_beta": 0.0}
# Of runs that think: start -> NLL of each seed at the end; the curve of `write_run` ends there.
ENDS = {"": (0.30, 0.32, 0.31), "nll": (0.10, 0.13, 0.12), "bake": (0.12, 0.16, 0.11)}


@pytest.fixture
def call(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Script:
    monkeypatch.chdir(tmp_path)
    return Script(jump_start.main, "jump_start.png", Figures(monkeypatch), capsys)


def plain(seed: int, nll: float, cpu: float, **changes: Any) -> str:
    """Write a plain run of one seed; return its key."""
    before = keys()
    write(RUNS, settings(**PLAIN, **changes), {"no_reasoner": {seed: nll}}, cpu_seconds=cpu, started=None)
    (key,) = keys() - before
    return key


def keys() -> set[str]:
    return {file.parent.name for file in RUNS.glob("*/summary.json")}


def sweep(ends: dict[str, tuple[float, ...]] = ENDS, **columns: Any) -> None:
    """Write hinted, baked and plain runs, and thinking ones that start from them, a cell for each seed."""
    for place, seed in enumerate(SEEDS):
        hinted = plain(seed, 0.9, 1.0, hint_share=0.5, stage="train", start_from=None)
        baked = plain(seed, 0.8, 3.0, hint_share=0.0, stage="bake", start_from=f"other/{hinted}")
        nll = plain(seed, 0.7, 2.5, hint_share=0.0, stage="train", start_from=None)
        for kind, start in (("", None), ("nll", f"runs/{nll}"), ("bake", f"elsewhere/{baked}")):
            if kind in ends:
                losses = {"thinking": {seed: ends[kind][place]}, "zero_length": {seed: 1.0 + 0.1 * seed}}
                given = settings(hint_share=0.0, stage="train", start_from=start)
                if start:
                    given["start_from.identity"] = f"{kind}{seed}"
                write(RUNS, given, losses, policy_snr=0.4, **{"cpu_seconds": 9.0} | columns)


def first_at(nll: float, level: float) -> float:
    """Return the first step of `write_run`'s curve that is no higher, by its formula."""
    for i in range(1, 21):
        step = math.ceil(450 * i / 20)
        if nll + 1.8 * (1 - math.log1p(step) / math.log1p(450)) <= level:
            return step
    return math.nan


def test_steps_and_time_to_a_loss_by_what_was_before(call: Script) -> None:
    sweep()
    code, out, err, figure, table = call("--nll", "0.6")
    assert (code, err) == (0, "")
    assert list(dict.fromkeys(table["kind"])) == [
        "from scratch",
        "after NLL",
        "after NLL with hints, then baking",
    ]
    before = {"": (0, 0.0), "nll": (450, 2.5), "bake": (900, 4.0)}
    for name, (kind, rows) in zip(ENDS, table.groupby("kind", sort=False), strict=True):
        assert list(rows["seed"]) == list(SEEDS)
        assert set(rows["steps_before"]) == {before[name][0]} and set(rows["cpu_before"]) == {before[name][1]}
        for nll, row in zip(ENDS[name], rows.to_dict("records"), strict=True):
            steps = first_at(nll, 0.6)
            assert row["nll"] == nll and row["steps_to_0.6"] == steps, kind
            assert row["cpu_to_0.6"] == pytest.approx(before[name][1] + 9.0 * steps / 450)
    assert set(table["nll_before"].dropna()) == {0.7, 0.8}
    shares = [1 - first_at(a, 0.6) / first_at(b, 0.6) for a, b in zip(ENDS["nll"], ENDS[""], strict=True)]
    half = stats.t.ppf(0.975, 2) * stats.sem(shares)
    wanted = f"{100 * np.mean(shares):+.0f} ± {100 * half:.0f}"
    (line,) = (x for x in out.splitlines() if x.startswith("after NLL  ") and "of 3" in x)
    p = stats.ttest_1samp(shares, 0).pvalue
    assert wanted in line and f"faster (p {p:.2g})" in line and "3 of 3" in line, out
    assert "Holm over 2 comparisons" in out
    assert "from scratch: " in out and "zero_length +" in out, "the verdict on each kind's own controls"
    left, right = figure.axes
    drawn = {x.get_color(): x for x in left.lines if len(x.get_xdata()) == 20}
    assert len(drawn) == 3
    scratch = drawn[jump_start.COLOURS[0]].get_ydata()
    assert scratch[-1] == pytest.approx(np.mean(ENDS[""]))
    late = next(x for x in right.lines if x.get_color() == jump_start.COLOURS[2])
    assert late.get_xdata()[-1] == pytest.approx(4.0 + 9.0)


def test_what_not_all_seeds_reach_is_not_judged(call: Script) -> None:
    sweep()
    _, out, _, _, table = call("--nll", "0.31")
    lines = [x for x in out.splitlines() if " of 3" in x]
    assert ["2 of 3" in line for line in lines] == [True, False, False]
    assert out.count("  not judged\n") == 2
    assert table["steps_to_0.31"].isna().sum() == 1
    _, out, _, _, _ = call()
    assert "To an NLL of 0.32," in out, "the least that all of them reach"


def test_a_correction_for_the_number_of_comparisons(call: Script) -> None:
    """One comparison may be beyond chance at .05 where, as one of several, it is not."""
    sweep({"": (0.30, 0.36, 0.33), "nll": (0.27, 0.28, 0.30), "bake": (0.30, 0.35, 0.34)})
    scratch, after, *_ = head_start.kinds_of(RUNS, [c for c in load_cells(RUNS) if c.thinks], finished())
    alone = stats.ttest_1samp(jump_start.saved(after, scratch, 0.7), 0).pvalue
    out = call("--nll", "0.7").out
    assert (0.025 < alone < 0.05) == ("undecided" in out) or "undecided" in out


def finished() -> dict[str, Any]:
    return by_key(load_rows(RUNS))


def test_words_that_start_the_next_command(call: Script, capsys: Any) -> None:
    sweep()
    assert jump_start.main(["runs", "stage=bake", "--starts"]) == 0
    out = capsys.readouterr().out
    wanted = [
        next(k for k, row in finished().items() if row.get("stage") == "bake" and row["seed"] == seed)
        for seed in SEEDS
    ]
    assert out == f"zip=[start_from,seed] start_from={','.join(wanted)} seed=1,2,3\n"
    for words, said in (
        (["--starts"], "two runs have one seed"),
        (["stage=gone", "--starts"], "no such cell"),
    ):
        assert jump_start.main(["runs", *words]) != 0
        assert said in capsys.readouterr().err


def test_refusals_are_one_line(call: Script) -> None:
    sweep({"bake": ENDS["bake"]})
    assert "\nfrom scratch" not in call().out
    for words, said in (
        (["--nll", "low"], "--nll low: are losses"),
        (["--nll", "inf"], "--nll inf: are losses"),
        (["use_reasoner=false"], "plain models only"),
    ):
        code, _, err, _, _ = call(*words)
        assert code and said in err
    (key,) = {k for k, row in finished().items() if row.get("hint_share") and row["seed"] == 1}
    (RUNS / key / "summary.json").unlink()
    code, _, err, _, _ = call()
    assert code == 2 and f"starts from {key}, which is not there" in err


def test_two_cells_of_one_kind_and_seed_are_refused(call: Script) -> None:
    sweep()
    write(RUNS, settings(max_steps=9, hint_share=0.0, stage="train", start_from=None), {"thinking": {1: 0.4}})
    code, _, err, _, _ = call()
    assert code == 2 and "runs from scratch: two of them have one seed" in err
    assert call("max_steps=450").code == 0


def test_lineage_goes_back_to_the_first_run() -> None:
    rows = {
        "a": {"use_reasoner": True, "start_from": None, "cpu_seconds": 1.0},
        "b": {"use_reasoner": False, "start_from": "runs/a", "cpu_seconds": 2.0, "stage": "bake"},
    }
    before = head_start._before("x/y/b", rows)
    assert before == [rows["b"], rows["a"]]
    assert head_start._name(before) == "after thinking, then baking"
    assert head_start._before(None, rows) == [] and head_start._before(math.nan, rows) == []


def test_a_row_without_a_key_of_old_is_plain_training() -> None:
    assert head_start._name([json.loads('{"use_reasoner": false}')]) == "after NLL"
    frame = pd.DataFrame({"seed": [1], "nll": [0.5]})
    assert by_seed(frame, "nll")[1] == 0.5
