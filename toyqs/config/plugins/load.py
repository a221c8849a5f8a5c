"""Plug-ins: a user's own files, whose classes and functions become choices as ours are, in this process.

What is loaded is a process's state: the command loads before its settings are composed, a worker before it
reads a stack's, and whoever reads a finished run before it reads that run's.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from toyqs.config.errors import Refusal
from toyqs.config.keys import Keys
from toyqs.config.plugins.batches import fault_of_sample
from toyqs.config.plugins.found import KINDS, TRAITS, Added, added_by
from toyqs.config.plugins.places import content_of, digest, place_of, remedy, shown, where_is

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
_kept: dict[Path, str] = {}  # what installed packages held when they were imported, which Python does once


def load(given: Sequence[str], identity: str | None = None) -> None:
    """Add to this process's choices what plug-ins have; one that is loaded already stays as it is.

    Args:
        given: files, folders or names of entry points, as typed.
        identity: what `identity_of` returned of them when they were used, by another command or process,
            which has shown what they print when they are imported; None: they are used here first.

    Raises:
        Refusal: one line: one is not there, cannot be imported or used, or has another content.
    """
    if identity is not None and identity in _identities():  # loaded from elsewhere
        return
    places = [(one, *place_of(one)) for one in given]
    now = digest([_content(root) for _, root, _ in places])
    if identity is not None and now != identity:
        raise Refusal(
            f"plugins={','.join(given)}: has changed: its hash was {identity} and is {now}; put back "
            "what was there, or train again"
        )
    with nullcontext() if identity is None else _unheard():
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
    return digest([_content(place_of(one)[0]) for one in given]) if given else None


def _identities() -> set[str]:
    """Return the hash of each plug-in that is loaded, and that of all together."""
    contents = [plugin.content for plugin in _loaded.values()]
    return {digest(each) for each in (contents, *([content] for content in contents))}


def kept(config: Keys) -> dict[str, Any]:
    """Return the keys `plugins` and `plugin` with what a run makes use of, and with all defaults filled in.

    Args:
        config: in canonical spelling but for these two.
    """
    used = _used(config)
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
        if not isinstance(one, str) or place_of(one)[0] not in _loaded:
            raise Refusal(f"plugins={one}: is read before any preset; type it as a word of the command")
    return [*given]


def described(error: BaseException, config: Keys | None = None) -> str | None:
    """Return an error in one line, with the file and the line of a plug-in; None where it is of none.

    Args:
        error: caught.
        config: of the run in which it was raised: where the error passed through no plug-in, what the run
            has of plug-ins is named, as it may have returned what cannot be.
    """
    frames = traceback.extract_tb(error.__traceback__)
    where = None
    for frame in frames:
        for plugin in _loaded.values():
            where = shown(plugin.given, plugin.root, frame.filename, frame.lineno) or where
    if where is not None:
        return f"{where}: {_in_one_line(error)}"
    if config is None or not (used := _used(config)):
        return None
    has = ", ".join(f"{KINDS[x.key].noun} {x.name} of {x.where}" for _, x in used)
    at = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
    return f"{_in_one_line(error)} ({at}); the run has {has}"


def check(config: Keys) -> None:
    """Refuse a task of a plug-in that draws what nothing could be trained on; its own `check` came before.

    Raises:
        Refusal: one line with file and line.
    """
    for x in added():
        if x.thing is type(config.task) and (fault := fault_of_sample(config.task, config.seq_len)):
            raise Refusal(f"{x.where}: {fault}")


def _used(config: Keys) -> list[tuple[Plugin, Added]]:
    """List what a run makes use of, with its plug-in."""
    return [(plugin, x) for plugin in _loaded.values() for x in plugin.added if _value(config, x) == x.name]


def _value(config: Keys, added: Added) -> Any:
    return config.task.name if added.key == "task" else getattr(config, added.key)


def _in_one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _content(root: Path) -> str:
    """Return a hash of a plug-in's files, as they were when it was loaded, if it was."""
    return _loaded[root].content if root in _loaded else content_of(root)


def _load(given: str, root: Path, module: str | None) -> None:
    """Import a plug-in and put what it has into the tables; after a refusal they are as before."""
    package = module.partition(".")[0] if module else f"{NAMELESS}{digest([str(root)])}"
    before = {key: dict(kind.table) for key, kind in KINDS.items()}

    try:
        content = content_of(root)
        if module and _kept.setdefault(root, content) != content:
            why = "has changed since this process imported it"
            raise Refusal(f"plugins={given}: {why}; start Python, or the notebook's kernel, again")
        with _tables(before):
            modules = _imported(given, root, package, module)
            found = added_by(modules, before, lambda thing: where_is(given, root, thing))
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
def _unheard() -> Iterator[None]:
    """Print nothing within a block."""
    streams = (sys.stdout, sys.stderr)
    kept, nothing = [(number, os.dup(number)) for number in (1, 2)], os.open(os.devnull, os.O_WRONLY)
    try:
        for stream in streams:
            stream.flush()
        for number, _ in kept:
            os.dup2(nothing, number)
        yield
    finally:
        for stream in streams:
            stream.flush()
        for number, before in kept:
            os.dup2(before, number)
            os.close(before)
        os.close(nothing)


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
        lines = [shown(given, root, *place) for place in places]
        where = next((line for line in reversed(lines) if line), f"plugins={given}")
        raise Refusal(f"{where}: {_in_one_line(error)}; {remedy(error, given, root)}") from error
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
