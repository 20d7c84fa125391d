"""Several runs of notebooks: side by side through Snakemake, here or on a cluster; or, without it,
one after the other.

`workflow/Snakefile` describes the runs, and asks :class:`bvlib.run.points.Plan` which there are,
with their states. Each call works in a folder of its own below `runs/.workflow/`, so that two calls
do not meet, and what a killed one leaves stops nobody. A notebook that both want runs once (see
:mod:`bvlib.run.runner`), what several train is made once (see :mod:`bvlib.run.store`).
"""

import functools
import importlib.util
import os
import sys
from pathlib import Path

from bvlib.core.errors import BvError
from bvlib.files.safe import read_json
from bvlib.run import runner
from bvlib.run.notebooks import root_folder
from bvlib.run.points import Plan
from bvlib.run.records import Say

FOLDER = Path(__file__).resolve().parents[2] / "workflow"  # of the Snakefile and its profiles
ASKED = "study.json"  # in the folder of a call: what is asked for


def run(
    plan: Plan, at_once: int | None = None, on: str | None = None, say: Say = print
) -> tuple[int, dict[str, str]]:
    """Run what is not up to date: how many ran, and {run: what went wrong} of those that failed.

    ``at_once`` runs share this machine; with one, or without Snakemake, they run one after the
    other in this process. ``on``: a cluster takes them, "slurm" or "kubernetes". A run that fails
    does not stop the others; a BvError of the only run of a plan is raised.
    """
    for name in plan.jobs:
        if name not in plan.stale:
            say(f"{plan.title(name)}: up to date")
    if not plan.stale:
        return 0, {}
    if on or (len(plan.stale) > 1 and at_once != 1 and _engine(say)):
        from bvlib.run import engine

        return engine.run(plan, at_once, on, say)
    made, failed = 0, {}
    for name in plan.stale:
        try:
            made += bool(runner.run(plan.jobs[name], say, plan.force))
        except BvError as error:
            if len(plan.jobs) == 1:
                raise
            failed[name] = str(error)
    return made, failed


def _engine(say: Say) -> bool:
    """Is Snakemake there? Says how to get it if not."""
    there = importlib.util.find_spec("snakemake") and (FOLDER / "Snakefile").is_file()
    if there and hasattr(os, "killpg"):  # not on Windows
        return True
    say("one notebook after the other; for several at once: pip install -e '.[workflow]'")
    return False


def main(name: str) -> int:
    """Run one of the runs of the plan in this folder, as a job of the workflow."""
    plan = Plan.of(read_json(Path(ASKED)))
    os.chdir(root_folder())
    try:
        runner.run(plan.jobs[name], functools.partial(print, flush=True), plan.force)
    except BvError as error:
        print(f"bv: {error}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
