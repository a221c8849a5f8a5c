"""Native kernels: which runs take them, and what is said where they cannot be had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from toyqs.config.errors import Refusal
from toyqs.config.resolve import resolved
from toyqs.config.run_config import RunConfig
from toyqs.model.backbones.kernels import library
from toyqs.model.backbones.kernels.library import Unavailable

REMEDY = "install one that works, such as g++, or give kernels=torch"


def settled(configs: Sequence[RunConfig]) -> tuple[list[RunConfig], str | None]:
    """Replace kernels=auto by what this machine can do: native for runs that take them, torch for others.

    This is done once for a command, before its runs have keys: to all processes that train goes the word
    that it came to.

    Returns:
        The settings resolved, none with auto; and a line for the user where no compiler is, else None.
    """
    asking = [config.kernels == "auto" and config.takes_native_kernels for config in configs]
    why = _fault() if any(asking) else None
    native = "torch" if why else "native"
    found = [
        resolved(replace(config, kernels=native if asks else "torch")) if config.kernels == "auto" else config
        for config, asks in zip(configs, asking, strict=True)
    ]
    if why is None:
        return found, None
    return found, f"kernels=auto: {why}, so torch's are taken, which are slower; {REMEDY}"


def require_native() -> None:
    """Build and load the native kernels.

    Raises:
        Refusal: one line; this machine cannot.
    """
    if why := _fault():
        raise Refusal(f"kernels=native: {why}; {REMEDY}")


def description() -> str:
    """Say what made this machine's native kernels; see `require_native`."""
    require_native()
    return library.description()


def can_be_native() -> bool:
    """Tell whether this machine can build and load the native kernels."""
    return _fault() is None


def _fault() -> str | None:
    """Return why there are no native kernels here; None where there are."""
    try:
        library.load()
    except Unavailable as error:
        return str(error)
    return None
