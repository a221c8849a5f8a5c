from __future__ import annotations

import hashlib
import signal
import socket
import subprocess
import sys
import urllib.error

import pytest
import torch
from omegaconf import OmegaConf

from tests.killing import ROOT
from toyqs.assets import text as corpus
from toyqs.tasks.task import Task
from toyqs.tasks.texts.char_text import CharText

# every character once, so that an id is a position in the text
POSITIONS = "".join(chr(code) for code in range(0x4E00, 0x4E00 + 1000))


def draw(task, num, seq_len, split, seed=0):
    return task.sample(torch.Generator().manual_seed(seed), num, seq_len, split)


@pytest.fixture
def write(tmp_path):
    def write(text, **knobs):
        file = tmp_path / "text.txt"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return CharText(path=str(file), **knobs)

    return write


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("TOYQS_CACHE", str(folder))
    return folder


@pytest.fixture
def served(tmp_path, monkeypatch, cache):
    """A known data set whose address is a local file; returns that file."""
    file = tmp_path / "served.txt"
    file.write_bytes(POSITIONS.encode())
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(corpus, "DATASETS", {"shake": (file.as_uri(), sha256)})
    return file


def test_worked_example(write):
    task: Task = write("hello world")
    assert task.alphabet == " dehlorw" and task.vocab_size == 8
    batch = draw(task, 50, 4, "train")
    windows = set(
        zip(map(tuple, batch.inputs[0].tolist()), map(tuple, batch.targets[0].tolist()), strict=True)
    )
    assert ((3, 2, 4, 4), (2, 4, 4, 5)) in windows
    assert task.symbols([3, 2, 4, 4]) == list("hell")


def test_training_windows(write):
    task = write(POSITIONS, held_out_fraction=0.1)
    batch = draw(task, 5000, 20, "train")
    assert batch.inputs.shape == (1, 5000, task.length(20)) == (1, 5000, 20)
    assert batch.inputs.dtype == batch.targets.dtype == torch.int64
    assert torch.equal(batch.targets, batch.inputs + 1)
    assert torch.equal(batch.inputs[..., 1:], batch.targets[..., :-1])
    assert batch.weights.dtype == torch.float32 and bool((batch.weights == 1).all())
    assert batch.think.dtype == torch.bool and bool(batch.think.all())
    assert batch.oracle is None and task.floor() is None
    starts = batch.inputs[0, :, 0]
    # 900 characters hold 880 windows of 20 with their last target
    assert int(starts.min()) == 0 and int(starts.max()) == 879
    halves = (starts < 440).double().mean()
    assert abs(float(halves) - 0.5) < 5 * 0.5 / 5000**0.5


def test_held_out_windows_are_the_tail_in_order(write):
    task = write(POSITIONS, held_out_fraction=0.1)
    batch = draw(task, 4, 20, "held_out")
    # 100 characters, 4 windows of 20: first at the border, last up to the end, none overlaps
    assert batch.inputs[0, :, 0].tolist() == [900, 926, 952, 979]
    assert int(batch.targets.max()) == 999
    full = draw(task, 4, 24, "held_out").inputs[0]
    assert int((full[1:, 0] - full[:-1, -1]).min()) > 0
    assert draw(task, 1, 20, "held_out").inputs[0, 0].tolist() == list(range(900, 920))
    assert draw(task, 500, 20, "held_out").inputs.shape == (1, 500, 20)


def test_no_character_is_in_both_splits(write):
    task = write(POSITIONS, held_out_fraction=0.3)
    seen = {}
    for split in ("train", "held_out"):
        batch = draw(task, 3000, 30, split)
        seen[split] = set(batch.inputs.flatten().tolist()) | set(batch.targets.flatten().tolist())
    assert seen["train"] == set(range(700)) and seen["held_out"] == set(range(700, 1000))


def test_generator_decides_training_windows_only(write):
    task = write(POSITIONS)
    assert torch.equal(draw(task, 8, 20, "train", 1).inputs, draw(task, 8, 20, "train", 1).inputs)
    assert not torch.equal(draw(task, 8, 20, "train", 1).inputs, draw(task, 8, 20, "train", 2).inputs)
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    held_out = task.sample(generator, 4, 20, "held_out")
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(held_out.inputs, draw(task, 4, 20, "held_out", 4).inputs)


def test_steps(write):
    task = write(POSITIONS, held_out_fraction=0.1)
    assert task.steps(batch_size=4, seq_len=50, epochs=3) == 3 * 4
    assert task.steps(batch_size=64, seq_len=128, epochs=3) == 3


def test_the_file_is_read_once(write):
    task = write(POSITIONS)
    task.check(20)
    with open(task.path, "w") as file:
        file.write("other")
    task.check(20)
    assert task.vocab_size == 1000


def test_line_ends_stay_and_symbols_are_printable(write):
    task = write("a\r\nb\t\u00e9\\'" * 40)
    assert task.alphabet == "\t\n\r'\\ab\u00e9"
    assert task.symbols(range(8)) == ["\\t", "\\n", "\\r", "'", "\\\\", "a", "b", "\u00e9"]


