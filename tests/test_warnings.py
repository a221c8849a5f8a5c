"""Warnings that are errors where the locked versions are installed: those of this project's modules."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch

from tests import locked


def warn_from(module: str) -> None:
    """Raise a warning in a module of this name."""
    exec("import warnings\nwarnings.warn('a word')", {"__name__": module})


def blamed_on_us() -> None:
    """Raise a warning as transformers does for a call of ours, through a module of torch."""

    class Old(torch.nn.Module):
        def forward(self) -> None:
            warnings.warn("a word", FutureWarning, stacklevel=2)

    Old()()


OURS = (
    "toyqs",
    "toyqs.model.backbones.gru",
    "analysis.curve",
    "bench.step",
    "hydra_plugins.a",
    "run",
    "__main__",
    __name__,
)


@pytest.mark.parametrize(
    "raises", [*(lambda m=m: warn_from(m) for m in OURS), blamed_on_us], ids=[*OURS, "blamed"]
)
def test_a_warning_of_ours_is_an_error_in_the_locked_set_and_printed_elsewhere(
    raises: Callable[[], None],
) -> None:
    with warnings.catch_warnings(record=True) as printed:
        if locked.departures():
            raises()
        else:
            with pytest.raises(Warning, match="a word"):
                raises()
    assert len(printed) == bool(locked.departures())


@pytest.mark.parametrize("module", ["transformers.models.gpt2", "numpy", "toyqs_of_others", "runner"])
def test_a_library_s_warning_is_printed(module: str) -> None:
    with warnings.catch_warnings(record=True) as printed:
        warn_from(module)
    assert [str(one.message) for one in printed] == ["a word"]
