"""The `bv` command line.

Imports that take long stay inside the commands, so that `bv --help`, `bv report` and a `bv run`
with nothing to do answer at once. A BvError prints one line and exits with 2.
"""

from bvlib.cli import data, doctor, models, runs  # noqa: F401  they add their commands
from bvlib.cli.main import main

__all__ = ["main"]
