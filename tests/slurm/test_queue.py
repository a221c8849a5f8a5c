"""Submission and Slurm's queue, on a real Slurm whose partition starts nothing: no run is trained here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import killing
from tests.one_node import Node
from tests.sweep.test_scheduler import folder_of, stack
from toyqs.config.errors import Refusal
from toyqs.evidence.states import FAILED, state_of
from toyqs.files import write_json
from toyqs.sweep.executors import slurm, slurm_queue
from toyqs.sweep.executors.settings import SlurmSettings
from toyqs.sweep.executors.slurm_array import FOLDER, SUBMITTED
from toyqs.sweep.worker import StackOutcome

HERE = SlurmSettings(partition="kargo-lab", time=7, memory="1GB", setup=["export TOYQS_TRIAL=1"], cpus=2)


@pytest.fixture
def idle(node: Node) -> Iterator[Node]:
    """Return a Slurm of which no job starts, and cancel what is queued in the end."""
    assert node.ask("scontrol", "update", "PartitionName=kargo-lab", "State=DOWN") == ""
    yield node
    node.ask("scancel", "-u", "root")
    assert killing.until(lambda: not node.ask("squeue", "-h"), 20, 0.1)
    assert node.ask("scontrol", "update", "PartitionName=kargo-lab", "State=UP") == ""


def executor(folder: Path, settings: SlurmSettings = HERE) -> tuple[slurm.SlurmArrays, list[Any]]:
    """Return an executor and the list of all that it tells."""
    news: list[Any] = []
    one = slurm.SlurmArrays(settings, str(folder))
    one.tell = lambda *told: news.append(told)
    return one, news


def watched(one: slurm.SlurmArrays, until: Callable[[], bool]) -> bool:
    end = time.monotonic() + 60.0
    while not until() and time.monotonic() < end:
        one.wait(0.1)
    return until()


def submitted(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).glob(f"*/{SUBMITTED}"))


def queued(node: Node) -> set[str]:
    return set(node.ask("squeue", "-h", "-r", "-o", "%i").split())


def test_jobs_outlive_their_submitter_and_are_found_again(
    idle: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from submitit.helpers import DelayedSubmission

    monkeypatch.setattr(slurm, "QUEUE_SECONDS", 0.5)
    stacks = [stack(tmp_path, [0, 1]), stack(tmp_path, [5], base_lm_hidden_dim=4)]
    first, news = executor(tmp_path)
    first.start(list(enumerate(stacks)))
    (note,) = submitted(tmp_path)
    job = news[-1][2].rpartition(" ")[2]
    assert queued(idle) == {f"{job}_0", f"{job}_1"}
    assert ("say", f"2 tasks submitted to Slurm: job {job}") in [told[1:] for told in news]
    shown = idle.ask("scontrol", "-o", "show", "job", f"{job}_0")
    for word in ("Partition=kargo-lab", "TimeLimit=00:07:00", "MinMemoryNode=1G", "CPUs/Task=2", "Requeue=1"):
        assert word in shown
    script = next(note.parent.glob("*submission.sh")).read_text()
    assert "export TOYQS_TRIAL=1\n" in script and "export PYTHONPATH=" in script
    own, named = (DelayedSubmission.load(note.parent / f"{x}.pkl") for x in ("1", f"{job}_1_submitted"))
    for name in ("_timeout_min", "_timeout_countdown"):
        assert vars(own)[name] == vars(named)[name]
    first.stop()
    assert news[-1][1:] == (
        "say",
        f"Slurm goes on with job {job}: the same command watches it again, scancel {job} ends it",
    )

    second, news = executor(tmp_path)  # one more seed than was submitted, and a forced run, which is another
    more = [stacks[0]._replace(seeds=[0, 1, 2]), stack(tmp_path, [5], base_lm_hidden_dim=4, force=True)]
    second.start(list(enumerate(more)))
    says = [told[2] for told in news if told[1] == "say"]
    assert says[0] == f"1 task found in Slurm's queue: job {job}"
    assert says[1].startswith("2 tasks submitted to Slurm: job ") and len(submitted(tmp_path)) == 2
    assert watched(
        second, lambda: any("waits in Slurm's queue: PartitionDown" in str(told[2]) for told in news)
    )

    other = says[1].rpartition(" ")[2]
    assert idle.ask("scancel", other) == ""
    assert watched(second, lambda: any(told[:2] == (1, "outcome") for told in news))
    ((_, _, outcome),) = [told for told in news if told[1] == "outcome"]
    assert outcome.failure == f"its process ended: Slurm's job {other}_1 was cancelled"  # it printed nothing
    assert [folder_of(stacks[1], 5)] == [
        path.parent for path in tmp_path.glob("*/log.txt") if "_1 " in path.read_text()
    ]
    assert state_of(folder_of(stacks[1], 5)).word == FAILED

    # the part that an earlier command submitted ends well: what it wrote counts for the seeds of this stack
    state: dict[str, Any] = {"share": 0.5, "loss": 0.5, "says": ["one"], "outcome": None}
    write_json(note.with_name("0.json"), state)
    assert watched(second, lambda: (0, "say", "one") in news)
    state |= {"share": 1.0, "says": ["one", "two"], "outcome": [[0, 1, 9], [], [], None]}
    write_json(note.with_name("0.json"), state)
    assert watched(second, lambda: any(told[:2] == (0, "outcome") for told in news))
    told = [told[1:] for told in news if told[0] == 0]
    assert [line for _, line in told if line in ("one", "two")] == ["one", "two"]
    assert told[-1][1][:3] == ([0, 1], [], []) and f"job {other}_0 was cancelled" in told[-1][1].failure


def test_refusals_of_sbatch_are_one_line_and_leave_nothing(idle: Node, tmp_path: Path, capfd: Any) -> None:
    one, _ = executor(tmp_path, SlurmSettings(partition="nowhere"))
    with pytest.raises(Refusal) as refused:
        one.start([(0, stack(tmp_path, [0]))])
    line = str(refused.value)
    assert line.startswith(
        "hydra/launcher=slurm: sbatch refuses the jobs for hydra.launcher.partition=nowhere: "
    )
    assert "invalid partition" in line.lower() and line.endswith("one that sinfo lists") and "\n" not in line
    assert capfd.readouterr() == ("", "") and submitted(tmp_path) == [] and queued(idle) == set()
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_a_command_that_dies_while_it_submits_leaves_jobs_that_are_found(
    idle: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop one when sbatch has taken the jobs; let another hear nothing of a controller that took them."""
    from submitit.core import utils

    paths, stacks = utils.JobPaths, [stack(tmp_path, [seed]) for seed in (0, 1)]

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(paths, "move_temporary_file", stopped)
        executor(tmp_path)[0].start([(0, stacks[0])])
    move = paths.move_temporary_file

    def unheard(*given: Any, **more: Any) -> None:
        move(*given, **more)
        raise utils.FailedJobError("sbatch: error: Socket timed out on send/recv operation")

    with monkeypatch.context() as patch, pytest.raises(Refusal, match=r"timed out .*; give the same command"):
        patch.setattr(paths, "move_temporary_file", unheard)
        executor(tmp_path)[0].start([(1, stacks[1])])
    one, news = executor(tmp_path)
    one.start(list(enumerate(stacks)))
    (line,) = [told[2] for told in news if told[1] == "say"]
    assert line.startswith("2 tasks found in Slurm's queue: job ") and len(queued(idle)) == 2


