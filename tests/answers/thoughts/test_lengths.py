"""Finished runs with fewer and with more symbols of thought than they were trained with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.answers.thoughts.runs import row, trained
from toyqs.answers.__main__ import main
from toyqs.answers.thoughts.arm import equal_sequences, load_arm, log_likelihood, mean_interval, sample
from toyqs.answers.thoughts.lengths import at_lengths, check_length, mean_of, of_length, upto
from toyqs.config.builders.model import assemble
from toyqs.config.errors import Refusal
from toyqs.rng import stream, thought_noise
from toyqs.tasks.iterate import Iterate

PATH = {"objective": "pathwise"}
CASES: dict[str, dict[str, Any]] = {
    "token": {},
    "float32": {"dtype": "float32"},
    "onward": {"interpreter_start": "onward"},
    "random": {"length_schedule": "random"},
    "falling": {"length_schedule": "long_to_short"},
    "ends": {"variable_len": True, "interpreter_start": "onward"},
    "given ends": {"adaptive_len": True, "task": Iterate()},
    "gaussian": {"thoughts": "gaussian"},
    "state": {"thoughts": "state"},
    "symbols alone": {"thoughts": "gaussian", "use_base_lm": False},
    "gumbel": {"thoughts": "gumbel", **PATH},
    "deterministic": {"thoughts": "deterministic", **PATH},
    "two tokens": {"n_tokens_ahead": 2},
    "hard": {"think_at": "hard"},
    "gpt2": {"backbone": "gpt2", "model_hidden_dim": 4, "positions_up_to": 30},
    "llama": {"backbone": "llama", "model_hidden_dim": 4, "interpreter_start": "onward"},
    "state handed on": {"max_reasoning_len": 0, "interpreter_start": "onward"},
    "zero length": {"max_reasoning_len": 0},
}


@pytest.fixture(scope="module")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Train a run of a case, for all tests of it; return its folder."""
    if request.param in ("gpt2", "llama"):
        pytest.importorskip("transformers")
    return trained(tmp_path_factory.mktemp("case"), [4], **CASES[request.param])[0]


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_at_the_length_of_the_row_the_row_is_found(case: str) -> None:
    run = load_arm([case]).first
    length = run.sizes.length
    most = 2 * length
    check_length(run, most)
    found = at_lengths(run, 4, range(most + 1))
    for name in ("nll", "accuracy"):
        values = {n: mean_of(getattr(x, name), x.weights) for n, x in found.items()}
        assert values[length] == pytest.approx(row(case)[name], abs=1e-12)
    assert all(bool(x.nll.isfinite().all()) for x in found.values())
    assert torch.equal(at_lengths(run, 4, [length])[length].nll, found[length].nll), (
        "whatever else is measured"
    )


@pytest.mark.parametrize("case", sorted(set(CASES) - {"state handed on", "zero length"}), indirect=True)
def test_fewer_symbols_are_the_first_of_the_own_thought(case: str) -> None:
    run = load_arm([case]).first
    for part in sample(run, 4, 12):
        for length in range(run.sizes.length + 1):
            noise = part.noise[:, :, :, :, :length].contiguous()
            cut = run.model.think(part.context, noise, None, part.batch.lengths)
            found, wanted = (
                run.model.talk(part.context, x).logits for x in (of_length(run, part, length), cut)
            )
            torch.testing.assert_close(
                found, wanted, rtol=0, atol=1e-12 if run.config.dtype == "float64" else 1e-6
            )


@pytest.mark.parametrize(
    "case", ["token", "onward", "ends", "gaussian", "deterministic", "llama"], indirect=True
)
def test_more_symbols_are_those_of_a_run_with_longer_thoughts(case: str) -> None:
    """Compare with a model that has these weights and was built for thoughts twice as long."""
    run = load_arm([case]).first
    longer = assemble(replace(run.config, max_reasoning_len=6), 1)
    weights = dict(run.model.named_parameters())
    for name, parameter in longer.named_parameters():
        parameter.data = weights[name].data
    streams = [stream(4, f"evaluation noise/symbol {number}") for number in (4, 5, 6)]
    values = []
    for part in sample(run, 4, 12):
        one = run.sizes._replace(length=1)
        further = torch.cat([thought_noise([x], part.whole.think, one).to(part.noise) for x in streams], 4)
        thoughts = of_length(run, part, 6, further)
        assert torch.equal(thoughts.symbols[:, :, :, :, :3], part.thoughts.symbols)
        wanted = longer.think(part.context, torch.cat([part.noise, further], 4))
        assert torch.equal(thoughts.symbols, wanted.symbols)
        values.append(-log_likelihood(run._replace(model=longer), part, wanted).mean(-1))
    assert torch.equal(at_lengths(run, 4, [6], 12)[6].nll, torch.cat(values))


def test_a_length_does_not_depend_on_the_longest_one_in_several_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = trained(tmp_path, [4])
    monkeypatch.setattr("toyqs.config.builders.training.THOUGHTS", 64)
    run = load_arm([folder]).first
    assert len(list(sample(run, 4, 20))) == 5, "chunks"
    short, long = (at_lengths(run, 4, range(most + 1), 20) for most in (4, 6))
    assert all(torch.equal(short[length].nll, long[length].nll) for length in short)
    assert not torch.equal(long[4].nll, long[3].nll)


