"""The command line of toyqs; see `python run.py --help`."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # also under python -P, by a link, by runpy

from toyqs.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
