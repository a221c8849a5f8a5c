"""The language of finished runs: the numbers of their rows, their dictionary, pass@k."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.answers.thoughts.runs import row, trained
from toyqs.answers.__main__ import main
from toyqs.answers.thoughts import language
from toyqs.answers.thoughts.arm import equal_sequences, load_arm, mean_interval, sample
from toyqs.training.evaluation.thought_language import pass_at, usage_of

PATH = {"objective": "pathwise"}


@pytest.mark.parametrize(
    "changes", [{}, {"variable_len": True}, {"thoughts": "gumbel", **PATH}, {"thoughts": "gaussian"}]
)
def test_the_numbers_are_those_of_the_row(tmp_path: Path, changes: dict[str, Any]) -> None:
    """All positions of this small evaluation are in the row's sample."""
    (folder,) = trained(tmp_path, [5], **changes)
    run, wanted = load_arm([folder]).first, row(folder)
    speech, alike = language.listen(run, 5), equal_sequences(run)
    for k, name in ((1, "accuracy"), (4, "pass_at_k")):
        passes = mean_interval({5: (pass_at(speech.right.sum(-1), 4, k), speech.weights)}, alike)
        assert passes.mean == pytest.approx(wanted[name], abs=1e-12)
    gap = mean_interval({5: (language.below_single(speech.log_q, 4), speech.weights)}, alike)
    assert gap.mean == pytest.approx(wanted["marginal_gap"], abs=1e-12) and gap.mean > 0
    names = ("symbol_zipf", "distinct_thoughts", "homogeneity", "completeness")
    if speech.symbols is None:
        assert not wanted.keys() & {*names}
        return
    found = language.vocabulary(speech, 6)
    for name in names:
        assert found.numbers[name] == pytest.approx(wanted[name], abs=1e-12)
    assert found.symbols.sum() == (speech.symbols < 6).sum()


def naive_dictionary(folder: str) -> dict[str, Counter[str]]:
    run, found = load_arm([folder]).first, {}
    for part in sample(run, 5):
        for symbols, answers in zip(part.thoughts.symbols[0], part.batch.targets[0], strict=True):
            for thoughts, answer in zip(symbols, answers, strict=True):
                said = "".join("abcdef"[i] for i in thoughts[0].tolist() if i < 6)
                found.setdefault(said, Counter())[str(int(answer))] += 1
    return found


@pytest.mark.parametrize("changes", [{}, {"variable_len": True}])
def test_the_dictionary(tmp_path: Path, changes: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (folder,), out = trained(tmp_path, [5], **changes), tmp_path / "out.json"
    assert main(["language", folder, "--entries", "2", "-o", str(out)]) == 0
    entries = json.loads(out.read_text())["language"]["5"]["dictionary"]
    wanted = naive_dictionary(folder)
    assert {entry["thought"]: dict(entry["answers"]) for entry in entries} == wanted
    assert len(entries) == len(wanted) and {len(x["answers"]) for x in entries} > {1}
    for entry in entries:
        counts = [count for _, count in entry["answers"]]
        assert counts == sorted(counts, reverse=True) and sum(counts) == entry["times"]
    times = [entry["times"] for entry in entries]
    assert times == sorted(times, reverse=True) and sum(times) == 40 * 4
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == f"… and {len(wanted) - 2} more" and printed[-2].split()[:2][-1] == str(times[1])
    assert max(map(len, printed)) <= 110


def test_names_of_tokens(tmp_path: Path) -> None:
    (folder,) = trained(tmp_path, [5], thought_vocab=None)
    run = load_arm([folder]).first
    usage = usage_of(torch.tensor([[0, 8], [8, 8], [9, 9]]), torch.tensor([4, 4, 5]))
    found = {entry["thought"]: entry["answers"] for entry in language.dictionary(run, usage)}
    assert found == {"0 op2": [("4", 1)], "op2 op2": [("4", 1)], "": [("5", 1)]}, "9: after its end"


def check_gap() -> None:
    """Compare with a mean over all groups: the same expectation, here the same thoughts in each group."""
    torch.manual_seed(0)
    log_q = torch.randn(2, 3, 6, dtype=torch.float64)
    for k in (1, 2, 3, 6):
        found = language.below_single(log_q, k)
        for b, t in ((0, 0), (1, 2)):
            groups = log_q[b, t].view(-1, k).tolist()
            wanted = [math.log(sum(map(math.exp, g)) / k) - sum(g) / k for g in groups]
            assert float(found[b, t]) == pytest.approx(sum(wanted) / len(wanted), abs=1e-12)
    assert not language.below_single(log_q, 1).any()
    assert language.below_single(log_q, 4).shape == (2, 3), "two thoughts are left over"


def test_the_gap_between_mean_and_marginal() -> None:
    check_gap()


def of_all_alike(log_q: Tensor, k: int) -> Tensor:
    return log_q.logsumexp(-1) - math.log(log_q.shape[-1]) - log_q.mean(-1)


def test_a_gap_of_another_number_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "below_single", of_all_alike)
    with pytest.raises(AssertionError):
        check_gap()


