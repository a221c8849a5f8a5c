"""The trackers that mirror a run's metrics beside its files: wandb and TensorBoard."""

from __future__ import annotations

import glob
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from toyqs.experiment.thought_table import HEADINGS, thought_rows
from toyqs.thought_record import Record

INIT_SECONDS = 20  # that wandb may take to begin, and to end
FOLDER = "tensorboard"  # below the folder of runs
LONGEST = {"name": 128, "group": 128, "job_type": 64, "tag": 64}  # letters that wandb takes
FOLDER_LETTERS = 80  # of a folder's name, of which file systems take 255 bytes
END = 20  # letters of a longer text's end that stay: it tells it from others


class Place(NamedTuple):
    """Where a run stands in its command, by which trackers group and name it."""

    arm: str = ""
    words: str = ""  # the settings that tell its cell from others of the command
    cell: str = ""  # the cell's name


NOWHERE = Place()


class Shown(NamedTuple):
    """What a tracker shows of a run beside its metrics."""

    folder: Path  # of the run, named by its key
    place: Place
    seed: int
    settings: Mapping[str, Any]  # as its row has them

    @property
    def name(self) -> str:
        """Return a readable name: the arm, what tells its cell from others, the seed."""
        return " ".join(word for word in (self.place.arm, self.place.words, f"seed {self.seed}") if word)

    @property
    def config(self) -> dict[str, Any]:
        """Return the settings, with the run's arm, cell and key among them."""
        own = {"arm": self.place.arm, "cell": self.place.cell, "key": self.folder.name}
        return {**self.settings, **own}


def shortened(text: str, most: int) -> str:
    """Return a text of at most so many letters, without some of its middle where it is longer."""
    return text if len(text) <= most else f"{text[: most - END - 1]}…{text[-END:]}"


class Tracker(Protocol):
    """A mirror of one run; all is called in a thread of its own, and may raise anything."""

    name: str  # for the line that says it failed

    def start(self) -> None:
        """Begin, before the first metrics."""

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        """Take the metrics after a step of the training, by their names kind/metric."""

    def finish(self, row: Mapping[str, Any], record: Record | None) -> None:
        """End, with the run's row (empty: it did not finish) and the record of its thoughts."""


class Wandb:
    """A wandb run: its group is the cell, its job type the arm.

    Offline files of an earlier attempt at the run are removed: its metrics are sent again from the beginning.

    Args:
        shown: of the run.
        where: project and entity; None: what wandb's own variables and settings say, else toyqs.
        tags: of the run.
        online: false: written into the run's folder, for `wandb sync`.
    """

    name = "wandb"

    def __init__(
        self, shown: Shown, where: Mapping[str, str | None], tags: list[str], *, online: bool
    ) -> None:
        self.shown, self.where, self.tags, self.online = shown, where, tags, online

    def start(self) -> None:
        """Begin the run.

        Raises:
            RuntimeError: it is to be online, and there is no API key.
        """
        import wandb

        if self.online and not wandb.login(prompt=False, verify=False):
            raise RuntimeError("no API key; use `wandb login` or wandb_mode=offline")
        place, shown = self.shown.place, self.shown
        if not self.online:
            for old in shown.folder.glob("wandb/offline-run-*"):
                shutil.rmtree(old, ignore_errors=True)
        self.run = wandb.init(
            project=self.where["project"] or os.environ.get("WANDB_PROJECT", "toyqs"),
            entity=self.where["entity"],
            name=shortened(shown.name, LONGEST["name"]),
            group=shortened(place.cell, LONGEST["group"]) or None,
            job_type=place.arm[: LONGEST["job_type"]] or None,
            tags=[tag[: LONGEST["tag"]] for tag in self.tags if tag] or None,
            dir=str(shown.folder),
            config=shown.config,
            mode="online" if self.online else "offline",
            reinit="create_new",  # the seeds of a stack are open at the same time
            settings=wandb.Settings(
                init_timeout=INIT_SECONDS, finish_timeout=INIT_SECONDS, console="off", silent=True
            ),
        )
        self.run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        """Log them with their step, which is the axis of all curves."""
        self.run.log({"step": step, **values})

    def finish(self, row: Mapping[str, Any], record: Record | None) -> None:
        """Show the row as the run's summary and the thoughts as a table."""
        import wandb

        if record is not None:
            table = wandb.Table(columns=list(HEADINGS), data=thought_rows(record))
            self.run.log({"thoughts": table})
        self.run.summary.update(dict(row))
        self.run.finish(exit_code=0 if row else 1)


class TensorBoard:
    """Event files in runs/tensorboard/CELL/ARM/, a folder for each seed.

    Those of an earlier attempt at the run are removed: its metrics are sent again from the beginning.
    """

    name = "tensorboard"

    def __init__(self, shown: Shown) -> None:
        self.shown, place = shown, shown.place
        words = (place.cell or "runs", place.arm or "run", f"seed {shown.seed} {shown.folder.name}")
        self.root = shown.folder.parent / FOLDER
        self.folder = self.root.joinpath(
            *(shortened(word.replace("/", "_"), FOLDER_LETTERS) for word in words)
        )

    def start(self) -> None:
        """Open the event file.

        Raises:
            ImportError: TensorBoard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError("it is not installed; pip install 'toyqs[tensorboard]'") from error
        for old in self.root.glob(f"*/*/{glob.escape(self.folder.name)}"):  # of whatever cell it was then
            shutil.rmtree(old, ignore_errors=True)
        self.writer: Any = SummaryWriter(str(self.folder))

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        """Write a scalar for each number; what is not there is left out."""
        for name, value in values.items():
            if value is not None:
                self.writer.add_scalar(name, value, step)

    def finish(self, row: Mapping[str, Any], record: Record | None) -> None:
        """Write settings and results for the tab HPARAMS, and the thoughts as a text."""
        if row:
            self._compare(row)
        if record is not None:
            head, *rows = (_markdown(cells) for cells in (HEADINGS, *thought_rows(record)))
            self.writer.add_text("thoughts", "\n".join((head, "|---" * len(HEADINGS) + "|", *rows)))
        self.writer.close()

    def _compare(self, row: Mapping[str, Any]) -> None:
        """Write what the tab HPARAMS compares runs by: their settings and the numbers of their rows."""
        from torch.utils.tensorboard.summary import hparams

        config = self.shown.config
        results = {
            f"row/{name}": float(value)
            for name, value in row.items()
            if name not in config and type(value) in (int, float) and math.isfinite(value)
        }
        settings = {name: x if isinstance(x, int | float | str) else str(x) for name, x in config.items()}
        for summary in hparams(settings, results):
            self.writer.file_writer.add_summary(summary)
        for name, value in results.items():
            self.writer.add_scalar(name, value, row["train_steps"])


SPELLED = str.maketrans({sign: f"&#{ord(sign)};" for sign in "|<>*_`\\[]\n"})  # what Markdown would obey


def _markdown(cells: Sequence[Any]) -> str:
    """Return a line of a table in Markdown."""
    texts = ("" if x is None else f"{x:.3f}" if isinstance(x, float) else str(x) for x in cells)
    return f"| {' | '.join(text.translate(SPELLED) for text in texts)} |"
