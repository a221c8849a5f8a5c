"""Printing that cannot fail: narrow encodings, full devices, readers that have gone, closed streams."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from toyqs import console

ROOT = Path(__file__).resolve().parents[1]


def test_what_an_encoding_lacks_is_written_in_plain_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    console.prepare()
    print("0.170 ± 0.216 – é² \N{SNOWMAN} \udcff")
    assert console.finish(0) == 0
    assert written.getvalue() == b"0.170 +- 0.216 - e2 ? ?\n"


@pytest.mark.parametrize("length", [10, 100_000])  # below and above what Python keeps back
def test_a_full_device_is_one_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], length: int
) -> None:
    with monkeypatch.context() as changed, suppress(OSError), Path("/dev/full").open("w") as full:
        changed.setattr(sys, "stdout", full)
        changed.setattr(sys, "stderr", sys.stderr)
        console.prepare()
        print("x" * length)
        print("and more")
        codes = console.finish(0), console.finish(2)
    assert codes == (1, 2)
    line, _ = capsys.readouterr().err.splitlines()
    assert line == "toyqs: what was printed is not complete: No space left on device; the files are"


def test_a_reader_that_has_gone_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with monkeypatch.context() as changed, suppress(OSError), os.fdopen(writing, "w") as pipe:
        changed.setattr(sys, "stdout", pipe)
        changed.setattr(sys, "stderr", sys.stderr)
        console.prepare()
        print("x" * 100_000, flush=True)
        code = console.finish(0)
    assert (code, capsys.readouterr().err) == (0, "")


def test_a_stream_is_wrapped_once_and_answers_as_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", stream)
    console.prepare()
    console.prepare()
    assert isinstance(sys.stderr, console.Stream) and sys.stderr._stream is stream
    assert sys.stderr.encoding == "latin-1" and not sys.stderr.isatty()


@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full", "<&- 2>&- ", "<&- 2>&- 1>&-"])
def test_closed_streams(tmp_path: Path, closed: str) -> None:
    """A file that is opened next must not take the closed stream's place: what is printed would be in it."""
    code = (
        "from toyqs import console; import sys; console.prepare();"
        "file = open('opened', 'w'); assert file.fileno() > 2;"
        "print('lost', file=sys.stderr, flush=True); file.write('kept'); file.close();"
        "print('shown'); sys.exit(console.finish(3))"
    )
    command = f'"{sys.executable}" -c "{code}" {closed}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 3
    assert done.stdout == ("" if "1>&-" in closed else "shown\n")
    assert (tmp_path / "opened").read_text() == "kept"


def python(code: str, folder: Path, backend: str) -> tuple[str, str]:
    """Run a line of Python as a notebook would start it; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    ("backend", "kept"),
    [
        ("module://no_such_package.inline", "False"),
        ("module://toyqs.no_such_module", "False"),
        ("module://toyqs.console", "True"),  # one that could be imported: that of the notebook itself
        ("agg", "True"),
    ],
)
def test_a_backend_that_cannot_be_imported_is_left_out(tmp_path: Path, backend: str, kept: str) -> None:
    assert python("import os, toyqs; print('MPLBACKEND' in os.environ)", tmp_path, backend) == (
        f"{kept}\n",
        "",
    )


def test_a_notebook_s_backend_stops_no_script(tmp_path: Path) -> None:
    code = f"import runpy; runpy.run_path({str(ROOT / 'analysis' / 'objectives.py')!r}); print('imported')"
    assert python(code, tmp_path, "module://no_such_package.inline") == ("imported\n", "")


def test_a_backend_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    out, err = python("import toyqs.evidence.figures.style; print('imported')", tmp_path, "no\x1b")
    assert not out and err.count("\n") == 1
    assert err.startswith(r"toyqs: MPLBACKEND='no\x1b': matplotlib has no such backend; unset")


@pytest.mark.parametrize("script", sorted((ROOT / "analysis").glob("*.py")), ids=lambda path: path.stem)
def test_no_script_imports_matplotlib_before_toyqs(script: Path) -> None:
    lines = script.read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if line.startswith(("import matplotlib", "from matplotlib"))]
