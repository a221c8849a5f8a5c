"""The jobs of a sweep, of which the launcher composes once what they have in common."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from toyqs.config.run_config import RunConfig
from toyqs.sweep.words import compose


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave neither files nor what the command sets in the environment."""
    for name in ("HYDRA_FULL_ERROR", "TOYQS_SCRATCH"):
        monkeypatch.setenv(name, "")
    monkeypatch.chdir(tmp_path)


def composed(monkeypatch: pytest.MonkeyPatch, *words: str) -> list[RunConfig]:
    """Return what a command would train."""
    configs: list[RunConfig] = []

    def train(given: list[RunConfig], **_: object) -> int:
        configs.extend(given)
        return 0

    monkeypatch.setattr(sys, "argv", ["run.py", *compose.prepared(words)])
    compose.call(lambda given: compose.run_jobs(given, train=train))
    return configs


@pytest.mark.parametrize(
    ("words", "jobs"),
    [
        (
            "info='${base_lm_hidden_dim}-${task.k}' base_lm_hidden_dim=3,4 task.p=5 task.k=2",
            [f"info='${{base_lm_hidden_dim}}-2' base_lm_hidden_dim={x} task.p=5 task.k=2" for x in (3, 4)],
        ),
        ("task.k=2,3 task.p=5 task.m=4", ["task.p=5 task.m=4 task.k=2", "task.p=5 task.m=4 task.k=3"]),
        ("wandb_tags=[a] ++wandb_tags.0=b,c", ["wandb_tags=[b]", "wandb_tags=[c]"]),
        ("++info=x,y info=z", ["info=z", "info=z"]),
        ("++weight_groups.0=A,B weight_groups=[A,B,C,C]", ["weight_groups=[A,B,C,C]"] * 2),
        (
            "task.k='${trice_samples}' trice_samples=2,3",
            ["task.k=2 trice_samples=2", "task.k=3 trice_samples=3"],
        ),
        (
            "+run_modifier=Quick,IterateRunConfig info=x",
            ["+run_modifier=Quick info=x", "+run_modifier=IterateRunConfig info=x"],
        ),
        ("seed=7 task=rev_prog,s5 info=x", ["seed=7 task=rev_prog info=x", "seed=7 task=s5 info=x"]),
    ],
)
def test_each_job_of_a_sweep_is_what_its_words_alone_make(
    words: str, jobs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [config for job in jobs for config in composed(monkeypatch, *job.split())]
    assert composed(monkeypatch, "-m", *words.split()) == alone and len(alone) == len(jobs)
