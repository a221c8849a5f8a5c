"""A sweep's jobs: combinations, keys that change together, and jobs that differ only in their seed."""

from __future__ import annotations

import itertools
import random
import re
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from tests.test_docs import ROOT, commands
from toyqs.config.errors import Refusal
from toyqs.sweep.words.combinations import combinations
from toyqs.sweep.words.packing import pack

BASE, REASONER = "base_lm_hidden_dim", "reasoner_hidden_dim"
KEYS = ("task.k", "seed", BASE, REASONER, "base_lr", "plugin.x.y", "+run_modifier")


def swept(words, of_preset=None):
    """Return the jobs of a sweep, each as one line."""
    overrides = OverridesParser.create().parse_overrides(words)
    return [" ".join(job) for job in combinations(overrides, of_preset)]


@pytest.mark.parametrize(
    ("typed", "jobs"),
    [
        ("a=1,2 b=3,4", ["a=1 b=3", "a=1 b=4", "a=2 b=3", "a=2 b=4"]),
        ("a=1 a=2 b=[3,4]", ["a=2 b=[3,4]"]),
        ("", [""]),
        ("zip=[a,b] a=1,2 b=3,4", ["a=1 b=3 zip=null", "a=2 b=4 zip=null"]),
        ("zip=[b,a] a=1,2 b=3,4", ["a=1 b=3 zip=null", "a=2 b=4 zip=null"]),
        ("zip=[[a,b]] b=3,4 c=5 a=1,2", ["b=3 a=1 c=5 zip=null", "b=4 a=2 c=5 zip=null"]),
        ("zip=[a,b] a=[A,A],[A,B] b=range(1,3)", ["a=[A,A] b=1 zip=null", "a=[A,B] b=2 zip=null"]),
        ("zip=[a,b] a=choice(x,y) b='p,q',r", ["a=x b='p,q' zip=null", "a=y b=r zip=null"]),
        ("zip=[a,b] a=1 b=3", ["a=1 b=3 zip=null"]),  # as from lists of one value in Python
        ("zip=[+r,b] +r=x,[y,z] b=3,4", ["+r=x b=3 zip=null", "+r=[y,z] b=4 zip=null"]),
        ("zip=null a=1,2", ["a=1 zip=null", "a=2 zip=null"]),
        ("zip=[] a=1", ["a=1 zip=null"]),
    ],
)
def test_combinations(typed, jobs):
    assert swept(typed.split()) == jobs


def test_a_word_counts_more_than_a_preset():
    typed, both = ["a=1,2", "b=3,4", "c=5,6"], [["a", "b"]]
    assert len(swept(typed)) == 8 and len(swept(typed, both)) == 4
    assert swept(typed[:2], both) == ["a=1 b=3 zip=null", "a=2 b=4 zip=null"]
    assert swept([*typed, "zip=[b,c]"], both)[:2] == ["a=1 b=3 c=5 zip=null", "a=1 b=4 c=6 zip=null"]
    assert len(swept([*typed, "zip=null"], both)) == 8


def test_keys_that_change_together_are_the_diagonal_of_all_combinations():
    """Compare with all combinations, filtered by the place of each value, for groups drawn at random."""
    rng = random.Random(5)
    for _ in range(60):
        keys = rng.sample(KEYS, rng.randint(2, 6))
        cut = rng.randint(2, len(keys))
        groups = [group for group in (keys[:cut], keys[cut:]) if len(group) > 1]
        sizes = {key: rng.randint(1, 3) for key in keys}
        for group in groups:
            sizes |= dict.fromkeys(group, sizes[group[0]])
        typed = rng.sample(keys, len(keys))
        words = [f"{key}={','.join(f'{i}{rng.randrange(9)}' for i in range(sizes[key]))}" for key in typed]
        given = ",".join(f"[{','.join(map(repr, group))}]" for group in groups)
        found = {frozenset(job.split()) for job in swept([f"zip=[{given}]", *words])}
        places = itertools.product(*(range(sizes[key]) for key in typed))
        on = [
            chosen
            for chosen in places
            if all(len({chosen[typed.index(key)] for key in group}) == 1 for group in groups)
        ]
        wanted = [[re.split("[=,]", word)[i + 1] for word, i in zip(words, at, strict=True)] for at in on]
        spelled = [{f"{key}={x}" for key, x in zip(typed, job, strict=True)} | {"zip=null"} for job in wanted]
        assert found == {frozenset(job) for job in spelled} and len(found) == len(on)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            f"zip=[{BASE},{REASONER}] {BASE}=2,4,8 {REASONER}=4,8",
            f"zip=[{BASE},{REASONER}]: needs as many values of each key; {BASE} has 3, {REASONER} has 2",
        ),
        ("zip=[seed,base_lr] seed=1,2 base_lr=3", "as many values of each key; seed has 2, base_lr has 1"),
        ("zip=[seed,base_lr] seed=1,2", "base_lr is not swept over; give base_lr=VALUE,VALUE as well"),
        ("zip=[task,seed] seed=1,2", "task is not swept over; give task=VALUE,VALUE as well"),
        ("zip=[run_modifier,seed] seed=1,2", "run_modifier is not swept over"),
        ("zip=[seed,bas_lr] seed=1,2 base_lr=1,2", "bas_lr: there is no such setting; did you mean base_lr?"),
        ("zip=[seed,task.kk] seed=1,2", "task.kk: there is no such setting"),
        ("zip=[seed,plugin.x.y] seed=1,2", "plugin.x.y: no plug-in has this setting"),
        ("zip=[seed,hydra.launcher.time] seed=1,2", "hydra.launcher.time is no setting of a run"),
        ("zip=[seed,seed] seed=1,2", "zip=[seed,seed]: seed is named twice; name every key once"),
        ("zip=[[seed,base_lr],[seed,task.k]] seed=1,2", "zip=[[seed,base_lr],[seed,task.k]]: seed is named"),
        ("zip=[+run_modifier,run_modifier] +run_modifier=A,B", "run_modifier is named twice"),
        ("zip=[seed] seed=1,2", "zip=[seed]: seed alone has nothing to change with; name two keys or more"),
        ("zip=[[seed,base_lr],[task.k]] seed=1,2 base_lr=1,2", "task.k alone has nothing to change with"),
        ("zip=seed seed=1,2", "zip=seed: takes keys in brackets; give zip=[KEY,KEY], or zip=[[KEY,KEY],["),
        ("zip=seed,base_lr seed=1,2", "zip=seed,base_lr: takes keys in brackets"),
        ("zip=[seed,base_lr],[task.k,info] seed=1,2", "zip=[seed,base_lr],[task.k,info]: takes keys in"),
        ("zip=[seed,[base_lr,task.k]] seed=1,2", "zip=[seed,[base_lr,task.k]]: takes keys in brackets"),
        ("zip=[[[seed,base_lr]]] seed=1,2", "zip=[[[seed,base_lr]]]: takes keys in brackets"),
        ("zip=[[],[seed,base_lr]] seed=1,2 base_lr=1,2", "takes keys in brackets"),
        ("zip=[1,2] seed=1,2", "zip=[1,2]: takes keys in brackets"),
        ("zip={seed:base_lr} seed=1,2", "takes keys in brackets"),
        ("zip=[seed,base_lr] zip=[task.k,info]", "zip=[seed,base_lr] zip=[task.k,info]: zip is given once"),
    ],
)  # fmt: skip
def test_what_cannot_change_together_is_one_line(typed, message):
    with pytest.raises(Refusal, match=re.escape(message)) as refused:
        swept(typed.split())
    assert "\n" not in str(refused.value) and str(refused.value).startswith("zip=")


