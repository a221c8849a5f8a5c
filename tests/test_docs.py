"""The pages: links lead somewhere, files that are named exist, commands have settings that exist."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from tests.rooms import EDGES
from tests.test_edges import ROOT
from toyqs.config.keys import TASKS
from toyqs.config.run_config import RunConfig
from toyqs.sweep.executors.settings import LAUNCHERS, PREFIX

README_LINES = 250
README_ORDER = (
    "The idea",
    "What the main job prints",
    "Three recipes",
    "The tree",
    "Words",
    "How to read on",
    "What is not claimed",
)
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / ".github").rglob("*.md"),
    ]
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"(?<![\w./-])(?:toyqs|docs|conf|tests|analysis|bench)/[\w./-]*\w")
# named in docs/performance.md or the changelog, with their last commit
REMOVED = {f"bench/{name}.py" for name in ("memory", "meters", "stacks", "vocabulary")}
PLACEHOLDER = re.compile(r"\b[A-Z]+\b")  # NAME in conf/run_modifier/NAME.yaml, SETTINGS in a command
KEYS = {field.name for field in fields(RunConfig)}
KEYS |= {f"task.{field.name}" for kind in TASKS.values() for field in fields(kind)}
KEYS |= {"+run_modifier", "hydra/launcher", "zip"}
KEYS |= {f"{PREFIX}{key.name}" for launcher in LAUNCHERS.values() for key in fields(launcher)}


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> Iterator[str]:
    """The relative links of a page that lead nowhere."""
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            yield target


def named_in_vain(text: str) -> list[str]:
    """The files that a text names and that do not exist."""
    names = {name for name in NAMED.findall(text) if not PLACEHOLDER.search(Path(name).stem)}
    return sorted(name for name in names - REMOVED if not (ROOT / name).exists())


def commands(text: str) -> Iterator[str]:
    """The lines that run a configuration, continued lines joined."""
    for _, block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            if re.search(r"\brun\.py ", line):
                yield line


def unknown_words(command: str) -> list[str]:
    """The words KEY=VALUE of a command that no setting or preset answers to."""
    words = shlex.split(command, comments=True)
    unknown = []
    for key, _, value in (word.partition("=") for word in words[1:] if not word.startswith("-")):
        if value and key not in KEYS and not key.startswith("plugin."):  # of a plug-in, not ours
            unknown.append(key)
        if key == "+run_modifier":
            presets = value.strip("[]").split(",")
            unknown += [x for x in presets if not (ROOT / "conf/run_modifier" / f"{x}.yaml").exists()]
    return unknown


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_files_that_are_named_exist(page: Path) -> None:
    assert named_in_vain(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_have_settings_that_exist(page: Path) -> None:
    found = {line: unknown_words(line) for line in commands(page.read_text(encoding="utf-8"))}
    assert {line: unknown for line, unknown in found.items() if unknown} == {}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_names_that_python_blocks_import_exist(page: Path) -> None:
    blocks = [code for kind, code in FENCE.findall(page.read_text(encoding="utf-8")) if kind == "python"]
    for node in (node for code in blocks for node in ast.walk(ast.parse(code))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("toyqs"):
            module = importlib.import_module(str(node.module))
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_every_figure_is_shown() -> None:
    shown = {
        (page.parent / target).resolve() for page in PAGES for target in LINK.findall(page.read_text("utf-8"))
    }
    assert [f.name for f in (ROOT / "docs/figures").glob("*.png") if f.resolve() not in shown] == []


def test_design_has_the_plan_of_the_tree() -> None:
    design = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d \| (.+?) \| (.*?) ?\| .+ \|$", design, re.MULTILINE)
    shown = {room: imports for rooms, imports in rows for room in re.findall(r"`(\w+)(?:/|\.py)`", rooms)}
    assert shown == {room: ", ".join(sorted(imports)) for room, imports in EDGES.items()}


def test_readme_is_one_sitting() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") <= README_LINES
    assert tuple(re.findall(r"^## (.+)$", FENCE.sub("", text), re.MULTILINE)) == README_ORDER


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A b: `c`\n[x](#a-b-c) [y](#gone) [z](gone.md) [w](https://example.org) ![v](page.md)\n"
    )
    assert list(broken_links(page)) == ["#gone", "gone.md"]
    assert named_in_vain("toyqs/gone.py docs/design.md conf/run_modifier/NAME.yaml x/docs/gone.md") == [
        "toyqs/gone.py"
    ]
    block = (
        "```\npython run.py -m sede=1 'seed=[1,2]' \\\n  +run_modifier=[Quick,Gone] task.p=3  # x=1\n```\n"
    )
    assert [unknown_words(line) for line in commands(block)] == [["sede", "Gone"]]
