"""Whether the checks of settings refuse or take what is given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from toyqs.config.checks.values import check
from toyqs.config.errors import Refusal
from toyqs.config.run_config import RunConfig

ONE_GRU = {"weight_groups": ["A"] * 4, "base_lm_hidden_dim": 16, "reasoner_hidden_dim": 16}
NO_REASONER = {"use_reasoner": False, "controls": "none"}


def refused(said: str, **settings: Any) -> None:
    """Refused in one line that holds `said` and the remedy."""
    with pytest.raises(Refusal, match=said) as error:
        check(replace(RunConfig(), **settings))
    assert "\n" not in str(error.value)
    assert "; " in str(error.value)


def accepted(**settings: Any) -> list[str]:
    return check(replace(RunConfig(), **settings))
