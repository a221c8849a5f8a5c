"""The house: who may import whom."""

from __future__ import annotations

import ast
import graphlib
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
    "layout": {"numerics"},
    "optim": {"layout"},
    "cost": set(),
    "model": {"types", "streams", "numerics"},
    "objectives": {"types", "numerics"},
    "cache": set(),
    "smollm2": {"cache"},
    "pretrained": {"smollm2"},
    "tasks": {"types", "cache", "pretrained"},
    "config": {"tasks", "model.roles"},
    "traits": {"config", "model.roles", "objectives"},
    "finished": {"config"},
    "idle": {"config", "objectives", "traits"},
    "config_key": {"config", "finished", "from_checkpoint", "idle", "model.roles", "pretrained", "traits"},
    "refusal": set(),
    "from_checkpoint": {"config", "pretrained", "traits"},
    "checks": {
        "build_kept", "config", "config_key", "finished", "from_checkpoint", "idle", "model",
        "objectives", "parallel", "pretrained", "refusal", "streams", "traits",
    },
    "presets": set(),
    "compose": {"config", "config_key", "checks", "follow", "parallel", "presets", "refusal"},
    "controls": {"config", "cost", "objectives", "traits"},
    "signal": {"optim"},
    "drawn": {"types"},
    "hard": {"types", "numerics", "objectives"},
    "references": {"types", "numerics"},
    "settings": {"streams"},
    "parallel": set(),
    "follow": {"experiment", "parallel"},
    "state": {"layout", "optim", "references"},
    "clock": set(),
    "train": {
        "layout", "model.sharding", "optim", "parallel", "types", "streams", "objectives", "drawn", "hard",
        "references", "settings", "signal", "state",
    },
    "evaluate": {"types", "streams", "objectives", "hard"},
    "build_beside": {"config", "model", "objectives", "traits"},
    "build_backbone": {"config", "model", "pretrained", "traits"},
    "build_pretrained": {"config", "model", "pretrained"},
    "build": {
        "types", "streams", "build_backbone", "build_beside", "build_pretrained", "config", "traits", "model",
        "objectives", "settings", "tasks", "train", "evaluate",
    },
    "build_kept": {"build", "config", "config_key", "finished", "model", "references", "traits"},
    "answers": {
        "types", "streams", "build", "build_kept", "config", "config_key", "finished", "model", "refusal",
        "results", "tasks", "traits",
    },
    "counting": {"config", "build", "build_kept", "cost", "drawn", "settings", "train"},
    "results": set(),
    "checkpoint": {"config", "config_key", "results"},
    "evidence": set(),
    "cells": {"results"},
    "plotting": {"results"},
    "tracking": set(),
    "report": {"results", "evidence", "plotting"},
    "experiment": {
        "types", "streams", "config", "config_key", "build", "build_kept", "cost", "curve", "drawn", "model",
        "train",
        "evaluate", "results", "tracking", "checkpoint", "clock", "numerics", "parallel", "state",
    },
    "curve": {"clock", "evaluate", "settings", "tracking", "types"},
    "packing": set(),
    "locks": {"results"},
    "plan": {"config", "config_key", "checks", "controls", "build", "cost", "counting"},
    "progress": {"plan"},
    "attempt": {"checkpoint", "config_key", "experiment", "locks", "parallel", "plan", "results"},
    "workers": {"attempt", "config_key", "locks", "parallel", "plan", "progress", "results"},
    "overview": {"evidence", "report", "results"},
    "sweep": {
        "attempt", "build", "config", "config_key", "cells", "cost", "plan", "pretrained", "progress",
        "workers", "results", "report", "overview",
    },
    "hydra_plugins": {"packing"},
    "run": {"compose", "sweep"},
    "analysis": {
        "results", "evidence", "cells", "plotting", "report",
        "config", "checks", "config_key", "refusal", "traits",  # of scale_up, which types commands
    },
    "bench": {
        "types", "streams", "config", "config_key", "build", "counting", "model", "objectives", "tasks",
        "traits", "train", "results", "experiment", "parallel", "state",
    },
}  # fmt: skip

# Which packages beyond the standard library each may import; a file of a folder may have a line of its own.
PACKAGES: dict[str, set[str]] = {
    "types": {"torch"},
    "streams": {"torch"},
    "numerics": {"torch"},
    "layout": {"torch"},
    "optim": {"torch"},
    "cost": {"torch"},
    "model": {"torch"},
    "model.decoder": {"torch", "transformers"},
    "model.lent_layers": {"torch", "transformers"},
    "model.transformer": {"torch", "transformers"},
    "objectives": {"torch"},
    "cache": set(),
    "smollm2": {"torch", "transformers"},
    "pretrained": {"huggingface_hub", "safetensors", "torch"},
    "tasks": {"datasets", "numpy", "tokenizers", "torch"},  # the text of a hub, and a checkpoint's tokens
    "config": {"hydra", "omegaconf"},
    "traits": set(),
    "idle": set(),
    "config_key": set(),
    "refusal": set(),
    "from_checkpoint": set(),
    "finished": set(),
    "checks": {"torch"},  # whether the device asked for is there
    "signal": {"torch"},
    "presets": {"omegaconf"},
    "compose": {"hydra", "omegaconf"},
    "controls": set(),
    "drawn": {"torch"},
    "hard": {"torch"},
    "train": {"torch"},
    "settings": set(),
    "parallel": {"torch"},
    "follow": set(),
    "state": {"torch"},
    "clock": {"torch"},
    "checkpoint": {"torch"},
    "evaluate": {"torch"},
    "build_beside": set(),
    "build": {"torch"},
    "build_backbone": {"transformers"},
    "build_pretrained": {"torch"},
    "build_kept": {"safetensors", "torch"},
    "answers": {"numpy", "scipy", "torch"},
    "answers.harness": {"lm_eval", "torch"},
    "counting": {"torch"},
    "references": {"torch"},
    "results": {"pandas"},
    "evidence": {"numpy", "pandas", "scipy"},
    "cells": {"pandas"},
    "plotting": {"matplotlib", "numpy"},
    "tracking": {"wandb"},
    "report": {"matplotlib", "numpy", "pandas"},
    "curve": {"torch"},
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
    "bench": {"torch", "transformers"},  # the latter: bench/transformer.py
}

