"""Small language models that think before they talk, against controls that do not."""

import importlib.util
import logging
import os

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
