"""Values that Hydra has not typed, as in a configuration of the user's own, get the types of the settings."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from toyqs.config.errors import Refusal
from toyqs.sweep.words.compose import compose_checked
from toyqs.tasks.rev_prog import RevProg


def untyped(**values: Any) -> DictConfig:
    given = OmegaConf.create(
        {"task": OmegaConf.structured(RevProg(k=2)), "plugin": {}, "zip": None, **values}
    )
    assert OmegaConf.get_type(given) is dict
    return given


def test_they_get_the_types_of_the_settings() -> None:
    config, _ = compose_checked(
        untyped(max_steps="3", base_lr=1, wandb_tags=[7], info=5, positions_up_to=None)
    )
    assert (config.max_steps, config.base_lr, config.wandb_tags, config.info) == (3, 1.0, ["7"], "5")
    assert type(config.base_lr) is float and config.task == RevProg(k=2)
    assert config.data_loader_batch_size == type(config)().data_loader_batch_size, (
        "others have their defaults"
    )


@pytest.mark.parametrize("value", ["x", True, 2.5, [3], None])
def test_what_has_no_such_type_is_refused(value: Any) -> None:
    with pytest.raises(Refusal, match=r"^max_steps.*: takes a whole number"):
        compose_checked(untyped(max_steps=value))
