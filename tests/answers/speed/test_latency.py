"""`latency`: the ordinary prediction, its parts timed, and what the command says of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.answers import asked
from tests.answers.test_predictor import MODELS, NEEDS, predictor, tokens, whole
from tests.answers.thoughts.runs import trained
from tests.run_folders import written
from toyqs.answers.__main__ import main
from toyqs.answers.loaded import memory
from toyqs.answers.speed import timing
from toyqs.answers.speed.timing import Prediction, predict, summary
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.rng import stream


@pytest.fixture
def run(tmp_path: Path) -> str:
    settings = asked.config(asked.corpus(tmp_path))
    return written(tmp_path / "runs" / "a", settings, asked.model(settings)[0])


@pytest.mark.parametrize(("backbone", "kind"), MODELS)
def test_it_is_the_prediction_after_reading_everything_anew(backbone: str, kind: str, tmp_path: Path) -> None:
    """Twice from one memory: the prediction leaves the memory of the context as it was."""
    of, sequence = predictor(backbone, kind, tmp_path), tokens(8)
    cache = memory.read(of.model, sequence[:-1].view(1, 1, -1))
    noise = stream(0, "answers/thoughts")
    for _ in range(2):
        found = predict(of, cache, sequence[-1:].view(1, 1))
        wanted = whole(of, sequence, noise)
        torch.testing.assert_close(
            found.log_probs, wanted, rtol=0, atol=1e-5 if backbone == "llama" else 1e-11
        )
    thinks = ["thoughts", "reading"] if of.thinking else []
    assert set(found.seconds) == {"context", "head", *thinks} and min(found.seconds.values()) >= 0
    assert of.model.interpreter is None or not of.model.interpreter._forward_hooks


def test_each_part_is_timed_as_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of, now = predictor("gru", "apart", tmp_path), [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing.time, "process_time", lambda: 2 * now[0])

    def slow(owner: Any, name: str, seconds: float) -> None:
        before = getattr(owner, name)

        def slower(*args: Any, **kwargs: Any) -> Any:
            now[0] += seconds
            return before(*args, **kwargs)

        monkeypatch.setattr(owner, name, slower)

    slow(memory, "extend", 2.0)
    slow(of.model, "think", 3.0)
    slow(of.model, "_mixer_inputs", 4.0)  # before the interpreter
    slow(of.model.interpreter, "forward", 5.0)
    slow(of.model.mixer, "predict", 7.0)
    cache = memory.read(of.model, tokens(4).view(1, 1, -1))
    now[0] += 100.0
    found = predict(of, cache, tokens(1).view(1, 1))
    assert found.seconds == {"context": 2.0, "thoughts": 3.0, "reading": 5.0, "head": 11.0}
    assert found.cpu == 42.0


def test_the_context_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each core that reads consumes the one new token; nothing reads a sequence."""
    of = predictor("gru", "apart", tmp_path)
    cache = memory.read(of.model, tokens(4).view(1, 1, -1))
    monkeypatch.setattr(LatentReasoner, "read", None)
    for letter in ("A", "B"):  # base_lm, base_reasoner
        monkeypatch.setattr(of.model.cores[letter].backbone, "read", None)
    assert predict(of, cache, tokens(1).view(1, 1)).log_probs.exp().sum() == pytest.approx(1.0)


def test_a_summary_in_milliseconds() -> None:
    nothing = torch.zeros(1)
    seconds = [(0.1, 0.3), (0.2, 0.3), (0.6, 0.5), (0.1, 0.9)]
    parts = [{"head": head, "context": context} for context, head in seconds]
    found = summary([Prediction(nothing, x, cpu) for x, cpu in zip(parts, (1, 4, 2, 9), strict=True)])
    low, middle, high = np.percentile([400.0, 500.0, 1100.0, 1000.0], [25, 50, 75])
    assert (found.median, *found.quartiles) == pytest.approx((middle, low, high))
    assert found.cpu == pytest.approx(3000.0)
    assert [*found.parts] == ["context", "head"]
    assert [*found.parts.values()] == pytest.approx([150.0, 400.0])
    assert [*found.shares.values()] == pytest.approx([1 / 3, 2 / 3])
    assert summary([Prediction(nothing, {"head": 0.5}, 1.0)]).quartiles == (500.0, 500.0)


def test_what_is_printed(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.json"
    words = ["latency", run, "--tokens", "3", "--context", "9", "--threads", "1", "-o", str(out)]
    assert main([*words, "--thoughts", "5"]) == 0
    printed = capsys.readouterr().out
    said = "9 + 1 tokens, of which the last one is read anew, 5 thoughts of 2 symbols; 3 times, on 1 thread"
    assert said in " ".join(printed.split())
    assert (
        len(re.findall(r"^with(?:out)? thoughts( +[\d.]+){2} to ([\d.]+ *){2}$", printed, re.MULTILINE)) == 2
    )
    assert re.findall(r"^(\w+) +[\d.]+ +\d+ %", printed, re.MULTILINE) == [*timing.PARTS]
    assert re.search(r"^Before that, once: 9 tokens read in [\d.]+ ms$", printed, re.MULTILINE)
    found = json.loads(out.read_text())
    assert found["context"] == 9 and found["met"] is None
    assert sum(found["with thoughts"]["shares"].values()) == pytest.approx(1.0)
    assert [*found["without thoughts"]["parts"]] == ["context", "head"]


def test_a_target_that_is_missed_is_an_exit_code(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    for target, code, said in (("1e9", 0, "Target 1e+09 ms: met"), ("1e-9", 1, "Target 1e-09 ms: missed")):
        assert main(["latency", run, "--tokens", "1", "--target", target]) == code
        assert said in capsys.readouterr().out
    assert main(["latency", run, "--target", "0"]) == 2
    assert "0 is out of range; give a number above 0" in capsys.readouterr().err


def test_any_finished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own,), (plain,) = trained(tmp_path, [5]), trained(tmp_path, [5], use_reasoner=False)
    assert main(["latency", own, "--tokens", "1"]) == 0
    assert "128 + 1 tokens" in capsys.readouterr().out
    assert main(["latency", plain, "--tokens", "1", "--target", "1e9"]) == 0
    printed = capsys.readouterr().out
    assert "\nwith thoughts" not in printed and "without thoughts, by part" in printed and "met" in printed


@NEEDS
def test_what_a_transformer_has_no_room_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = asked.config(asked.corpus(tmp_path), backbone="gpt2")
    run = written(tmp_path / "gpt2", settings, asked.model(settings)[0])
    assert main(["latency", run, "--tokens", "1"]) == 0
    assert "after a context of 24 + 1 tokens" in capsys.readouterr().out
    assert main(["latency", run, "--tokens", "1", "--context", "25"]) == 2
    err = capsys.readouterr().err
    assert "has room for 24 tokens before the one that follows them; give fewer" in err
    assert err.count("\n") == 1
