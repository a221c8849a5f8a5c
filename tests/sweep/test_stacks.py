"""How seeds are put side by side: the measured table, and stacks divided among processes."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.sweep.test_main import config as config_of
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.sweep import main, plan, step_times
from toyqs.sweep.costs import cached_cost
from toyqs.sweep.executors import connect
from toyqs.sweep.executors.settings import RaySettings, SlurmSettings
from toyqs.sweep.plan import GROWTH, PRICE, SHARE, STACK_SECONDS, Stack, divided, end_of, plan_cell, stacks_of
from toyqs.sweep.step_times import most_seeds, step_seconds
from toyqs.training.flops import Cost

TABLE = """
kind      kernels       FLOPs        1        2        4
plain     native         1000      1.0      1.5      2.5
plain     native       100000     10.0     18.0     36.0
"""
DEFAULT_JOB = 30_145_824  # FLOPs of a step


def stack(seeds: int, steps: int, flops: int = DEFAULT_JOB, *, cell: str = "", **changes: object) -> Stack:
    config = replace(RunConfig(), **{"max_steps": steps, "kernels": "native", **changes})
    return Stack("thinking", "", config, list(range(seeds)), Cost(1, flops, 1.0, 1.0), cell)


def sizes(stacks: list[Stack]) -> list[int]:
    return sorted((len(each.seeds) for each in stacks), reverse=True)


def ends(stacks: list[Stack], processes: int) -> float:
    return end_of(sorted((STACK_SECONDS + each.work for each in stacks), reverse=True), processes)


def test_a_step_s_time_is_on_straight_lines_between_what_was_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seeds, rows = step_times.rows(TABLE)
    monkeypatch.setattr(step_times, "SEEDS", seeds)
    monkeypatch.setattr(step_times, "ROWS", rows)

    def ms(flops: float, seeds: int) -> float:
        return 1e3 * step_seconds.__wrapped__(False, "native", flops, seeds)

    assert [ms(1000, n) for n in (1, 2, 3, 4, 6)] == pytest.approx([1, 1.5, 2, 2.5, 3.5])
    assert ms(10, 2) == ms(1000, 2), "a step has calls that its size does not change"
    assert ms(10_000, 1) == pytest.approx(math.sqrt(10))
    assert ms(300_000, 2) == pytest.approx(54)
    assert ms(10_000, 3) == pytest.approx(math.sqrt(2 * 27))


def test_the_committed_table_has_every_kind_and_says_that_company_pays() -> None:
    for thinks in (False, True):
        for kernels in ("torch", "native"):
            for flops in (1e3, 6e4, 1e6, 3e7, 5e8, 1e11):
                one = step_seconds(thinks, kernels, flops, 1)
                assert one <= 1.1 * step_seconds(thinks, kernels, 4 * flops, 1)
                most = most_seeds(thinks, kernels, flops)
                assert 1 <= most <= 16
                assert step_seconds(thinks, kernels, flops, most) <= 1.1 * most * one
    assert step_seconds(True, "auto", 1e7, 3) == step_seconds(True, "torch", 1e7, 3)
    assert step_seconds(False, "native", 6e4, 1) < step_seconds(False, "torch", 6e4, 1)
    assert most_seeds(False, "torch", 6e4) > most_seeds(True, "torch", 5e8)


def sweep(rng: random.Random) -> list[Stack]:
    """Draw the stacks of a command: widths, arms and seeds of some cells, of seconds to hours."""
    found = []
    for cell in range(rng.choice((1, 2, 6, 20))):
        seeds = rng.choice((1, 2, 3, 4, 5, 8, 20))
        for _ in range(rng.choice((1, 2, 8))):
            thinks, kernels = rng.random() < 0.6, rng.choice(("torch", "native"))
            steps, flops = round(10 ** rng.uniform(1, 5)), round(10 ** rng.uniform(4, 9))
            changes = {"use_reasoner": thinks, "kernels": kernels}
            found.append(stack(seeds, steps, flops, cell=str(cell), **changes))
    return found


def test_no_sweep_is_slower_than_one_process_per_core_with_one_run_each() -> None:
    rng = random.Random(3)
    gains = []
    for _ in range(150):
        given, processes = sweep(rng), rng.choice((2, 3, 4, 8, 16, 64))
        whole, found = divided(given, 1), divided(given, processes)
        alone = [each._replace(seeds=[seed]) for each in given for seed in each.seeds]
        runs = sorted((id(each.config), seed) for each in found for seed in each.seeds)
        assert runs == sorted((id(each.config), *each.seeds) for each in alone)
        assert found == sorted(found, key=lambda x: -x.work)
        end, last = ends(found, processes), ends(alone, processes)
        assert end <= last + STACK_SECONDS * (1 + 1e-9)
        gains.append(last / end)
        before, after = (sum(STACK_SECONDS + x.work for x in stacks) for stacks in (whole, found))
        if after > GROWTH * before and end < last - STACK_SECONDS:
            assert end * after**PRICE <= (1 + 1e-9) * ends(whole, processes) * before**PRICE
    assert sorted(gains)[len(gains) // 2] > 1.15, "and most are faster"


def test_one_process_trains_as_many_side_by_side_as_gain_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "most_seeds", lambda *_: 4)
    five = stack(5, 10**6)
    assert sizes(divided([stack(4, 10**6)], 1)) == [4] and sizes(divided([stack(9, 10**6)], 1)) == [3, 3, 3]
    assert sorted(seed for part in divided([five], 1) for seed in part.seeds) == five.seeds
    assert sizes(divided([replaced(five, backbone="gpt2")], 1)) == [1] * 5, "a transformer's go one by one"


def replaced(given: Stack, **changes: object) -> Stack:
    return given._replace(config=replace(given.config, **changes))


def test_a_long_cell_leaves_no_core_idle_and_a_short_one_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "step_seconds", lambda thinks, kernels, flops, seeds: 4e-3 + 2.4e-3 * seeds)
    monkeypatch.setattr(plan, "most_seeds", lambda *_: 8)
    long, short = stack(4, 10**5), stack(4, 50)
    assert sizes(divided([long], 2)) == [2, 2] and sizes(divided([long], 4)) == [1, 1, 1, 1]
    assert sizes(divided([stack(5, 10**5)], 2)) == [3, 2] and sizes(divided([long], 1)) == [4]
    for processes in (2, 4, 64):
        assert sizes(divided([short], processes)) == [4] and sizes(divided([short] * 3, processes)) == [4] * 3
    assert sizes(divided([long] * 2, 2)) == [4, 4], "no core is idle"
    assert sizes(divided([replaced(long, device="cuda")], 4)) == [4], "they share one"


def test_cpu_time_is_spent_only_where_the_end_is_earlier_for_it() -> None:
    """The long one ends last whatever becomes of the others."""
    one, others = stack(1, 10**6), [stack(4, 10**4, cell=str(cell)) for cell in range(9)]
    assert sizes(divided([one, *others], 8)) == [4] * 9 + [1]


def test_no_stack_of_a_sweep_is_more_than_a_quarter_where_that_is_cheap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two processes would be busy to the end either way; others may join them."""
    monkeypatch.setattr(plan, "step_seconds", lambda thinks, kernels, flops, seeds: flops * (0.4 + seeds))
    long, others = stack(4, 60, 1, cell="a"), [stack(4, 9, 1, cell=str(cell)) for cell in range(10)]
    assert sizes(divided([long, *others], 2)) == [4] * 10 + [2, 2]
    shares = [part.work for part in divided([long, *others], 2)]
    assert max(shares) <= SHARE * sum(shares)
    small = [stack(4, 2, 1, cell=str(cell)) for cell in range(80)]
    assert sizes(divided([long, *small], 2)) == [4] * 80 + [2, 2], "27 % of the steps"
    assert sizes(divided([long, *others], 1)) == [4] * 11
    cell = [each._replace(cell="a") for each in (long, *others)]
    assert sizes(divided(cell, 2)) == [4] * 11, "a command of one cell"
    monkeypatch.setattr(plan, "step_seconds", lambda thinks, kernels, flops, seeds: flops * (30 + seeds))
    assert sizes(divided([long, *others], 2)) == [4] * 11, "it would take a third more"