# Slow to import and asked for rarely, or not installed as a rule -> the files that load them at once.
ONLY_INSIDE_FUNCTIONS = {
    "transformers": {"model.decoder", "model.lent_layers", "model.transformer", "bench.transformer"},
    "lm_eval": {"answers.harness"},
    **{name: set() for name in ("datasets", "huggingface_hub", "tokenizers", "wandb")},
}
# These files of the house are themselves imported inside functions alone, but by one another.
LAZY_MODULES = {
    "toyqs.model.lent_layers": {"toyqs.model.decoder"},
    "toyqs.model.decoder": {"toyqs.model.transformer"},
    "toyqs.model.transformer": {"bench.transformer"},
    "toyqs.answers.harness": set(),
}

SOURCE_PARTS = ("run.py", "toyqs", "analysis", "bench", "hydra_plugins")


def sources(root: Path) -> list[Path]:
    """Every Python file of the project that is not a test."""
    files = [root / part for part in SOURCE_PARTS if part.endswith(".py")]
    files += [f for part in SOURCE_PARTS for f in (root / part).rglob("*.py")]
    return sorted(f for f in files if f.is_file())


def unit(module: str) -> str:
    """The name under which a module stands in the tables: toyqs.model.gru -> model."""
    parts = module.split(".")
    return parts[1] if parts[0] == "toyqs" and len(parts) > 1 else parts[0]


def packages(module: str) -> set[str]:
    """What a module may import beyond the standard library."""
    return PACKAGES.get(module.removeprefix("toyqs."), PACKAGES.get(unit(module), set()))


def early(target: str, source: str) -> bool:
    """Whether a module that must be loaded inside functions is, by its importer's line, not."""
    top, inner = target.partition(".")[0], source.removeprefix("toyqs.")
    if top in ONLY_INSIDE_FUNCTIONS:
        return inner not in ONLY_INSIDE_FUNCTIONS[top]
    return any(target == name and source not in users for name, users in LAZY_MODULES.items())


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
            found.append(f"{source}: has no line in the tables of tests/test_edges.py")
            continue
        for target, lazy in imported(path, root):
            top = target.split(".")[0]
            if top in sys.stdlib_module_names:
                continue
            if top in {"toyqs", "run", "analysis", "bench", "tests"}:
                good = source != "toyqs" and allowed(target, source)
            else:
                good = top in packages(source)
            if not good or (early(target, source) and not lazy):
                found.append(f"{source} -> {target}")
    return found


def test_every_import_is_in_the_tables() -> None:
    assert bad_edges(ROOT) == []


def test_the_tables_name_the_same_parts_and_have_no_cycle() -> None:
    assert set(EDGES) == {name for name in PACKAGES if "." not in name}
    assert all(
        (ROOT / "toyqs" / name.replace(".", "/")).with_suffix(".py").is_file()
        for name in PACKAGES
        if "." in name
    )
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
        ("toyqs/model/gru.py", "def f():\n    import transformers", "toyqs.model.gru -> transformers"),
        ("toyqs/build_backbone.py", "import transformers", "toyqs.build_backbone -> transformers"),
        (
            "toyqs/build_backbone.py",
            "from toyqs.model.transformer import TransformerBackbone",
            "toyqs.build_backbone -> toyqs.model.transformer",
        ),
        ("toyqs/model/core.py", "from toyqs.model import decoder", "toyqs.model.core -> toyqs.model.decoder"),
        ("toyqs/__init__.py", "from toyqs import train", "toyqs -> toyqs.train"),
        ("analysis/curve.py", "from torch import Tensor", "analysis.curve -> torch"),
        ("analysis/curve.py", "from toyqs import model", "analysis.curve -> toyqs.model"),
        ("run.py", "import toyqs.train as t", "run -> toyqs.train"),
        ("toyqs/novel.py", "x = 1", "toyqs.novel: has no line in the tables of tests/test_edges.py"),
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
        ("toyqs/build_backbone.py", "def f():\n    import transformers, toyqs.model.transformer"),
        ("toyqs/model/decoder.py", "import torch, transformers"),
        ("toyqs/model/transformer.py", "import transformers\nfrom toyqs.model import decoder"),
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
        "toyqs/model/decoder.py",
        "toyqs/model/transformer.py",
        "toyqs/objectives/policy.py",
        "toyqs/tasks/task.py",
    ]
    for name in [*outline, path]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / path).write_text(text, encoding="utf-8")


def test_a_run_of_a_gru_never_loads_transformers() -> None:
    code = "import sys, run, toyqs.sweep, toyqs.workers; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_reading_rows_and_drawing_them_never_loads_torch() -> None:
    code = "import sys, toyqs.cells, toyqs.report; sys.exit(not {'torch', 'wandb'}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
