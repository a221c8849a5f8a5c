"""The house: who may import whom, how long things may be, what no file may say."""

from __future__ import annotations

import ast
import graphlib
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Who may import what of the project. A name stands for its files: `model` for all of toyqs/model/,
# `model.roles` for that file alone; files of one folder may import one another.
EDGES: dict[str, set[str]] = {
    "types": set(),
    "streams": set(),
    "numerics": set(),
    "optim": {"numerics"},
    "cost": set(),
    "model": {"types", "streams", "numerics"},
    "objectives": {"types", "numerics"},
    "tasks": {"types"},
    "config": {"tasks", "model.roles"},
    "config_key": {"config", "model.roles"},
    "config_checks": {"config", "config_key", "tasks", "model.roles"},
    "compose": {"config", "config_key", "config_checks"},
    "controls": {"config", "config_key", "cost"},
    "train": {"types", "streams", "objectives", "optim"},
    "evaluate": {"types", "streams", "objectives"},
    "build": {
        "types", "streams", "config", "config_key", "config_checks", "cost", "model", "objectives", "tasks",
        "train", "evaluate",
    },
    "results": set(),
    "evidence": set(),
    "cells": {"results"},
    "plotting": {"results"},
    "tracking": set(),
    "report": {"results", "evidence", "plotting"},
    "experiment": {
        "types", "streams", "config", "config_key", "config_checks", "build", "cost", "train", "evaluate",
        "results", "tracking",
    },
    "packing": set(),
    "locks": {"results"},
    "plan": {"config", "config_key", "config_checks", "controls", "build", "cost"},
    "progress": {"plan"},
    "attempt": {"config_key", "experiment", "locks", "plan", "results"},
    "workers": {"attempt", "config_key", "plan", "progress", "results"},
    "overview": {"evidence", "report", "results"},
    "sweep": {
        "attempt", "config", "config_key", "cells", "cost", "plan", "progress", "workers", "results",
        "report", "overview",
    },
    "hydra_plugins": {"packing"},
    "run": {"compose", "sweep"},
    "analysis": {"results", "evidence", "cells", "plotting", "report"},
    "bench": {"types", "streams", "config", "config_key", "build", "model", "objectives", "tasks", "train"},
}  # fmt: skip

# Which packages beyond the standard library each may import.
PACKAGES: dict[str, set[str]] = {
    "types": {"torch"},
    "streams": {"torch"},
    "numerics": {"torch"},
    "optim": {"torch"},
    "cost": {"torch"},
    "model": {"torch"},
    "objectives": {"torch"},
    "tasks": {"numpy", "torch"},
    "config": {"hydra", "omegaconf"},
    "config_key": set(),
    "config_checks": {"torch"},  # whether the device asked for is there
    "compose": {"hydra", "omegaconf"},
    "controls": set(),
    "train": {"torch"},
    "evaluate": {"torch"},
    "build": {"torch"},
    "results": {"pandas"},
    "evidence": {"numpy", "pandas", "scipy"},
    "cells": {"pandas"},
    "plotting": {"matplotlib", "numpy"},
    "tracking": {"wandb"},
    "report": {"matplotlib", "numpy", "pandas"},
    "experiment": {"safetensors", "torch"},
    "packing": set(),
    "locks": {"filelock"},
    "plan": set(),
    "progress": {"tqdm"},
    "attempt": set(),
    "workers": set(),
    "overview": {"pandas"},
    "sweep": {"pandas"},
    "hydra_plugins": {"hydra", "omegaconf"},
    "run": {"hydra", "omegaconf"},
    "analysis": {"matplotlib", "numpy", "pandas", "scipy"},
    "bench": {"torch"},
}

ONLY_INSIDE_FUNCTIONS = {"wandb"}  # slow to import and asked for rarely

FILE_LINES, MEDIAN_LINES, FUNCTION_LINES, RUN_LINES = 300, 200, 45, 44
SOURCE_PARTS = ("run.py", "toyqs", "analysis", "bench", "hydra_plugins")
SKIPPED = {".git", ".venv", "build", "dist", "runs", "outputs", "multirun", "wandb", "__pycache__"}


