"""The plan of the tree: the rooms and packages that each room may import."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.rooms import CONFIG_ORDER, EDGES, FACES, LAZY_MODULES, ONLY_INSIDE_FUNCTIONS, PACKAGES

ROOT = Path(__file__).resolve().parents[1]

MOST_LEVELS = 8
SOURCE_PARTS = ("run.py", "toyqs", "analysis", "bench", "hydra_plugins")


def sources(root: Path) -> list[Path]:
    """List every Python file of the project that is not a test."""
    files = [root / part for part in SOURCE_PARTS if part.endswith(".py")]
    files += [f for part in SOURCE_PARTS for f in (root / part).rglob("*.py")]
    return sorted(f for f in files if f.is_file())


def room(module: str) -> str:
    """Return the room of a module: toyqs.model.core -> model."""
    parts = module.split(".")
    return parts[1] if parts[0] == "toyqs" and len(parts) > 1 else parts[0]


def packages(module: str) -> set[str]:
    """Return the packages that a module may import: the longest line of PACKAGES that names it."""
    parts = module.removeprefix("toyqs.").split(".")
    lines = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((PACKAGES[line] for line in lines if line in PACKAGES), set())


def only_lazily(target: str, source: str) -> bool:
    """Tell whether a file may import a module only inside functions."""
    top, inner = target.partition(".")[0], source.removeprefix("toyqs.")
    if top in ONLY_INSIDE_FUNCTIONS:
        return inner not in ONLY_INSIDE_FUNCTIONS[top]
    return any(target == name and source not in users for name, users in LAZY_MODULES.items())


def module_name(path: Path, root: Path) -> str:
    """Convert toyqs/model/core.py to toyqs.model.core; a package's __init__ stands for the package."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, root: Path) -> list[tuple[str, bool]]:
    """List each module that a file imports, and whether it does so inside a function."""
    return _imported(path, root, path.read_text(encoding="utf-8"))


@cache
def _imported(path: Path, root: Path, text: str) -> list[tuple[str, bool]]:
    return [*_imports(path, root, ast.parse(text))]


def _imports(path: Path, root: Path, tree: ast.Module) -> Iterator[tuple[str, bool]]:
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
    """Tell whether a dotted name is a file or a folder of the project."""
    path = root.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def config_level(module: str) -> int:
    """Return the line of CONFIG_ORDER that has a module of config/."""
    part = module.split(".")[2] if module.count(".") > 1 else ""
    return next((level for level, parts in enumerate(CONFIG_ORDER) if part in parts), -1)


def allowed(source: str, target: str) -> bool:
    """Tell whether one module of the project may import another."""
    if room(source) == room(target) == "config":
        part = [module.split(".")[2:3] for module in (source, target)]
        return part[0] == part[1] or config_level(source) > config_level(target) >= 0
    return room(source) == room(target) or room(target) in EDGES[room(source)]


def bad_edges(root: Path) -> list[str]:
    """List every import that the tables do not allow, in words."""
    found = []
    for path in sources(root):
        source = module_name(path, root)
        if source != "toyqs" and room(source) not in EDGES:
            found.append(f"{source}: has no line in the tables of tests/rooms.py")
            continue
        for target, lazy in imported(path, root):
            top = target.split(".")[0]
            if top in sys.stdlib_module_names:
                continue
            if top in {"toyqs", "run", "analysis", "bench", "tests"}:
                if source == "toyqs":
                    good = lazy and target in FACES
                else:  # the package's own file is imported before any other: its __version__ is there for all
                    good = target == "toyqs" or allowed(source, target)
            else:
                good = top in packages(source)
            if not good or (only_lazily(target, source) and not lazy):
                found.append(f"{source} -> {target}")
    return found


