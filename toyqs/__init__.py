"""Small language models that think before they talk, against controls that do not."""

import importlib.util
import logging
import os
from typing import Any

__version__ = "0.1.0"

# Without this, MKL may round a matrix product by where in memory it lies, on some processors: a seed's bits
# would then depend on the seeds next to it. MKL reads it at its first product.
os.environ.setdefault("MKL_CBWR", "AUTO")


def _is_missing(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is None
    except ImportError:  # of the package around it
        return True


# Notebooks hand theirs on to the commands that they start, where matplotlib would fail at import.
if (_backend := os.environ.get("MPLBACKEND", "")).startswith("module://") and _is_missing(_backend[9:]):
    del os.environ["MPLBACKEND"]
# Without a home folder matplotlib uses a temporary one, and says so at length.
logging.getLogger("matplotlib").addFilter(lambda record: "MPLCONFIGDIR" not in record.getMessage())


_FROM_PYTHON = ("run", "run_sweep")


def __dir__() -> list[str]:
    """List the names that the package has, for those who let them be completed."""
    return sorted({*globals(), *_FROM_PYTHON})


def __getattr__(name: str) -> Any:
    """Return `run` or `run_sweep` of `toyqs.sweep.calls`, whose import takes seconds that few need."""
    if name not in _FROM_PYTHON:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from toyqs.sweep import calls

    return getattr(calls, name)