def test_every_run_is_for_itself_where_company_is_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    """No table should say so; none makes a sweep slower for it."""
    monkeypatch.setattr(plan, "most_seeds", lambda *_: 4)
    monkeypatch.setattr(plan, "step_seconds", lambda thinks, kernels, flops, seeds: seeds * (1 + (seeds > 1)))
    assert sizes(divided([stack(4, 30)] * 40, 2)) == [1] * 160


def test_no_stack_of_the_headline_sweep_is_more_than_a_quarter() -> None:
    """That of docs/results.md, six widths with fair controls, and kernels=native."""
    cost = cached_cost()
    seeds = {"seed": [7, 8, 9, 10, 11], "controls": "fair", "kernels": "native"}
    sweep = [replace(RunConfig(), base_lm_hidden_dim=width, **seeds) for width in (2, 4, 8, 16, 32, 64)]
    cells = [plan_cell(resolved(config), cost) for config in sweep]
    for processes in (2, 4, 16):
        works = [
            part.work
            for part in stacks_of(cells, {key for x in cells for key in x.run_keys}, cost, processes)
        ]
        assert max(works) <= SHARE * sum(works)


def test_how_many_train_at_once_is_what_trains_them_s_own_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect.os, "sched_getaffinity", lambda _: range(6))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = RunConfig()

    def at_once(cluster: object, **changes: object) -> int:
        return connect.most_at_once(cluster, [config, replace(config, **changes)])

    assert (at_once(None), at_once(None, processes=3), at_once(None, device="cuda")) == (6, 3, 1)
    assert at_once(SlurmSettings(array_parallelism=40), processes=3) == 40
    assert (
        at_once(RaySettings(cpus=2)),
        at_once(RaySettings(cpus=9)),
        at_once(RaySettings(processes=2)),
    ) == (3, 1, 2)
    assert at_once(RaySettings(address="auto")) == connect.UNKNOWN
    assert at_once(RaySettings(address="auto"), processes=3) == at_once(RaySettings(), processes=3) == 3
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert at_once(None, processes=3) == 1


def test_a_command_divides_its_stacks_by_its_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "PLAN_SECONDS", 0.0)
    for processes, stacks in ((1, "1 stack,"), (4, "4 stacks,")):
        changes = {"seed": [0, 1, 2, 3], "max_steps": 10**5, "controls": "none", "plan": True}
        assert main.main([config_of(tmp_path, processes=processes, **changes)]) == 0
        assert stacks in capsys.readouterr().out
