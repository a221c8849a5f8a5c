"""Plug-ins: a user's own files, whose classes and functions become choices as ours are, in this process.

What is loaded is a process's state: the command loads before its settings are composed, a worker before it
reads a stack's, and whoever reads a finished run before it reads that run's.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from toyqs.config.errors import Refusal
from toyqs.config.keys import Keys
from toyqs.config.plugins.found import KINDS, TRAITS, Added, added_by

GROUP = "toyqs.plugins"  # of entry points
PREFIX = "plugin."  # of the settings of what plug-ins add
NAMELESS = "plugin_"  # begins the name by which a file or folder is imported, as it has none


class Plugin(NamedTuple):
    """A file, a folder or an installed package that has been loaded."""

    given: str  # as typed
    root: Path
    package: str  # the name by which it was imported
    content: str  # a hash of all its Python files
    added: list[Added]


_loaded: dict[Path, Plugin] = {}  # by root


def load(given: Sequence[str], identity: str | None = None) -> None:
    """Add to this process's choices what plug-ins have; one that is loaded already stays as it is.

    Args:
        given: files, folders or names of entry points, as typed.
        identity: what `identity_of` returned of them when they were used; None: it is not asked.

    Raises:
        Refusal: one line: one is not there, cannot be imported or used, or has another content.
    """
    places = [(one, *_place(one)) for one in given]
    now = _hash([_content(root) for _, root, _ in places])
    if identity is not None and now != identity:
        raise Refusal(
            f"plugins={','.join(given)}: has changed: its hash was {identity} and is {now}; put back "
            "what was there, or train again"
        )
    for one, root, module in places:
        if root not in _loaded:
            _load(one, root, module)


def reset() -> None:
    """Forget all plug-ins, and what they have added."""
    for plugin in _loaded.values():
        for added in plugin.added:
            del KINDS[added.key].table[added.name]
        for words in TRAITS.values():
            words[:] = [word for word in words if word not in {added.name for added in plugin.added}]
        if plugin.package.startswith(NAMELESS):
            _forget(plugin.package)
    _loaded.clear()


def identity_of(given: Sequence[str]) -> str | None:
    """Return a hash of what plug-ins hold, whatever their names are and wherever they lie; None for none."""
    return _hash([_content(_place(one)[0]) for one in given]) if given else None


def kept(config: Keys) -> dict[str, Any]:
    """Return the keys `plugins` and `plugin` with what a run makes use of, and with all defaults filled in.

    Args:
        config: in canonical spelling but for these two.
    """
    used = [(plugin, x) for plugin in _loaded.values() for x in plugin.added if _value(config, x) == x.name]
    own = {x.name: vars(x.settings()) | config.plugin.get(x.name, {}) for _, x in used}
    given = dict.fromkeys(plugin.given for plugin, _ in used)
    return {"plugins": [*given], "plugin": {name: values for name, values in own.items() if values}}


def own_settings() -> dict[str, type[Any]]:
    """Return a dataclass for each thing of a plug-in that has settings of its own, by its name."""
    return {x.name: x.settings for x in added() if vars(x.settings())}


def setting_names() -> set[str]:
    """Return the settings of all that the loaded plug-ins have added, as they are typed."""
    return {f"{PREFIX}{name}.{x.name}" for name, kind in own_settings().items() for x in fields(kind)}


def added() -> list[Added]:
    """List all that the loaded plug-ins have added."""
    return [x for plugin in _loaded.values() for x in plugin.added]


def as_list(given: Any) -> list[str]:
    """Return the value of `plugins` as a list, all of which are loaded.

    Raises:
        Refusal: one is not, as one that a preset names.
    """
    given = [given] if isinstance(given, str) else given or []
    for one in given:
        if not isinstance(one, str) or _place(one)[0] not in _loaded:
            raise Refusal(f"plugins={one}: is read before any preset; type it as a word of the command")
    return [*given]


def described(error: BaseException) -> str | None:
    """Return an error in one line, with the file and the line of a plug-in that it passed through."""
    where = None
    for frame in traceback.extract_tb(error.__traceback__):
        for plugin in _loaded.values():
            where = _shown(plugin.given, plugin.root, frame.filename, frame.lineno) or where
    return None if where is None else f"{where}: {_in_one_line(error)}"


def _value(config: Keys, added: Added) -> Any:
    return config.task.name if added.key == "task" else getattr(config, added.key)


def _in_one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _place(given: str) -> tuple[Path, str | None]:
    """Return the file or folder of a plug-in, and the module of an installed one.

    Raises:
        Refusal: there is none.
    """
    path = Path(os.path.expanduser(given))
    if path.is_dir() or (path.is_file() and path.suffix == ".py"):
        return path.resolve(), None
    known = {entry.name: entry.module for entry in entry_points(group=GROUP)}
    if given in known:
        spec = importlib.util.find_spec(known[given].partition(".")[0])
        if spec is not None and spec.origin is not None:
            origin = Path(spec.origin).resolve()
            return origin.parent if spec.submodule_search_locations else origin, known[given]
    listed = f" or {', '.join(known)}" if known else ""
    raise Refusal(
        f"plugins={given}: there is no such Python file, folder or installed plug-in; give ./FILE.py{listed}"
    )


def _content(root: Path) -> str:
    """Return a hash of a plug-in's Python files, as they were when it was loaded, if it was."""
    if root in _loaded:
        return _loaded[root].content
    if root.is_file():
        return hashlib.sha256(root.read_bytes()).hexdigest()
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*.py") if _is_of(root, path)}
    parts = {name: hashlib.sha256(files[name].read_bytes()).hexdigest() for name in sorted(files)}
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _is_of(root: Path, path: Path) -> bool:
    """Tell whether a file is a plug-in's: in its folder, and in no hidden one there, such as .venv."""
    if path.suffix != ".py" or not path.is_relative_to(root):
        return False
    return not any(part.startswith(".") for part in path.relative_to(root).parts)


