"""Runs a notebook: finished work skipped, one line where it stops.

Each notebook runs in a fresh kernel of this very Python, in the folder above `notebooks/`, and
leaves its executed copy in `runs/<profile>/seed-<seed>/`. A record of what it depended on and what
it made (:mod:`bvlib.run.records`) lets a later call skip it in milliseconds; neither that check
nor importing this module imports torch or papermill. Parameters other than the defaults go to a
folder of their own, `seed-0+1a2b3c4d/`. Of a notebook that is up to date, prose that was edited
since shows in its executed copy after a run by `force`.
"""

import time
from collections.abc import Mapping
from typing import Any

from bvlib.files.safe import locked, read_json_if
from bvlib.run import records
from bvlib.run.notebooks import root_folder, shown
from bvlib.run.records import Job, Say


def run(job: Job, say: Say, force: bool = False) -> str:
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
    kernel.execute(job, {**told, **job.parameters}, say)
    return records.write(job, parts, time.perf_counter() - began)
