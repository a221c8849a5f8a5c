"""Files written whole by several processes, damage to them, classes found by files, names on a terminal."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from toyqs import files
from toyqs.files import (
    ROW,
    SEAL,
    Refusal,
    damage,
    fingerprint,
    make_folder,
    named_classes,
    read_json,
    replacing,
    sealed,
    temporary_of,
    visible,
    write_json,
    write_text,
)

ROOT = Path(__file__).resolve().parents[1]

BASE = "class Base:\n    name = ''\n"
CHILD = (
    "from {package}.base import Base\nclass {title}(Base):\n    name = '{name}'\nclass Unnamed(Base): ...\n"
)


def base_of(folder: Path, monkeypatch: pytest.MonkeyPatch, **names: str) -> type:
    """The class Base of a new package whose other files define a subclass each: file -> name."""
    package = folder / folder.name
    package.mkdir()
    (package / "base.py").write_text(BASE)
    for file, name in names.items():
        text = CHILD.format(package=package.name, title=file.title(), name=name)
        (package / f"{file}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    base: type = importlib.import_module(f"{package.name}.base").Base
    return base


def test_a_file_is_enough_and_a_class_without_a_name_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = named_classes(base_of(tmp_path, monkeypatch, second="b", first="a"))
    assert [(name, kind.__name__) for name, kind in found.items()] == [("a", "First"), ("b", "Second")]


def test_folders_in_a_package_are_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = base_of(tmp_path, monkeypatch, second="b")
    inner = tmp_path / tmp_path.name / "inner"
    inner.mkdir()
    (inner / "__init__.py").touch()
    (inner / "first.py").write_text(CHILD.format(package=tmp_path.name, title="First", name="a"))
    assert [*named_classes(base)] == ["a", "b"]
    (inner / "third.py").write_text(CHILD.format(package=tmp_path.name, title="Third", name="b"))
    with pytest.raises(ValueError, match=r"inner/third\.py: the name 'b' is already"):
        named_classes.__wrapped__(base)  # as if for the first time


def test_a_name_is_given_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = base_of(tmp_path, monkeypatch, first="a", second="a")
    with pytest.raises(ValueError, match=r"second\.py: the name 'a' is already that of another class"):
        named_classes(base)


@pytest.mark.parametrize("content", [b'{"a": "\xff"}', b"\x00\xff", b"[" * 100_000, b"[1]", b""])
def test_what_is_no_json_object_names_its_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "summary.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"summary\.json: not a JSON object; move it away"):
        read_json(path)


def test_escape_codes_reach_no_terminal() -> None:
    assert visible("a\x1b[31mb\r\n\u009b c\udcff") == "a\\x1b[31mb\\r\\n\\x9b c\\udcff"
    assert visible("ä ± 😀 x y") == "ä ± 😀 x y"
    assert visible("a\u202eb\u2066c\u2069d\u2028") == "a\\u202eb\\u2066c\\u2069d\\u2028"
    assert visible("a\u200bb\ufeffc\u00adميخواهم\u200c") == "a\\u200bb\\ufeffc\\xadميخواهم\u200c"
    assert str(Refusal("info=\x1b[2J: no")) == "info=\\x1b[2J: no"


def dead_process() -> int:
    """Return the number of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def test_what_a_dead_process_left_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    mine = temporary_of(path)
    _, name, ending, place, process, part = mine.name.split(".")
    assert (name, ending, process) == ("note", "json", str(os.getpid()))
    dead = dead_process()
    gone = tmp_path / f".note.json.{place}.{dead}.{part}"
    stay = [
        mine,
        tmp_path / f".note.json.{place}.{os.getpid()}.00000000",
        tmp_path / f".note.json.{place}.1.00000000",
        tmp_path / f".note.json.0{place[1:]}x.{dead}.{part}",
        tmp_path / f".other.json.{place}.{dead}.{part}",
    ]
    old = tmp_path / f".note.json.elsewhere.1.{part}"
    for file in (gone, old, *stay):
        file.touch()
    os.utime(old, (0, time.time() - files.DAY - 60))
    write_text(path, "x")
    assert {file.name for file in tmp_path.iterdir()} == {path.name, *(file.name for file in stay)}


