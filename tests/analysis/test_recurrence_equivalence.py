"""The exponent of recurrence equivalence, found again in runs that were made with a known one."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import recurrence_equivalence
from analysis.recurrence_equivalence import PHIS, Runs, as_good_as_best, bootstrap, fit, profile_of
from tests.analysis.synthetic import Figures, Script, settings, write

WIDTHS, LENGTHS, SEEDS = (4, 8, 16, 32), (1, 2, 8), range(7, 12)
E, A, ALPHA = 0.2, 40.0, 0.6


@pytest.fixture
def call(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Script:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recurrence_equivalence, "RESAMPLES", 100)
    return Script(recurrence_equivalence.main, "recurrence_equivalence.png", Figures(monkeypatch), capsys)


def sweep(
    folder: Path, phi: float, noise: float = 0.01, widths: Any = WIDTHS, lengths: Any = LENGTHS, **more: Any
) -> None:
    """Write runs of all widths and lengths whose loss follows the law, with noise in each."""
    drawn = np.random.default_rng(3)
    for width in widths:
        once, again = 90 * width, 10 * width**2
        for length in lengths:
            law = E + A * (once + length**phi * again) ** -ALPHA
            losses = {seed: float(law * np.exp(noise * drawn.normal())) for seed in SEEDS}
            found = {"thinking": losses, "no_reasoner": {7: 2.0}} | more
            chosen = settings(base_lm_hidden_dim=width, reasoner_hidden_dim=width, max_reasoning_len=length)
            sizes = {"thinking": once + again, "no_reasoner": once}
            write(folder / "runs", chosen, found, parameters={arm: sizes[arm] for arm in found})


def interval_of(out: str) -> tuple[float, float, float]:
    phi, low, high = re.search(r"φ (-?[\d.]+), 95 % interval (-?[\d.]+).* to (-?[\d.]+)", out).groups()
    return float(phi), float(low), float(high)


@pytest.mark.parametrize("phi", [0.0, 0.46, 1.0])
def test_a_known_exponent_is_in_the_interval(tmp_path: Path, call: Script, phi: float) -> None:
    sweep(tmp_path, phi)
    result = call(really=phi == 0.46)
    assert (result.code, result.err) == (0, "")
    found, low, high = interval_of(result.out)
    assert low <= phi <= high and high - low < 0.4 and abs(found - phi) < 0.15
    assert "over 60 runs: 12 models, 5 seeds" in result.out and "flat" not in result.out
    assert result.table.shape[0] == 60 and abs(result.table["fitted"] - result.table["nll"]).max() < 0.05
    left, right = result.figure.axes
    assert len(left.collections) == len(LENGTHS) and left.get_xscale() == "log"
    best = PHIS[np.argmin(right.lines[0].get_ydata())]
    assert best == pytest.approx(found, abs=0.011)


def law(phi: float, noise: float, again: float = 10.0) -> Runs:
    drawn = np.random.default_rng(5)
    width, length, seed = (x.ravel() for x in np.meshgrid(WIDTHS, LENGTHS, range(5), indexing="ij"))
    once, more = 90.0 * width, again * width**2
    loss = E + A * (once + length**phi * more) ** -ALPHA + noise * drawn.normal(size=len(width))
    return Runs(once, more, length.astype(float), loss, seed)


def test_without_noise_all_four_numbers_are_found() -> None:
    data = law(0.5, 0.0)
    best = fit(data, np.ones((1, len(data.loss))))
    assert abs(best.phi[0] - 0.5) < 0.021 and abs(best.alpha[0] / ALPHA - 1) < 0.1
    assert abs(best.floor[0] - E) < 0.02 and best.error[0] < 1e-3


def test_the_fit_is_the_least_of_a_finer_search() -> None:
    """E and A by numpy's own least squares, at each α and φ of a few."""
    data = law(0.3, 0.05)
    best = fit(data, np.ones((1, len(data.loss))))
    for phi in np.linspace(-0.5, 1.5, 9):
        for alpha in recurrence_equivalence.ALPHAS[::6]:
            size = recurrence_equivalence.effective(data, phi)
            columns = np.stack([np.ones_like(size), (size / 1e3) ** -alpha], 1)
            (floor, scale), *_ = np.linalg.lstsq(columns, data.loss, rcond=None)
            error = ((columns @ [floor, scale] - data.loss) ** 2).sum()
            assert floor < 0 or scale < 0 or error >= best.error[0] - 1e-9
    weights = np.random.default_rng(0).integers(0, 3, size=(1, len(data.loss))).astype(float)
    repeated = np.repeat(np.arange(len(data.loss)), weights[0].astype(int))
    same = fit(Runs(*(x[repeated] for x in data)), np.ones((1, len(repeated))))
    assert fit(data, weights).phi[0] == pytest.approx(same.phi[0]), "a weight of two is a run twice"


