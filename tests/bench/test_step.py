"""The benchmark of the step: both sides compute the same, and a difference is noticed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench import reference, step
from bench.reference import Prediction, Recipe, Reference
from toyqs.config.builders.model import build_model
from toyqs.config.run_config import RunConfig

ROOT = Path(__file__).resolve().parents[2]


def tiny(groups: str = "ABCD", base: int = 6, reasoner: int = 6) -> RunConfig:
    return replace(
        step.CONFIG,
        weight_groups=list(groups),
        base_lm_hidden_dim=base,
        reasoner_hidden_dim=reasoner,
        trice_samples=3,
        max_reasoning_len=3,
        data_loader_batch_size=2,
        seq_len=5,
        task=step.RandomCharacters(7),
    )


@pytest.mark.parametrize(
    "config",
    [tiny(), tiny(base=4), tiny("AABB"), tiny("ABBC", base=3), tiny("AAAA")],
    ids=["ABCD", "ABCD two widths", "AABB", "ABBC two widths", "AAAA"],
)
def test_gradients_are_equal(config: RunConfig) -> None:
    gradients = step.compare_gradients(config)
    assert gradients.difference <= step.TOLERANCE
    assert gradients.largest > 1e-3


def test_every_parameter_is_compared() -> None:
    config = tiny()
    model = build_model(config, [0])
    translated = reference.translated(model, lambda parameter: parameter.detach())
    plain = Reference(model.letters, config.widths, config.task.vocab_size)
    assert sum(v.numel() for v in translated.values()) == sum(p.numel() for p in model.parameters())
    assert {n: p.shape for n, p in plain.named_parameters()} == {n: v.shape for n, v in translated.items()}


def test_a_wrong_loss_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = reference.thinking_loss

    def wrong(prediction: Prediction, targets: Tensor, entropy_beta: float) -> Tensor:
        return right(prediction._replace(log_prob=prediction.log_prob * 0.99), targets, entropy_beta)

    monkeypatch.setattr(reference, "thinking_loss", wrong)
    assert step.compare_gradients(tiny()).difference > 1e3 * step.TOLERANCE


def test_the_reference_samples_what_it_scores() -> None:
    """Thoughts that were sampled get the same numbers when they are forced."""
    config, recipe = tiny(), Recipe(3, 1, 1e-3, 0.1, 1.0)
    model = build_model(config, [0])
    plain = Reference(model.letters, config.widths, config.task.vocab_size)
    inputs = torch.randint(7, (2, 5), generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sampled = plain(inputs, recipe)
    # A thought of one symbol can be recognised by its log-probability.
    each = [plain(inputs, recipe, torch.full((2, 3, 5, 1), symbol)) for symbol in range(7)]
    symbols = torch.stack([x.log_prob for x in each], -1).sub(sampled.log_prob.unsqueeze(-1)).abs().argmin(-1)
    forced = plain(inputs, recipe, symbols.unsqueeze(-1))
    torch.testing.assert_close(forced.logits, sampled.logits)
    torch.testing.assert_close(forced.log_prob, sampled.log_prob)
    assert len(symbols.unique()) > 1


def test_unequal_gradients_end_with_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(step, "compare_gradients", lambda config: step.Gradients(1e-9, 1.0))
    monkeypatch.setattr(sys, "argv", ["step.py", "--quick"])
    assert step.main() == 1
    assert "DIFFERENT" in capsys.readouterr().out


@pytest.mark.slow
def test_it_runs_from_anywhere(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "bench" / "step.py"), "--quick"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for word in ("equal", "toyqs", "reference", "thought tokens/s", "ratio", torch.__version__):
        assert word in done.stdout
