"""Thought tokens per second of the training step, compared with a plain reference in the same process.

`python bench/step.py` checks that both compute the same gradients, then times them in turns.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import reference
from bench.reference import Recipe, Reference
from toyqs.command_line import Parser, run, whole
from toyqs.config.builders.model import build_model
from toyqs.config.builders.training import build_objective, build_training_params
from toyqs.config.run_config import RunConfig
from toyqs.training.batches import draw_batches
from toyqs.training.loop import accumulate, train
from toyqs.types import Batch

TOLERANCE = 1e-10  # of a gradient, in float64
STEPS = 3  # of each side in a round


@dataclass
class RandomCharacters:
    """A task with nothing to learn: every position counts and thinks."""

    vocab_size: int = 65

    def length(self, seq_len: int) -> int:
        """Return the number of positions, which is seq_len."""
        return seq_len

    def thinking(self, seq_len: int) -> int:
        """Return the number of positions that think, which is all."""
        return seq_len

    def sample(
        self, generator: torch.Generator, batch_size: int, seq_len: int, split: str, progress: float = 1.0
    ) -> Batch:
        """Draw uniform symbols, each the target of the one before; all splits are alike."""
        text = torch.randint(self.vocab_size, (1, batch_size, seq_len + 1), generator=generator)
        inputs, targets = text[..., :-1].contiguous(), text[..., 1:].contiguous()
        return Batch(inputs, targets, torch.ones(inputs.shape), torch.ones(inputs.shape, dtype=torch.bool))


CONFIG = RunConfig(
    base_lm_hidden_dim=32,
    reasoner_hidden_dim=32,
    weight_groups=["A", "B", "C", "D"],
    mixing="concat",
    linear_lm_head=True,
    interpreter_start="afresh",
    thought_vocab=None,
    trice_samples=4,
    max_reasoning_len=8,
    data_loader_batch_size=16,
    seq_len=64,
    reward="likelihood",
    baseline="leave_one_out",
    advantage_scale="none",
    entropy_encouragement_coef=0.1,
    entropy_schedule="constant",
    use_scheduler=False,
    base_lr=1e-3,
    clip_gradients=1.0,
    max_steps=STEPS,
    seed=[0],
    task=RandomCharacters(),
)


class Gradients(NamedTuple):
    """The gradients of the two implementations, compared parameter by parameter."""

    difference: float  # the largest absolute difference
    largest: float  # the largest absolute value in toyqs's gradients


def build_recipe(config: RunConfig) -> Recipe:
    """Return the reference's numbers of the training step."""
    return Recipe(
        config.trice_samples,
        config.max_reasoning_len,
        config.base_lr,
        config.entropy_encouragement_coef,
        config.clip_gradients,
    )


def compare_gradients(config: RunConfig) -> Gradients:
    """Compare the gradients of one batch with equal weights and equal, forced thoughts, in float64."""
    config = replace(config, dtype="float64")
    model, settings = build_model(config, [0]), build_training_params(config)
    like = next(model.parameters())
    batch = next(draw_batches(config.task, [0], settings, like))
    forced = (batch.noise * config.task.vocab_size).long()
    weights = {name: weight.at(0.0) for name, weight in settings.weights.items()}
    running = torch.zeros(1)
    accumulate(model, build_objective(config), batch._replace(forced=forced), weights, settings, running)
    plain = Reference(model.letters, config.widths, config.task.vocab_size).double()
    plain.load_state_dict(reference.translated(model, lambda parameter: parameter.detach()))
    prediction = plain(batch.inputs[0], build_recipe(config), forced[0].transpose(1, 2))
    reference.thinking_loss(
        prediction, batch.counted.targets[0], config.entropy_encouragement_coef
    ).backward()
    expected = {name: parameter.grad for name, parameter in plain.named_parameters()}
    actual = reference.translated(model, lambda parameter: parameter.grad)
    differences = [(actual[name] - expected[name]).abs().max() for name in expected]
    # torch's max, unlike Python's, returns a NaN if there is one.
    largest = torch.stack([gradient.abs().max() for gradient in actual.values()]).max()
    return Gradients(float(torch.stack(differences).max()), float(largest))