def test_a_reasoner_that_weighs_nothing_tells_nothing_of_it() -> None:
    """Where N_reasoner is small every φ fits, and the interval is as wide as the grid."""
    data = law(0.46, 0.01, again=1e-6)
    profile = profile_of(data)
    assert as_good_as_best(profile, len(data.loss)) == (-1.0, 2.0)
    known = law(0.46, 0.05)
    low, high = as_good_as_best(profile_of(known), len(known.loss))
    assert -0.5 < low < 0.46 < high < 1.5
    low, high = bootstrap(known)
    assert low <= 0.46 <= high


def test_a_flat_profile_is_said_to_be_flat(tmp_path: Path, call: Script) -> None:
    sweep(tmp_path, 0.46, noise=2.0)
    assert "The profile is flat: these runs bound φ on one side at most." in call().out


def test_few_seeds_are_said_to_be_few(tmp_path: Path, call: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "SEEDS", range(3))
    sweep(tmp_path, 0.46)
    assert "3 seeds have few resamples" in call().out


@pytest.mark.parametrize(
    ("says", "changes"),
    [
        (
            "runs: all thoughts have one L, which says nothing of φ; sweep, say, max_reasoning_len=",
            {"lengths": (2,)},
        ),
        ("runs: all thoughts have one size, which says nothing of φ; sweep, say, base_lm_", {"widths": (8,)}),
        ("runs: 4 models are too few for 4 numbers; sweep more", {"lengths": (1, 2), "widths": (4, 8)}),
    ],
)
def test_what_cannot_be_known_is_refused(tmp_path: Path, call: Script, says: str, changes: Any) -> None:
    sweep(tmp_path, 0.46, **changes)
    result = call()
    assert result.code == 1 and says in result.err


def test_without_the_plain_control_there_is_no_base(tmp_path: Path, call: Script) -> None:
    sweep(tmp_path, 0.46, no_reasoner={})
    result = call()
    assert result.code == 2 and "N_base is the size of a model without thoughts" in result.err


def test_plain_runs_beside_them_say_the_base_too(tmp_path: Path, call: Script) -> None:
    sweep(tmp_path, 0.46)
    wanted = interval_of(call().out)
    shutil.rmtree(tmp_path / "runs")
    sweep(tmp_path, 0.46, no_reasoner={})
    for width in WIDTHS:
        write_plain(tmp_path / "runs", width)
    assert interval_of(call().out) == wanted


def write_plain(folder: Path, width: int) -> None:
    chosen = settings(base_lm_hidden_dim=width, use_reasoner=False)
    write(folder, chosen, {"no_reasoner": {7: 2.0}}, parameters={"no_reasoner": 90 * width})


def test_other_settings_are_chosen_first(tmp_path: Path, call: Script) -> None:
    sweep(tmp_path, 0.46)
    write(
        tmp_path / "runs",
        settings(policy_loss_beta=0.5, max_reasoning_len=2),
        {"thinking": {7: 1.0}, "no_reasoner": {7: 2.0}},
    )
    result = call()
    assert result.code == 2 and "the cells differ in policy_loss_beta too; choose, say, " in result.err


def test_runs_that_diverged_are_left_out(tmp_path: Path, call: Script) -> None:
    sweep(tmp_path, 0.46)
    chosen = settings(base_lm_hidden_dim=64, reasoner_hidden_dim=64, max_reasoning_len=2)
    found = {"thinking": {7: None, 8: 0.3}, "no_reasoner": {7: 2.0}}
    write(tmp_path / "runs", chosen, found, parameters={"thinking": 45_000, "no_reasoner": 5000})
    assert "over 61 runs" in call().out
