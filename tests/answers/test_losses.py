"""A base LM's losses at every token of its text, and the tasks that are made harder by them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny
from tests.answers import asked
from tests.run_folders import written
from toyqs.answers.__main__ import main
from toyqs.config.identity import run_key
from toyqs.tasks.difficulty import quantile_of
from toyqs.tasks.texts.char_text import CharText

SEQ_LEN = 8


@pytest.fixture(params=[{}, {"n_tokens_ahead": 2, "ahead": "joint"}], ids=["one token", "two together"])
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> tuple[str, torch.nn.Module, CharText]:
    monkeypatch.chdir(tmp_path)
    asked.corpus(tmp_path)
    task = CharText(path="text.txt")
    settings = replace(asked.config(task), seq_len=SEQ_LEN, **request.param)
    model = asked.model(settings)[0]
    return written(tmp_path / "runs" / run_key(settings, 3), settings, model), model, task


def test_every_token_is_read_with_half_a_window_before_it(run: tuple[str, Any, CharText]) -> None:
    folder, model, task = run
    assert main(["losses", folder, "losses.npy"]) == 0
    found = np.load("losses.npy")
    ids = task.ids.long()
    assert found.shape == (2, len(ids)) and found.dtype == np.float32
    seen = set()
    for place in [*range(12), 37, 100, len(ids) - 2]:
        wanted = []
        for before in range(min(place, SEQ_LEN - 1) + 1):  # tokens before it in its window
            inputs = ids[place - before : place + 1].view(1, 1, -1)
            with torch.no_grad():
                logits = model.talk(model.read(inputs, None)._replace(ahead=None), None).logits
            log_q = logits[0, 0, -1, 0, 0].log_softmax(-1)
            wanted.append((float(-(log_q.exp() * log_q).sum()), float(-log_q[ids[place + 1]])))
        fits = [
            before
            for before, (entropy, loss) in enumerate(wanted)
            if abs(entropy - found[1, place]) < 1e-5 and abs(loss - found[0, place + 1]) < 1e-5
        ]
        assert fits and max(fits) >= min(place, SEQ_LEN // 2 - 1)
        seen |= set(fits)
    assert len(seen) > 2


def test_a_curriculum_and_lengths_by_them(run: tuple[str, Any, CharText], tmp_path: Path) -> None:
    folder, _, task = run
    assert main(["losses", folder, "losses.npy"]) == 0
    given = replace(task, losses="losses.npy", curriculum=0.5)
    given.check(SEQ_LEN)
    found = torch.from_numpy(np.load("losses.npy"))
    assert torch.equal(given.difficulty(), found[0, : given.border].double())
    for split, first in (("train", 0), ("held_out", given.border)):
        places = torch.tensor([[0, 3, 5]])
        lengths = given.given_lengths(split, places)
        assert lengths is not None
        wanted = 1 + quantile_of(found[1, places + first], found[1, : given.border], 4)
        assert torch.equal(lengths[0], wanted)
    losses = given.difficulty()
    easy = given.sample(torch.Generator().manual_seed(0), 50, SEQ_LEN, "train", 0.0)
    whole = task.ids.tolist()
    starts = [
        next(i for i in range(len(whole)) if whole[i : i + SEQ_LEN] == row) for row in easy.inputs[0].tolist()
    ]
    means = sorted(float(losses[i + 1 : i + 1 + SEQ_LEN].sum()) for i in range(given.border - SEQ_LEN))
    drawn = [float(losses[i + 1 : i + 1 + SEQ_LEN].sum()) for i in starts]
    assert sum(x <= means[len(means) // 4] + 1e-9 for x in drawn) > 0.9 * len(drawn)

    def key(**knobs: Any) -> str:
        return run_key(tiny.config(task=replace(task, **knobs), seq_len=4), 1)

    before = key(losses="losses.npy")
    Path("losses.npy").rename("other.npy")
    assert key(losses="other.npy") == before != key()
    np.save("other.npy", np.load("other.npy") + 1)
    assert key(losses="other.npy") != before


def test_refusals(run: tuple[str, Any, CharText], capsys: pytest.CaptureFixture[str]) -> None:
    folder, _, task = run
    assert main(["losses", folder, "losses.txt"]) == 2
    assert "give a name that ends in .npy" in capsys.readouterr().err
    np.save("short.npy", np.zeros((2, 5), dtype=np.float32))
    with pytest.raises(ValueError, match=r"task.losses=short.npy: holds \(2, 5\) numbers, and task"):
        replace(task, losses="short.npy").check(SEQ_LEN)
    Path("bad.npy").write_bytes(b"\x93NUM")
    for name in ("none.npy", "bad.npy"):
        with pytest.raises(ValueError, match=rf"task.losses={name}: cannot be read \(.*\); give a file of"):
            replace(task, losses=name).check(SEQ_LEN)
