"""The figure style: colours apart for every eye, files whole."""

from __future__ import annotations

from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from toyqs.evidence.arms import CONTROLS, THINKING
from toyqs.evidence.figures import marks, style

# Viénot, Brettel and Mollon 1999: what is left of linear RGB without red or without green cones
DICHROMATS = {
    "protan": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    "deutan": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
    "usual": np.eye(3),
}


@pytest.mark.parametrize("eye", DICHROMATS)
def test_the_colours_of_any_two_arms_are_told_apart(eye):
    colours = [*style.ARM_COLOURS.values(), style.OTHER_COLOUR]
    seen = [np.array(DICHROMATS[eye]) @ np.array(to_rgb(colour)) ** 2.2 for colour in colours]
    nearest = min(np.linalg.norm(np.sqrt(a.clip(0)) - np.sqrt(b.clip(0))) for a, b in combinations(seen, 2))
    assert nearest > 0.1


def test_every_coloured_arm_has_a_label():
    assert list(style.ARM_LABELS) == list(style.ARM_COLOURS) == [THINKING, *CONTROLS]


def test_every_arm_has_a_marker_of_its_own():
    assert list(marks.LOOKS) == [THINKING, *CONTROLS]
    assert len({marker for marker, _ in marks.LOOKS.values()}) == len(marks.LOOKS)
    assert style.arm_name("deterministic") == "deterministic"
    assert style.arm_name("state_handed_on") == "state handed on"


def test_the_style_ends_with_its_block():
    before = mpl.rcParams["legend.frameon"]
    with style.style():
        assert mpl.rcParams["legend.frameon"] is False
    assert mpl.rcParams["legend.frameon"] == before is True


def test_what_a_matplotlibrc_holds_changes_no_figure(tmp_path):
    """Such as text.usetex, which needs LaTeX; labels of ticks are made as late as the figure is saved."""

    def drawn():
        with style.style():
            figure = style.new_figure(2, 1)
            figure.subplots().plot([1, 2])
            style.save(figure, tmp_path / "figure.png")
        return (tmp_path / "figure.png").read_bytes()

    usual = drawn()
    own = {"text.usetex": True, "font.family": "monospace", "lines.linewidth": 9, "savefig.facecolor": "red"}
    with mpl.rc_context(own):
        assert drawn() == usual


def test_saving_replaces_the_older_file_or_leaves_it_whole(tmp_path, monkeypatch):
    path = tmp_path / "figure.svg"
    figure = style.new_figure(2, 1)
    style.save(figure, path)
    whole = path.read_bytes()
    assert whole.startswith(b"<?xml")

    def fail(temporary, **_):
        temporary.write_bytes(b"half a fig")
        raise KeyboardInterrupt

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(KeyboardInterrupt):
        style.save(figure, path)
    assert path.read_bytes() == whole
    assert [file.name for file in tmp_path.iterdir()] == ["figure.svg"]
