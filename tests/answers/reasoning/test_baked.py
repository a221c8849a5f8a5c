"""Whether patterns are baked in: what is asked, what is counted, the verdict and the exit code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.answers import asked as sums
from tests.run_folders import written
from toyqs.answers.__main__ import main
from toyqs.answers.loaded.load import load
from toyqs.answers.loaded.predictor import Predictor
from toyqs.answers.reasoning import asked, baked
from toyqs.answers.reasoning.asked import KINDS, held_out_problems
from toyqs.config.errors import Refusal
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.tasks.reasoning.corpus import Text, corpus, is_held_out
from toyqs.tasks.reasoning.reasoning import Reasoning


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write an untrained run on reasoning texts."""
    config = RunConfig(
        task=Reasoning(texts=20, mixed=20), use_reasoner=False, base_lm_hidden_dim=4, max_steps=3
    )
    return written(tmp_path_factory.mktemp("runs") / "run", resolved(config))


def say(monkeypatch: pytest.MonkeyPatch, words: Any) -> None:
    """Let a run respond what `words` makes of each problem's place and text."""

    def responses(run: Any, problems: Sequence[Text], *_: Any) -> list[str]:
        return [words(place, problem) for place, problem in enumerate(problems)]

    monkeypatch.setattr(baked, "responses", responses)


def right(place: int, problem: Text) -> str:
    return problem.response


