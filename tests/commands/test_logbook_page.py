"""Every command of docs/logbook.md composes, is planned with four seeds, and is drawn from its own folder."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Callable, Iterator

import pytest
from hydra import compose, initialize_config_dir

from tests.logbook import TEXT, jobs
from tests.test_docs import FENCE, KEYS, ROOT
from toyqs.config.run_config import RunConfig
from toyqs.sweep.plan import plan_cell
from toyqs.sweep.words.compose import compose_checked
from toyqs.sweep.words.presets import register
from toyqs.training.flops import Cost

PAGE = (ROOT / "docs" / "logbook.md").read_text(encoding="utf-8")
RUN, SEEDS = "python run.py -m ", "seed=7,8,9,10"
BLOCKS = [re.sub(r" \\\n +", " ", block) for _, block in FENCE.findall(PAGE)]  # continued lines joined
LINES = [line for block in BLOCKS for line in block.splitlines()]
RUNS = [line.removeprefix(RUN) for line in LINES if line.startswith(RUN)]
DRAWN = [shlex.split(line) for line in LINES if line.startswith("python analysis/")]


def folder(words: str) -> str:
    """Return the folder that a command trains in, by the words typed."""
    (found,) = re.findall(r"runs_dir=(\S+)$", words)
    return str(found)


@pytest.fixture(scope="module")
def composed() -> Iterator[Callable[[list[str]], RunConfig]]:
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield lambda words: compose_checked(compose("config", words))[0]


@pytest.mark.parametrize("which", ["ends", pytest.param("all", marks=pytest.mark.slow)])
@pytest.mark.parametrize("words", RUNS, ids=folder)
def test_a_command_is_planned(words: str, which: str, composed: Callable[[list[str]], RunConfig]) -> None:
    """Plan the first and the last of its cells, or all; the text is one that is there."""
    assert f" {SEEDS} " in words
    cells = jobs(words.replace(SEEDS, "'seed=[7,8,9,10]'"))
    keys: set[str] = set()
    chosen = {0, len(cells) - 1} if which == "ends" else range(len(cells))
    for place in chosen:
        config = composed([*cells[place], *TEXT])
        cell = plan_cell(config, lambda config: Cost(100, 100, 1.0, 1.0))
        keys |= set(next(iter(cell.keys.values())).values())
        assert config.task.name == "char_text" and config.seq_len <= 32
    assert len(keys) == 4 * len(chosen), "no cell is another's run"


def test_every_question_is_drawn_from_what_was_trained_for_it() -> None:
    trained = {name: " ".join(words for words in RUNS if folder(words) == name) for name in map(folder, RUNS)}
    assert {*trained} - {words[2] for words in DRAWN} == {"logbook/layers"}, "no thoughts, no gain to draw"
    for script, runs, *options in (words[1:] for words in DRAWN):
        assert (ROOT / script).exists() and runs in trained
        over = [after for before, after in itertools.pairwise(options) if before == "--over"]
        chosen = [word.partition("=")[0] for word in options if "=" in word]
        assert {*over, *chosen} <= KEYS, (runs, options)
        assert all(f" {key}=" in trained[runs] for key in over), (runs, over)


def test_every_question_has_a_price_and_a_place_for_its_answer() -> None:
    *questions, larger = re.findall(r"^## (.+)$", FENCE.sub("", PAGE), re.MULTILINE)
    priced = re.findall(r"^\| \[(.+?)\]\(#.*\| (?:\d+ × 4(?:, fair)?(?:, )?)+ \| \d+ \|$", PAGE, re.MULTILINE)
    assert questions == priced and len(questions) == 9 and larger == "Larger"
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:-1]:
        assert "*Asked*" in section and "```" in section
