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
from toyqs.answers.load import LoadedRun
from toyqs.answers.thoughts import probing
from toyqs.answers.thoughts.arm import Sampled, load_arm, mean_interval
from toyqs.answers.thoughts.probing import NOTHING, Found, Split, difference, find, over, probe_arm, split_of
from toyqs.config.errors import Refusal
from toyqs.tasks.iterate import Iterate
from toyqs.tasks.rev_prog import RevProg
from toyqs.tasks.s5 import S5
from toyqs.tasks.task import Feature

SMALL = RevProg(p=4, m=2, k=2, queries=3)  # 64 held-out sequences


def planted(run: LoadedRun, sampled: Sampled) -> dict[str, Tensor]:
    """One-hot rows of the operator read first and the symbol asked about, at each thinking position."""
    queries, task = sampled.batch.inputs[0], run.config.task
    operators = sampled.whole.inputs[0, :, :1].expand(queries.shape) - task.p
    return {"planted": torch.eye(task.p * task.m)[operators * task.p + queries]}


def test_a_planted_value_is_found_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """op1(x) and operator 1 follow from what is planted; operator 2 is independent of it."""
    arm = load_arm(trained(tmp_path, [1, 2], task=RevProg(p=4, m=2, k=2, queries=6), eval_sequences=600))
    split = split_of(arm.first, None)
    monkeypatch.setattr(probing, "places", planted)
    table, classes = probe_arm(arm, split)
    assert classes == {"operator 1": 2, "operator 2": 2, "op1(x)": 4, "answer": 4}
    for feature in ("operator 1", "op1(x)"):
        for found in table[feature]["planted"].values():
            assert float(found.accuracy.mean()) == 1 and float(found.nll.mean()) < 0.1
            assert float(found.shuffled_accuracy.mean()) < 0.75
    found = table["operator 2"]["planted"][1]
    error = float(found.accuracy.std()) / len(found.accuracy) ** 0.5
    assert abs(float(found.accuracy.mean()) - 0.5) < 3 * error
    assert float(found.nll.mean()) == pytest.approx(math.log(2), abs=0.05)
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


def test_equal_sequences_are_in_one_part(tmp_path: Path) -> None:
    """A probe that knows every sequence by name knows nothing of those that it was not fitted on."""
    (folder,) = trained(tmp_path, [1], task=SMALL, eval_sequences=600)
    run = load_arm([folder]).first
    split = split_of(run, 500)
    assert (
        len(split.inputs) == 500 and len(split.fitted) < 100 and abs(split.counts[0] - split.counts[1]) <= 1
    )
    for row, number in enumerate(split.number.tolist()):
        assert torch.equal(split.inputs[split.number.tolist().index(number)], split.inputs[row])
    assert len({tuple(x) for x in split.inputs.tolist()}) == len(split.fitted) == int(split.number.max()) + 1
    labels = torch.randint(2, (len(split.fitted),), generator=torch.Generator().manual_seed(0))
    feature = Feature(labels[split.number].unsqueeze(-1), 2)
    names = torch.eye(len(split.fitted))[split.number].unsqueeze(1)
    found = find(names, feature, split, "label")
    assert float(found.accuracy.mean()) < 0.75
    assert len(found.accuracy) == split.counts[1]


def test_positions_without_a_value_do_not_count() -> None:
    split = Split(torch.arange(40).unsqueeze(-1), torch.arange(40), torch.arange(40) < 20)
    values = torch.stack([torch.arange(40) % 2, torch.full((40,), -1)], 1)
    x = torch.stack([values[:, :1], torch.randn(40, 1)], 1).float()
    found = find(x, Feature(values, 2), split, "parity")
    assert bool((found.accuracy == 1).all()) and len(found.accuracy) == 20


def test_an_interval_of_one_run_is_that_over_its_sequences() -> None:
    torch.manual_seed(0)
    split = Split(torch.arange(60).unsqueeze(-1), torch.arange(60), torch.arange(60) < 30)
    values = torch.randint(-1, 3, (60, 4))
    x = torch.randn(60, 4, 5)
    found = find(x, Feature(values, 3), split, "any")
    hits = torch.zeros(60, 4, dtype=torch.float64)
    at = (values >= 0) & (torch.arange(60) >= 30).unsqueeze(-1)
    rows = (values >= 0).nonzero()
    scores = probing.probe(x[values >= 0], values[values >= 0], 3, rows[:, 0] < 30)
    hits[at] = scores.hits
    wanted = mean_interval({1: (hits[30:], at[30:].double())}, torch.arange(30))
    assert over({1: found.accuracy}) == pytest.approx(wanted)
    assert float(found.nll.mean()) == pytest.approx(float(scores.nll.mean()))


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
    with pytest.raises(Refusal, match=r": 18 different sequences among 200 held-out ones are too few for"):
        split_of(load_arm([folder]).first, None)
    (folder,) = trained(tmp_path, [1])
    arm = load_arm([folder])
    with pytest.raises(Refusal, match="19 different sequences among 19"):
        split_of(arm.first, 19)
    split = split_of(arm.first, None)
    with pytest.raises(Refusal, match=r"--features op: its task has no such feature; it has operator 1, "):
        probe_arm(arm, split, ["answer", "op"])
    for parameter in arm.first.model.parameters():
        parameter.data.fill_(math.nan)
    with pytest.raises(
        Refusal, match=r"its base state is no finite number; leave out the runs that diverged"
    ):
        probe_arm(arm, split)


def test_a_feature_that_one_part_lacks_is_left_out(tmp_path: Path) -> None:
    (folder,) = trained(tmp_path, [1], task=S5(group="s3", positions=4, asked="end"), eval_sequences=80)
    arm = load_arm([folder])
    split = split_of(arm.first, None)
    assert list(probe_arm(arm, split)[1]) == ["product of 1", "product of 2", "product of 3", "answer"]
    none = split._replace(fitted=torch.zeros_like(split.fitted))
    assert probe_arm(arm, none) == ({}, {})


def test_as_many_sequences_as_have_so_many_positions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "ROWS", 90)
    for changes, count in (({}, 23), ({"think_at": "hard", "hard_quantile": 0.5}, 40)):
        (folder,) = trained(tmp_path, [1], **changes)
        assert len(split_of(load_arm([folder]).first, None).inputs) == count
