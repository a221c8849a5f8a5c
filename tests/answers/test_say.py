"""The command `python -m toyqs.answers say`: a text as a run writes it, with its thoughts."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests import tiny
from tests.answers import asked, checkpoint
from tests.answers.test_predictor import KINDS
from tests.run_folders import written
from toyqs.answers import say
from toyqs.answers.__main__ import main
from toyqs.answers.loaded.load import load
from toyqs.answers.say import Said, coloured, in_words, latest, told
from toyqs.config.builders.model import build_model
from toyqs.config.run_config import RunConfig
from toyqs.evidence.cells import write_cell
from toyqs.files import write_json
from toyqs.rng import stream, thought_noise
from toyqs.tasks.group import S5
from toyqs.tasks.texts.char_text import CharText
from toyqs.types import Thoughts

LINE = re.compile(r"(?:Thinking… (.*) done thinking\. )?Generated token: '(.+)' \(p ([\d.]+)(.*)\)")
MORE: dict[str, dict[str, Any]] = {
    "letters": {"thought_vocab": 5},
    "numbers": {"thought_vocab": 30},
    "states": {"thoughts": "state", "interpreter_start": "onward", "entropy_encouragement_coef": 0.0},
    "deterministic": {"thoughts": "deterministic", "objective": "pathwise", "trice_samples": 1},
    "relaxed": {"thoughts": "gumbel", "objective": "pathwise", "entropy_encouragement_coef": 0.0},
}


def finished(folder: Path, name: str = "a", **changes: Any) -> str:
    settings = asked.config(asked.corpus(folder), **changes)
    return written(folder / "runs" / name, settings, asked.model(settings)[0])


@pytest.mark.parametrize("kind", [*KINDS, *MORE])
def test_what_is_shown_is_what_the_model_does(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compare tokens, probabilities and thoughts with the model on the whole text, read again each time."""
    folder, out = finished(tmp_path, **(KINDS | MORE)[kind]), tmp_path / "out.json"
    words = ["say", folder, "What is 1", "--tokens", "5", "--temperature", "0", "-o", str(out)]
    assert main(words) == 0
    run, result = load(folder), json.loads(out.read_text())
    assert result["text"].startswith("What is 1") and len(result["text"]) == len("What is 1") + 5
    noise, ids = stream(0, "answers/thoughts"), run.text.encode(result["text"])
    alone = [None] * 5
    if run.thinks and run.sizes.length and run.predicts_without_thought:
        alone = run.predictor(thinking=False).score(ids[:-5], ids[-5:]).log_probs.exp().tolist()
    printed = [line for line in capsys.readouterr().out.splitlines() if "Generated token" in line]
    assert len(printed) == 5
    for place, (said, without, line) in enumerate(zip(result["tokens"], alone, printed, strict=True)):
        sequence, last = ids[: place - 5].view(1, 1, -1), torch.tensor([[[len(ids) + place - 6]]])
        drawn = thought_noise([noise], torch.ones(1, 1, 1, dtype=torch.bool), run.sizes).double()
        with torch.no_grad():
            context = run.model.read(sequence, last)._replace(ahead=None, following=None)
            thoughts = run.model.think(context, drawn)
            mixture = run.model.talk(context, thoughts).logits[0, 0, 0, :, 0].softmax(-1).mean(0)
        assert said["p"] == pytest.approx(float(mixture[ids[place - 5]]), abs=1e-9)
        assert said["p"] == pytest.approx(float(mixture.max()), abs=1e-9)
        assert said["p_without"] == (None if without is None else pytest.approx(without, abs=1e-9))
        shown = LINE.fullmatch(line.strip())
        assert shown and float(shown[3]) == pytest.approx(said["p"], abs=6e-4)
        if thoughts is None or not run.sizes.length:
            assert said["thoughts"] == [] and "Thinking" not in line and " with" not in line
            continue
        assert said["thoughts"] == in_words(run, thoughts) and len(said["thoughts"]) == run.sizes.number
        assert ("without" in line) == run.predicts_without_thought
        for thought in said["thoughts"]:
            assert thought in line


