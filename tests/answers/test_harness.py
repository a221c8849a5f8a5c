"""EleutherAI's lm-eval with a finished run, on a task from a local file."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.answers import asked
from tests.run_folders import written

pytest.importorskip("lm_eval")

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM

from toyqs.answers.harness import HarnessModel
from toyqs.answers.text import encode_pair


def model(folder: Path, thinking: str | bool = True, **settings: Any) -> HarnessModel:
    config = asked.config(asked.corpus(folder), **settings)
    run = folder / "runs" / "a"
    path = str(run) if run.exists() else written(run, config, asked.model(config)[0])
    return HarnessModel(path, thinking=thinking)


def request(kind: str, *arguments: Any) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


def test_a_task_of_the_harness(tmp_path: Path) -> None:
    rows = [{"q": "1+2", "a": ["3", "7"], "right": 0}, {"q": "3+4", "a": ["3", "7"], "right": 1}]
    task = {
        **{"task": "sums", "dataset_path": "json", "test_split": "test", "output_type": "multiple_choice"},
        "dataset_kwargs": {"data_files": {"test": asked.lines(tmp_path / "sums.jsonl", rows)}},
        **{"doc_to_text": "Question: {{q}}\nAnswer:", "doc_to_choice": "{{a}}", "doc_to_target": "right"},
        "metric_list": [{"metric": "acc"}],
    }
    wrapped = model(tmp_path)
    found = lm_eval.simple_evaluate(model=wrapped, tasks=[task], bootstrap_iters=0)
    texts = [f"Question: {row['q']}\nAnswer:" for row in rows]
    requests = [request("loglikelihood", text, f" {a}") for text in texts for a in ("3", "7")]
    (a, b), (c, d) = ([x for x, _ in model(tmp_path).loglikelihood(requests[i : i + 2])] for i in (0, 2))
    assert found["results"]["sums"]["acc,none"] == ((a > b) + (d > c)) / 2


def test_blanks_at_the_border_belong_to_the_continuation(tmp_path: Path) -> None:
    pairs = [("Answer: ", "3"), ("Answer:", " 3")]
    found = [model(tmp_path).loglikelihood([request("loglikelihood", *pair)]) for pair in pairs]
    assert found[0] == found[1]


def test_both_parts_are_cut_where_the_harness_cuts_them(tmp_path: Path) -> None:
    """The tokeniser here crosses no border, as none of the harness's expects."""
    wrapped = model(tmp_path)
    theirs = SimpleNamespace(backend="causal", tok_encode=lambda text: wrapped.text.encode(text).tolist())
    for pair in [("Which is", " 3?"), ("Which is ", "3?"), ("What\n\n", "3"), ("What", "3 ")]:
        ours = encode_pair(wrapped.text, *pair)
        assert [x.tolist() for x in ours] == list(TemplateLM._encode_pair(theirs, *pair))


def test_whole_texts_are_the_sum_of_their_tokens(tmp_path: Path) -> None:
    wrapped = model(tmp_path, thinking="false")
    (rolling,) = wrapped.loglikelihood_rolling([request("loglikelihood_rolling", "What is 1+2?")])
    (given, _), *_ = wrapped.loglikelihood([request("loglikelihood", "", "What is 1+2?")])
    assert rolling == pytest.approx(given)
    assert wrapped.loglikelihood_rolling([request("loglikelihood_rolling", "")]) == [0.0]
    assert wrapped.loglikelihood([request("loglikelihood", "What", "")]) == [(0.0, True)]


@pytest.mark.skipif(find_spec("transformers") is None, reason="needs the extra transformer")
def test_a_model_shorter_than_a_text(tmp_path: Path) -> None:
    """A text is read in parts, where its thoughts are longer than the half of what the model reads, too."""
    wrapped = model(tmp_path, backbone="gpt2", seq_len=4, max_reasoning_len=9)
    (rolling,) = wrapped.loglikelihood_rolling([request("loglikelihood_rolling", "What is 1+2? Which is 3?")])
    assert rolling < 0
    with pytest.raises(ValueError, match=r"9 tokens after a text .* room for 4; give"):
        wrapped.loglikelihood([request("loglikelihood", "What", " is 1+23?")])


def test_a_text_ends_before_the_first_end_string(tmp_path: Path) -> None:
    wrapped = model(tmp_path, thinking=False)
    (free,) = wrapped.generate_until([request("generate_until", "What", {"max_gen_toks": 12, "until": []})])
    assert len(free) == 12
    end = free[5]
    (cut,) = wrapped.generate_until([request("generate_until", "What", {"max_gen_toks": 12, "until": end})])
    assert cut == free[: free.index(end)]
    (same,) = wrapped.generate_until([request("generate_until", "What", {"max_gen_toks": 12, "until": [""]})])
    assert same == free


def test_a_text_ends_where_its_document_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped, asked_for = model(tmp_path, thinking=False), ("What", {"max_gen_toks": 12, "until": []})
    (free,) = wrapped.generate_until([request("generate_until", *asked_for)])
    ends = tuple(wrapped.text.encode(free[4]).tolist())
    monkeypatch.setattr(type(wrapped.text), "ends", ends)
    (cut,) = wrapped.generate_until([request("generate_until", *asked_for)])
    assert cut == free[: free.index(free[4])]


def test_the_command_refuses_in_one_line(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "toyqs.answers.harness", "run", "--model", "toyqs", "--tasks", "arc_easy"]
    found = subprocess.run(
        [*words, "--model_args", f"run={tmp_path}"], check=False, capture_output=True, text=True
    )
    assert found.returncode == 2 and found.stderr.splitlines()[-1].startswith(f"toyqs: {tmp_path}: is not")
    assert "Traceback" not in found.stderr