def arrows(root: Path) -> dict[str, set[str]]:
    """Map each room to the rooms that it imports; the package's own file is none."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sources(root):
        source = module_name(path, root)
        targets = (target for target, _ in imported(path, root) if target.partition(".")[0] == "toyqs")
        if source != "toyqs":
            found[room(source)] |= {room(target) for target in targets} - {room(source), "toyqs"}
    return found


def levels(graph: dict[str, set[str]]) -> list[list[str]]:
    """Sort the rooms into levels, each importing lower levels only."""
    sorter = graphlib.TopologicalSorter(graph)
    sorter.prepare()
    found = []
    while sorter.is_active():
        ready = sorter.get_ready()
        found.append(sorted(ready))
        sorter.done(*ready)
    return found


def test_every_import_is_in_the_tables() -> None:
    assert bad_edges(ROOT) == []


def test_the_plan_has_no_circle_and_no_line_that_nothing_uses() -> None:
    """`pytest -rP tests/test_edges.py` prints the plan."""
    assert set(EDGES) == {name.partition(".")[0] for name in PACKAGES}
    graph = arrows(ROOT)
    found = levels(graph)
    for number, names in enumerate(found):
        for name in names:
            print(f"{number}  {name} -> {', '.join(sorted(graph[name])) or 'nothing'}")
    print(f"{sum(map(len, graph.values()))} arrows between {len(EDGES)} rooms on {len(found)} levels")
    assert {name: graph[name] for name in EDGES} == EDGES
    assert len(found) <= MOST_LEVELS


@pytest.mark.parametrize(
    ("path", "line", "edge"),
    [
        ("toyqs/model/a.py", "import toyqs.objectives.losses", "toyqs.model.a -> toyqs.objectives.losses"),
        ("toyqs/model/a.py", "from ..tasks.task import Task", "toyqs.model.a -> toyqs.tasks.task"),
        ("toyqs/model/a.py", "def f():\n    import toyqs.training", "toyqs.model.a -> toyqs.training"),
        ("toyqs/model/a.py", "def f():\n    import transformers", "toyqs.model.a -> transformers"),
        (
            "toyqs/model/a.py",
            "from toyqs.model.backbones import decoder",
            "toyqs.model.a -> toyqs.model.backbones.decoder",
        ),
        ("toyqs/tasks/a.py", "from toyqs.model import layers", "toyqs.tasks.a -> toyqs.model.layers"),
        ("toyqs/tasks/a.py", "import toyqs.model", "toyqs.tasks.a -> toyqs.model"),
        ("toyqs/training/a.py", "from toyqs.config import errors", "toyqs.training.a -> toyqs.config.errors"),
        ("toyqs/config/resolve.py", "from . import checks", "toyqs.config.resolve -> toyqs.config.checks"),
        ("toyqs/config/errors.py", "from . import identity", "toyqs.config.errors -> toyqs.config.identity"),
        ("toyqs/config/builders/a.py", "import transformers", "toyqs.config.builders.a -> transformers"),
        ("toyqs/config/checks/a.py", "import transformers", "toyqs.config.checks.a -> transformers"),
        (
            "toyqs/config/builders/a.py",
            "from toyqs.model.backbones.transformer import TransformerBackbone",
            "toyqs.config.builders.a -> toyqs.model.backbones.transformer",
        ),
        ("toyqs/evidence/rows.py", "import torch", "toyqs.evidence.rows -> torch"),
        ("toyqs/experiment/a.py", "import wandb", "toyqs.experiment.a -> wandb"),
        ("toyqs/__init__.py", "from toyqs.training import loop", "toyqs -> toyqs.training.loop"),
        ("toyqs/__init__.py", "from toyqs.sweep import calls", "toyqs -> toyqs.sweep.calls"),
        ("toyqs/__init__.py", "def f():\n    import toyqs.training", "toyqs -> toyqs.training"),
        ("analysis/curve.py", "from torch import Tensor", "analysis.curve -> torch"),
        ("analysis/curve.py", "from toyqs import model", "analysis.curve -> toyqs.model"),
        ("run.py", "import toyqs.training.loop as t", "run -> toyqs.training.loop"),
        ("toyqs/__main__.py", "import toyqs.evidence", "toyqs.__main__ -> toyqs.evidence"),
        ("toyqs/novel.py", "x = 1", "toyqs.novel: has no line in the tables of tests/rooms.py"),
    ],
)  # fmt: skip
def test_a_planted_bad_import_is_found(tmp_path: Path, path: str, line: str, edge: str) -> None:
    plant(tmp_path, path, line)
    assert bad_edges(tmp_path) == [edge]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("toyqs/model/a.py", "import math, torch\nfrom .layers import Linear\nfrom toyqs import types"),
        ("toyqs/config/resolve.py", "from toyqs.model import roles\nfrom .errors import Refusal"),
        ("toyqs/config/checks/a.py", "from toyqs.config import identity, resolve"),
        ("toyqs/experiment/a.py", "from toyqs import __version__\ndef f():\n    import wandb"),
        ("toyqs/__init__.py", "def f():\n    from toyqs.sweep import calls"),
        ("toyqs/config/builders/a.py", "def f():\n    import transformers, toyqs.model.backbones.decoder"),
        ("toyqs/model/backbones/decoder.py", "import torch, transformers"),
        ("toyqs/model/backbones/transformer.py", "import transformers\nfrom . import decoder"),
        ("analysis/curve.py", "import pandas as pd\nfrom toyqs.evidence import rows, style"),
    ],
)  # fmt: skip
def test_a_good_import_is_let_through(tmp_path: Path, path: str, line: str) -> None:
    plant(tmp_path, path, line)
    assert bad_edges(tmp_path) == []


def plant(root: Path, path: str, text: str) -> None:
    """Write a small copy of the tree's outline with one file in it."""
    outline = {
        "config": ("checks/a", "errors", "identity", "resolve"),
        "evidence": ("rows", "style"),
        "model": ("layers", "roles", "backbones/decoder", "backbones/transformer"),
        "objectives": ("losses",),
        "sweep": ("calls",),
        "tasks": ("task",),
        "training": ("loop",),
    }
    names = [
        "toyqs/types.py",
        *(f"toyqs/{folder}/{name}.py" for folder in outline for name in outline[folder]),
    ]
    for name in [*names, path]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / path).write_text(text, encoding="utf-8")


def test_a_circle_between_rooms_is_found() -> None:
    with pytest.raises(graphlib.CycleError):
        levels({"model": {"tasks"}, "tasks": {"assets"}, "assets": {"model"}})


def test_a_run_of_a_gru_never_loads_transformers_nor_a_worker_what_makes_tables() -> None:
    code = (
        "import sys, toyqs.sweep.worker; none = {'hydra', 'pandas', 'scipy'}.isdisjoint(sys.modules);"
        "import run, toyqs.sweep.main; sys.exit(not none or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_reading_rows_and_drawing_them_never_loads_torch() -> None:
    code = (
        "import sys, toyqs.evidence.cells, toyqs.evidence.tables.comparison;"
        "sys.exit(not {'torch', 'wandb'}.isdisjoint(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_another_hydra_program_of_the_environment_never_loads_toyqs() -> None:
    code = (
        "import sys; from hydra.core.plugins import Plugins; Plugins.instance();"
        "ours = {'hydra_plugins.packing_sweeper', 'hydra_plugins.sweep_launcher'};"
        "sys.exit(not (ours <= sys.modules.keys() and {'toyqs', 'torch'}.isdisjoint(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