def sources(root: Path) -> list[Path]:
    """Every Python file of the project that is not a test."""
    files = [root / part for part in SOURCE_PARTS if part.endswith(".py")]
    files += [f for part in SOURCE_PARTS for f in (root / part).rglob("*.py")]
    return sorted(f for f in files if f.is_file())


def unit(module: str) -> str:
    """The name under which a module stands in the tables: toyqs.model.gru -> model."""
    parts = module.split(".")
    return parts[1] if parts[0] == "toyqs" and len(parts) > 1 else parts[0]


def module_name(path: Path, root: Path) -> str:
    """toyqs/model/gru.py -> toyqs.model.gru; a package's __init__ stands for the package."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, root: Path) -> Iterator[tuple[str, bool]]:
    """Each module that a file imports, and whether it does so inside a function."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = module_name(path, root).split(".")
    if path.name != "__init__.py":
        package.pop()
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    lazy = {child for function in functions for child in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                yield (inner if is_module(inner, root) else module), node in lazy


def is_module(name: str, root: Path) -> bool:
    """Whether a dotted name is a file or a folder of the project."""
    path = root.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def allowed(target: str, source: str) -> bool:
    """Whether one module of the project may import another."""
    if unit(target) == unit(source):
        return True
    inner = target.removeprefix("toyqs.")
    return any(inner == edge or inner.startswith(f"{edge}.") for edge in EDGES[unit(source)])


def bad_edges(root: Path) -> list[str]:
    """Every import that the tables do not allow, as readable lines."""
    found = []
    for path in sources(root):
        source = module_name(path, root)
        if source != "toyqs" and unit(source) not in EDGES:
            found.append(f"{source}: has no line in the tables of tests/test_house.py")
            continue
        for target, lazy in imported(path, root):
            top = target.split(".")[0]
            if top in sys.stdlib_module_names:
                continue
            if top in {"toyqs", "run", "analysis", "bench", "tests"}:
                good = source != "toyqs" and allowed(target, source)
            else:
                good = top in PACKAGES.get(unit(source), set()) and (lazy or top not in ONLY_INSIDE_FUNCTIONS)
            if not good:
                found.append(f"{source} -> {target}")
    return found


def test_every_import_is_in_the_tables() -> None:
    assert bad_edges(ROOT) == []


def test_the_tables_name_the_same_parts_and_have_no_cycle() -> None:
    assert set(EDGES) == set(PACKAGES)
    graph = {part: {edge.split(".")[0] for edge in edges} for part, edges in EDGES.items()}
    assert set().union(*graph.values()) <= set(graph)
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    ("path", "line", "edge"),
    [
        ("toyqs/model/a.py", "import toyqs.objectives.policy", "toyqs.model.a -> toyqs.objectives.policy"),
        ("toyqs/model/gru.py", "from ..tasks.task import Task", "toyqs.model.gru -> toyqs.tasks.task"),
        ("toyqs/model/gru.py", "def f():\n    import toyqs.train", "toyqs.model.gru -> toyqs.train"),
        ("toyqs/config.py", "from toyqs.model import layers", "toyqs.config -> toyqs.model.layers"),
        ("toyqs/config.py", "import toyqs.model", "toyqs.config -> toyqs.model"),
        ("toyqs/results.py", "import torch", "toyqs.results -> torch"),
        ("toyqs/tracking.py", "import wandb", "toyqs.tracking -> wandb"),
        ("toyqs/__init__.py", "from toyqs import train", "toyqs -> toyqs.train"),
        ("analysis/curve.py", "from torch import Tensor", "analysis.curve -> torch"),
        ("analysis/curve.py", "from toyqs import model", "analysis.curve -> toyqs.model"),
        ("run.py", "import toyqs.train as t", "run -> toyqs.train"),
        ("toyqs/novel.py", "x = 1", "toyqs.novel: has no line in the tables of tests/test_house.py"),
    ],
)  # fmt: skip
def test_a_planted_bad_import_is_found(tmp_path: Path, path: str, line: str, edge: str) -> None:
    plant(tmp_path, path, line)
    assert bad_edges(tmp_path) == [edge]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("toyqs/model/gru.py", "import math, torch\nfrom .layers import Linear\nfrom toyqs import types"),
        ("toyqs/config.py", "from toyqs.model import roles\nfrom toyqs.model.roles import ROLES"),
        ("toyqs/tracking.py", "def f():\n    import wandb"),
        ("analysis/curve.py", "import pandas as pd\nfrom toyqs import plotting, results"),
    ],
)  # fmt: skip
def test_a_good_import_is_let_through(tmp_path: Path, path: str, line: str) -> None:
    plant(tmp_path, path, line)
    assert bad_edges(tmp_path) == []


