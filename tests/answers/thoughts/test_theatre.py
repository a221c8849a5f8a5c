"""Anti-theatre: each number against a plain loop, and verdicts of runs that were trained for it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr

from tests.answers import asked
from tests.answers.thoughts.plain import PATH, SEED, SIZE, Plain, untrained
from tests.answers.thoughts.runs import row, trained
from tests.run_folders import written
from toyqs.answers.__main__ import main
from toyqs.answers.thoughts import theatre
from toyqs.answers.thoughts.arm import load_arm, sample
from toyqs.answers.thoughts.continuation import direct_continuation, distances, edit_distances
from toyqs.tasks.rev_prog import RevProg

SEEDS = [0, 1, 2]
SHORT: dict[str, Any] = {
    **{"task": RevProg(p=4, m=2, k=2, queries=2), "max_steps": 150, "eval_every": 150, "dtype": "float32"},
    **{"reasoner_hidden_dim": 12, "eval_sequences": 300, "data_loader_batch_size": 48},
}


def test_rank_correlations_are_spearmans_of_positions() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randint(4, (2, 50, 5), generator=generator).double()
    a[0], b[1] = 1.0, 2.0  # no order at all
    a[2] = 3.0 + 1e-9 * torch.arange(5, dtype=torch.float64)  # equal up to rounding
    value, counts = theatre.rank_correlation(a, b)
    assert not counts[:3].any()
    for row_, x, y, counted in zip(value[3:], a[3:], b[3:], counts[3:], strict=True):
        equal = len(x.unique()) == 1 or len(y.unique()) == 1
        assert bool(counted) == (not equal)
        assert float(row_) == pytest.approx(0.0 if equal else spearmanr(x, y).statistic)


def test_edit_distances_against_the_recursion() -> None:
    @cache
    def plain(a: tuple[int, ...], b: tuple[int, ...]) -> int:
        if not a or not b:
            return len(a) + len(b)
        replaced = plain(a[:-1], b[:-1]) + (a[-1] != b[-1])
        return min(plain(a[:-1], b) + 1, plain(a, b[:-1]) + 1, replaced)

    a, b = torch.randint(3, (2, 60, 5), generator=torch.Generator().manual_seed(1))
    got = edit_distances(a, b)
    for n in range(6):
        wanted = [plain(tuple(x[:n]), tuple(y[:n])) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
        assert got[:, n].tolist() == wanted
    assert edit_distances(torch.tensor([[1, 2, 3]]), torch.tensor([[0, 1, 2]]))[0, 3] == 2, "a shift is two"


@pytest.mark.parametrize("backbone", ["gru", "gpt2"])
def test_direct_continuations_are_what_the_predictor_writes(tmp_path: Path, backbone: str) -> None:
    if backbone != "gru":
        pytest.importorskip("transformers")
    task = asked.corpus(tmp_path)
    settings = asked.config(task, thought_vocab=None, backbone=backbone, variable_len=True, seq_len=6)
    run = load_arm([written(tmp_path / "run", settings, asked.model(settings)[0])]).first
    (sampled,) = sample(run, SEED, SIZE)
    got = direct_continuation(run, sampled, 4)
    for b, t in ((0, 0), (2, 3), (4, 5)):
        before = sampled.whole.inputs[0, b, : t + 1]
        assert [got[b, t].tolist()] == run.predictor(thinking=False).generate(before, 4)
    assert len(got.flatten().unique()) > 2, "nothing to compare"


def test_thoughts_that_are_the_continuation_are_theatre(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = asked.config(asked.corpus(tmp_path), thought_vocab=None, seq_len=6, eval_sequences=20)
    arm = load_arm([written(tmp_path / "run", settings, asked.model(settings)[0])])
    own = theatre.distance(arm)
    assert (own.verdict, own.why) == ("passed", "")
    (sampled,) = sample(arm.first, SEED, SIZE)
    text = direct_continuation(arm.first, sampled, 2)
    thoughts = sampled.thoughts
    length = torch.tensor([0, 1, 2]).expand(thoughts.symbols.shape[:4])
    said = thoughts._replace(
        symbols=text[None, :, :, None].expand_as(thoughts.symbols).clone(), length=length
    )
    said.symbols[:, 0, 0, :, 0] = (said.symbols[:, 0, 0, :, 0] + 1) % settings.task.vocab_size
    near, far, counts = distances(arm.first, sampled._replace(thoughts=said))
    assert near[0, 0].tolist() == [0, 1, 0.5] and float(near.sum()) == 1.5
    assert counts[0, 0].tolist() == [False, True, True]
    assert torch.equal(far[1:, :, 2], edit_distances(text, text.roll(1, 0))[1:, :, 2] / 2)

    def spoken(*given: Any) -> Any:
        for each in sample(*given):
            text = direct_continuation(arm.first, each, 2)[None, :, :, None]
            symbols = text.expand_as(each.thoughts.symbols).clone()
            symbols[:, :, :, 0] = each.thoughts.symbols[:, :, :, 0]  # one of three thoughts is its own
            yield each._replace(thoughts=each.thoughts._replace(symbols=symbols))

    monkeypatch.setattr(theatre, "sample", spoken)
    found = theatre.distance(arm)
    assert found.verdict == "failed" and found.lines[0].found.lower > 0


@pytest.mark.parametrize(
    ("changes", "distance", "correlation"),
    [
        ({}, "thought_vocab=3: thoughts have symbols of their own", ""),
        ({"thoughts": "gumbel", **PATH}, "thought_vocab=3", "thoughts=gumbel have no density"),
        ({"thoughts": "gaussian"}, "thoughts=gaussian are vectors, no tokens", ""),
        ({"thought_vocab": None}, "task=rev_prog: what a position predicts is not what follows it", ""),
        ({"thought_vocab": None, "mixing": "thought"}, "the run has no prediction without a thought", ""),
        ({"trice_samples": 1, "baseline": "none"}, "thought_vocab=3", "trice_samples=1: there is no other"),
        ({"thought_vocab": 1}, "thought_vocab=1", "at no position do thoughts differ in both"),
    ],
    ids=str,
)
def test_what_is_not_defined(
    tmp_path: Path, changes: dict[str, Any], distance: str, correlation: str
) -> None:
    run = untrained(tmp_path, **changes)
    arm = load_arm([run.folder])
    for found, why in (
        (theatre.distance(arm, SIZE), distance),
        (theatre.correlation(arm, SIZE), correlation),
    ):
        assert found.why.startswith(why) and (found.verdict == "not defined") == bool(why)


@torch.no_grad()
def test_scores_and_use_of_positions_against_a_plain_loop(tmp_path: Path) -> None:
    run = untrained(tmp_path, trice_samples=4, variable_len=True)
    plain, values = Plain(run), []
    for b in range(SIZE):
        for t in range(plain.positions):
            thoughts = [plain.own[b, t, k] for k in range(4)]
            score = [float(plain.predicted(b, t, x).log_prob.sum()) for x in thoughts]
            use = [-plain.nll(b, t, x) for x in thoughts]
            if len({round(x, 6) for x in score}) > 1 and len({round(x, 6) for x in use}) > 1:
                values.append(spearmanr(score, use).statistic)
    (line,) = theatre.correlation(load_arm([run.folder]), SIZE).lines
    assert line.found.mean == pytest.approx(sum(values) / len(values), abs=1e-6)
    assert f"over {len(values)} positions" in line.words


def test_never_rewarded_thoughts_fail_and_back_propagated_ones_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    zero = trained(tmp_path, SEEDS, **SHORT, max_reasoning_len=0)
    off = trained(tmp_path, SEEDS, **SHORT, policy_loss_beta=0.0)
    coconut = trained(tmp_path, SEEDS, **SHORT, thoughts="deterministic", **PATH)
    assert main(["theatre", *off, "--against", *zero, "--strict", "-o", str(out)]) == 1
    found, printed = json.loads(out.read_text())["tests"], capsys.readouterr().out
    name = "ablation, against the control's runs"
    assert found[name]["verdict"] == "failed" and f"2. {name}: failed\n" in printed
    gain = [row(x)["nll"] - row(y)["nll"] for x, y in zip(zero, off, strict=True)]
    measured = found[name]["measured"]["NLL of the control, nats, higher by"]
    assert measured["mean"] == pytest.approx(sum(gain) / 3, abs=1e-6) and measured["count"] == 3
    hits = [row(y)["accuracy"] - row(x)["accuracy"] for x, y in zip(zero, off, strict=True)]
    measured = found[name]["measured"]["accuracy of the control, points, lower by"]
    assert measured["mean"] == pytest.approx(100 * sum(hits) / 3, abs=1e-4)
    assert main(["theatre", *off, "--against", *zero]) == 0, "not strict"
    assert main(["theatre", *coconut, "--against", *zero, "--strict", "-o", str(out)]) == 0
    found = json.loads(out.read_text())["tests"]
    assert [x["verdict"] for x in found.values()] == ["not defined", "passed", "not defined"]
    for one in off:
        assert main(["theatre", one, "--against", *zero, "--strict"]) == 1, "one run alone"
    against_thoughts = theatre.ablation(load_arm(off), load_arm(coconut))
    assert [line.passes for line in against_thoughts.lines] == [False, False, False]
    against_itself = theatre.ablation(load_arm(coconut), load_arm(coconut))
    assert [line.passes for line in against_itself.lines] == [False, False, True]
    assert against_itself.verdict == "failed"


def test_controls_of_another_task_or_seed_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,) = trained(tmp_path, [1])
    (seed,) = trained(tmp_path, [2], max_reasoning_len=0)
    (task,) = trained(tmp_path, [1], max_reasoning_len=0, task=RevProg(p=5))
    (short,) = trained(tmp_path, [1], max_reasoning_len=0, max_steps=4)
    (rate,) = trained(tmp_path, [1], max_reasoning_len=0, base_lr=0.001)
    (batch,) = trained(tmp_path, [1], max_reasoning_len=0, data_loader_batch_size=4)
    (thinks,) = trained(tmp_path, [1], thought_vocab=2, max_steps=9)
    for words, message in [
        ([run, "--against", seed], "--against: no run has seed 1; give the control's runs of the same seeds"),
        ([run, "--against", task], "has task.p=5, and"),
        ([run, "--against", short], "was trained with max_steps=4, and"),
        ([run, "--against", thinks], "was trained with max_steps=9, and"),
        ([run, "--against", rate], "was trained with base_lr=0.001, and"),
        ([run, "--against", batch], "was trained with data_loader_batch_size=4, and"),
        ([seed, "--against", seed], "this run has no thoughts; give one that thinks"),
        ([run], "the following arguments are required: --against"),
    ]:
        assert main(["theatre", *words]) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1


def test_a_control_with_more_steps_and_no_thoughts_is_taken_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,), (more,) = trained(tmp_path, [1]), trained(tmp_path, [1], use_reasoner=False, max_steps=9)
    assert main(["theatre", run, "--against", more]) == 0
    out = capsys.readouterr().out
    assert "use_reasoner=false (here true)" in out and "max_steps=9 (here 6)" in out


def test_other_positions_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = trained(tmp_path, [1])
    (more,) = trained(tmp_path, [1], max_reasoning_len=0, eval_sequences=50)
    found = theatre.ablation(load_arm([run]), load_arm([more]))
    assert found.verdict == "failed" and found.lines[0].found.count == 40, "the run's own number"
    (hard,) = trained(tmp_path, [1], think_at="hard", trice_samples=1, baseline="none")  # no test is defined
    found = theatre.ablation(load_arm([hard]), load_arm([run]))
    assert found.why == "run and control do not think at the same positions"
    assert main(["theatre", hard, "--against", run]) == 0
    capsys.readouterr()
    assert main(["theatre", hard, "--against", run, "--strict"]) == 1
    assert "--strict: the ablation is not defined, so that nothing was tested" in capsys.readouterr().out
