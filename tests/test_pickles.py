"""No file and no message is unpickled: reading one could run whatever its writer put into it."""

from __future__ import annotations

import ast
import os
import pickle
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.test_edges import ROOT, sources
from toyqs.training import distributed

# Modules that unpickle or run what they read.
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# Functions that do, whatever module they are taken from.
NAMES = {"read_pickle", "Unpickler", "unsafe_load", "full_load", "recv", "load_pickle"}
OBJECTS = re.compile(r"(all_gather|gather|scatter|broadcast|send|recv)_object(_list)?")  # torch.distributed's


def pickles(text: str) -> list[str]:
    """List in words what a program's text unpickles."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [x.name for x in node.names if x.name.partition(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            found += [str(node.module)] if str(node.module).partition(".")[0] in MODULES else []
            found += [x.name for x in node.names if x.name in NAMES or _passes_objects(x.name)]
        elif isinstance(node, ast.Attribute):
            found += [node.attr] if node.attr in NAMES or _passes_objects(node.attr) else []
        elif isinstance(node, ast.Call):
            found += _loads(node)
    return found


def _passes_objects(name: str) -> bool:
    return OBJECTS.fullmatch(name) is not None


def _loads(call: ast.Call) -> list[str]:
    given = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
    name = ast.unparse(call.func)
    found = ["allow_pickle"] if given.get("allow_pickle", False) is not False else []
    torch_load = name in ("torch.load", "torch.jit.load", "torch.package.PackageImporter")
    if torch_load and given.get("weights_only") is not True:
        found.append(name)
    return found


@pytest.mark.parametrize("path", sources(ROOT), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled(path: Path) -> None:
    assert pickles(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        *("import pickle", "import torch, pickle as p", "from pickle import loads", "import dill.source"),
        *("torch.load(path)", "torch.load(path, weights_only=False)", "torch.load(path, weights_only=flag)"),
        *("np.load(path, allow_pickle=True)", "np.load(path, allow_pickle=flag)", "pd.read_pickle(path)"),
        *("dist.broadcast_object_list(x)", "dist.all_gather_object(x, y)", "from a import gather_object"),
        *("yaml.unsafe_load(text)", "pipe.recv()", "from pandas import read_pickle"),
    ],
)
def test_what_unpickles_is_found(text: str) -> None:
    assert pickles(text) != []


@pytest.mark.parametrize(
    "text",
    [
        *("import json", "torch.load(path, weights_only=True)", "np.load(path)", "pipe.recv_bytes()"),
        *("np.load(path, allow_pickle=False)", "json.loads(text)", "json_object(text, path)"),
    ],
)
def test_what_does_not_is_not(text: str) -> None:
    assert pickles(text) == []


class Evil:
    """A thing that leaves a mark where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("mark",)


def test_a_message_in_torchruns_store_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = pickle.dumps(("cpu", Evil()))
    store = SimpleNamespace(wait=lambda *_: None, get=lambda _: message)
    monkeypatch.setattr(distributed, "_store", lambda: store)
    with pytest.raises(ValueError):
        next(distributed.receive_jobs())
    assert list(tmp_path.iterdir()) == []
    pickle.loads(message)
    assert [path.name for path in tmp_path.iterdir()] == ["mark"], "the message would have"
