"""EleutherAI's lm-eval with a finished run, on a task from a local file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.answers import asked
from tests.run_folders import written

pytest.importorskip("lm_eval")

import lm_eval
from lm_eval.api.instance import Instance

from toyqs.answers.harness import HarnessModel


def model(folder: Path, **more: Any) -> HarnessModel:
    settings = asked.config(asked.corpus(folder))
    run = folder / "runs" / "a"
    path = str(run) if run.exists() else written(run, settings, asked.model(settings)[0])
    return HarnessModel(path, **more)


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


def test_whole_texts_are_the_sum_of_their_tokens(tmp_path: Path) -> None:
    wrapped = model(tmp_path, thinking="false")
    (rolling,) = wrapped.loglikelihood_rolling([request("loglikelihood_rolling", "What is 1+2?")])
    (given, _), *_ = wrapped.loglikelihood([request("loglikelihood", "", "What is 1+2?")])
    assert rolling == pytest.approx(given)


def test_a_text_ends_before_the_first_end_string(tmp_path: Path) -> None:
    wrapped = model(tmp_path, thinking=False)
    (free,) = wrapped.generate_until([request("generate_until", "What", {"max_gen_toks": 12, "until": []})])
    assert len(free) == 12
    end = free[5]
    (cut,) = wrapped.generate_until([request("generate_until", "What", {"max_gen_toks": 12, "until": end})])
    assert cut == free[: free.index(end)]
