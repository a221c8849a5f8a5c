"""Make the pages of the site that are no files of docs/: a hook of mkdocs, which mkdocs.yml names.

README.md and its like, the notebook, a gallery of all figures with their commands, and the reference out of
docstrings. Links between files of the tree become links between pages, so that they hold here and on a forge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from griffe import Attribute, Docstring, Extension
from mkdocs.structure.files import File, Files
from pymdownx.slugs import slugify

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# Files of the tree that are pages under another name.
TOP = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}
NOTEBOOKS = {"docs/tour.ipynb": "tour.md"}
GALLERY_BEGINS = ("README.md", "docs/results.md", "docs/report.md")
# Start of a figure's name -> the commands that draw it, where no option -o on its page names it.
MAIN_JOB = "python run.py 'seed=[0,1,2,3,4]' controls=all"
DRAWN = {
    "thought_batches": "python bench/thoughts/batches.py --positions 1 4 --thoughts 1 2 4 --rounds 5 "
    "--figure docs/figures/thought_batches.png",
    "growth": "python bench/speed.py growth --rounds 3 --figure docs/figures/growth.png",
    "dictionary": "python run.py\npython -m toyqs.evidence report runs",
    "default_all": MAIN_JOB,
    "default": "python run.py",
    "report_": f"{MAIN_JOB}\npython -m toyqs.evidence report runs -o report.html",
}
FENCE = r"^```.*?^```$"
LINK = re.compile(rf"{FENCE}|(?<=\]\()[^)\s]+(?=\))", re.MULTILINE | re.DOTALL)
FIGURE = re.compile(
    rf"{FENCE}|^##+ (?P<heading>.+?)$|!\[(?P<what>[^\]]*)\]\((?:docs/)?(?P<path>figures/[^)]+)\)",
    re.MULTILINE | re.DOTALL,
)
# Page -> title, what it is for, and sections of names; «name = heading» where it is imported by another.
REFERENCE = {
    "reference/python.md": (
        "From Python",
        "The names that a script or a notebook imports; [examples](../sweeps.md#from-python).",
        {
            "Train": ("toyqs.sweep.calls.run = toyqs.run", "toyqs.sweep.calls.run_sweep = toyqs.run_sweep"),
            "Rows": (
                "toyqs.evidence.rows.load_rows = toyqs.evidence.load_rows",
                "toyqs.evidence.rows.load_curve = toyqs.evidence.load_curve",
                "toyqs.evidence.cells.load_cells = toyqs.evidence.load_cells",
                "toyqs.evidence.cells.Cell",
            ),
            "Evidence": (
                "toyqs.evidence.judging.gain.reasoning_gain = toyqs.evidence.reasoning_gain",
                "toyqs.evidence.judging.gain.interval = toyqs.evidence.interval",
                "toyqs.evidence.judging.gain.onset = toyqs.evidence.onset",
                "toyqs.evidence.judging.decision.verdict = toyqs.evidence.verdict",
            ),
            "Thoughts": ("toyqs.thought_record.read", "toyqs.thought_record.Record"),
            "Finished runs": ("toyqs.answers.loaded.load.load", "toyqs.answers.loaded.load.LoadedRun"),
            "Refusals": ("toyqs.files.Refusal",),
        },
    ),
    "reference/plug-ins.md": (
        "What an extension calls",
        "The base classes, tables and functions that a new [task](../adding-a-task.md), "
        "[objective](../adding-an-objective.md), [reward or baseline](../adding-a-reward-or-baseline.md), "
        "[mixer](../adding-a-mixer.md) or [head](../plugins.md#a-head) builds on, and the values that flow "
        "between the parts. Axes: S seeds, B sequences, T positions, K thoughts, L symbols of a thought, N "
        "tokens predicted at a position, V token ids, Z numbers of a vector, D width.",
        {
            "Values": (
                *("toyqs.types.Batch", "toyqs.types.Context", "toyqs.types.Thoughts", "toyqs.types.Trace"),
                "toyqs.types.Model",
            ),
            "Tasks": (
                *("toyqs.tasks.task.Task", "toyqs.tasks.task.Feature", "toyqs.tasks.task.counted_from"),
                *("toyqs.tasks.task.check_length", "toyqs.tasks.registry.registry"),
                *("toyqs.tasks.task.scatter", "toyqs.tasks.task.check_split"),
            ),
            "Objectives": (
                *("toyqs.objectives.objective.Objective", "toyqs.objectives.objective.Loss"),
                *("toyqs.objectives.objective.ThoughtObjective", "toyqs.objectives.objective.Allowed"),
                *(
                    "toyqs.objectives.objective.LikelihoodObjective",
                    "toyqs.objectives.policy.reinforce.Reinforce",
                ),
                *("toyqs.objectives.policy.tempered.Tempered", "toyqs.objectives.registry.registry"),
            ),
            "Rewards and baselines": (
                *("toyqs.objectives.rewards.REWARDS", "toyqs.objectives.rewards.over_tokens"),
                *("toyqs.objectives.rewards.tokens", "toyqs.objectives.rewards.token_log_prob"),
                "toyqs.objectives.rewards.rounding",
                *("toyqs.objectives.advantages.Baseline", "toyqs.objectives.advantages.BASELINES"),
            ),
            "Mixers": (
                *("toyqs.model.mixing.Mixer", "toyqs.model.mixing.Mixed"),
                "toyqs.model.layers.SeedStacked",
                *("toyqs.model.layers.Linear", "toyqs.model.weighing.logistic_above"),
            ),
            "Thought heads": (
                *("toyqs.model.thoughts.ThoughtHead", "toyqs.model.thoughts.TokenHead"),
                *("toyqs.model.latent_heads.GaussianHead", "toyqs.model.thoughts.Symbols"),
                "toyqs.numerics.row_sums",
            ),
        },
    ),
}


class CommentedFields(Extension):
    """Take the comment behind a field or a table for its description in the reference."""

    def on_attribute_instance(self, *, attr: Attribute, **more: Any) -> None:
        """Give an attribute of a class or a module its docstring."""
        comment = attr.lines[0].partition("  # ")[2] if attr.lines else ""
        named = attr.parent is not None and (attr.parent.is_class or attr.parent.is_module)
        if comment and attr.docstring is None and named:
            attr.docstring = Docstring(comment, parent=attr, lineno=attr.lineno)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    pages = {page: (ROOT / name).read_text(encoding="utf-8") for name, page in TOP.items()}
    pages |= {page: "\n\n".join(notebook(ROOT / name)) for name, page in NOTEBOOKS.items()}
    pages["gallery.md"] = "\n\n".join(gallery())
    pages |= {page: "\n\n".join(reference(*about)) for page, about in REFERENCE.items()}
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links between files into links between pages; a file that is no page becomes one of the site's."""
    folder = ROOT if page.file.src_uri in TOP.values() else DOCS

    def site_link(found: re.Match[str]) -> str:
        path, mark, anchor = found[0].partition("#")
        if not path or re.match(r"```|[a-z]+:", path) or not (folder / path).is_file():
            return found[0]
        file = (folder / path).resolve()
        name = file.relative_to(ROOT).as_posix()
        place = (TOP | NOTEBOOKS).get(name) or (
            name.removeprefix("docs/") if DOCS in file.parents else f"source/{name}"
        )
        if files.get_file_from_path(place) is None:
            files.append(File.generated(config, place, content=file.read_bytes()))
        return f"{place}{mark}{anchor}"

    return LINK.sub(site_link, markdown)