def plant(root: Path, path: str, text: str) -> None:
    """A small copy of the house's outline with one file written into it."""
    outline = ["toyqs/types.py", "toyqs/train.py", "toyqs/results.py", "toyqs/plotting.py"]
    outline += [
        "toyqs/model/layers.py",
        "toyqs/model/roles.py",
        "toyqs/objectives/policy.py",
        "toyqs/tasks/task.py",
    ]
    for name in [*outline, path]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / path).write_text(text, encoding="utf-8")


def test_reading_rows_and_drawing_them_never_loads_torch() -> None:
    code = "import sys, toyqs.cells, toyqs.report; sys.exit(not {'torch', 'wandb'}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def docstring_lines(node: ast.AST) -> int:
    """How many lines a function's docstring takes."""
    first = node.body[0]
    if not (isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)):
        return 0
    return first.end_lineno - first.lineno + 1 if isinstance(first.value.value, str) else 0


def breaches(path: Path) -> list[str]:
    """What one file does against the ceilings, as readable lines."""
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
    return found


def functions(
    tree: ast.AST, public: bool = True
) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """Every function, and whether others see it: no private name on the way, not inside a function."""
    for node in ast.iter_child_nodes(tree):
        seen = public and not str(getattr(node, "name", "")).startswith("_")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node, seen
            seen = False
        yield from functions(node, seen)


@pytest.mark.parametrize("path", sources(ROOT), ids=lambda path: str(path.relative_to(ROOT)))
def test_ceilings(path: Path) -> None:
    assert breaches(path) == []


def test_the_median_file_is_short() -> None:
    lengths = [path.read_text(encoding="utf-8").count("\n") for path in sources(ROOT)]
    assert statistics.median(lengths) < MEDIAN_LINES


@pytest.mark.parametrize(
    ("name", "text", "breach"),
    [
        ("long.py", "x = 1\n" * 301, "long.py: 301 lines (at most 300)"),
        ("run.py", "x = 1\n" * 45, "run.py: 45 lines (at most 44)"),
        ("f.py", 'def f():\n    """One."""\n' + "    x = 1\n" * 45, "f.py: f: 46 code lines (at most 45)"),
        ("f.py", "def f():\n    return 1\n", "f.py: f: no docstring"),
        ("f.py", "class C:\n    def f(self):\n        return 1\n", "f.py: f: no docstring"),
        ("f.py", "x = 1  # FIX" + "ME later\n", "f.py: FIXME"),
    ],
)
def test_a_breach_is_found(tmp_path: Path, name: str, text: str, breach: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert breaches(tmp_path / name) == [breach]


def test_a_long_docstring_does_not_count_nor_do_private_functions_need_one(tmp_path: Path) -> None:
    text = 'def f():\n    """One.\n' + "\n    more" * 100 + '\n    """\n' + "    x = 1\n" * 44
    text += "def _g():\n    def h():\n        pass\nclass _C:\n    def f(self):\n        pass\n"
    (tmp_path / "f.py").write_text(text, encoding="utf-8")
    assert breaches(tmp_path / "f.py") == []


# Paths that exist on one machine only; none of them stands here as it would elsewhere.
MACHINE_PATHS = re.compile(r"(?<![\w.$}>])/(work|home|root|tmp|Users)/|\.\./(shared)/")


def texts(root: Path) -> list[Path]:
    """Every text file of the project."""
    files = (f for f in root.rglob("*") if f.is_file() and not SKIPPED & set(f.relative_to(root).parts))
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
