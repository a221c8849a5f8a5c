"""How fast training steps are: toyqs, a plain reference and, where it is installed, JAX, in turns.

`python bench/speed.py` shows first that all compute the same gradients, then measures, all on one thread:

    table   the thinking GRU's step at five sizes, as a multiple of the reference's speed
    memory  the bytes that a step holds for each thought token; time and bytes by chunk_positions
    stacks  milliseconds of a step by the number of seeds side by side, at the sizes of sweeps
    growth  the step's time where one of B, T, K, L, D and V doubles, and doubles again

`python bench/speed.py --gate` is the check of .ci/run: small steps, held against the ratios of GATE.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.gpu import commit, version
from bench.programs import (
    JAX,
    NATIVE,
    REFERENCE,
    TORCH,
    compare_gradients,
    in_turns,
    program,
    programs,
    ratio,
    turn_of,
)
from bench.step import AXES, QUICK, WHOLE, Plan, Size, around_table, processor, thought_tokens, with_table
from toyqs.command_line import Parser, check_file, path_of, run, whole, writing
from toyqs.config.builders.cost import count_cost
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.evidence.figures import style
from toyqs.evidence.figures.growth import growth_figure
from toyqs.files import Refusal, write_text

TOLERANCE = 1e-10  # of a gradient, in float64
PACKAGES = ("torch", "numpy", "jax", "jaxlib")
Row = dict[str, Any]

# Ratios to the reference when committed: medians of `--gate`, quiet cores; Intel's library has wider vectors.
WIDE = {TORCH: 1.5, NATIVE: 1.5} if "Intel" in processor() else {TORCH: 1.85, NATIVE: 2.3}
GATE: dict[Size, dict[str, float]] = {
    Size(8, 8, 4, 64, 4, 8): {TORCH: 2.45, NATIVE: 5.3},
    Size(32, 32, 4, 64, 4, 8): {TORCH: 2.2, NATIVE: 3.6},
    Size(32, 100, 2, 64, 4, 8): {TORCH: 2.0, NATIVE: 2.8},
    Size(32, 32, 1, 128, 10, 10): {TORCH: 2.4, NATIVE: 4.05},
    Size(32, 256, 1, 64, 10, 10): WIDE,
}
SHARE = 0.6  # of a committed ratio, below which the gate closes


def compare(cases: Sequence[tuple[RunConfig, int]], names: Sequence[str] = (NATIVE, JAX)) -> None:
    """Compare the programs' gradients at these sizes with two sequences, and print how far they are apart.

    Args:
        cases: settings and number of seeds.
        names: of the programs; the reference is always compared where it can be.

    Raises:
        Refusal: they are not equal.
    """
    apart: dict[str, list[float]] = {}
    for config, seeds in cases:
        small = replace(config, data_loader_batch_size=min(2, config.data_loader_batch_size))
        for name, gradients in compare_gradients(small, range(seeds), (REFERENCE, *names)).items():
            apart.setdefault(name, []).append(gradients.difference)
    equal = all(each <= TOLERANCE for every in apart.values() for each in every)
    # torch's max, unlike Python's, returns a NaN if there is one
    found = ", ".join(f"{name} {float(torch.tensor(every).max()):.0e}" for name, every in apart.items())
    verdict = "equal" if equal else "DIFFERENT"
    print(
        f"Gradients {verdict} with the same thoughts, in float64; largest difference from kernels=torch: "
        f"{found} (allowed {TOLERANCE:.0e})",
        flush=True,
    )
    if not equal:
        raise Refusal("the programs compute different gradients, so nothing was timed", 1)


def table(plan: Plan, rounds: int) -> list[Row]:
    """Time the step at every size; ratios to the reference."""
    compare([(size.config, 1) for size in plan.sizes])
    names = programs(plan.sizes[0].config)
    columns = [f"{name:<23}" for name in names[1:]] + ["ahead of JAX"] * (JAX in names)
    print(f"How many times as fast as the reference: median (quartiles) of {rounds} rounds in turns")
    print("\n".join([f"{'base/reasoner B T K L':<24}{'reference':>12}  " + "".join(columns)]), flush=True)
    rows = []
    for size in plan.sizes:
        times = timed(size.config, 1, names, rounds, plan.turn)
        ratios = {name: ratio(times[REFERENCE], times[name]) for name in names[1:]}
        if JAX in names:
            ratios["ahead of JAX"] = ratio(times[JAX], times[names[-2]])
        ms = milliseconds(times)
        rows.append({"size": str(size), "thought tokens": size.tokens, "ms": ms, "ratios": ratios})
        shown = "".join(f"{each!s:<23}" for each in ratios.values()).rstrip()
        print(f"{size!s:<24}{ms[REFERENCE]:>9.1f} ms  {shown}", flush=True)
    return rows


def timed(config: RunConfig, seeds: int, names: Sequence[str], rounds: int, turn: float) -> dict[str, Any]:
    """Time programs of these names in turns; see `in_turns`."""
    found = {name: program(name, config, range(seeds)) for name in names}
    return in_turns(found, rounds, turn_of(found[TORCH], turn))


def milliseconds(times: dict[str, list[float]]) -> dict[str, float]:
    """Return the median of each program's times."""
    return {name: 1e3 * statistics.median(each) for name, each in times.items()}


