"""Plug-ins: what they add, and when they count in a run's key."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import lab
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import objective_of
from toyqs.config.finished_run import config_of
from toyqs.config.identity import canonical, changed, named, record, run_key, settings
from toyqs.config.plain import from_plain, to_plain
from toyqs.config.plugins import load
from toyqs.experiment.stack import Training
from toyqs.objectives.rewards import OWN_LOSS, READ_REFERENCE
from toyqs.sweep.words.spelling import typed_words

outside = pytest.fixture(autouse=True)(lab.outside)


USES: dict[str, dict[str, Any]] = {
    "objective": {"objective": "soft_best"},
    "reward": {"reward": "power"},
    "baseline": {"baseline": "median"},
    "mixing": {"mixing": "film"},
    "thoughts": {"thoughts": "laplace"},
}


@pytest.mark.parametrize("key", USES)
def test_each_changes_what_is_trained_and_the_key(key: str, tmp_path: Path) -> None:
    plain, before = lab.config(), run_key(lab.config(), 1)
    lab.written(tmp_path)
    load.load(["lab"])
    assert run_key(lab.config(), 1) == run_key(lab.config(plugins=["lab"]), 1) == before, (
        "nothing of it is used"
    )
    used = lab.config(plugins=["lab"], **USES[key])
    ours, theirs = Training(plain, [1]), Training(used, [1])
    for training in (ours, theirs):
        training.run(lambda step, values: None, None)
    last, other = (training.weights() for training in (ours, theirs))
    assert any(
        last[x].shape != other[x].shape or not torch.equal(last[x], other[x])
        for x in last.keys() & other.keys()
    )
    columns = settings(used, 1)
    assert columns["plugins.identity"] and run_key(used, 1) != before
    assert run_key(config_of(columns), 1) == run_key(used, 1)
    assert run_key(replace(used, use_reasoner=False), 1) == run_key(replace(plain, use_reasoner=False), 1)


def test_a_task_of_the_page(tmp_path: Path) -> None:
    lab.written(tmp_path)
    found = lab.composed(
        "plugins=./lab", "task=delay", "task.back=3", *(f"{x}={y}" for x, y in lab.SMALL.items())
    )
    assert named(found, 1)["task.back"] == 3 and found.plugins == ["./lab"]
    batch = found.task.sample(torch.Generator().manual_seed(0), 5, 0, "train")
    assert torch.equal(batch.targets[..., 3:], batch.inputs[..., :-3]) and not batch.think[..., :3].any()
    Training(found, [1]).run(lambda step, values: None, None)
    assert typed_words(found)[:1] == ["task=delay"] and "'plugins=[./lab]'" in typed_words(found)
    with lab.refused("task.back=8: lies outside the sequence; give 1 to 7$"):
        lab.composed("plugins=./lab", "task=delay", "task.back=8")


def test_the_task_of_another_page_is_a_plug_in_as_it_stands() -> None:
    page = (lab.ROOT / "docs" / "adding-a-task.md").read_text(encoding="utf-8")
    load.load([lab.file("sums.py", page.split("```python\n")[1].split("```")[0])])
    assert [(x.key, x.name) for x in load.added()] == [("task", "sums")]
    with pytest.raises(ValueError, match="train and held_out"):
        load.added()[0].thing().sample(torch.Generator(), 2, 0, "test")


def test_settings_of_its_own_reach_it_and_are_columns(tmp_path: Path) -> None:
    lab.written(tmp_path)
    more = {"plugin.power.exponent": 0.5, "plugin.film.strength": 2, "plugin.laplace.widen": 3.0}
    uses = {"reward": "power", "mixing": "film", "thoughts": "laplace"}
    words = ["plugins=./lab", *(f"{x}={y}" for x, y in (lab.SMALL | uses | more).items())]
    found = lab.composed(*words)
    model: Any = build_model(found, [1])
    assert (model.mixer.strength, model.thought_head.widen) == (2.0, 3.0)
    columns = settings(found, 1)
    assert {name: x for name, x in columns.items() if name.startswith("plugin.")} == more
    assert type(columns["plugin.film.strength"]) is float and changed(found).items() >= more.items()
    assert config_of(columns).plugin == canonical(found).plugin
    with lab.refused("plugin.power.more: not a setting of this version; give runs of this version$"):
        config_of(columns | {"plugin.power.more": 1})
    keys = {run_key(lab.composed(*words[:-1], f"plugin.laplace.widen={x}"), 1) for x in (1.0, 3, "3.0")}
    assert len(keys) == 2 and run_key(found, 1) in keys
    soft = lab.composed(
        "plugins=./lab", "objective=soft_best", "plugin.soft_best.sharpness=7", "reward=power"
    )
    assert objective_of(soft).sharpness == 7.0
    assert {*canonical(soft).plugin} == {"soft_best", "power"}, "what it does not use is left out"


TYPED = """
from typing import Optional

def x(log_q, trace, batch, *, rate: float = 1, most: Optional[int] = None, least: "float | None" = 2):
    return log_q

REWARDS = {"x": x}
"""


def test_a_default_is_the_same_setting_as_its_value_typed() -> None:
    lab.file("typed.py", TYPED)
    plain = lab.composed("plugins=typed.py", "reward=x")
    typed = lab.composed(
        *("plugins=typed.py", "reward=x", "plugin.x.rate=1", "plugin.x.most=null", "plugin.x.least=2.0")
    )
    own = {"plugin.x.rate": 1.0, "plugin.x.most": None, "plugin.x.least": 2.0}
    for used in (plain, typed, replace(plain, plugin={})):
        columns = settings(used, 1)
        assert {name: value for name, value in columns.items() if name.startswith("plugin.")} == own
        assert all(type(columns[name]) is type(value) for name, value in own.items())
        assert run_key(used, 1) == run_key(plain, 1)
    assert lab.composed("plugins=typed.py", "reward=x", "plugin.x.most=3").plugin["x"]["most"] == 3


CONSTANT = """
import torch
from toyqs.objectives.advantages import Baseline