def test_a_seed_may_change_with_another_key():
    parsed = OverridesParser.create().parse_overrides(["zip=[seed,a]", "a=1,2,1", "b=3,4", "seed=7,8,9"])
    both = ["a=1 b=3 seed=[7,9]", "a=1 b=4 seed=[7,9]"]
    packed = [sorted(word for word in job if word != "zip=null") for job in pack(combinations(parsed))]
    assert [" ".join(job) for job in packed] == [*both, "a=2 b=3 seed=8", "a=2 b=4 seed=8"]


def test_the_example_in_the_docs():
    page = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
    (line,) = [line for line in commands(page) if "zip=" in line]
    jobs = [dict(word.split("=") for word in job.split()) for job in swept(shlex.split(line)[3:])]
    found = [(job[BASE], job[REASONER], job["seed"]) for job in jobs]
    pairs = [("2", "4"), ("4", "8"), ("8", "16")]
    assert found == [(*pair, seed) for pair in pairs for seed in ("7", "8")]


@pytest.mark.parametrize(
    ("jobs", "packed"),
    [
        (["a=1 seed=7", "a=1 seed=8"], ["a=1 seed=[7,8]"]),
        (["a=1 seed=7", "a=2 seed=7", "a=1 seed=8", "a=2 seed=8"], ["a=1 seed=[7,8]", "a=2 seed=[7,8]"]),
        (["seed=7 a=1", "seed=7 a=1"], ["seed=[7] a=1"]),
        (["seed=7 a=1"], ["seed=7 a=1"]),
        (["seed=[0,1] a=1", "seed=[1,2] a=1", "seed=5 a=1"], ["seed=[0,1,2,5] a=1"]),
        (["a=1", "a=2"], ["a=1", "a=2"]),
        (["seed=x", "seed=1.5", "seed=-1"], ["seed=x", "seed=1.5", "seed=-1"]),
        (["seed=x", "seed=7", "seed=8"], ["seed=x", "seed=[7,8]"]),
        (["task.seed=7", "task.seed=8"], ["task.seed=7", "task.seed=8"]),
        (["a=1 b=[seed=7] seed=3", "a=1 b=[seed=7] seed=4"], ["a=1 b=[seed=7] seed=[3,4]"]),
        (["", ""], [""]),
        ([], []),
    ],
)
def test_pack(jobs, packed):
    assert pack([job.split() for job in jobs]) == [job.split() for job in packed]


def test_nothing_is_lost_or_invented():
    rng = random.Random(3)
    jobs = [[f"a={rng.randrange(3)}", f"seed={rng.randrange(6)}", f"b={rng.randrange(2)}"] for _ in range(40)]
    packed = pack(jobs)
    spread = set()
    for a, seed, b in packed:
        spread |= {(a, f"seed={one}", b) for one in seed.removeprefix("seed=").strip("[]").split(",")}
    assert spread == {tuple(job) for job in jobs}
    assert len({(a, b) for a, _, b in packed}) == len(packed)
    assert [[*job] for job in jobs] == jobs