def words_of(folder: str, symbols: Any) -> list[str]:
    given = torch.tensor(symbols)
    given = given.double() if given.is_floating_point() else given
    return in_words(load(folder), Thoughts(given[None, None, None], None, None, None))


def test_thoughts_in_words(tmp_path: Path) -> None:
    """Symbols of an alphabet of their own are letters or numbers, tokens are quoted, vectors are lengths."""
    letters = finished(tmp_path, "a", thought_vocab=3, variable_len=True)
    assert words_of(letters, [[0, 2], [1, 3], [3, 3]]) == ["ac", "b", "(empty)"]
    assert words_of(finished(tmp_path, "b", thought_vocab=27), [[26, 3]]) == ["26 3"]
    tokens = finished(tmp_path, "c", thought_vocab=None)
    newline, space, letter = load(tokens).text.encode("\n e").tolist()
    assert words_of(tokens, [[newline, space], [letter, letter]]) == ["'\\n' ' '", "'e' 'e'"]
    vectors = finished(tmp_path, "d", thoughts="gaussian", entropy_encouragement_coef=0.0)
    assert words_of(vectors, [[[3.0, 4.0, 0.0, 0.0], [0.0, 0.5, 0.0, 0.0]]]) == ["5.00 0.50"]
    shared = finished(
        *(tmp_path, "e"), thoughts="gaussian", entropy_encouragement_coef=0.0, weight_groups=list("AAAA")
    )
    (core,), text = load(shared).model.requires_grad_(False).cores.values(), load(shared).text
    vectors = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = words_of(shared, [vectors.tolist()])[0]
    nearest = []
    for vector in vectors:
        embedding = vector @ core.thoughts.weight[0]
        cosines = [float(torch.cosine_similarity(embedding, row, 0)) for row in core.tokens.weight[0]]
        nearest.append(repr(text.decode([max(range(len(cosines)), key=cosines.__getitem__)])))
    assert found == " ".join(nearest) and len(set(nearest)) > 3


def test_a_line_for_each_token() -> None:
    assert told(Said("e", 0.25, 0.125, ["ab", "c", "ab"])) == [
        "Thinking… ab ×2, c done thinking. Generated token: 'e' (p 0.250 with, 0.125 without)"
    ]
    assert told(Said("e", 0.25, None, ["ab"])) == [
        "Thinking… ab done thinking. Generated token: 'e' (p 0.250 with)"
    ]
    assert told(Said("e", 0.25, None, [])) == ["Generated token: 'e' (p 0.250)"]
    (line,) = told(Said("e", 0.25, 0.125, ["ab"]), colour=True)
    assert line.startswith("\033[2mThinking… ab done thinking.\033[0m Generated token: \033[1m'e'\033[0m (")
    many = [f"' {number}' 'word'" for number in range(16)]
    *thinking, token = told(Said("e", 0.25, 0.125, many))
    assert len(thinking) > 1 and max(map(len, thinking)) <= 110 and token.startswith("  Generated token: 'e'")
    assert " ".join(line.strip() for line in thinking) == f"Thinking… {', '.join(many)} done thinking."


@pytest.mark.parametrize(
    ("terminal", "variables", "wanted"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
    ],
)
def test_colour_is_for_terminals(
    terminal: bool, variables: dict[str, str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: terminal))
    assert coloured() == wanted


def test_sampled_tokens_depend_on_the_seed_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, texts = finished(tmp_path), []
    for seed in ("1", "1", "2"):
        assert main(["say", folder, "1+", "--tokens", "12", "--thoughts", "1", "--seed", seed]) == 0
        out = capsys.readouterr().out
        assert "1 thought before each token, of 2 symbols (out of 6)" in out and "×" not in out
        texts.append(out.partition("The text, with its prompt:\n")[2])
    assert texts[0] == texts[1] != texts[2]


def test_as_many_tokens_as_a_transformer_has_room_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    assert main(["say", finished(tmp_path), "1+"]) == 0
    assert capsys.readouterr().out.count("Generated token") == 40
    short = finished(tmp_path, "short", backbone="gpt2")  # room for 24 tokens and a thought
    assert main(["say", short, "1+" * 30]) == 0
    assert capsys.readouterr().out.count("Generated token") == 24
    assert main(["say", short, "1+", "--tokens", "25"]) == 2
    assert "25 tokens after a text are more than this model can read" in capsys.readouterr().err


