"""Recordings: what is recorded is what the evaluation saw, against naive loops and other ways to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.answers.thoughts.runs import row, trained
from toyqs import thought_record
from toyqs.answers.loaded.load import load_run
from toyqs.answers.thoughts.arm import log_likelihood, predict, sample
from toyqs.tasks.iterate import Iterate
from toyqs.tasks.rev_prog import RevProg
from toyqs.tasks.texts.char_text import CharText
from toyqs.thought_record import Record
from toyqs.training.evaluation.recording import _arrays, _ids

TEXT = str(Path(__file__).parents[1] / "logbook.txt")


def record_of(folder: Path, **changes: Any) -> tuple[Record, str]:
    (run,) = trained(folder, [3], **changes)
    return thought_record.read(run), run


def nll(record: Record) -> float:
    """Return the mean of −log_q over the counted positions."""
    arrays = record.arrays
    return float(-arrays["log_q"].mean(-1)[arrays["counted"] == 1].mean())


KINDS: dict[str, dict[str, Any]] = {
    "token": {},
    "gaussian": {"thoughts": "gaussian"},
    "gumbel": {"thoughts": "gumbel", "objective": "pathwise"},
    "deterministic": {"thoughts": "deterministic", "objective": "pathwise", "variable_len": False},
    "state": {"thoughts": "state", "interpreter_start": "afresh"},
    "ending": {"variable_len": True, "length_penalty": 0.1, "punish_unfinished": 0.2},
    "adaptive": {"adaptive_len": True, "task": Iterate()},
    "ahead": {"n_tokens_ahead": 2, "ahead_decay": 0.5},
    "together": {"n_tokens_ahead": 2, "ahead": "joint", "objective": "multi_sample"},
    "random": {"random_thoughts": True},
    "never rewarded": {"policy_loss_beta": 0.0},
    "no base": {"mixing": "thought", "use_base_lm": False},
    "everywhere": {"think_at": "all"},
    "attended": {
        **{"mixing": "attend", "attend_by": "scores", "reward": "contribution", "baseline": "none"},
        **{"thought_vocab": None, "coherence_beta": 0.5},
    },
    "handed on": {"thought_into": "state", "mixing": "base"},
    "handed on in turn": {"thought_into": "state", "weight_groups": list("AABC"), "base_lm_hidden_dim": 5},
}


@pytest.fixture(scope="module")
def of_kind(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Record, str]]:
    """Return kind -> the record and the folder of a run, trained once."""
    return cache(lambda kind: record_of(tmp_path_factory.mktemp("kind"), **KINDS[kind]))


OfKind = Callable[[str], tuple[Record, str]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_of_all_sequences_is_the_loss_of_the_row(of_kind: OfKind, kind: str) -> None:
    record, run = of_kind(kind)
    assert record.sequences == list(range(40)) and record.held_out == 40
    step = np.abs(record.arrays["log_q"]).max() / 32767  # of a stored number
    found = row(run)
    assert nll(record) == pytest.approx(found["nll"], abs=step)
    counted = record.arrays["counted"] == 1
    shuffled = float(-record.arrays["log_q_shuffled"].mean(-1)[counted].mean())
    assert shuffled == pytest.approx(found["nll_shuffled"], abs=1e-3)
    assert ("log_q_none" in record.arrays) == ("nll_no_thought" in found)
    if "log_q_none" in record.arrays:
        without = float(-record.arrays["log_q_none"][counted].mean())
        assert without == pytest.approx(found["nll_no_thought"], abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_array_is_what_the_run_computes_when_it_is_asked_again(of_kind: OfKind, kind: str) -> None:
    record, folder = of_kind(kind)
    run, arrays = load_run(folder), record.arrays
    (part,) = sample(run, 3)
    thoughts, batch = part.thoughts, part.batch
    assert thoughts is not None
    assert arrays["inputs"].tolist() == part.whole.inputs[0].tolist()
    assert arrays["positions"].tolist() == part.positions[0].tolist()
    assert arrays["truth"].tolist() == batch.targets[0].tolist()
    np.testing.assert_allclose(arrays["log_q"], log_likelihood(run, part, thoughts), atol=1e-3)
    shares = predict(run, part, thoughts)[0, ..., 0, :].softmax(-1)
    tokens = run.config.task.vocab_size
    if tokens <= 16:
        np.testing.assert_allclose(arrays["predicted_p"], shares.detach(), atol=0.5 / 255 + 1e-9)
    else:
        best = shares.topk(5)
        assert arrays["predicted"].tolist() == best.indices.tolist()
        np.testing.assert_allclose(arrays["predicted_p"], best.values.detach(), atol=0.5 / 255 + 1e-9)
    if thoughts.log_prob is None:
        assert "log_prob" not in arrays
    else:
        total = thoughts.log_prob.sum(-1)[0].detach()
        np.testing.assert_allclose(arrays["log_prob"], total, atol=float(total.abs().max()) / 60000)
    assert ("symbols" in arrays) == run.config.symbols_are_tokens != ("vectors" in arrays)
    if "vectors" in arrays:
        np.testing.assert_allclose(arrays["vectors"], thoughts.symbols[0].detach(), atol=1e-3)
    elif thoughts.symbols.is_floating_point():
        assert arrays["symbols"].tolist() == thoughts.symbols[0].argmax(-1).tolist()
    else:
        assert arrays["symbols"].tolist() == thoughts.symbols[0].tolist()  # the end's id is their number


def test_a_text_has_the_likeliest_tokens_and_as_many_sequences_as_fit(tmp_path: Path) -> None:
    text: dict[str, Any] = {
        **{"task": CharText(path=TEXT, held_out_fraction=0.9), "seq_len": 16, "eval_sequences": 150}
    }
    record, folder = record_of(tmp_path, **text, think_at="hard", hard_quantile=0.5, thought_vocab=None)
    task = load_run(folder).config.task
    assert record.tokens == record.symbols == task.symbols(range(task.vocab_size))
    arrays, found = record.arrays, row(folder)
    assert arrays["positions"].shape[1] == 8 and (np.diff(arrays["positions"]) > 0).all()
    assert len({tuple(x) for x in arrays["positions"].tolist()}) > 1, "where it is hard differs"
    total = record.held_out
    assert record.sequences == [i * total // 120 for i in range(120)]
    spread = arrays["log_q"].mean(-1).mean(-1)
    assert nll(record) == pytest.approx(found["nll_hard"], abs=4 * spread.std() / len(spread) ** 0.5)
    following = np.concatenate([arrays["inputs"][:, 1:], np.full((120, 1), -1)], 1)
    truth = np.take_along_axis(following, arrays["positions"], 1)
    assert ((truth == arrays["truth"]) | (truth == -1)).all()
    p_truth = np.where(arrays["predicted"] == arrays["truth"][..., None, None], arrays["predicted_p"], 0).max(
        -1
    )
    among = p_truth > 0
    np.testing.assert_allclose(p_truth[among], np.exp(arrays["log_q"])[among], atol=0.5 / 255 + 1e-3)
    assert among.any()
    vowels = record.features["vowel"]
    is_vowel = np.array([x in "aeiouAEIOU" for x in record.tokens])[arrays["truth"]]
    assert vowels.classes == ["no", "yes"] and (vowels.values == is_vowel).all()


def test_a_file_stays_small_however_long_the_sequences(tmp_path: Path) -> None:
    long: dict[str, Any] = {"task": CharText(path=TEXT), "seq_len": 256, "eval_sequences": 40}
    record, folder = record_of(tmp_path, **long, max_reasoning_len=6, max_steps=1)
    assert 2 <= len(record.sequences) < 12
    assert (Path(folder) / thought_record.NAME).stat().st_size < 200_000


REWARDS: dict[str, tuple[dict[str, Any], Any]] = {
    "likelihood": ({}, lambda a: a["log_q"]),
    "accuracy": (
        {"reward": "accuracy"},
        lambda a: (a["predicted_p"].argmax(-1) == a["truth"][..., None]).astype(float),
    ),
    "against the oracle": (
        {"reward": "log_ratio", "reference": "oracle", "task": RevProg(label_noise=0.3)},
        lambda a: a["log_q"] - np.where(a["truth"] == a["answer"], np.log(0.75), np.log(0.05))[..., None],
    ),
    "against no thought": (
        {"reward": "log_ratio", "reference": "no_thought"},
        lambda a: a["log_q"] - a["log_q_none"][..., None],
    ),
    "less penalties": (
        {"variable_len": True, "length_penalty": 0.5, "punish_unfinished": 2.0},
        lambda a: a["log_q"] - 0.5 * (a["symbols"] < 6).sum(-1) - 2.0 * (a["symbols"] < 6).all(-1),
    ),
    "less penalties of the last step": (
        {"variable_len": True, "punish_unfinished": 6.0, "schedule_punfinished": True},
        lambda a: a["log_q"] - 5.0 * (a["symbols"] < 6).all(-1),
    ),
    "with credit for symbols": ({"credit": "prefix", "prefix_nll_beta": 0.5}, lambda a: a["log_q"]),
    "of a reward model": ({"learned_reward": True}, lambda a: a["log_q"]),
    "exchanged": ({"shuffle_rewards": True}, lambda a: a["log_q"]),
}


@pytest.mark.parametrize("kind", REWARDS)
def test_a_reward_is_what_the_thought_earns(tmp_path: Path, kind: str) -> None:
    changes, wanted = REWARDS[kind]
    record, _ = record_of(tmp_path, **changes)
    arrays = record.arrays | {"answer": record.features["answer"].values}
    np.testing.assert_allclose(arrays["reward"], wanted(arrays), atol=2e-3)
    assert np.ptp(arrays["reward"]) > 0.05


def test_a_reward_of_two_tokens_counts_both(tmp_path: Path) -> None:
    changes = {"n_tokens_ahead": 2, "ahead_decay": 0.5, "task": RevProg(k=1, queries=2)}
    one, two = (record_of(tmp_path / str(x), **{**changes, "ahead_decay": x})[0].arrays for x in (0.0, 0.5))
    np.testing.assert_allclose(one["reward"], one["log_q"], atol=2e-3)
    second = two["reward"][:, 0] - two["log_q"][:, 0]  # half of log q of the token after
    assert (second < -0.2).all()
    np.testing.assert_allclose(two["reward"][:, 1], two["log_q"][:, 1], atol=2e-3)  # none is after the last


@pytest.mark.parametrize(
    "changes",
    [
        {"policy_loss_beta": 0.0},
        {"thoughts": "gaussian", "objective": "pathwise"},
        {"reward": "log_ratio", "reference": "ema"},
    ],
)
def test_where_none_is_paid_or_can_be_known_there_is_no_reward(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    record, _ = record_of(tmp_path, **changes)
    assert "reward" not in record.arrays


def test_vectors_have_the_nearest_tokens_where_a_core_reads_both(tmp_path: Path) -> None:
    record, folder = record_of(tmp_path / "shared", thoughts="gaussian", **SHARED)
    core = load_run(folder).model.cores["A"]
    vectors = torch.from_numpy(record.arrays["vectors"])
    embedded = vectors @ core.thoughts.weight[0].detach()
    rows = core.tokens.weight[0].detach()
    cosine = embedded @ rows.T / embedded.norm(dim=-1, keepdim=True) / rows.norm(dim=-1)
    best = cosine.topk(2).values
    sure = (best[..., 0] - best[..., 1] > 0.01).numpy()  # vectors are recorded to four digits
    assert record.symbols == record.tokens and sure.mean() > 0.8
    assert (record.arrays["nearest"] == cosine.argmax(-1).numpy())[sure].all()
    apart, _ = record_of(tmp_path / "apart", thoughts="gaussian")
    assert apart.symbols is None and "nearest" not in apart.arrays


SHARED: dict[str, Any] = {"weight_groups": list("AAAA"), "base_lm_hidden_dim": 5}


def test_after_a_thought_s_end_there_are_no_nearest_tokens(tmp_path: Path) -> None:
    changes = {"thoughts": "gaussian", "adaptive_len": True, "task": Iterate()}
    record, _ = record_of(tmp_path, **changes, **SHARED)
    arrays = record.arrays
    length = (arrays["inputs"][:, 1:] - 15).clip(max=3)  # the token of k, after 16 symbols; at most 3
    ended = np.arange(3) >= length[..., None, None]
    assert ((arrays["nearest"] == len(record.symbols)) == ended).all() and ended.any() and not ended.all()


def test_names_of_many_tokens_are_those_that_occur() -> None:
    seen = {"truth": torch.tensor([[7, 900]]), "predicted": torch.tensor([[[3, 900], [7, 3]]])}
    ids = _ids([seen], "token", 1000)
    assert ids.tolist() == [3, 7, 900]
    placed = _arrays(seen | {"symbols": torch.tensor([[5, -1]])}, {"token": ids, "symbol": np.array([5, 8])})
    assert placed["truth"].tolist() == [[1, 2]] and placed["predicted"].tolist() == [[[0, 2], [1, 0]]]
    assert placed["symbols"].tolist() == [[0, 2]], "none is their number"
    assert _ids([seen], "token", 256).tolist() == list(range(256))
    assert _ids([seen], "symbol", 1000).tolist() == []
