"""Prediction token by token, compared with the model on whole sequences."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.answers import asked
from toyqs.answers.loaded import memory
from toyqs.answers.loaded.predictor import Predictor
from toyqs.answers.metrics import answer_number
from toyqs.answers.questions import NumberQuestion
from toyqs.model.latent_reasoner import LatentReasoner
from toyqs.rng import stream, thought_noise
from toyqs.tasks.texts.char_text import CharText
from toyqs.types import Context

NEEDS = pytest.mark.skipif(find_spec("transformers") is None, reason="needs the extra transformer")
KINDS: dict[str, dict[str, Any]] = {
    "apart": {},
    "one GRU onward": {"weight_groups": list("AAAA"), "interpreter_start": "onward", "mixing": "thought"},
    "last token": {"interpreter_start": "onward", "add_last_context_token": True},
    "last token later": {
        **{"interpreter_start": "onward", "add_last_context_token": True},
        "increment_pos_id_for_last_context_token": True,
    },
    "gaussian": {"thoughts": "gaussian", "entropy_encouragement_coef": 0.0},
    "variable": {"variable_len": True},
    "several ahead": {"n_tokens_ahead": 3},
    "several together": {"n_tokens_ahead": 3, "ahead": "joint"},
    "reading on": {
        **{"weight_groups": list("AAAA"), "interpreter_start": "onward", "mixing": "thought"},
        **{"n_tokens_ahead": 3, "ahead": "continue"},
    },
    "no thoughts": {"use_reasoner": False},
    "zero length": {"max_reasoning_len": 0},
    "without the base": {"use_base_lm": False},
}
MODELS = [pytest.param("gru", kind, id=kind) for kind in KINDS] + [
    pytest.param(backbone, kind, id=f"{backbone} {kind}", marks=NEEDS)
    for backbone, kind in [
        ("gpt2", "apart"),
        ("gpt2", "one GRU onward"),
        ("gpt2", "last token"),
        ("gpt2", "reading on"),
        ("llama", "gaussian"),
    ]
]


def predictor(backbone: str, kind: str, folder: Path, **more: Any) -> Predictor:
    settings = asked.config(asked.corpus(folder), backbone=backbone, **KINDS[kind])
    return Predictor(*asked.model(settings), **more)


def tokens(count: int, seed: int = 0) -> Tensor:
    return torch.randint(30, (count,), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def whole(of: Predictor, sequence: Tensor, noise: torch.Generator) -> Tensor:
    """Return log-probabilities (V,) of the token after a sequence, reading all of it at once."""
    model = of.model
    inputs, last = sequence.view(1, 1, -1), torch.tensor([[[len(sequence) - 1]]])
    drawn = thought_noise([noise], torch.ones(1, 1, 1, dtype=torch.bool), of.sizes).double()
    trace = model(inputs, last, drawn)
    log_q = trace.logits[0, 0, 0, :, 0].log_softmax(-1)
    return log_q.logsumexp(0) - math.log(len(log_q))


@pytest.mark.parametrize(("backbone", "kind"), MODELS)
def test_generating_is_like_reading_all_of_it_again(backbone: str, kind: str, tmp_path: Path) -> None:
    before = tokens(5)
    (written,) = predictor(backbone, kind, tmp_path).generate(before, 6)
    plain, noise = predictor(backbone, kind, tmp_path), stream(0, "answers/thoughts")
    sequence = before
    for token in written:
        found = whole(plain, sequence, noise)
        assert int(found.argmax()) == token
        sequence = torch.cat([sequence, torch.tensor([token])])
    assert len(written) == 6


@pytest.mark.parametrize(("backbone", "kind"), MODELS)
def test_a_memory_can_be_extended(backbone: str, kind: str, tmp_path: Path) -> None:
    """Reading token by token gives the outputs and predictions of reading at once."""
    of = predictor(backbone, kind, tmp_path)
    model: LatentReasoner = of.model
    sequence = tokens(7).view(1, 1, -1)
    cache = memory.read(model, sequence[..., :4])
    for token in sequence[0, 0, 4:]:
        cache = memory.extend(model, cache, token.view(1, 1))
    at_once = memory.read(model, sequence)
    tolerance = 1e-5 if backbone == "llama" else 1e-12
    for letter, output in at_once.outputs.items():
        torch.testing.assert_close(cache.outputs[letter], output, rtol=0, atol=tolerance)
    one = torch.ones(1, 1, 1, dtype=torch.bool)
    noise = thought_noise([stream(0, "test")], one, of.sizes).double()
    context = memory.context_of(model, cache)
    logits = model.talk(context, model.think(context, noise)).logits[..., :1, :]
    wanted = model(sequence, torch.tensor([[[6]]]), noise).logits[..., :1, :]
    torch.testing.assert_close(logits, wanted, rtol=0, atol=10 * tolerance)


def test_given_tokens_are_scored_as_they_would_be_generated(tmp_path: Path) -> None:
    of = predictor("gru", "zero length", tmp_path)
    before, given = tokens(4), tokens(5, seed=1)
    scored = of.score(before, given)
    for place, token in enumerate(given):
        found = whole(of, torch.cat([before, given[:place]]), stream(0, "answers/thoughts"))
        assert float(scored.log_probs[place]) == pytest.approx(float(found[token]), abs=1e-12)
        assert bool(scored.greedy[place]) == (int(found.argmax()) == int(token))


def test_thoughts_are_mixed_not_averaged_in_the_logarithm(tmp_path: Path) -> None:
    of, before, given = predictor("gru", "apart", tmp_path), tokens(4), tokens(3, seed=1)
    scored = of.score(before, given).log_probs
    inputs = torch.cat([before, given])[:-1].view(1, 1, -1)
    noise = thought_noise([stream(0, "answers/thoughts")], torch.ones(1, 1, 3, dtype=torch.bool), of.sizes)
    trace = of.model(inputs, torch.tensor([[[3, 4, 5]]]), noise.double())
    each = trace.logits[0, 0, :, :, 0].softmax(-1).gather(-1, given.view(3, 1, 1).expand(3, 3, 1))
    torch.testing.assert_close(scored, each.squeeze(-1).mean(-1).log())
    assert not torch.allclose(scored, each.squeeze(-1).log().mean(-1), atol=1e-6)


def test_without_thoughts_it_is_the_prediction_without_a_thought(tmp_path: Path) -> None:
    of = predictor("gru", "apart", tmp_path, thinking=False)
    before, given = tokens(4), tokens(1, seed=1)
    context = of.model.read(before.view(1, 1, -1), torch.tensor([[[3]]]))
    wanted = of.model.talk(context, None).logits[0, 0, 0, 0, 0].log_softmax(-1)[given]
    torch.testing.assert_close(of.score(before, given).log_probs, wanted)
    with pytest.raises(ValueError, match="no prediction without a thought"):
        predictor("gru", "without the base", tmp_path, thinking=False)


def test_texts_side_by_side_stop_independently(tmp_path: Path) -> None:
    of, ends = predictor("gru", "apart", tmp_path), iter([True, *[False] * 100])
    written = of.generate(tokens(4), 5, texts=3, temperature=1.0, stop=lambda ids: next(ends))
    assert sorted(map(len, written)) == [1, 5, 5]
    assert len({tuple(x[:1]) for x in of.generate(tokens(4), 1, texts=40, temperature=1.0)}) > 5
    again = [
        predictor("gru", "apart", tmp_path, seed=s).generate(tokens(4), 9, temperature=1.0) for s in (1, 1, 2)
    ]
    assert again[0] == again[1] != again[2]


class Reciting(Predictor):
    """A predictor whose likeliest tokens are those of a script."""

    def recite(self, text: CharText, script: str) -> Predictor:
        self.script = text.encode(script).tolist()
        return self

    def _predict(self, context: Context, texts: int, places: int) -> tuple[Tensor, None]:
        return torch.eye(99)[self.script.pop(0)].log().view(1, 1, 1, -1), None


def test_an_answer_ends_where_its_document_ends(tmp_path: Path) -> None:
    """A model that recites its training text begins the next document, whose number is not the answer."""

    class Documents(CharText):
        """A text in which L ends a document, and W another."""

        ends = property(lambda self: tuple(self.encode("LW").tolist()))

    task = asked.corpus(tmp_path)
    text, of = Documents(path=task.path), Reciting(*asked.model(asked.config(task)))
    for end, most in (("L", 99), ("W", 99), ("", 13)):
        of.recite(text, f" 4+2=6\n#### 6{end}Question: What is 9+9?\nAnswer: 9+9=18\n#### 18\n\n")
        found = answer_number(of, text, NumberQuestion("What is 4+2?", "", "6"), most)
        assert found == ([" 4+2=6\n#### 6"], "6", True)
    of.recite(text, " 6LQuestion: What is 1+2?\n\n")
    assert answer_number(of, text, NumberQuestion("What is 4+2?", "", "6"), 99).texts == [" 6"]
    assert of.recite(text, "L").generate(tokens(2), 9, ends=text.ends) == [[]]


def test_a_temperature_close_to_nothing_takes_the_likeliest(tmp_path: Path) -> None:
    for temperature in (1e-29, 1e-31, 1e-320):
        of = predictor("gru", "no thoughts", tmp_path)
        of.model.float()
        cold = of.generate(tokens(4), 6, temperature=temperature)
        assert cold == of.generate(tokens(4), 6)


def test_no_tokens_have_no_scores(tmp_path: Path) -> None:
    log_probs, greedy = predictor("gru", "apart", tmp_path).score(tokens(4), tokens(0))
    assert len(log_probs) == len(greedy) == 0


def test_sampled_tokens_have_the_models_frequencies(tmp_path: Path) -> None:
    of, before = predictor("gru", "no thoughts", tmp_path), tokens(4)
    drawn = torch.tensor(of.generate(before, 1, texts=20_000, temperature=0.7)).flatten()
    log_q = whole(of, before, stream(0, "answers/thoughts"))
    wanted = (log_q / 0.7).softmax(-1)
    found = torch.bincount(drawn, minlength=len(wanted)) / len(drawn)
    assert float((found - wanted).abs().max()) < 0.015
    assert float((found - log_q.exp()).abs().max()) > 0.03


@NEEDS
def test_a_text_longer_than_a_transformer_can_read_loses_its_beginning(tmp_path: Path) -> None:
    of, long = predictor("gpt2", "apart", tmp_path), tokens(60)
    room = 24 + 2 + 2 + 1  # as in training: the sequence, a thought with its markers, the token
    assert of.longest == room
    kept = long[-(room - 4 - 6) :]
    assert of.generate(long, 6) == predictor("gpt2", "apart", tmp_path).generate(kept, 6)
    given = tokens(5, seed=1)
    scored = [
        predictor("gpt2", "apart", tmp_path).score(x, given).log_probs
        for x in (long, long[-(room - 4 - 5) :])
    ]
    torch.testing.assert_close(*scored, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"60 tokens after a text .* it has room for 24; give"):
        of.score(given, long)
    with pytest.raises(ValueError, match="25 tokens after a text"):
        of.score(given, tokens(25))
    assert len(of.score(given, tokens(24)).log_probs) == len(of.generate(given, 24)[0]) == 24
    assert predictor("gru", "apart", tmp_path).longest is None
