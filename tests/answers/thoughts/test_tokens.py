"""The gain token by token: over a control's runs, of any task, and over the run without its thoughts."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from tests.answers.thoughts.runs import row, trained
from toyqs.answers.__main__ import main
from toyqs.answers.thoughts import tokens
from toyqs.answers.thoughts.tokens import Pair, TokenLosses, compared
from toyqs.evidence.judging.gain import interval

CONTROLS: list[dict[str, Any]] = [
    {"max_reasoning_len": 0},
    {"use_reasoner": False},
    {"thoughts": "gaussian", "trice_samples": 2},
]


@pytest.mark.parametrize("changes", CONTROLS)
@pytest.mark.parametrize("seeds", [[3], [3, 1]])
def test_all_tokens_have_the_gain_of_the_rows(tmp_path: Path, changes: Any, seeds: list[int]) -> None:
    runs, controls = trained(tmp_path, seeds), trained(tmp_path, seeds, **changes)
    out = tmp_path / "out.json"
    assert main(["tokens", *runs, "--against", *reversed(controls), "-o", str(out)]) == 0
    found = json.loads(out.read_text())
    for name, column in (("all", "nll"), ("mixture", "nll_marginal")):
        of_runs, of_controls = (
            [row(folder).get(column, row(folder)["nll"]) for folder in folders]
            for folders in (runs, controls)
        )
        gains = [there - here for here, there in zip(of_runs, of_controls, strict=True)]
        assert found[name]["gain"] == pytest.approx(sum(gains) / len(gains), abs=1e-12)
        assert found[name]["tokens"] == 40 * 4
        if len(seeds) > 1:
            assert found[name]["half_width"] == pytest.approx(interval(gains).half_width, abs=1e-12)
    parts = [found[str(number)] for number in range(1, 11)]
    assert [part["tokens"] for part in parts] == [16] * 10
    both = [part["control"] + part["with_thoughts"] for part in parts]
    assert both == sorted(both)
    assert sum(part["gain"] for part in parts) / 10 == pytest.approx(found["all"]["gain"], abs=1e-12)


def losses(nll: Tensor, sequences: Tensor | None = None, weights: Tensor | None = None) -> TokenLosses:
    zeros = torch.zeros(len(nll), dtype=torch.long)
    weights = torch.ones(len(nll), dtype=torch.float64) if weights is None else weights
    return TokenLosses(nll, nll, weights, zeros if sequences is None else sequences, zeros)


def test_the_interval_of_one_run_is_over_sequences() -> None:
    torch.manual_seed(0)
    own, other = torch.rand(2, 6, 4, dtype=torch.float64)
    sequences = torch.arange(6).repeat_interleave(4)
    pair = Pair(*(losses(x.flatten(), sequences) for x in (own, other)))
    found = compared({0: pair}, torch.arange(24))
    low, high = stats.t.interval(0.95, 5, (other - own).mean(), stats.sem((other - own).mean(1)))
    assert (found.gain.lower, found.gain.upper) == (pytest.approx(low), pytest.approx(high))
    assert (found.own, found.other) == (pytest.approx(float(own.mean())), pytest.approx(float(other.mean())))
    assert found.gain.count == 6


def test_tokens_count_by_their_weights() -> None:
    weights = torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)
    own, other = (
        losses(torch.tensor(x).double(), torch.tensor([0, 0, 1]), weights)
        for x in ([1.0, 2.0, 5.0], [2.0, 6.0, 6.0])
    )
    found = compared({0: Pair(own, other)}, torch.tensor([0, 1, 2]))
    assert found.gain.mean == pytest.approx((1 * 1 + 3 * 4 + 2 * 1) / 6)
    assert compared({0: Pair(own, other)}, torch.tensor([2, 0])).gain.mean == pytest.approx((2 + 1) / 3)


def check_groups() -> None:
    """Sum over all ways to swap the two sides of six tokens, which are alike: no group may gain."""
    torch.manual_seed(1)
    sides = torch.rand(2, 6, dtype=torch.float64)
    gains = torch.zeros(3, dtype=torch.float64)
    for swaps in product([0, 1], repeat=6):
        index = torch.tensor(swaps)
        own, other = sides.gather(0, torch.stack([index, 1 - index]))
        pairs = {0: Pair(losses(own), losses(other))}
        groups = tokens.by_difficulty(pairs, 3)
        assert torch.cat(groups).sort().values.tolist() == list(range(6))
        gains += torch.stack([(other - own)[places].mean() for places in groups])
    assert float(gains.abs().max()) < 1e-12, gains / 64


def by_the_control(pairs: dict[int, Pair], parts: int) -> list[Tensor]:
    return list(pairs[0].other.nll.argsort().tensor_split(parts))


def test_groups_take_no_side(monkeypatch: pytest.MonkeyPatch) -> None:
    check_groups()
    monkeypatch.setattr(tokens, "by_difficulty", by_the_control)
    with pytest.raises(AssertionError, match="tensor"):
        check_groups()


def test_few_tokens_make_few_groups() -> None:
    pairs = {
        seed: Pair(losses(torch.tensor([3.0, 1.0])), losses(torch.tensor([0.0, 1.0]))) for seed in (1, 2)
    }
    assert [x.tolist() for x in tokens.by_difficulty(pairs)] == [[1], [0]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Their head never learned to predict alone;"),
        ({"base_nll_beta": 0.5}, "Their head learned to predict alone with base_nll_beta=0.5;"),
    ],
)
def test_without_a_control_the_gain_is_said_to_be_another(
    tmp_path: Path, changes: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder,), out = trained(tmp_path, [3], **changes), tmp_path / "out.json"
    assert main(["tokens", folder, "-o", str(out)]) == 0
    printed, found = capsys.readouterr().out, json.loads(out.read_text())["all"]
    assert "taken away, which is not what thinking is worth.\n" + said in printed
    assert "it says nothing about other seeds" in printed
    wanted = row(folder)["nll_no_thought"] - row(folder)["nll"]
    assert found["gain"] == pytest.approx(wanted, abs=1e-12) and found["half_width"] > 0


def test_the_control_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run,), (control,) = trained(tmp_path, [3]), trained(tmp_path, [3], max_reasoning_len=0)
    assert main(["tokens", run, "--against", control, "--count", "50"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "gain, paired by seed and token, over runs with max_reasoning_len=0 (here 3)"
    table = [line.split() for line in printed]
    assert ["all", "52"] in [line[:2] for line in table] and table[-17][:3] == ["tenth", "tokens", "control"]


def test_what_cannot_be_paired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = trained(tmp_path, [3, 1]), trained(tmp_path, [3], use_reasoner=False)
    longer = trained(tmp_path, [3], eval_sequences=41, use_reasoner=False)
    (bare,), (hard,) = trained(tmp_path, [3], use_base_lm=False), trained(tmp_path, [3], think_at="hard")
    everywhere = trained(tmp_path, [3], think_at="all")
    for words, message in [
        (
            [*one, "--against", *two],
            "--against: no run has seed 1; give the control's runs of the same seeds",
        ),
        (
            [one[0], "--against", *longer],
            "of one think_at, and --sequences N where their eval_sequences differ",
        ),
        ([*two], "this run has no thoughts; give one that thinks"),
        ([bare], "no prediction without a thought to compare with; give --against and a control's run"),
        ([hard, "--against", *two], "thinks where it finds it hard"),
    ]:
        assert main(["tokens", *words]) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
    for words in ([bare, "--against", *two], [*everywhere, "--against", *two], [*two, "--against", *one]):
        assert main(["tokens", *words]) == 0, "positions that do not count may think or not"
        capsys.readouterr()
