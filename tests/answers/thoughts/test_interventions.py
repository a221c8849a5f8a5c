"""Changed thoughts against the plain reference, and against the rows of their runs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.answers.thoughts.plain import (
    KINDS,
    OTHER_KINDS,
    PATH,
    SEED,
    SIZE,
    SYMBOLS,
    Costs,
    Plain,
    untrained,
)
from tests.answers.thoughts.runs import row, trained
from toyqs.answers.__main__ import main
from toyqs.answers.thoughts.arm import load_arm
from toyqs.answers.thoughts.interventions import OTHERS, measured
from toyqs.rng import stream


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_swapped_removed_and_cut_thoughts_against_the_reference(tmp_path: Path, kind: dict[str, Any]) -> None:
    run = untrained(tmp_path, **kind)
    plain, found = Plain(run), measured(run, SEED, SIZE)
    own, length = plain.own, run.sizes.length
    for i in range(length):

        def swapped(b: int, t: int, k: int, i: int = i) -> list[list[int]]:
            mine, others = own[b, t, k], [own[(b - shift) % SIZE, t, k] for shift in range(1, OTHERS + 1)]
            return [[*mine[:i], x[i], *mine[i + 1 :]] for x in others if len(x) > i and len(mine) > i]

        def removed(b: int, t: int, k: int, i: int = i) -> list[list[int]]:
            mine = own[b, t, k]
            return [[*mine[:i], *mine[i + 1 :]]] if len(mine) > i else []

        plain.agree(found["swapped", i + 1], plain.cost(swapped), OTHERS)
        plain.agree(found["removed", i + 1], plain.cost(removed))
    for kept in range(length + 1):
        plain.agree(found["cut", kept], plain.cost(lambda b, t, k, kept=kept: [own[b, t, k][:kept]]))
    largest = max(float(found["swapped", i][0].abs().max()) for i in range(1, length + 1))
    assert largest > 0.1, "nothing to compare"


def test_a_transformers_swapped_symbol_against_the_reference(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    sizes = {"base_lm_hidden_dim": 4, "model_n_layer": 1, "max_reasoning_len": 2, "trice_samples": 1}
    run = untrained(tmp_path, backbone="gpt2", interpreter_start="onward", baseline="none", **sizes)
    plain, found = Plain(run), measured(run, SEED, SIZE)["swapped", 1]

    def swapped(b: int, t: int, k: int) -> list[list[int]]:
        others = (plain.own[(b - shift) % SIZE, t, k] for shift in range(1, OTHERS + 1))
        return [[other[0], plain.own[b, t, k][1]] for other in others]

    plain.agree(found, plain.cost(swapped), OTHERS)
    assert float(found[0].abs().max()) > 0.001, "nothing to compare"


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_constant_and_noise_symbols_against_the_reference(tmp_path: Path, kind: dict[str, Any]) -> None:
    run = untrained(tmp_path, **kind)
    plain, found = Plain(run), measured(run, SEED, SIZE)
    own, noise, shape = plain.own, stream(SEED, "answers/noise symbols"), plain.sampled.thoughts.symbols.shape
    for i in range(run.sizes.length):
        constant = next(x[i] for x in own.values() if len(x) > i)
        uniform = [torch.rand(*shape[:4], 1, generator=noise, dtype=torch.float64) for _ in range(OTHERS)]

        def put(b: int, t: int, k: int, symbols: list[int], i: int = i) -> list[list[int]]:
            mine = own[b, t, k]
            return [[*mine[:i], x, *mine[i + 1 :]] for x in symbols if len(mine) > i]

        def noisy(b: int, t: int, k: int, uniform: list[torch.Tensor] = uniform, put: Any = put) -> Any:
            return put(b, t, k, [int(SYMBOLS * float(u[0, b, t, k])) for u in uniform])

        alike = plain.cost(lambda b, t, k, c=constant, put=put: put(b, t, k, [c]))
        plain.agree(found["noise", i + 1], plain.cost(noisy), OTHERS)
        plain.agree(found["constant", i + 1], alike)


def test_moves_are_the_swaps_log_ratios(tmp_path: Path) -> None:
    run = untrained(tmp_path, variable_len=True)
    plain, found = Plain(run), measured(run, SEED, SIZE)
    for i, later in ((0, 1), (0, 2), (1, 2)):
        wanted: Costs = {}
        for (b, t, k), mine in plain.own.items():
            for other in (plain.own[(b - shift) % SIZE, t, k] for shift in range(1, OTHERS + 1)):
                if len(mine) > i and len(other) > i and len(mine) >= later:
                    changed = [*mine[:i], other[i], *mine[i + 1 :]]
                    before, after = (plain.predicted(b, t, x).log_prob[0, later] for x in (mine, changed))
                    wanted.setdefault((b, t), []).append(float(before - after))
        plain.agree(found["moves", i + 1, later + 1], wanted, OTHERS)


@pytest.mark.parametrize("kind", KINDS + OTHER_KINDS, ids=str)
def test_whole_thoughts_cost_what_the_row_says(tmp_path: Path, kind: dict[str, Any]) -> None:
    with torch.enable_grad():
        (folder,) = trained(tmp_path, [SEED], **kind)
    run = load_arm([folder]).first
    found, wanted = measured(run, SEED), row(folder)

    def mean(*name: Any) -> float:
        values, weights = found[name]
        return float((values * weights).sum() / weights.sum())

    assert mean("own") == pytest.approx(wanted["nll"], abs=1e-12)
    for name in ("shuffled", "constant", "no_thought"):
        if f"nll_{name}" in wanted:
            assert mean("own") + mean(name) == pytest.approx(wanted[f"nll_{name}"], abs=1e-12)
        else:
            assert (name,) not in found and name == "no_thought"
    assert mean("cut", run.sizes.length) == pytest.approx(0, abs=1e-12)
    assert all(math.isfinite(mean(*name)) for name in found)


def test_states_screen_off_earlier_ones(tmp_path: Path) -> None:
    """Where the interpreter goes on from the last state, that hides what became of earlier ones."""
    run = untrained(tmp_path, thoughts="state", interpreter_start="onward", **PATH)
    found = measured(run, SEED, SIZE)
    assert float(found["swapped", 1][0].abs().max()) == 0 < float(found["swapped", 3][0].abs().max())
    assert float(found["drawn_on", 1][0].abs().max()) > 0.01


def test_the_positions_that_think_where_only_some_do(tmp_path: Path) -> None:
    with torch.enable_grad():
        (folder,) = trained(tmp_path, [SEED], think_at="hard", hard_quantile=0.5)
    values, weights = measured(load_arm([folder]).first, SEED)["own",]
    assert float((values * weights).sum() / weights.sum()) == pytest.approx(
        row(folder)["nll_hard"], abs=1e-12
    )


def test_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with torch.enable_grad():
        folders = trained(tmp_path, [1, 2])
        (path,) = trained(tmp_path, [1], thoughts="deterministic", **PATH)
    out = tmp_path / "out.json"
    assert main(["interventions", *folders, "-o", str(out)]) == 0
    printed, found = capsys.readouterr().out, json.loads(out.read_text())
    means = [row(folder)["nll"] for folder in folders]
    assert found["own"]["mean"] == pytest.approx(sum(means) / 2) and found["own"]["count"] == 2
    assert (found["seeds"], found["sequences"], found["intervals_over"]) == ([1, 2], 40, "seeds")
    assert found["runs"] == [Path(folder).name for folder in folders], "the report finds their cell by them"
    assert [len(found[x]) for x in ("symbols", "cut", "moves")] == [3, 4, 3]
    assert "over 2 seeds" in printed and "not defined" not in printed
    assert f"{found['symbols'][1]['noise']['mean']:+.3f} ± " in printed
    assert main(["interventions", path, "--sequences", "9", "-o", str(out)]) == 0
    printed, found = capsys.readouterr().out, json.loads(out.read_text())
    assert "; 9 different sequences" in printed and "over different sequences; one run" in printed
    assert "not defined: thoughts=deterministic have no density" in printed
    assert found["own"]["count"] == 9 and found["moves"][0]["nats"] is None


def test_a_run_without_symbols_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with torch.enable_grad():
        (folder,) = trained(tmp_path, [1], max_reasoning_len=0)
    assert main(["interventions", folder]) == 2
    assert "this run has no thoughts; give one that thinks\n" in capsys.readouterr().err