def memory(plan: Plan, rounds: int) -> list[Row]:
    """Measure the bytes of a step at every size; then bytes and time by chunk_positions, at the second."""
    names = programs(plan.sizes[0].config)
    print("Bytes that a step holds at most, for each thought token")
    print(f"{'base/reasoner B T K L':<24}" + "".join(f"{name:>12}" for name in names), flush=True)
    rows = []
    for size in plan.sizes:
        held = {name: program(name, size.config).peak() / size.tokens for name in names}
        rows.append({"size": str(size), "bytes": held})
        print(f"{size!s:<24}" + "".join(f"{each:>12,.0f}" for each in held.values()), flush=True)
    middle = plan.sizes[:2][-1].config
    configs = [resolved(replace(middle, kernels=name)) for name in names if name in (TORCH, NATIVE)]
    return rows + [row for config in configs for row in chunks(config, plan, rounds)]


def chunks(config: RunConfig, plan: Plan, rounds: int) -> list[Row]:
    """Measure a step by chunk_positions: bytes, and CPU time as a share of the whole step's."""
    kernels = config.kernels
    print(f"kernels={kernels}: chunk_positions, bytes for each thought token, CPU time of the whole step's")
    given = {0: "all", **dict.fromkeys(plan.chunks, "given"), config.chunk_positions: "by the sizes"}
    found = {str(chunk): program(kernels, replace(config, chunk_positions=chunk)) for chunk in sorted(given)}
    times = in_turns(found, rounds, turn_of(found["0"], plan.turn))
    rows = []
    for chunk, why in sorted(given.items()):
        held = found[str(chunk)].peak() / thought_tokens(config)
        share = ratio(times[str(chunk)], times["0"])
        rows.append({"kernels": kernels, "chunk_positions": chunk, "bytes": held, "time": share})
        print(f"{f'{chunk} ({why})':<24}{held:>12,.0f}  {share}", flush=True)
    return rows


def stacks(plan: Plan, rounds: int) -> list[Row]:
    """Time steps by the number of seeds side by side, per seed."""
    runs = {name: resolved(replace(config, max_steps=1)) for name, config in plan.runs.items()}
    compare([(config, 2) for config in runs.values()])
    print(f"Milliseconds of a step for each seed, median of {rounds} rounds in turns; S: seeds side by side")
    sizes = "".join(f"{f'S={size}':>8}" for size in plan.stacks)
    print(f"{'run (widths of base/reasoner)':<34}{'FLOPs':>8}  {'':<7}{sizes}", flush=True)
    rows = []
    for label, config in runs.items():
        names = [name for name in programs(config) if name != REFERENCE]
        flops = count_cost(config).flops_per_step
        found = {
            size: milliseconds(timed(config, size, names, rounds, plan.turn / 3)) for size in plan.stacks
        }
        for place, name in enumerate(names):
            each = {size: ms[name] / size for size, ms in found.items()}
            head = f"{label:<34}{flops / 1e6:7.1f}M" if not place else f"{'':42}"
            print(f"{head}  {name:<7}" + "".join(f"{ms:8.2f}" for ms in each.values()), flush=True)
            rows.append({"run": label, "FLOPs": flops, "program": name, "ms": each})
    return rows


def growth(plan: Plan, rounds: int) -> list[Row]:
    """Time steps of which one size doubles, and doubles again."""
    sizes = {(axis, factor): plan.doubled.times(factor, axis) for axis in AXES for factor in (1, 2, 4)}
    compare([(size.config, 1) for size in sizes.values()], (NATIVE,))
    print(f"Milliseconds of a step where one size doubles, median of {rounds} rounds in turns")
    rows: list[Row] = []
    for (axis, factor), size in sizes.items():
        names = [name for name in programs(size.config) if name != JAX]
        known = rows[0]["ms"] if rows and factor == 1 else None  # the first size of all axes is one
        ms = known or milliseconds(timed(size.config, 1, names, rounds, plan.turn))
        rows.append({"axis": axis, "value": getattr(size, AXES[axis][0]), "ms": ms})
        shown = "  ".join(f"{name} {each:9.1f}" for name, each in ms.items())
        print(f"{axis} = {rows[-1]['value']:<6}{shown}", flush=True)
    return rows


