"""The presets as --help lists them: each file says in its second line what it is."""

from __future__ import annotations

import textwrap
from pathlib import Path

from omegaconf import OmegaConf

FOLDER = Path(__file__).parents[2] / "conf" / "run_modifier"
WIDTH, INDENT = 110, 35  # of the list, and of its second column


def listed() -> str:
    """One entry per preset, by name, with the text of its file's second line."""
    entries = []
    for file in sorted(FOLDER.glob("*.yaml")):
        _, what, *_ = file.read_text(encoding="utf-8").splitlines()
        name = f"  {file.stem:{INDENT - 2}}"
        entry = textwrap.fill(
            what.removeprefix("#").strip(), WIDTH, initial_indent=name, subsequent_indent=" " * INDENT
        )
        entries.append(entry)
    return "\n".join(entries)


def register_list() -> None:
    """Make the list known to conf/hydra/help as ${presets:}."""
    OmegaConf.register_new_resolver("presets", listed, replace=True)
