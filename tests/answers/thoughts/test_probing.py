"""What probes find: planted representations, the parts of the sequences, intervals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.special import stdtrit
from torch import Tensor

from tests.answers.asked import corpus
from tests.answers.thoughts.runs import trained
from toyqs.answers.loaded.load import LoadedRun
from toyqs.answers.thoughts import probing
from toyqs.answers.thoughts.arm import Sampled, load_arm, mean_interval
from toyqs.answers.thoughts.probing import NOTHING, Found, Split, difference, find, over, probe_arm, split_of
from toyqs.config.errors import Refusal
from toyqs.tasks.group import S5
from toyqs.tasks.iterate import Iterate
from toyqs.tasks.rev_prog import RevProg
from toyqs.tasks.task import Feature

SMALL = S5(group="s3", positions=3, asked="end")  # 36 held-out sequences


def planted(run: LoadedRun, sampled: Sampled) -> dict[str, Tensor]:
    """One-hot rows of the operator read first and the symbol asked about, at each thinking position."""
    queries, task = sampled.batch.inputs[0], run.config.task
    operators = sampled.whole.inputs[0, :, :1].expand(queries.shape) - task.p
    return {"planted": torch.eye(task.p * task.m)[operators * task.p + queries]}


def test_a_planted_value_is_found_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """op1(x) and operator 1 follow from what is planted; operator 2 is independent of it."""
    arm = load_arm(trained(tmp_path, [1, 2], task=RevProg(p=4, m=5, k=2, queries=6), eval_sequences=600))
    split = split_of(arm.first, None)
    monkeypatch.setattr(probing, "places", planted)
    table, classes = probe_arm(arm, split)
    assert classes == {"operator 1": 5, "operator 2": 5, "op1(x)": 4, "answer": 4}
    for feature in ("operator 1", "op1(x)"):
        for found in table[feature]["planted"].values():
            assert float(found.accuracy.mean()) == 1 and float(found.nll.mean()) < 0.2
            assert float(found.shuffled_accuracy.mean()) < 0.75
    found, nothing = (table["operator 2"][place][1] for place in ("planted", NOTHING))
    assert float(found.accuracy.mean()) < 0.3, "a fold has fewer of what the others have more of"
    assert float(found.nll.mean()) > float(nothing.nll.mean()) > math.log(5)
    nothing = table["op1(x)"][NOTHING][1]
    assert float(nothing.accuracy.mean()) < 0.4 and float(nothing.nll.mean()) > 1.3
    again, _ = probe_arm(arm, split_of(arm.first, None))
    for x, y in zip(table["op1(x)"]["planted"][2], again["op1(x)"]["planted"][2], strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("changes", [{}, {"think_at": "hard", "hard_quantile": 0.5}])
def test_features_stand_at_the_positions_that_think(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    def next_token(run: LoadedRun, sampled: Sampled) -> dict[str, Tensor]:
        return {"planted": torch.eye(run.config.task.vocab_size)[sampled.batch.targets[0]]}

    (folder,) = trained(tmp_path, [1], task=corpus(tmp_path), seq_len=12, eval_sequences=60, **changes)
    arm = load_arm([folder])
    split = split_of(arm.first, None)
    monkeypatch.setattr(probing, "places", next_token)
    table, _ = probe_arm(arm, split, ["vowel", "space"])
    assert list(table) == ["vowel", "space"]
    for feature in table:
        assert float(table[feature]["planted"][1].accuracy.mean()) > 0.97


def test_sequences_of_one_group_are_in_one_fold(tmp_path: Path) -> None:
    """A probe that knows every program by name knows nothing of those that it was not fitted on."""
    (folder,) = trained(tmp_path, [1], eval_sequences=600)
    run = load_arm([folder]).first
    split = split_of(run, 500)
    assert len(split.inputs) == 500 and split.fold.bincount().tolist() == [9, 9, 9]
    programs = [tuple(x[:3]) for x in split.inputs.tolist()]
    assert len(set(programs)) == 27 == len(set(zip(programs, split.number.tolist(), strict=True)))
    labels = torch.randint(2, (27,), generator=torch.Generator().manual_seed(0))
    feature = Feature(labels[split.number].unsqueeze(-1), 2)
    names = torch.eye(27)[split.number].unsqueeze(1)
    found = find(names, feature, split, "label")
    assert float(found.accuracy.mean()) < 0.75
    assert len(found.accuracy) == 27, "each is scored once"


def test_contexts_that_were_fitted_on_are_counted(tmp_path: Path) -> None:
    """After one of six elements every context is in all folds; after the last, none is in two."""
    (folder,) = trained(tmp_path, [1], eval_sequences=200)
    assert split_of(load_arm([folder]).first, None).seen() == 0, "programs are apart"
    for asked, shares in {"end": (0.0, 0.0), "every": (1 / 3, 0.7)}.items():
        task = S5(group="s3", positions=3, asked=asked)
        (folder,) = trained(tmp_path / asked, [1], task=task, eval_sequences=100)
        split = split_of(load_arm([folder]).first, None)
        fold = split.fold[split.number].tolist()
        rows = [
            (f, tuple(x[: t + 1]))
            for f, x in zip(fold, split.inputs.tolist(), strict=True)
            for t in (0, 1, 2)
        ]
        twins = [any(g != f and y == x for g, y in rows) for f, x in rows]
        wanted = sum(twins) / len(twins) if asked == "every" else 0.0
        assert split.seen() == pytest.approx(wanted) and shares[0] <= wanted <= shares[1]


def folds_of(count: int) -> Split:
    """Return a split of so many sequences, each a group."""
    order = torch.arange(count)
    return Split(order.unsqueeze(-1), torch.ones(count, 1, dtype=torch.bool), order, order % probing.FOLDS)


def test_positions_without_a_value_do_not_count() -> None:
    values = torch.stack([torch.arange(40) % 2, torch.full((40,), -1)], 1)
    x = torch.stack([values[:, :1], torch.randn(40, 1)], 1).float()
    found = find(x, Feature(values, 2), folds_of(40), "parity")
    assert bool((found.accuracy == 1).all()) and len(found.accuracy) == 40


def test_an_interval_of_one_run_is_that_over_its_groups() -> None:
    torch.manual_seed(0)
    split = folds_of(60)
    values = torch.randint(-1, 3, (60, 4))
    x = torch.randn(60, 4, 5)
    found = find(x, Feature(values, 3), split, "any")
    hits, nll = torch.zeros(2, 60, 4, dtype=torch.float64)
    fold = split.fold[(values >= 0).nonzero()[:, 0]]
    for each in range(probing.FOLDS):
        ridge = int((fold != each).sum()) / 40  # rows of a group, of which each has some
        scores = probing.probe(x[values >= 0], values[values >= 0], 3, fold != each, ridge)
        at = (values >= 0) & (split.fold == each).unsqueeze(-1)
        hits[at], nll[at] = scores.hits, scores.nll
    weights = (values >= 0).double()
    for got, wanted in ((found.accuracy, hits), (found.nll, nll)):
        assert over({1: got}) == pytest.approx(mean_interval({1: (wanted, weights)}, torch.arange(60)))


def test_differences_are_paired() -> None:
    one, two = torch.tensor([1.0, 3.0, 2.0]), torch.tensor([0.5, 2.7, 1.2])
    tables = [{1: Found(x, x, x, x)} for x in (one, two)]
    mean, half, count = difference(*tables)
    spread = (one - two).double().std()
    assert (mean, count) == (pytest.approx(1.6 / 3), 3)
    assert half == pytest.approx(float(stdtrit(2, 0.975) * spread / 3**0.5), abs=1e-6)
    more, less = tables[0] | {2: tables[1][1]}, {2: tables[0][1], 3: tables[0][1], 1: tables[1][1]}
    mean, _, count = difference(more, less)
    assert (mean, count) == (pytest.approx(0.0, abs=1e-6), 2), "over the seeds that both have"


def test_refusals(tmp_path: Path) -> None:
    (folder,) = trained(tmp_path, [1], task=Iterate(), eval_sequences=200)
    said = r"18 different sequences among 200 .* need 20; give runs of a larger task\.n or task\.k"
    with pytest.raises(Refusal, match=said):
        split_of(load_arm([folder]).first, None)
    (folder,) = trained(tmp_path, [1])
    arm = load_arm([folder])
    with pytest.raises(Refusal, match=r"different programs among 19 .*; give more --sequences"):
        split_of(arm.first, 19)
    arm = load_arm(trained(tmp_path, [1], eval_sequences=200))
    split = split_of(arm.first, None)
    with pytest.raises(Refusal, match=r"--features op: its task has no such feature; it has operator 1, "):
        probe_arm(arm, split, ["answer", "op"])
    for parameter in arm.first.model.parameters():
        parameter.data.fill_(math.nan)
    with pytest.raises(
        Refusal, match=r"its base state is no finite number; leave out the runs that diverged"
    ):
        probe_arm(arm, split)


def test_a_feature_that_one_fold_lacks_is_left_out(tmp_path: Path) -> None:
    (folder,) = trained(tmp_path, [1], task=S5(group="s3", positions=4, asked="end"), eval_sequences=80)
    arm = load_arm([folder])
    split = split_of(arm.first, None)
    assert list(probe_arm(arm, split)[1]) == ["product of 1", "product of 2", "product of 3", "answer"]
    none = split._replace(fold=split.fold % 2)
    assert probe_arm(arm, none) == ({}, {})


def test_as_many_sequences_as_have_so_many_positions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "ROWS", 390)
    for changes, count in (({}, 98), ({"think_at": "hard", "hard_quantile": 0.5}, 130)):
        (folder,) = trained(tmp_path, [1], **changes, eval_sequences=130)
        assert len(split_of(load_arm([folder]).first, None).inputs) == count