def gate(rounds: int) -> None:
    """Hold ratios against the committed ones; measure again what falls short, for longer."""
    compare([(size.config, 1) for size in GATE], (NATIVE,))
    closed = 0
    for size, committed in GATE.items():
        names = [name for name in programs(size.config) if name != JAX]
        for more in (1, 3):
            times = timed(size.config, 1, names, more * rounds, 0.0)
            found = {name: ratio(times[REFERENCE], times[name]) for name in names[1:]}
            short = [x for x, each in found.items() if each.median < SHARE * committed.get(x, float("inf"))]
            if not short:
                break
        for name, each in found.items():
            told = f"{size!s:<24}{name:<8}{each!s:<24}committed {committed.get(name, 'none')}"
            print(f"{told}: TOO SLOW" if name in short else told, flush=True)
        closed += len(short)
    if closed:
        raise Refusal(
            f"{closed} of these steps are below {SHARE:.0%} of their committed speed, or have none: find the "
            "change that slowed them, or, where it is meant, commit the medians of `python bench/speed.py "
            "--gate --rounds 25` to GATE in bench/speed.py",
            1,
        )


PARTS = {part.__name__: part for part in (table, memory, stacks, growth)}


@contextmanager
def pinned() -> Iterator[None]:
    """Keep this process, and the threads that it starts, on one of its cores, and torch to one thread."""
    torch.set_num_threads(1)
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def main(words: Sequence[str] | None = None) -> int:
    """Print the parts asked for; return 1 where gradients differ or the gate closes."""
    form = argparse.RawDescriptionHelpFormatter
    parser = Parser(description=__doc__, formatter_class=form)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; without any all")
    parser.add_argument("--rounds", type=whole, help="how often each program has its turn (9; at the gate 5)")
    parser.add_argument("--json", metavar="FILE", type=path_of, help="write all numbers there, with machine")
    parser.add_argument("--figure", metavar="FILE", type=path_of, help="draw growth there")
    parser.add_argument("--table", metavar="FILE", type=path_of, help="write stacks into step_times.py")
    parser.add_argument("--gate", action="store_true", help="hold small steps against the committed ratios")
    parser.add_argument("--quick", action="store_true", help="tiny steps, to see that it works")
    return run(_measure, parser, words)


def _parts(given: argparse.Namespace) -> list[str]:
    """Return the parts to be measured; refuse what cannot be done."""
    if unknown := [part for part in given.parts if part not in PARTS]:
        raise Refusal(f"{unknown[0]}: no part; give some of {', '.join(PARTS)}")
    if given.gate and (given.parts or given.json or given.figure or given.table or given.quick):
        raise Refusal("--gate: has steps of its own and writes no file; give --rounds beside it, or nothing")
    parts = given.parts or [*PARTS]
    for option, part in (("figure", "growth"), ("table", "stacks")):
        if (file := getattr(given, option)) and part not in parts:
            raise Refusal(f"--{option} {file}: shows {part}, which is not measured; add it to the parts")
    if given.figure and given.figure.suffix not in style.ENDINGS:
        raise Refusal(f"--figure {given.figure}: give an ending of {', '.join(style.ENDINGS)}")
    for option in ("json", "figure", "table"):
        if path := getattr(given, option):
            check_file(path, f"--{option}")
    if given.table:
        around_table(given.table)
    return parts


def _measure(given: argparse.Namespace) -> None:
    parts = _parts(given)
    head = {"processor": processor(), "commit": commit(), **{name: version(name) for name in PACKAGES}}
    about = "; ".join(["one thread", *(f"{name} {value}" for name, value in head.items())])
    print(about, flush=True)
    with pinned():
        if given.gate:
            return gate(given.rounds or 5)
        found = {}
        for part in parts:
            print(f"\n{part}", flush=True)
            found[part] = PARTS[part](QUICK if given.quick else WHOLE, given.rounds or 9)
    if given.json:
        with writing(given.json, "--json"):
            write_text(given.json, json.dumps({**head, "parts": found}, indent=1) + "\n")
        print(f"numbers {given.json}")
    if given.table:
        with writing(given.table, "--table"):
            write_text(given.table, with_table(given.table, found["stacks"]))
        print(f"table {given.table}")
    if given.figure:
        with style.style(), writing(given.figure, "--figure"):
            style.save(growth_figure(found["growth"], about), given.figure)
        print(f"figure {given.figure}")


if __name__ == "__main__":
    sys.exit(main())