def _hash(contents: Sequence[str]) -> str:
    return hashlib.sha256(" ".join(sorted(contents)).encode()).hexdigest()[:16]


def _load(given: str, root: Path, module: str | None) -> None:
    """Import a plug-in and put what it has into the tables; after a refusal they are as before."""
    package = module.partition(".")[0] if module else f"{NAMELESS}{_hash([str(root)])}"
    before = {key: dict(kind.table) for key, kind in KINDS.items()}

    def say(thing: Any, why: str) -> Refusal:
        try:
            call = getattr(thing, "compute", thing)
            file, line = inspect.getsourcefile(call) or "", inspect.getsourcelines(call)[1]
        except (OSError, TypeError):  # such as functools.partial
            file, line = "", 0
        return Refusal(f"{_shown(given, root, file, line) or given}: {why}")

    try:
        content = _content(root)
        with _tables(before):
            modules = _imported(given, root, package, module)
            found = added_by(modules, before, say)
    except BaseException:
        if module is None:
            _forget(package)
        raise
    if not found:
        raise Refusal(
            f"plugins={given}: has no task, objective, reward, baseline, mixer or head; see docs/plugins.md"
        )
    for x in found:
        KINDS[x.key].table[x.name] = x.thing
    names = {x.name for x in found}
    for trait, words in TRAITS.items():
        named = {word for one in modules for word in getattr(one, trait, ())}
        words.extend(sorted(names & named - {*words}))
    _loaded[root] = Plugin(given, root, package, content, found)


@contextmanager
def _tables(before: dict[str, dict[str, Any]]) -> Iterator[None]:
    """Leave the tables as they were, whatever a plug-in's import does to them."""
    try:
        yield
    finally:
        for key, kind in KINDS.items():
            kind.table.clear()
            kind.table.update(before[key])


def _imported(given: str, root: Path, package: str, module: str | None) -> list[ModuleType]:
    """Import a plug-in, of a folder every file; return its modules."""
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # what was hashed is what is read
    try:
        if module is not None:
            importlib.import_module(module)
        elif root.is_file():
            _run(package, root)
        else:
            init = root / "__init__.py"
            _run(package, init if init.is_file() else None, root)
            for file in sorted(root.glob("[!_]*.py")):
                importlib.import_module(f"{package}.{file.stem}")
    except (Exception, SystemExit) as error:
        places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
        if isinstance(error, SyntaxError):
            places.append((error.filename or "", error.lineno))
        shown = [_shown(given, root, *place) for place in places]
        where = next((place for place in reversed(shown) if place), f"plugins={given}")
        raise Refusal(f"{where}: {_in_one_line(error)}; mend it, or leave plugins={given} out") from error
    finally:
        sys.dont_write_bytecode = writes
    return [one for name, one in [*sys.modules.items()] if name == package or name.startswith(f"{package}.")]


def _run(name: str, file: Path | None, folder: Path | None = None) -> None:
    """Run a file as a module, or as the beginning of a package, of which a folder need have none."""
    inside = None if folder is None else [str(folder)]
    importlib.invalidate_caches()
    if file is None:
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = inside or []
        return
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=inside)
    assert spec is not None and spec.loader is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


def _forget(package: str) -> None:
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        del sys.modules[name]


def _shown(given: str, root: Path, filename: str, line: int | None) -> str | None:
    """Return a line of a plug-in's file as its user knows it; None for other files."""
    path, is_path = Path(filename).resolve(), Path(os.path.expanduser(given)).exists()
    if not _is_of(root, path):
        return None
    inside = "" if path == root else f"/{path.relative_to(root)}"
    return f"{given.rstrip('/') if is_path else root}{inside}:{line}"