def test_nothing_is_starred_where_no_row_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder,) = trained(tmp_path, [4])
    for word, starred in (("0", False), ("3", True)):
        assert main(["lengths", folder, "--upto", word]) == 0
        assert ("*: as the run was measured; " in capsys.readouterr().out) == starred


def test_what_no_thought_can_be(tmp_path: Path) -> None:
    def run_of(name: str, **changes: Any) -> Any:
        return load_arm(trained(tmp_path / name, [1], **changes)).first

    with pytest.raises(Refusal, match="this run has no thoughts; give one that thinks"):
        check_length(run_of("plain", use_reasoner=False), 1)
    empty = run_of("empty", max_reasoning_len=0)
    check_length(empty, 0)
    with pytest.raises(Refusal, match="was trained without symbols for thoughts of 1 symbols; give --upto 0"):
        check_length(empty, 1)
    one = {"max_reasoning_len": 1}
    single = run_of("one", **one)
    check_length(single, 1)
    with pytest.raises(Refusal, match=r"with one symbol, .* give --upto 1"):
        check_length(single, 2)
    for name, changes in {
        "onward": {"interpreter_start": "onward"},
        "shared": {"weight_groups": list("ABCC")},
        "fed back": {"thoughts": "deterministic", **PATH},
        "state": {"thoughts": "state"},
    }.items():
        run = run_of(name, **one, **changes)
        check_length(run, 50)
        assert bool(at_lengths(run, 1, [4], 6)[4].nll.isfinite().all())


def test_a_table_of_positions_ends(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    gpt2 = {"backbone": "gpt2", "model_hidden_dim": 4}
    run = load_arm(trained(tmp_path, [1], **gpt2)).first
    check_length(run, 3)
    said = r"has 13 positions, and 14 are needed for thoughts of 4 .*; give --upto 3, or .*positions_up_to=14"
    with pytest.raises(Refusal, match=said):
        check_length(run, 4)
    wide = load_arm(trained(tmp_path, [1], **gpt2, positions_up_to=16)).first
    check_length(wide, 6)
    assert bool(at_lengths(wide, 1, [6], 6)[6].nll.isfinite().all())
    with pytest.raises(Refusal, match="give --upto 6, or"):
        check_length(wide, 7)


def test_computed_positions_do_not_end_but_those_of_a_checkpoint_do(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    run = load_arm(trained(tmp_path, [1], backbone="llama", model_hidden_dim=4)).first
    check_length(run, 50)
    checkpoint = run._replace(config=replace(run.config, pretrained="a checkpoint"))
    check_length(checkpoint, 3)
    with pytest.raises(
        Refusal, match=r"has 13 positions, and 14 are needed for thoughts of 4 symbols; give --upto 3$"
    ):
        check_length(checkpoint, 4)


@pytest.mark.parametrize("seeds", [[4], [2, 4, 5]])
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], seeds: list[int]) -> None:
    folders, out = trained(tmp_path, seeds), tmp_path / "out.json"
    assert main(["lengths", *folders, "--sequences", "20", "-o", str(out), "--threads", "1"]) == 0
    said, written = capsys.readouterr().out, json.loads(out.read_text())
    found = {seed: at_lengths(run, seed, range(7), 20) for seed, run in load_arm(folders).runs.items()}
    assert [x["length"] for x in written["lengths"]] == list(range(7))
    for length, part in enumerate(written["lengths"]):
        for name in ("nll", "accuracy"):
            each = {seed: (getattr(x[length], name), x[length].weights) for seed, x in found.items()}
            mean, half_width, count = mean_interval(each, equal_sequences(load_arm(folders).first, 20))
            assert part[name] == {"mean": mean, "half_width": half_width, "count": count}
        assert list(part["nll_by_seed"]) == [str(seed) for seed in seeds]
        assert f"{part['nll']['mean']:.3f} ± " in said
    assert written["sequences"] == 20 and written["trained_with"] == 3 and written["seeds"] == seeds
    assert written["runs"] == [Path(folder).name for folder in folders], "the report finds their cell by them"
    over = "sequences" if len(seeds) == 1 else "seeds"
    assert written["intervals_over"] == over
    assert ("one run, so it says nothing about other seeds" in said) == (over == "sequences")
    lines = said.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("symbols"))
    assert lines[start + 4].split()[:2] == ["3", "*"] and sum("*" in line for line in lines) == 2


@pytest.mark.parametrize(
    ("word", "length", "wanted"), [("2L", 3, 6), ("7", 3, 7), ("0", 3, 0), ("1.5L", 3, 4), ("0.5L", 6, 3)]
)
def test_a_number_or_a_multiple(word: str, length: int, wanted: int) -> None:
    assert upto(word).of(length) == wanted


@pytest.mark.parametrize("word", ["-1", "L", "2l", "1.5", "x", "2LL", ""])
def test_no_length(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lengths", "runs/none", f"--upto={word}"]) == 2
    assert f"argument --upto: {word} is no length; give a number of symbols, or 2L" in capsys.readouterr().err
