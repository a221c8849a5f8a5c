"""Reasoning texts: every step recomputed from the prompt, what is held out, what counts."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import torch

from tests.tasks.solved import is_true, numbers, some
from toyqs.tasks.reasoning import corpus, problems
from toyqs.tasks.reasoning.corpus import HELD_OUT, MIXED, STRATEGIES, is_held_out
from toyqs.tasks.reasoning.reasoning import LENGTH, RESPONSE, Reasoning
from toyqs.tasks.reasoning.thinking_tokens import THINKING_TOKENS
from toyqs.tasks.reasoning.vocabulary import END, LARGEST, PAD, WORDS
from toyqs.tasks.reasoning.written import main


@pytest.mark.parametrize("kind", [*STRATEGIES, MIXED])
def test_every_step_is_true(kind: str) -> None:
    assert all(is_true(text) for text in some(kind))


@pytest.mark.parametrize("kind", STRATEGIES)
def test_a_step_that_is_not_true_is_noticed(kind: str) -> None:
    """The last number of the reasoning, and that of the answer, are one too large."""
    text = some(kind, 2)[0]
    reasoning, answer = text.response.rsplit(" </think> ", 1)
    last = re.findall(r"\d+", reasoning)[-1]
    cut = reasoning.rindex(last)
    wrong = f"{reasoning[:cut]}{int(last) + 1}{reasoning[cut + len(last) :]} </think> {answer}"
    assert not is_true(text._replace(response=wrong))
    wrong = {"true": "false", "false": "true"}.get(text.answer) or re.sub(
        r"\d+$", lambda x: str(int(x[0]) + 1), text.answer
    )
    assert not is_true(text._replace(response=f"{reasoning} </think> answer {wrong}"))


def test_a_self_doubt_says_which_tries_are_wrong() -> None:
    for text in some("self_doubt"):
        wanted, times, more = text.problems[0].content
        tries = re.findall(r"try (\d+) <doubt> .*? , .*? is (\d+) , (right|too low|too high)", text.response)
        assert [x for _, _, x in tries].count("right") == 1 and tries[-1][2] == "right"
        for tried, found, verdict in tries:
            assert int(found) == int(tried) * times + more
            low = (verdict == "too low", verdict == "too high", verdict == "right")
            assert low == (int(tried) < wanted, int(tried) > wanted, int(tried) == wanted)


def test_the_corpus_has_the_texts_that_it_says() -> None:
    texts = Reasoning().corpus
    counts = Counter(text.kind for text in texts)
    assert counts == {"chain_of_thought": 400, **dict.fromkeys(STRATEGIES[1:], 200), MIXED: 200}
    assert counts.total() - counts[MIXED] == 1600
    assert len({text.prompt for text in texts}) == len(texts), "no text twice"
    assert not any(token in text.prompt for text in texts for token in THINKING_TOKENS)
    assert Counter(len(x.problems) for x in texts if x.kind == MIXED) == {2: 200}
    assert all(len(set(x.strategies)) == len(x.problems) for x in texts), "two strategies where two are mixed"
    claims = Counter(text.answer for text in texts if text.kind == "falsification")
    assert 70 < claims["true"] < 130


def test_held_out_contents_never_occur_in_training() -> None:
    task = Reasoning()
    trained = {(x.strategy, x.content) for text in task.corpus for x in text.problems}
    kinds = [*STRATEGIES, MIXED]
    held = {
        (x.strategy, x.content)
        for kind in kinds
        for text in some(kind)
        for x in text.problems
        if is_held_out(x)
    }
    assert not trained & held and {name for name, _ in held} == set(STRATEGIES)
    batch = task.sample(torch.Generator().manual_seed(0), 400, 0, "held_out")
    prompts = {task.decode(row).split(" <think>")[0] for row in batch.inputs[0].tolist()}
    assert not prompts & {text.prompt for text in task.corpus}
    for name in STRATEGIES:
        drawn = [problems.GENERATORS[name](rng) for rng in [Random(name)] for _ in range(1000)]
        share = sum(map(is_held_out, drawn)) / len(drawn)
        assert 0.6 < share * HELD_OUT < 1.4, name
        other = drawn[0]._replace(prompt="told with other names", answer="")
        assert is_held_out(other) == is_held_out(drawn[0]), "names do not decide it"


def test_what_counts_is_the_response_and_its_end() -> None:
    task = Reasoning(texts=20, mixed=40)
    known = {text.prompt: text.response for text in task.corpus}
    batch = task.sample(torch.Generator().manual_seed(1), 64, 0, "train")
    for inputs, targets, weights, think in zip(*(x[0] for x in batch[:4]), strict=True):
        first = int(weights.nonzero()[0])
        counted = task.decode(targets[weights > 0].tolist())
        assert counted == f"{known[task.decode(inputs[: first + 1].tolist())]} {END}"
        assert int(think.sum()) == RESPONSE and bool(think[weights > 0].all())
        assert set(task.symbols(inputs[first + int(weights.sum()) + 1 :].tolist())) <= {PAD}


def test_the_longest_texts_have_room() -> None:
    for kind in (*STRATEGIES, MIXED):
        for text in some(kind, 200):
            words = len(text.response.split()) + 1  # with its end
            assert words <= RESPONSE and len(text.prompt.split()) + words <= LENGTH
            assert max(numbers(text.prompt + text.response)) <= LARGEST


def test_the_corpus_is_decided_by_its_seed() -> None:
    again = corpus.corpus.__wrapped__(200, 200, 0)
    assert again == Reasoning().corpus and again != Reasoning(seed=1).corpus


def test_the_thinking_tokens_come_last() -> None:
    task = Reasoning()
    assert tuple(task.symbols(range(task.vocab_size - 8, task.vocab_size))) == THINKING_TOKENS
    assert task.decode([*task.ends]) == END and len(set(WORDS)) == len(WORDS)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"texts": 0}, "task.texts=0: is too small; give task.texts=1 or more"),
        ({"mixed": -1}, "task.mixed=-1: is too small; give task.mixed=0 or more"),
        (
            {"texts": 900},
            r"task.texts=900: asks for 900 different texts of analogy, .* about \d\d\d; give less",
        ),
    ],
)
def test_what_cannot_be_is_refused(keys: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Reasoning(**keys).check(128)
    with pytest.raises(ValueError, match="'seven' is no word of its texts; give words as they have"):
        Reasoning().encode("3 plus 4 is seven")


def test_the_corpus_is_written_for_a_tokeniser(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "x.jsonl")]) == 0 and capsys.readouterr().out.startswith("1800 texts in ")
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    texts = Reasoning().corpus
    assert [(x["text"], x["kind"]) for x in rows] == [(f"{x.prompt} {x.response}", x.kind) for x in texts]
    for words in ([], ["a", "b"], [str(tmp_path / "gone" / "x.jsonl")], ["--help"]):
        assert main(words) == 2
        assert capsys.readouterr().err.count("\n") == 1