def test_threads_that_write_one_file_do_not_share_a_temporary(tmp_path: Path) -> None:
    threads = [threading.Thread(target=write_text, args=(tmp_path / "x", text * 9)) for text in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "x").read_text() in {text * 9 for text in "abcdefgh"}
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


NOTES = """
import sys
from toyqs.files import write_json
for index in range(150):
    for _ in range(3):
        write_json(f"{sys.argv[1]}/{index}.json", {"index": index})
"""


def test_two_containers_on_one_folder_lose_nothing(tmp_path: Path) -> None:
    """Write the same notes from two namespaces; each number of a process is unknown or another's in one."""
    words = ["unshare", *(["--map-root-user"] if os.geteuid() else []), "--pid", "--fork", "--mount-proc"]
    try:
        subprocess.run([*words, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no namespace of processes can be made here: {error}")
    write = [sys.executable, "-c", NOTES, str(tmp_path)]
    shell = ["sh", "-c", '"$@"; exit $?', "sh"]  # is number 1 in its namespace
    commands = ([*words, *write], [*words, *write], [*words, *shell, *write])
    writers = [subprocess.Popen(each, cwd=ROOT, stderr=subprocess.PIPE, text=True) for each in commands]
    assert [(writer.communicate()[1], writer.returncode) for writer in writers] == [("", 0)] * 3
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(f"{index}.json" for index in range(150))
    for index in range(150):
        assert json.loads((tmp_path / f"{index}.json").read_text()) == {"index": index}


def test_files_follow_the_umask(tmp_path: Path) -> None:
    for mask, mode in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(mask)
        try:
            write_text(tmp_path / f"{mask}", "x")
        finally:
            os.umask(before)
        assert (tmp_path / f"{mask}").stat().st_mode & 0o777 == mode


def test_a_folder_is_made_with_those_above_it_unless_a_file_is_in_its_place(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "a"):
        with pytest.raises(OSError):
            make_folder(path)


def test_a_block_that_raises_changes_nothing(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "before")
    with pytest.raises(KeyError), replacing(tmp_path / "x") as temporary:
        temporary.write_text("after")
        raise KeyError
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("x", "before")]


ROW_OF_A_RUN: dict[str, Any] = {"key": "k", "nll": 0.1, "none": None, "large": 10**20, "not": float("nan")}


def row_on_disk(folder: Path) -> dict[str, Any]:
    (folder / "weights").write_bytes(bytes(range(256)))
    (folder / "curve").write_text('{"step": 1}\n')
    write_json(folder / ROW, sealed(ROW_OF_A_RUN, folder, ("weights", "curve")))
    row: dict[str, Any] = json.loads((folder / ROW).read_text())
    return row


def test_a_fingerprint_of_the_first_bytes_is_that_of_a_file_that_ends_there(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(bytes(3_000_000))
    (tmp_path / "short").write_bytes(bytes(1_500_000))
    assert fingerprint(tmp_path / "long", 1_500_000) == fingerprint(tmp_path / "short")
    assert fingerprint(tmp_path / "long") != fingerprint(tmp_path / "short")
    assert fingerprint(tmp_path / "short", 2_000_000) == fingerprint(tmp_path / "short")


def test_every_kind_of_damage_to_a_run_is_found(tmp_path: Path) -> None:
    row = row_on_disk(tmp_path)
    assert damage(row, tmp_path) == []
    for name in ("weights", "curve"):
        whole = (tmp_path / name).read_bytes()
        for other in (whole[:-1], whole + b"x", b"", bytes(len(whole)), bytes([whole[0] ^ 1]) + whole[1:]):
            (tmp_path / name).write_bytes(other)
            assert damage(row, tmp_path) == [name]
        (tmp_path / name).unlink()
        assert damage(row, tmp_path) == [name]
        (tmp_path / name).write_bytes(whole)
    notes = row[SEAL]
    others = [{"nll": 0.2}, {"more": 1}, {"large": 10**20 + 1}, {SEAL: None}, {SEAL: ""}, {SEAL: notes[1:]}]
    others += [{SEAL: notes.replace("weights", "wEights")}, {SEAL: notes.replace("curve=", "curve ")}]
    for change in others:
        assert damage(row | change, tmp_path) == [ROW], change
    assert damage({name: value for name, value in row.items() if name != SEAL}, tmp_path) == [ROW]
