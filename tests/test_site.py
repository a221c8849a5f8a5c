"""The site of the documentation: every page and figure is on it, links hold, no warning is left."""

from __future__ import annotations

import importlib.util
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.test_edges import ROOT

pytest.importorskip("mkdocs", reason="needs the extra docs")
PARTS = ("mkdocs.yml", "docs", "toyqs", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def site() -> ModuleType:
    """The hook that makes pages."""
    spec = importlib.util.spec_from_file_location("site_hook", ROOT / "docs/site.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_in_the_menu(site: ModuleType) -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    pages = [*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")]
    wanted = {site.TOP.get(page.name, page.name) for page in pages}
    wanted |= {"gallery.md", *site.NOTEBOOKS.values(), *site.REFERENCE}
    assert sorted(re.findall(r"\S+\.md", menu)) == sorted(wanted)


def test_the_reference_has_what_the_examples_of_plug_ins_import(site: ModuleType) -> None:
    pages = [ROOT / "docs/plugins.md", *(ROOT / "docs").glob("adding-*.md")]
    code = "\n".join(found for page in pages for found in PYTHON.findall(page.read_text(encoding="utf-8")))
    imports = re.findall(r"^from (toyqs\.\S+) import (.+)$", code, re.MULTILINE)
    names = {f"{module}.{name}" for module, names in imports for name in names.split(", ")}
    listed = [name for section in site.REFERENCE["reference/plug-ins.md"][2].values() for name in section]
    assert len(names) > 10 and names <= {name.partition(" = ")[0] for name in listed}


def test_the_reference_shows_names_as_they_are_imported(site: ModuleType) -> None:
    for _, _, sections in site.REFERENCE.values():
        for entry in (name for section in sections.values() for name in section):
            name, _, shown = entry.partition(" = ")
            there, here = (pkgutil.resolve_name(path) for path in (name, shown or name))
            assert there is here


def test_the_gallery_has_every_figure_with_its_commands(site: ModuleType) -> None:
    parts = [*site.gallery()]
    figures = {f"figures/{file.name}" for file in (ROOT / "docs/figures").iterdir()}
    shown = [re.fullmatch(r"!\[.+\]\((.+)\)", part) for part in parts]
    assert sorted(found[1] for found in shown if found) == sorted(figures)
    for index, found in enumerate(shown):
        if found:
            name = Path(found[1]).name
            assert parts[index + 1].endswith(")).") and "python" in parts[index + 2]
            assert f"-o {name}" in parts[index + 2] or any(name.startswith(start) for start in site.DRAWN)


def test_a_figure_without_a_command_is_a_fault(site: ModuleType) -> None:
    text = "# A\n\n![a figure](figures/gone.png)\n\n```\npython run.py\npython x.py -o gone.png\n```\n"
    assert [*site.figures_of(text, "a.md")][1:] == [
        "A figure ([the first page](a.md)).",
        "```\npython run.py\npython x.py -o gone.png\n```",
    ]
    with pytest.raises(KeyError, match="which command draws it"):
        [*site.figures_of(text.replace("gone.png\n```", "other.png\n```"), "a.md")]


class Page:
    """A page as mkdocs hands it to the hook."""

    def __init__(self, name: str) -> None:
        self.file = type("File", (), {"src_uri": name})


class Files(list[Any]):
    """The pages of a site, of which none is known yet."""

    def get_file_from_path(self, path: str) -> None:
        return None


@pytest.mark.parametrize(
    ("page", "link", "there"),
    [
        ("index.md", "docs/sweeps.md#from-python", "sweeps.md#from-python"),
        ("index.md", "docs/figures/default.png", "figures/default.png"),
        ("index.md", "CONTRIBUTING.md", "contributing.md"),
        ("index.md", "docs/tour.ipynb", "tour.md"),
        ("thoughts.md", "tour.ipynb", "tour.md"),
        ("results.md", "../README.md#the-idea", "index.md#the-idea"),
        ("results.md", "../toyqs/types.py", "source/toyqs/types.py"),
        ("results.md", "#the-verdict", "#the-verdict"),
        ("results.md", "https://example.org/docs/sweeps.md", "https://example.org/docs/sweeps.md"),
        ("results.md", "gone.md", "gone.md"),
    ],
)
def test_links_between_files_become_links_between_pages(
    site: ModuleType, monkeypatch: pytest.MonkeyPatch, page: str, link: str, there: str
) -> None:
    made = Files()
    monkeypatch.setattr(site.File, "generated", lambda config, path, content: path)
    text = "a [b]({}) c\n```\n[b](README.md)\n```\n"
    assert site.on_page_markdown(text.format(link), Page(page), None, made) == text.format(there)
    assert [path for path in made if path.startswith("source/")] == [there] * there.startswith("source/")


def test_the_reference_names_what_exists(site: ModuleType) -> None:
    for _, _, sections in site.REFERENCE.values():
        for name in (entry.partition(" = ")[0] for names in sections.values() for entry in names):
            module, _, member = name.rpartition(".")
            assert hasattr(importlib.import_module(module), member), name


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a tree, with warnings as errors; with --quiet they would not even be counted."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_says_where_a_link_is_broken(tmp_path: Path) -> None:
    source, out = tmp_path / "a tree", tmp_path / "site"
    source.mkdir()
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, source / part)
    done = build(source, out)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    assert {"index.html", "gallery/index.html", "figures/default.png"} <= {
        path.relative_to(out).as_posix() for path in out.rglob("*")
    }
    python, extensions = (
        (out / f"reference/{x}/index.html").read_text("utf-8") for x in ("python", "plug-ins")
    )
    assert "toyqs.run" in python and "the positions that think" in extensions  # a field's comment
    assert "the word of baseline=" in extensions  # a table's
    with (source / "docs/sweeps.md").open("a", encoding="utf-8") as page:
        page.write("\n[a](results.md#nowhere) [b](gone.md)\n")
    (source / "docs/novel.md").write_text("# Novel\n", encoding="utf-8")
    done = build(source, out)
    assert done.returncode == 1
    for word in ("#nowhere", "gone.md", "novel.md"):
        assert word in done.stdout + done.stderr