def gallery() -> Iterator[str]:
    """Yield the gallery in parts: every figure that a page shows, and the commands that draw it."""
    yield "# Gallery"
    yield "Every figure of these pages, with the commands that draw it. Its page says at which commit."
    names = {path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *DOCS.glob("*.md"))}
    for name in (*GALLERY_BEGINS, *sorted(names.difference(GALLERY_BEGINS))):
        text = (ROOT / name).read_text(encoding="utf-8")
        if figures := [*figures_of(text, TOP.get(name) or name.removeprefix("docs/"))]:
            yield re.findall(r"^#( .+)$", text, re.MULTILINE)[0].join(("##", ""))
            yield from figures


def figures_of(text: str, page: str) -> Iterator[str]:
    """Yield the figures of a page, each with what it shows, a link to its section, and its commands."""
    section, blocks = "", [part[0] for part in FIGURE.finditer(text) if part[0].startswith("```")]
    for part in FIGURE.finditer(text):
        section = part["heading"] or section
        if part["path"]:
            name, what = Path(part["path"]).name, part["what"]
            link = f"{page}#{slugify(case='lower')(section, '-')}" if section else page
            yield f"![{what}]({part['path']})"
            yield f"{what[:1].upper()}{what[1:]} ([{section or 'the first page'}]({link}))."
            yield next((block for block in blocks if f"-o {name}" in block), None) or drawn(name)


def drawn(figure: str) -> str:
    """Return the commands of a figure that no option names.

    Raises:
        KeyError: they are not known; a figure has a line in DRAWN, or its page the option.
    """
    commands = [text for start, text in DRAWN.items() if figure.startswith(start)]
    if not commands:
        raise KeyError(f"{figure}: which command draws it?")
    return f"```\n{commands[0]}\n```"


def notebook(path: Path) -> Iterator[str]:
    """Yield a notebook's cells and what they gave, as Markdown."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        yield source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```"
        yield from (shown(output) for output in cell.get("outputs", ()))


def shown(output: Mapping[str, Any]) -> str:
    """Return one output of a notebook's cell: a picture, a table, or text."""
    data = output.get("data", {})
    if "image/png" in data:
        return (
            f"![the figure that the cell draws](data:image/png;base64,{''.join(data['image/png']).strip()})"
        )
    if "text/html" in data:
        return "".join(data["text/html"])
    return f"```\n{''.join(data.get('text/plain', output.get('text', '')))}\n```"


def reference(title: str, purpose: str, sections: dict[str, tuple[str, ...]]) -> Iterator[str]:
    """Yield a page of the reference in parts, for mkdocstrings to fill."""
    yield f"# {title}"
    yield purpose
    for section, names in sections.items():
        yield f"## {section}"
        for name, _, heading in (entry.partition(" = ") for entry in names):
            shown = heading or name  # as it is imported
            yield f"::: {name}\n    options:\n      heading: {shown}\n      toc_label: {shown.split('.')[-1]}"