def test_the_gap_of_groups_is_that_of_subsets_in_the_mean() -> None:
    """Sum over all orders of four thoughts: the groups' mean is the mean over all subsets of two."""
    torch.manual_seed(1)
    values = torch.randn(4, dtype=torch.float64)
    orders = [[a, b, c, d] for a in range(4) for b in range(4) for c in range(4) for d in range(4)
              if len({a, b, c, d}) == 4]  # fmt: skip
    grouped = language.below_single(values[torch.tensor(orders)][None], 2).mean()
    subsets = torch.stack([values[list(pair)] for pair in combinations(range(4), 2)])
    assert float(grouped) == pytest.approx(float(of_all_alike(subsets, 2).mean()), abs=1e-12)


def test_several_seeds_and_more_thoughts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders, out = trained(tmp_path, [5, 2]), tmp_path / "out.json"
    words = ["language", *folders, "--thoughts", "9", "--sequences", "20", "-o", str(out)]
    assert main(words) == 0
    printed, result = capsys.readouterr().out, json.loads(out.read_text())
    assert [each["k"] for each in result["pass"]] == [1, 2, 4, 8, 9]
    assert {each["pass@k"]["count"] for each in result["pass"]} == {2}
    assert result["language"].keys() == {"2", "5"}
    assert "95 % t-interval over 2 seeds" in printed and "Dictionary of seed 5" in printed
    assert "\n80 positions of 20 held-out sequences\n" in printed
    assert max(map(len, printed.splitlines())) <= 110


def test_vectors_have_no_dictionary_and_a_plain_run_no_language(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for changes in ({"thoughts": "gaussian"}, {"thoughts": "deterministic", **PATH}):
        (folder,) = trained(tmp_path, [5], **changes)
        assert main(["language", folder]) == 0
        printed = capsys.readouterr().out
        assert "pass@k" in printed and "not defined: the symbols of these thoughts are vectors" in printed
        assert "homogeneity" not in printed and max(map(len, printed.splitlines()[3:])) <= 110
    for changes in ({"use_reasoner": False}, {"max_reasoning_len": 0}):
        (folder,) = trained(tmp_path, [5], **changes)
        assert main(["language", folder]) == 2
        err = capsys.readouterr().err
        assert err == f"toyqs: {folder}: this run has no thoughts; give one that thinks\n"


def test_which_positions_are_meant_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for changes, said in (({"think_at": "hard"}, True), ({}, False)):
        (folder,) = trained(tmp_path, [5], **changes)
        assert main(["language", folder]) == 0
        line = "think_at=hard: of the positions that think; the others have no thoughts"
        assert (line in capsys.readouterr().out.splitlines()) == said
