"""Checks of the native kernels: which runs can have them, and on which machine."""

from __future__ import annotations

from toyqs.config.builders.kernels import require_native
from toyqs.config.errors import refuse
from toyqs.config.run_config import RunConfig


def check_kernels(config: RunConfig, *, elsewhere: bool) -> None:
    """Refuse kernels=native where there are none.

    Args:
        config: resolved.
        elsewhere: it runs on another machine, which may have a compiler where this one has none.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    if config.kernels != "native":
        return
    if config.backbone not in ("gru", "gpt2"):
        why = f"are a GRU's or a GPT-2's, and backbone={config.backbone} has none"
        refuse("kernels", "native", why, "kernels=auto or backbone=gru")
    if config.backbone == "gpt2" and (config.pretrained or config.autocast):
        why = "are a GPT-2's with initial weights, all in one precision: not pretrained=…, not autocast=true"
        refuse("kernels", "native", why, "kernels=auto")
    if config.device != "cpu":
        refuse(
            "kernels", "native", f"run on a CPU, not on device={config.device}", "kernels=auto or device=cpu"
        )
    if not elsewhere:
        require_native()