def test_the_queue_holds_at_most_so_many_and_is_filled_by_halves(idle: Node, tmp_path: Path) -> None:
    one, news = executor(tmp_path, SlurmSettings(max_tasks=4))
    assert one.free() == 4
    stacks = [stack(tmp_path, [seed]) for seed in range(4)]
    one.start(list(enumerate(stacks)))
    assert one.free() == 0 and len(queued(idle)) == 4
    for number, free in enumerate((0, 2)):
        (submitted(tmp_path)[0].parent / f"{number}.json").write_text(
            f'{{"share": 1.0, "loss": null, "says": [], "outcome": [[{number}], [], [], null]}}'
        )
        assert watched(one, lambda: sum(told[1] == "outcome" for told in news) == number + 1)  # noqa: B023
        assert one.free() == free
    assert [told[2] for told in news if told[1] == "outcome"] == [StackOutcome([n], [], []) for n in range(2)]


def test_no_answer_of_slurm_is_waited_for(
    idle: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "QUEUE_SECONDS", 0.2)
    one, news = executor(tmp_path)
    one.start([(0, stack(tmp_path, [0]))])

    def silent() -> Any:
        raise slurm_queue.NoAnswer("Unable to contact slurm controller")

    with monkeypatch.context() as patch:
        patch.setattr(slurm_queue, "queue", silent)
        end = time.monotonic() + 4.0
        while time.monotonic() < end:
            one.wait(0.1)
        assert [told[2] for told in news if "answer" in str(told[2])] == [
            "Slurm does not answer, waiting for it: Unable to contact slurm controller"
        ]
        assert not any(told[1] == "outcome" for told in news)
        with pytest.raises(
            Refusal, match="Slurm does not answer: Unable to contact slurm controller; try again"
        ):
            executor(tmp_path)[0].start([(0, stack(tmp_path, [0]))])
    idle.ask("scancel", "-u", "root")
    assert watched(one, lambda: any(told[1] == "outcome" for told in news))