def test_the_right_responses_are_baked(
    run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    say(monkeypatch, right)
    assert main(["baked", run, "--problems", "10", "--strict", "-o", str(tmp_path / "x.json")]) == 0
    out = capsys.readouterr().out
    assert "right answer: 100.0 % (95.4-100.0 %), needs over 85 %: passed" in out
    assert out.endswith("Baked: every interval is above its threshold.\n") and "NOT" not in out
    lines = {line.split("  ")[0]: line.split() for line in out.splitlines()}
    assert " ".join(lines["self doubt"]).startswith("self doubt 10 of 10 10 of 10 10 of 10")
    assert " ".join(lines["all"]).startswith("all 80 of 80 80 of 80 80 of 80")
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["baked"] and len(found["responses"]) == 80
    assert found["shares"]["right answer"]["met"] == 80 and found["responses"][0]["fitting strategy"]


def other_strategy(place: int, problem: Text) -> str:
    """Think by a strategy that fits another problem, and answer right."""
    end = f" </think> answer {problem.answer}"
    own = problem.problems[0].strategy
    thought = (
        "<step> 1 plus 1 is 2 <step> 2 plus 1 is 3" if own != "chain_of_thought" else "<doubt> 1 plus 1 is 3"
    )
    return f"<think> {thought}{end}"


def no_thinking(place: int, problem: Text) -> str:
    return f"answer {problem.answer}"


def wrong_answer(place: int, problem: Text) -> str:
    return problem.response + " and 1" if place % 5 == 0 else problem.response


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (
            other_strategy,
            [
                "right answer: 100.0 % (95.4-100.0 %), needs over 85 %: passed",
                "thinking tokens: 100.0 % (95.4-100.0 %), needs over 80 %: passed",
                "fitting strategy: 0.0 % (0.0-4.6 %), needs over 60 %: NOT PASSED, below",
            ],
        ),
        (
            no_thinking,
            [
                "right answer: 0.0 % (0.0-4.6 %), needs over 85 %: NOT PASSED, below",
                "thinking tokens: 0.0 % (0.0-4.6 %), needs over 80 %: NOT PASSED, below",
                "fitting strategy: 0.0 % (0.0-4.6 %), needs over 60 %: NOT PASSED, below",
            ],
        ),
        (
            wrong_answer,
            [
                "right answer: 80.0 % (70.0-87.3 %), needs over 85 %: NOT PASSED, undecided",
                "thinking tokens: 100.0 % (95.4-100.0 %), needs over 80 %: passed",
                "fitting strategy: 100.0 % (95.4-100.0 %), needs over 60 %: passed",
            ],
        ),
    ],
)
def test_what_is_missing_has_a_line_and_with_strict_an_exit_code(
    words: Any,
    lines: list[str],
    run: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    say(monkeypatch, words)
    for strict, code in ((["--strict"], 1), ([], 0)):
        assert main(["baked", run, "--problems", "10", *strict]) == code
        out = capsys.readouterr().out.splitlines()
        assert out[-4:-1] == lines and out[-1] == "Not baked: see the lines above."


def test_an_interval_is_wilson_s() -> None:
    for met, total in ((0, 7), (5, 9), (80, 100), (320, 320)):
        p, z = met / total, 1.959963984540054
        middle, room = p + z * z / (2 * total), z * sqrt(p * (1 - p) / total + z * z / (4 * total * total))
        low, high = baked.Share(met, total).interval
        assert low == pytest.approx((middle - room) / (1 + z * z / total), abs=1e-9)
        assert high == pytest.approx((middle + room) / (1 + z * z / total), abs=1e-9)
    assert not baked.Share(86, 100).exceeds(0.85), "the share alone is not enough"
    assert baked.Share(95, 100).exceeds(0.85)


def test_problems_are_held_out_and_different(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = held_out_problems(12, 5)
    assert [x.kind for x in problems] == [kind for kind in KINDS for _ in range(12)]
    assert all(is_held_out(x) for text in problems for x in text.problems)
    assert len({x.prompt for x in problems}) == len(problems)
    assert held_out_problems(12, 5) == problems and held_out_problems(12, 6) != problems
    monkeypatch.setattr(asked, "KINDS", ("analogy",))
    with pytest.raises(
        Refusal, match=r"--problems 400: there are about \d+ held-out problems of analogy; give"
    ):
        held_out_problems(400, 0)


def test_a_run_reads_the_prompt_after_its_examples(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, read = load(run), list[str]()

    def generate(self: Predictor, before: torch.Tensor, most: int, **how: Any) -> list[list[int]]:
        assert most == 30 and how["temperature"] == 0.5 and tuple(how["ends"]) == loaded.text.ends
        assert how["texts"] == len(before)
        texts = [loaded.text.decode(row) for row in before.tolist()]
        read.extend(texts)
        return [loaded.text.encode(text).tolist()[-3:] for text in texts]

    monkeypatch.setattr(Predictor, "generate", generate)
    problems = held_out_problems(1, 0)
    wanted = [" ".join(x.prompt.split()[-3:]) for x in problems]
    assert asked.responses(loaded, problems, 30, 0.5) == wanted, "in the order of the problems"
    assert sorted(read) == sorted(x.prompt for x in problems)
    read.clear()
    asked.responses(loaded, problems, 30, 0.5, examples=2)
    trained = {f"{x.prompt} {x.response}": x.kind for x in corpus(50, 50, 0)}
    kinds = {x.prompt: x.kind for x in problems}
    for text in read:
        *shown, prompt = text.split(" <end> ")
        assert [trained[x] for x in shown] == [kinds.pop(prompt)] * 2
    assert not kinds


def test_problems_side_by_side_get_the_responses_that_they_get_alone(run: str) -> None:
    loaded, problems = load(run), held_out_problems(3, 0)
    together = asked.responses(loaded, problems, 12, 0.0)
    assert together == [asked.responses(loaded, [x], 12, 0.0)[0] for x in problems]
    assert len(set(together)) > 3


def test_a_model_s_room_bounds_a_response(run: str) -> None:
    predictor = load(run).predictor(thinking=False)
    assert asked._room(predictor, 58, 96) == 96
    predictor.longest = 88
    assert asked._room(predictor, 35, 96) == 53 and asked._room(predictor, 20, 50) == 50
    with pytest.raises(Refusal, match="a prompt has 88 tokens, and this model has room for 87; give a run"):
        asked._room(predictor, 88, 1)


def test_an_untrained_run_is_not_baked(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a stand-in: its own words, the same with the same seed."""
    outs = []
    for seed in ("0", "0", "1"):
        assert main(["baked", run, "--problems", "1", "--tokens", "6", "--seed", seed, "--strict"]) == 1
        outs.append(capsys.readouterr().out)
    assert outs[0] == outs[1] and outs[0].splitlines()[0].startswith(f"{run}, seed 3: reasoning texts=20")
    assert (
        "1 held-out problems of each kind; one response each, sampled at temperature 1, of 6 tokens"
        in outs[2]
    )


def test_a_run_that_cannot_read_the_problems_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = sums.config(sums.corpus(tmp_path))
    folder = written(tmp_path / "run", config, sums.model(config)[0])
    assert main(["baked", folder, "--problems", "1"]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and err.startswith("toyqs: ")
