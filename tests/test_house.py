"""Limits on the length of files and functions, and words that no file may contain."""

from __future__ import annotations

import ast
import os
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_edges import ROOT, sources

FILE_LINES, MEDIAN_LINES, FUNCTION_LINES, RUN_LINES = 300, 150, 45, 45
# Words with which a function's docstring cannot begin: what follows is no sentence.
FRAGMENTS = {
    *("A", "An", "As", "At", "Each", "Every", "How", "If", "Of", "One", "The", "To", "Two"),
    *("What", "When", "Where", "Whether", "Which", "Who", "With"),
}
SKIPPED = {".git", ".venv", "build", "dist", "runs", "outputs", "multirun", "wandb", "__pycache__"}
SKIPPED |= {".carried", ".carried.new", "bench-gpu"}  # of bench/gpu.sh


def docstring_lines(node: ast.AST) -> int:
    """Count the lines of a function's docstring."""
    first = node.body[0]
    if not (isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)):
        return 0
    return first.end_lineno - first.lineno + 1 if isinstance(first.value.value, str) else 0


def breaches(path: Path) -> list[str]:
    """List the breaches of the limits in one file, in words."""
    text = path.read_text(encoding="utf-8")
    lines = text.count("\n")
    limit = RUN_LINES if path.name == "run.py" else FILE_LINES
    found = [f"{path.name}: {lines} lines (at most {limit})"] if lines > limit else []
    found += [f"{path.name}: {word}" for word in re.findall(r"#.*\b(TODO|FIXME|XXX|HACK)\b", text)]
    for node, public in functions(ast.parse(text)):
        prose = docstring_lines(node)
        length = node.end_lineno - node.lineno + 1 - prose
        if length > FUNCTION_LINES:
            found.append(f"{path.name}: {node.name}: {length} code lines (at most {FUNCTION_LINES})")
        if public and not prose:
            found.append(f"{path.name}: {node.name}: no docstring")
        first = (ast.get_docstring(node) or "Return").split()[0]
        if first in FRAGMENTS or not re.fullmatch(r"[A-Z][a-z]+[,.:]?", first):
            found.append(f"{path.name}: {node.name}: its docstring begins with {first}, not with a verb")
    return found


def functions(
    tree: ast.AST, public: bool = True
) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """Yield every function, and whether it is public: no private name on its path, not inside a function."""
    for node in ast.iter_child_nodes(tree):
        seen = public and not str(getattr(node, "name", "")).startswith("_")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node, seen
            seen = False
        yield from functions(node, seen)


@pytest.mark.parametrize("path", sources(ROOT), ids=lambda path: str(path.relative_to(ROOT)))
def test_ceilings(path: Path) -> None:
    assert breaches(path) == []


def test_files_of_tests_are_no_longer() -> None:
    lengths = {f: f.read_text(encoding="utf-8").count("\n") for f in (ROOT / "tests").rglob("*.py")}
    assert {f: n for f, n in lengths.items() if n > FILE_LINES} == {}


def test_the_median_file_is_short() -> None:
    lengths = [path.read_text(encoding="utf-8").count("\n") for path in sources(ROOT)]
    assert statistics.median(lengths) < MEDIAN_LINES


@pytest.mark.parametrize(
    ("name", "text", "breach"),
    [
        ("long.py", "x = 1\n" * 301, "long.py: 301 lines (at most 300)"),
        ("run.py", "x = 1\n" * 46, "run.py: 46 lines (at most 45)"),
        ("f.py", 'def f():\n    """Run."""\n' + "    x = 1\n" * 45, "f.py: f: 46 code lines (at most 45)"),
        ("f.py", "def f():\n    return 1\n", "f.py: f: no docstring"),
        ("f.py", "class C:\n    def f(self):\n        return 1\n", "f.py: f: no docstring"),
        ("f.py", "x = 1  # FIX" + "ME later\n", "f.py: FIXME"),
        (
            "f.py",
            'def f():\n    """Whether x."""\n',
            "f.py: f: its docstring begins with Whether, not with a verb",
        ),
        (
            "f.py",
            'def f():\n    """(S, B) floats."""\n',
            "f.py: f: its docstring begins with (S,, not with a verb",
        ),
    ],
)
def test_a_breach_is_found(tmp_path: Path, name: str, text: str, breach: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert breaches(tmp_path / name) == [breach]


def test_a_long_docstring_does_not_count_nor_do_private_functions_need_one(tmp_path: Path) -> None:
    text = 'def f():\n    """Return.\n' + "\n    more" * 100 + '\n    """\n' + "    x = 1\n" * 44
    text += "def _g():\n    def h():\n        pass\nclass _C:\n    def f(self):\n        pass\n"
    (tmp_path / "f.py").write_text(text, encoding="utf-8")
    assert breaches(tmp_path / "f.py") == []


# Paths that exist on one machine only, written so that this file does not contain one.
MACHINE_PATHS = re.compile(r"(?<![\w.$}>])/(work|home|root|tmp|Users)/|\.\./(shared)/")


def texts(root: Path) -> list[Path]:
    """List every text file of the project."""
    files: list[Path] = []
    for folder, inside, names in os.walk(root):
        inside[:] = {*inside} - SKIPPED  # .venv has a hundred thousand
        files += [Path(folder, name) for name in names if name not in SKIPPED]
    endings = {".py", ".md", ".yaml", ".yml", ".toml", ".sh", ".cff", ".txt", ""}
    return sorted(
        f for f in files if f.suffix in endings and ".egg-info" not in str(f) and "_cache" not in str(f)
    )


def test_no_file_names_a_path_of_one_machine() -> None:
    hits = []
    for path in texts(ROOT):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if MACHINE_PATHS.search(line):
                hits.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert hits == []


@pytest.mark.parametrize("path", ["/{}/x", " /{}/x", "'/{}/x'", "(/{}/x)"])
@pytest.mark.parametrize("folder", ["work", "home", "root", "tmp"])
def test_a_machine_path_is_found(path: str, folder: str) -> None:
    assert MACHINE_PATHS.search(path.format(folder))
    assert not MACHINE_PATHS.search(path.format(f"my{folder}"))


def test_readme_starts_with_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    run = readme.find("bash setup.sh && .venv/bin/python run.py\n")
    test = readme.find("bash setup.sh dev && .venv/bin/python -m pytest -q\n")
    assert 0 <= run < test
    assert readme[:test].count("\n") <= 25, "the two commands come first"
