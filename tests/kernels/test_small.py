"""The native kernels stay small."""

from __future__ import annotations

from toyqs.model.backbones.kernels import library

CODE_LINES, LINE_LENGTH = 400, 120


def test_the_sources_are_short() -> None:
    """Count the lines of C++ that are neither blank nor comments alone."""
    files = [*library.SOURCES.glob("*.h"), *library.SOURCES.glob("*.cpp")]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    assert {file.name for file in files} >= {"gru.h", "draw.h", "plain.h", "adam.h"}
    assert sum(1 for line in lines if line.strip() and not line.strip().startswith("//")) <= CODE_LINES
    assert [line for line in lines if len(line) > LINE_LENGTH] == []