def noted(runs: Path, name: str, config: RunConfig, time: int, arms: dict[str, str]) -> None:
    """Write a run's folder and row as finished at a time, and the cell that it is the first arm of."""
    folder = Path(written(runs / name, config))
    columns = json.loads((folder / "config.json").read_text())
    write_json(folder / "summary.json", columns | {"key": name, "seed": 3, "nll": 1.0})
    os.utime(folder / "summary.json", (time, time))
    if arms:
        write_cell(runs, columns, {arm: {3: key} for arm, key in arms.items()}, arms)


def test_the_run_that_finished_last_thinks_and_is_on_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, task = tmp_path / "runs", asked.corpus(tmp_path)
    noted(runs, "a", asked.config(task), 1000, {"thinking": "a", "policy_off": "off"})
    noted(runs, "off", asked.config(task, policy_loss_beta=0.0), 4000, {})
    noted(runs, "b", asked.config(task, thought_vocab=4), 2000, {"thinking": "b"})
    noted(runs, "plain", asked.config(task, use_reasoner=False), 5000, {"no_reasoner": "plain"})
    noted(runs, "s5", tiny.config(task=S5()), 6000, {"thinking": "s5"})
    assert latest(runs) == runs / "b"
    assert main(["say", "--runs", str(runs), "What", "--tokens", "1"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.startswith(
        f"{runs}/b, which finished last in {runs}, thinking, seed 3: char_text path=text.txt "
    )
    os.utime(runs / "a" / "summary.json", (7000, 7000))
    assert latest(runs) == runs / "a"


def test_refusals_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder, other = finished(tmp_path), written(tmp_path / "runs" / "b", tiny.config(task=S5()))
    for words, message in [
        (["say", "--runs", "none", "x"], "none: there is no such folder"),
        (["say", "What"], "runs has no finished run on a text that thinks; name one"),
        (["say", folder], f"{folder} is a folder, and there is no prompt; give one"),
        (["say", other, "x"], "its task is s5, and only a run on a text can be asked"),
        (["say", folder, "\x1b"], "has no character '\\x1b'"),
        (["say", folder, "x", "--temperature", "-1"], "-1 is no temperature"),
        (["say", folder, "x", "--thoughts", "0"], "0 is out of range"),
        (["say"], "the following arguments are required: PROMPT"),
    ]:
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert message in err and err.count("\n") == 1 and not out


def test_control_characters_are_shown_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "odd.txt"
    path.write_text("\x1b[31m<b>\x07\x9b\n" * 200, encoding="utf-8")
    settings = asked.config(CharText(path=str(path)), thought_vocab=None)
    folder = written(tmp_path / "odd\x1b", settings, asked.model(settings)[0])
    assert main(["say", folder, "\x1b[31m<b>", "--tokens", "60", "--temperature", "9"]) == 0
    out = capsys.readouterr().out
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", out)
    assert (
        "odd\\x1b, seed 3: char_text" in out and "\\x1b[31m<b>" in out and "Generated token: '\\x9b'" in out
    )


def test_a_text_cut_by_a_checkpoint_ends_with_its_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    settings = checkpoint.config(tmp_path)
    model = build_model(settings, [3])
    folder = written(tmp_path / "run", settings, model)
    out = tmp_path / "out.json"
    assert main(["say", folder, "a b", "--tokens", "200", "--temperature", "1", "-o", str(out)]) == 0
    printed, result = capsys.readouterr().out, json.loads(out.read_text())
    tokens = [said["token"] for said in result["tokens"]]
    assert tokens[-1] == say.END and set(tokens[:-1]) <= {"a", "b", "c", say.END}
    assert f"Generated token: {say.END} (p " in printed
    assert printed.endswith(f"The text, with its prompt:\n{result['text']}\n")
    assert result["text"].split() == ["a", "b", *tokens[:-1]]
    thoughts = {word for said in result["tokens"] for word in said["thoughts"]}
    assert thoughts and all(re.fullmatch("(?:<end>|[abc]) (?:<end>|[abc])", word) for word in thoughts)