def contestants(config: RunConfig) -> tuple[Callable[[], None], Callable[[], None]]:
    """Build two functions that run config.max_steps training steps of toyqs and of the reference."""
    model, settings = build_model(config, [0]), build_training_params(config)
    plain = Reference(model.letters, config.widths, config.task.vocab_size)
    plain.load_state_dict(reference.translated(model, lambda parameter: parameter.detach()))
    like = next(model.parameters())
    data = draw_batches(config.task, [0], settings, like)
    # The reference draws its own noise, so its batches have none.
    batches = (
        (x.inputs[0], x.counted.targets[0])
        for x in draw_batches(
            config.task, [0], replace(settings, thoughts=settings.thoughts._replace(length=0)), like
        )
    )
    objective, recipe = build_objective(config), build_recipe(config)

    def ours() -> None:
        train(model, objective, data, settings, lambda step, values: None)

    def theirs() -> None:
        reference.train(plain, islice(batches, settings.steps), recipe)

    return ours, theirs


def seconds(run: Callable[[], None]) -> float:
    """Time a call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def now(device: str) -> float:
    """Wait until the device (cpu or cuda) is idle and return the time in seconds."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def processor() -> str:
    """Return the CPU's name, as far as the system knows it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe(config: RunConfig) -> str:
    """Describe the machine, the model and the step."""
    tokens = thought_tokens(config)
    return "\n".join(
        [
            "A training step of a thinking GRU: toyqs and a plain reference (bench/reference.py).",
            f"Machine    {processor()}, 1 thread, torch {torch.__version__}, {config.dtype}",
            f"Model      base {config.base_lm_hidden_dim} wide, reasoner {config.reasoner_hidden_dim} wide, "
            f"nothing shared, linear heads, {config.task.vocab_size} tokens and thought symbols",
            f"Step       {config.data_loader_batch_size} sequences x {config.seq_len} positions x "
            f"{config.trice_samples} thoughts x {config.max_reasoning_len} symbols = {tokens} thought tokens",
        ]
    )


def thought_tokens(config: RunConfig) -> int:
    """Count the sampled symbols of a training step, B · T · K · L."""
    positions = config.data_loader_batch_size * config.seq_len
    return positions * config.trice_samples * config.max_reasoning_len


def measure(config: RunConfig, rounds: int) -> str:
    """Time both in turns; return the table."""
    ours, theirs = contestants(config)
    ours(), theirs()  # the first calls also allocate memory
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    lines = [f"Speed      medians of {rounds} rounds, in turns, of {config.max_steps} steps each"]
    for name, times in zip(("toyqs", "reference"), zip(*pairs, strict=True), strict=True):
        step = statistics.median(times) / config.max_steps
        speed = thought_tokens(config) / step
        lines.append(f"  {name:<10} {speed:>9,.0f} thought tokens/s  {step * 1e3:>6.0f} ms a step")
    ratios = [plain / fast for fast, plain in pairs]
    median = statistics.median(ratios)
    lines.append(f"  ratio      {median:.2f}  (of single rounds: {min(ratios):.2f} to {max(ratios):.2f})")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """Print the comparison; return 1 where the gradients differ."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=whole, default=15, help="how often both run, in turns (15)")
    parser.add_argument(
        "--quick", action="store_true", help="two rounds of one small step, to see that it works"
    )
    return run(_compare, parser, words)


def _compare(options: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    config, rounds = CONFIG, options.rounds
    if options.quick:
        config, rounds = replace(CONFIG, data_loader_batch_size=2, max_steps=1), 2
    print(describe(config))
    gradients = compare_gradients(config)
    equal = gradients.difference <= TOLERANCE
    verdict = "equal" if equal else "DIFFERENT"
    print(
        f"Gradients  {verdict} with the same thoughts, in float64: they differ by at most "
        f"{gradients.difference:.1e} (allowed {TOLERANCE:.0e}); the largest is {gradients.largest:.0e}"
    )
    if not equal:
        return 1
    print(measure(config, rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