@pytest.mark.parametrize(
    ("text", "knobs", "parts"),
    [
        ("ab" * 100, {}, ["200 characters", "20 for the held_out", "needs 33", "seq_len", "longer text"]),
        ("ab" * 100, {"held_out_fraction": 0.9}, ["20 for the train", "task.held_out_fraction"]),
        (b"\xff\xfe" * 100, {}, ["no UTF-8", "byte 0", "convert"]),
        ("", {}, ["0 different characters", "another text"]),
        ("a" * 900, {}, ["1 different characters", "another text"]),
        (POSITIONS, {"held_out_fraction": 0.0}, ["task.held_out_fraction=0.0", "more than 0"]),
        (POSITIONS, {"held_out_fraction": 1.0}, ["task.held_out_fraction=1.0", "less than 1"]),
        (POSITIONS, {"dataset": "shake"}, ["task.path=", "task.dataset=shake", "only one"]),
    ],
)
def test_refused_texts(write, text, knobs, parts):
    with pytest.raises(ValueError) as error:
        write(text, **knobs).check(32)
    message = str(error.value)
    assert all(part in message for part in parts) and "task." in message and "\n" not in message


def test_the_shortest_text_that_is_long_enough(write):
    write("ab" * 20, held_out_fraction=0.5).check(19)
    with pytest.raises(ValueError, match="needs 21"):
        write("ab" * 20, held_out_fraction=0.5).check(20)


def test_missing_files(tmp_path):
    for path in (tmp_path / "absent.txt", tmp_path):
        with pytest.raises(ValueError, match=r"task\.path=.*cannot be read.*give task\.path=FILE"):
            CharText(path=str(path)).check(32)
    with pytest.raises(ValueError, match=r"task\.path=FILE or task\.dataset=NAME \(shake\)"):
        CharText().check(32)
    with pytest.raises(ValueError, match=r"task\.dataset=bacon: is not one of shake; give task\.path"):
        CharText(dataset="bacon").check(32)


def test_downloaded_once(served, cache):
    CharText(dataset="shake").check(20)
    assert [file.name for file in cache.iterdir()] == ["shake.txt"]
    served.unlink()
    task = CharText(dataset="shake")
    task.check(20)
    assert task.alphabet == POSITIONS


def test_a_damaged_cached_copy_is_replaced(served, cache):
    cache.mkdir()
    (cache / "shake.txt").write_text("damaged")
    assert CharText(dataset="shake").vocab_size == 1000
    assert (cache / "shake.txt").read_text() == POSITIONS


def test_wrong_hash_leaves_nothing_behind(served, cache):
    served.write_text("another text")
    with pytest.raises(ValueError, match=r"task\.dataset=shake: .*wrong sha256.*task\.path=FILE"):
        CharText(dataset="shake").check(20)
    assert list(cache.iterdir()) == []


def test_interrupted_write_leaves_nothing_behind(served, cache, monkeypatch):
    def refuse(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.hub.shutil, "move", refuse)
    with pytest.raises(ValueError, match=r"cannot be fetched into it .*No space left.*TOYQS_CACHE"):
        CharText(dataset="shake").check(20)
    assert list(cache.iterdir()) == []


def test_offline(cache, monkeypatch):
    def refuse(request):
        assert request.full_url.startswith("https://") and 5 <= socket.getdefaulttimeout() <= 30
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    with pytest.raises(ValueError) as error:
        CharText(dataset="shake").check(20)
    message = str(error.value)
    assert all(part in message for part in ("task.dataset=shake", "no route to host", "give task.path=FILE"))
    assert "\n" not in message and list(cache.iterdir()) == []
    assert socket.getdefaulttimeout() is None


def test_a_folder_that_cannot_be_made(served, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TOYQS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ValueError, match=r"cannot be fetched into it .*Not a directory.*set TOYQS_CACHE"):
        CharText(dataset="shake").check(20)


def test_a_killed_download_leaves_nothing_that_counts(served, cache):
    """Killed in the middle of it, when no code can tidy up any more."""
    code = (
        "import os, sys, torch; from toyqs.assets import text;"
        "text.DATASETS = {'shake': (sys.argv[1], sys.argv[2])};"
        "torch.hub.shutil.move = lambda *given: os.kill(os.getpid(), 9);"
        "text.dataset_text('shake')"
    )
    address, sha256 = corpus.DATASETS["shake"]
    done = subprocess.run([sys.executable, "-c", code, address, sha256], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL and not (cache / "shake.txt").exists()
    assert CharText(dataset="shake").vocab_size == 1000


def test_is_a_config_node(write):
    file = write(POSITIONS).path
    node = OmegaConf.merge(OmegaConf.structured(CharText), {"path": file})
    task = OmegaConf.to_object(node)
    assert task == CharText(path=file) and set(node) == {
        "path",
        "dataset",
        "held_out_fraction",
        "curriculum",
        "levels",
        "losses",
    }
    task.check(20)
    # reading the text adds nothing that the configuration sees
    assert OmegaConf.structured(task) == node


def test_unknown_split(write):
    with pytest.raises(ValueError, match="train and held_out"):
        draw(write(POSITIONS), 2, 20, "test")
