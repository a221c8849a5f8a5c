"""Figures of rows."""

import os
import sys

try:
    import matplotlib  # noqa: F401
except ValueError:  # of this variable alone: what is wrong in its files matplotlib only warns of
    _given = ascii(os.environ.get("MPLBACKEND"))
    print(f"toyqs: MPLBACKEND={_given}: matplotlib has no such backend; unset MPLBACKEND", file=sys.stderr)
    raise SystemExit(2) from None
