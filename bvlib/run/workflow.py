"""Runs notebooks: finished work skipped, one line where one stops; several side by side through
Snakemake, here or on a cluster, or, without it, one after the other.

Each notebook runs in a fresh kernel of this very Python, in the folder above `notebooks/`, and
leaves its executed copy in `runs/<profile>/seed-<seed>/`. A record of what it depended on and what
it made (:mod:`bvlib.run.records`) lets a later call skip it in milliseconds; neither that check
nor importing this module imports torch or papermill. Parameters other than the defaults go to a
folder of their own, `seed-0+1a2b3c4d/`. Of a notebook that is up to date, prose that was edited
since shows in its executed copy after a run by `force`.

`workflow/Snakefile` describes the runs, and asks :class:`bvlib.run.points.Plan` which there are,
with their states. Each call works in a folder of its own below `runs/.workflow/`, so that two calls
do not meet, and what a killed one leaves stops nobody. A notebook that both want runs once, what
several train is made once (see :mod:`bvlib.run.store`).
"""

import functools
import importlib.util
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bvlib.core.errors import BvError
from bvlib.files.safe import locked, read_json, read_json_if, writing
from bvlib.run import records
from bvlib.run.notebooks import root_folder, shown
from bvlib.run.points import Plan
from bvlib.run.records import Job, Say

FOLDER = Path(__file__).resolve().parents[2] / "workflow"  # of the Snakefile and its profiles
ASKED = "study.json"  # in the folder of a call: what is asked for


def run_job(job: Job, say: Say, force: bool = False) -> str:
    """Run one notebook, if it is not up to date: why it had to run, "" if it did not.

    `force` runs also what is up to date (stored results are loaded as ever). `say` gets the
    progress, line by line. BvError for whatever a notebook raises as a BvError; NotebookFailed for
    any other error in it.
    """
    name = job.name
    with locked(job.hidden("lock"), f"{name}: waiting for another run of it"):
        parts, record = records.fingerprint(job), read_json_if(job.hidden("json"))
        reason = records.why(record, parts, job) or ("forced" if force else "")
        if reason:
            say(f"{name}: running ({job.profile}, seed {job.seed}; {reason})")
            record = _make(job, parts, say)
            wall, cold = record["wall"], record["cold"]
            more = f" ({cold:.0f} s from nothing)" if cold > wall + 2 else ""
            say(f"{name}: done in {wall:.0f} s{more}")
        else:
            say(f"{name}: up to date")
    return reason


def _make(job: Job, parts: Mapping[str, Any], say: Say) -> dict[str, Any]:
    """Run one notebook and write its record."""
    from bvlib.run import kernel

    told = {"profile": job.profile, "seed": job.seed, "out": shown(job.out, root_folder())}
    told = {name: value for name, value in told.items() if name in job.notebook.parameters}
    job.hidden("json").unlink(missing_ok=True)
    began = time.perf_counter()
    with writing(job.out):
        kernel.execute(job, {**told, **job.parameters}, say)
    return records.write(job, parts, time.perf_counter() - began)


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
            made += bool(run_job(plan.jobs[name], say, plan.force))
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
        run_job(plan.jobs[name], functools.partial(print, flush=True), plan.force)
    except BvError as error:
        print(f"bv: {error}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
