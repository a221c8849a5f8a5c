"""Where plug-ins lie: their files and folders, what these hold, and a line of one as its user knows it."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import os
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from toyqs.config.errors import Refusal

GROUP = "toyqs.plugins"  # of entry points


def place_of(given: str) -> tuple[Path, str | None]:
    """Return the file or folder of a plug-in, and the module of an installed one.

    Raises:
        Refusal: there is none.
    """
    path = Path(os.path.expanduser(given))
    if given and (path.is_dir() or (path.is_file() and path.suffix == ".py")):
        return path.resolve(), None
    known = {entry.name: entry.module for entry in entry_points(group=GROUP)}
    if given in known:
        spec = importlib.util.find_spec(known[given].partition(".")[0])
        if spec is not None and (folders := [*(spec.submodule_search_locations or ())]):
            return Path(folders[0]).resolve(), known[given]
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).resolve(), known[given]
    listed = f" or {', '.join(known)}" if known else ""
    raise Refusal(
        f"plugins={given}: there is no such Python file, folder or installed plug-in; give ./FILE.py{listed}"
    )


def content_of(root: Path) -> str:
    """Return a hash of a plug-in's Python files."""
    if root.is_file():
        return hashlib.sha256(root.read_bytes()).hexdigest()
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*.py") if is_of(root, path)}
    parts = {name: hashlib.sha256(files[name].read_bytes()).hexdigest() for name in sorted(files)}
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def is_of(root: Path, path: Path) -> bool:
    """Tell whether a file is a plug-in's: in its folder, and in no hidden one there, such as .venv."""
    if path.suffix != ".py" or not path.is_relative_to(root):
        return False
    return not any(part.startswith(".") for part in path.relative_to(root).parts)


def digest(contents: Sequence[str]) -> str:
    """Return a hash of what several plug-ins hold, in any order."""
    return hashlib.sha256(" ".join(sorted(contents)).encode()).hexdigest()[:16]


def shown(given: str, root: Path, filename: str, line: int | None) -> str | None:
    """Return a line of a plug-in's file as its user knows it; None for other files."""
    path, is_path = Path(filename).resolve(), Path(os.path.expanduser(given)).exists()
    if not is_of(root, path):
        return None
    inside = "" if path == root else f"/{path.relative_to(root)}"
    return f"{given.rstrip('/') if is_path else root}{inside}:{line}"


def where_is(given: str, root: Path, thing: Any) -> str:
    """Return the file and the line where a plug-in defines a class or a function, as its user knows them."""
    try:
        call = getattr(thing, "compute", thing)
        file, line = inspect.getsourcefile(call) or "", inspect.getsourcelines(call)[1]
    except (OSError, TypeError):  # such as functools.partial
        file, line = "", 0
    return shown(given, root, file, line) or given


def remedy(error: BaseException, given: str, root: Path) -> str:
    """Return what to do about an error in a plug-in's import; its files import each other as a package's."""
    folder, file = (root, "") if root.is_dir() else (root.parent, root.name)
    wanted = f"{error.name}.py" if isinstance(error, ImportError) and error.name else ""
    if not (wanted and (folder / wanted).is_file()) and "attempted relative import" not in str(error):
        return f"mend it, or leave plugins={given} out"
    both = f", and give the folder of both files, plugins={given.removesuffix(file) or '.'}" if file else ""
    return f"write from .NAME import ... for a file beside it{both}"