def x(log_q, trace, batch, *, value: float = 1.0):
    return torch.full_like(log_q, value)

def y(rewards, *, shift: float = 0.0):
    return rewards + shift

REWARDS, BASELINES = {"x": x}, {"y": Baseline(y)}
"""


def test_rewards_and_baselines_are_called_with_their_settings() -> None:
    lab.file("xy.py", CONSTANT)
    words = ("plugins=xy.py", "reward=x", "baseline=y", "plugin.x.value=3", "plugin.y.shift=2")
    objective: Any = objective_of(lab.composed(*words))
    ones = torch.ones(1, 1, 1, 2)
    assert torch.equal(objective.compute_reward(ones, None, None), 3 * ones)
    assert torch.equal(objective._baseline(ones, None, None), 3 * ones)


def test_what_imports_put_into_our_tables_is_found_and_kept_apart() -> None:
    load.load(
        [
            lab.file(
                "own.py",
                lab.scores("x", head="from toyqs.objectives.rewards import REWARDS\nREWARDS['y'] = power"),
            )
        ]
    )
    assert [x.name for x in load.added()] == ["y"], "REWARDS is ours here"
    text = lab.scores(head="from toyqs.objectives import rewards\nrewards.REWARDS['accuracy'] = power")
    with lab.refused("bad.py:12: there is a reward 'accuracy' already"):
        load.load([lab.file("bad.py", text)])


def test_a_folder_is_a_package_whose_files_all_count() -> None:
    Path("more").mkdir()
    lab.file("more/_tools.py", "FACTOR = 2\n")
    lab.file(
        "more/x.py",
        lab.scores("x", head="from ._tools import FACTOR\nOWN_LOSS = READ_REFERENCE = ['x', 'other']\n"),
    )
    load.load(["more"])
    assert "x" in OWN_LOSS and "x" in READ_REFERENCE and "other" not in OWN_LOSS
    before = load.identity_of(["more"])
    load.reset()
    assert "x" not in OWN_LOSS and "x" not in READ_REFERENCE
    Path("more").rename("less")
    assert load.identity_of(["less"]) == before
    lab.file("less/_tools.py", "FACTOR = 3\n")
    assert load.identity_of(["less"]) != before
    lab.file("less/x.py", lab.scores("x", head="from ._tools import NOTHING"))
    with lab.refused("less/x.py:24: ImportError: cannot import name 'NOTHING'"):
        load.load(["less"])


def test_an_installed_package_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for folder in ("pack_of_tests", "pack_of_tests-1.dist-info"):
        Path(folder).mkdir()
    lab.file("pack_of_tests/__init__.py", "")
    lab.file("pack_of_tests/thinking.py", lab.scores("x"))
    lab.file("pack_of_tests-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: pack_of_tests\nVersion: 1\n")
    lab.file(
        "pack_of_tests-1.dist-info/entry_points.txt", "[toyqs.plugins]\npacked = pack_of_tests.thinking\n"
    )
    used = lab.composed("plugins=packed", "reward=x", *(f"{x}={y}" for x, y in lab.SMALL.items()))
    assert used.plugins == ["packed"] and settings(used, 1)["plugins.identity"] == load.identity_of(
        ["packed"]
    )
    lab.file("pack_of_tests/thinking.py", lab.scores("x", "y"))
    load.reset()
    with lab.refused("plugins=packed: has changed since this process imported it; start Python"):
        load.load(["packed"])
    with lab.refused("plugins=unpacked: there is no such .*; give ./FILE.py or packed$"):
        load.load(["unpacked"])


def test_what_a_plug_in_prints_is_printed_by_the_command_alone(
    capfd: pytest.CaptureFixture[str],
) -> None:
    head = "import os\nos.write(1, b'a')\nos.write(2, b'b')\n"
    load.load([lab.file("loud.py", lab.scores("x", head=head))])
    assert capfd.readouterr() == ("a", "b")
    identity = load.identity_of(["loud.py"])
    load.reset()
    load.load(["loud.py"], identity)
    assert load.added() and capfd.readouterr() == ("", "")
    os.write(1, b"heard again")
    assert capfd.readouterr().out == "heard again"


def test_another_process_loads_the_same_or_says_that_it_is_not() -> None:
    load.load([lab.file("mine.py", lab.scores("x", "y"))])
    used = canonical(lab.config(reward="x", plugins=["mine.py"]))
    assert record(used, 1)["plugins"] == used.plugins == ["mine.py"]
    plain = to_plain(used)
    load.reset()
    assert from_plain(plain) == used and [x.name for x in load.added()] == ["x", "y"]
    lab.file("mine.py", lab.scores("x", "y") + "# edited\n")
    assert from_plain(plain) == used, "a process keeps what it has loaded"
    load.reset()
    with lab.refused("plugins=mine.py: has changed: its hash was .*; put back what was there"):
        from_plain(plain)
    assert not load.added()
    Path("mine.py").unlink()
    load.load([lab.file("moved.py", lab.scores("x", "y"))])
    assert from_plain(plain) == used and len(load.added()) == 2, "the same, from elsewhere"
    load.reset()
    with lab.refused("reward=x: is not a choice"):
        config_of(settings(lab.config(), 1) | {"reward": "x"})
