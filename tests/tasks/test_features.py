"""A task's features, each against a computation of its own, position by position."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tasks.test_task import VARIANTS, draw
from toyqs.tasks.group import S5
from toyqs.tasks.hidden_markov import HiddenMarkov
from toyqs.tasks.iterate import Iterate
from toyqs.tasks.rev_prog import RevProg
from toyqs.tasks.task import Task
from toyqs.tasks.texts.char_text import CharText
from toyqs.tasks.texts.token_text import TokenText
from toyqs.types import Batch


def found(task: Any, batch: Batch) -> dict[str, list[list[int]]]:
    return {name: feature.values[0].tolist() for name, feature in task.features(batch).items()}


@pytest.mark.parametrize("task", [x for x in VARIANTS if x.features is not None], ids=repr)
def test_every_feature_has_a_class_at_the_last_position_or_none(task: Task) -> None:
    batch = draw(task, 50, "held_out")
    for feature in task.features(batch).values():
        assert feature.values.shape == batch.inputs.shape and feature.values.dtype == torch.int64
        assert int(feature.values.min()) >= -1 and int(feature.values.max()) < feature.classes
        assert not (feature.values[~batch.think] >= 0).any()


def test_which_tasks_have_features() -> None:
    assert [type(x).__name__ for x in VARIANTS if x.features is None] == ["Reasoning", "Sums"]


@pytest.mark.parametrize("label_noise", [0.0, 0.5])
def test_rev_prog(label_noise: float) -> None:
    task = RevProg(p=5, m=3, k=3, queries=2, label_noise=label_noise)
    batch = draw(task, 40, "held_out")
    tables, values = task.permutations.tolist(), found(task, batch)
    names = ["operator 1", "operator 2", "operator 3", "op1(x)", "op2(op1(x))", "answer"]
    assert list(values) == names
    assert [task.features(batch)[name].classes for name in names] == [3, 3, 3, 5, 5, 5]
    for row, tokens in enumerate(batch.inputs[0].tolist()):
        operators = [token - 5 for token in tokens[:3]]
        for position, x in enumerate(tokens[3:], 3):
            one = tables[operators[0]][x]
            two = tables[operators[1]][one]
            wanted = [*operators, one, two, tables[operators[2]][two]]
            assert [values[name][row][position] for name in names] == wanted
        assert all(values[name][row][:3] == [-1, -1, -1] for name in names)


@pytest.mark.parametrize("kind", ["cycle", "map"])
def test_iterate(kind: str) -> None:
    task = Iterate(n=9, k=4, kind=kind, held_out=0.5)
    batch = draw(task, 40, "train")
    function, values = task.powers[1].tolist(), found(task, batch)
    assert list(values) == ["k", "f(x)", "f^2(x)", "f^3(x)", "answer"]
    for row, (x, token) in enumerate(batch.inputs[0].tolist()):
        path = [x]
        for _ in range(token - 9 + 1):
            path.append(function[path[-1]])
        between = [*path[1:-1], -1, -1, -1][:3]  # the last is the answer
        wanted = [len(path) - 2, *between, path[-1]]
        assert [values[name][row] for name in values] == [[-1, value] for value in wanted]


@pytest.mark.parametrize("asked", ["every", "end"])
def test_s5(asked: str) -> None:
    task = S5(group="s3", positions=4, asked=asked)
    batch = draw(task, 30, "held_out")
    elements, values = task.elements.tolist(), found(task, batch)
    assert list(values) == ["product of 1", "product of 2", "product of 3", "answer"]
    for row, tokens in enumerate(batch.inputs[0].tolist()):
        for position in range(4):
            images = [[0, 1, 2]]
            for token in tokens[: position + 1]:
                images.append([elements[token][i] for i in images[-1]])
            products = [elements.index(each) for each in images[1:]]
            wanted = [*products[:-1], *[-1] * 4][:3] + products[-1:]
            if asked == "end" and position < 3:
                wanted = [-1] * 4
            assert [values[name][row][position] for name in values] == wanted


def test_hidden_markov() -> None:
    task = HiddenMarkov(states=3, vocab=2, positions=4, transition_sharpness=1.5, emission_sharpness=1.0)
    batch = draw(task, 20, "held_out")
    transition, emission, values = task.transition.tolist(), task.emission.tolist(), found(task, batch)
    for row, symbols in enumerate(batch.inputs[0].tolist()):
        for position in range(4):
            here, ahead, after = [0.0] * 3, [0.0] * 3, [0.0] * 2
            for path in itertools.product(range(3), repeat=position + 2):
                weight = 1.0
                for state, symbol in zip(path, symbols[: position + 1], strict=False):
                    weight *= emission[state][symbol]
                for before, state in itertools.pairwise(path):
                    weight *= transition[before][state]
                here[path[-2]] += weight
                ahead[path[-1]] += weight
                for symbol in range(2):
                    after[symbol] += weight * emission[path[-1]][symbol]
            wanted = [each.index(max(each)) for each in (here, ahead, after)]
            assert [values[name][row][position] for name in values] == wanted
    assert list(values) == ["likeliest state", "likeliest next state", "likeliest next symbol"]


def test_char_text(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("Où est-il, Émile ? Über\tuns.\n" * 20, encoding="utf-8")
    task = CharText(path=str(path))
    batch = task.sample(torch.Generator(), 20, 9, "held_out")
    values = found(task, batch)
    read = {name: feature.classes for name, feature in task.features(batch).items()}
    assert read == {"next character": task.vocab_size, "vowel": 2, "space": 2}
    for row, ids in enumerate(batch.inputs[0].tolist()):
        text = task.decode([*ids, int(batch.targets[0, row, -1])])
        for position, after in enumerate(text[1:]):
            vowel, space = after in "AEIOUaeioué\u00f9\u00dc\u00c9", after in " \t\n"
            wanted = [task.alphabet.index(after), vowel, space]
            assert [values[name][row][position] for name in values] == wanted


@pytest.mark.parametrize(("kind", "space"), [("ByteLevel", "\u0120"), ("Metaspace", "\u2581")])
def test_token_text(tmp_path: Path, kind: str, space: str) -> None:
    """Tokenisers write a space in two ways; the model's last two ids have no token."""
    tokenizers = pytest.importorskip("tokenizers")
    wanted = {f"{space}ab": (1, 1, 1), "b": (0, 0, 1), f"{space}7": (1, 0, 0), ",": (0, 0, 0), "E": (0, 1, 1)}
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({x: i for i, x in enumerate(wanted)}, unk_token=",")
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.Split("|", "removed")
    words.decoder = getattr(tokenizers.decoders, kind)()
    words.save(str(tmp_path / "tokenizer.json"))
    says = {"model_type": "gpt2", "vocab_size": 7, "eos_token_id": 3}
    (tmp_path / "config.json").write_text(json.dumps(says))
    (tmp_path / "text.txt").write_text("|".join([*wanted, *reversed(wanted)] * 9))
    task = TokenText(path=str(tmp_path / "text.txt"), tokenizer=str(tmp_path))
    batch = task.sample(torch.Generator(), 10, 6, "held_out")
    values, answers = found(task, batch), [*wanted.values(), (0, 0, 0), (0, 0, 0)]
    assert list(values) == ["space", "vowel", "letter"] and set(batch.targets.unique().tolist()) == {
        *range(5)
    }
    for row, targets in enumerate(batch.targets[0].tolist()):
        for position, target in enumerate(targets):
            assert tuple(values[name][row][position] for name in values) == answers[target]
    batch = batch._replace(targets=batch.targets * 0 + 6)
    assert all(not any(map(any, rows)) for rows in found(task, batch).values())
