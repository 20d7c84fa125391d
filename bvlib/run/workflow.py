"""Several runs of notebooks: side by side through Snakemake, here or on a cluster; or, without it,
one after the other.

`workflow/Snakefile` describes the runs, and asks :class:`Plan` which there are, with their states.
Each call works in a folder of its own below `runs/.workflow/`, so that two calls do not meet, and
what a killed one leaves stops nobody. A notebook that both want runs once (see
:mod:`bvlib.run.runner`), what several train is made once (see :mod:`bvlib.run.store`).
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from bvlib.core.errors import BvError, unknown
from bvlib.files.digests import digest
from bvlib.files.safe import read_json, read_json_if
from bvlib.run import records, runner, settings
from bvlib.run.notebooks import root_folder
from bvlib.run.parts import Resources
from bvlib.run.points import Study
from bvlib.run.records import Job

Say = Callable[[str], Any]
FOLDER = Path(__file__).resolve().parents[2] / "workflow"  # of the Snakefile and its profiles
ASKED = "study.json"  # in the folder of a call: what is asked for


@dataclass(frozen=True)
class Plan:
    """What is asked for, and what of it still has to run; ``force``: all of it."""

    study: Study
    force: bool = False

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> Plan:
        """The plan of plain values: the fields of a Study (profile mini and the usual notebooks by
        default), and ``force``.

        BvError for an unknown key, notebook, profile or parameter, and a value that does not fit.
        """
        known = [*(spec.name for spec in fields(Study)), "force"]
        if strange := [key for key in asked if key not in known]:
            raise unknown("key of the workflow", strange[0], known)
        given = {"notebooks": (), "profile": "mini", **asked}
        plan = cls(force=given.pop("force", False), study=Study(**given))
        plan.jobs  # noqa: B018  (checks every name and value)
        return plan

    def plain(self) -> dict[str, Any]:
        """As plain values: :meth:`of` gives the same plan."""
        return {**asdict(self.study), "force": self.force}

    @functools.cached_property
    def jobs(self) -> dict[str, Job]:
        """All runs by name, "mini/seed-0/01_badmerging"."""
        return self.study.jobs

    @functools.cached_property
    def stale(self) -> dict[str, str]:
        """{run: why it has to run} of those that are not up to date."""
        reasons = {run: self.still(run) for run in self.jobs}
        return {run: reason for run, reason in reasons.items() if reason}

    def still(self, run: str) -> str:
        """Why a run has to run, as things stand now; "" if it does not."""
        return records.stale(self.jobs[run]) or "forced" * self.force

    @functools.cached_property
    def resources(self) -> Resources:
        """What a run takes."""
        return settings.resources(self.study.profile)

    def state(self, run: str) -> str:
        """What decides whether a run is out of date, as one word."""
        job = self.jobs[run]
        kept = read_json_if(job.hidden("json"))
        return digest([records.fingerprint(job), records.stale(job), kept])[:16]

    @functools.cached_property
    def _costs(self) -> dict[str, float]:
        """{notebook: seconds} of a run from nothing on the profile, where it was measured."""
        table = Path(__file__).with_name("costs.yaml").read_text(encoding="utf-8")
        return yaml.safe_load(table).get(self.study.profile, {})

    @functools.cached_property
    def seconds(self) -> dict[str, float]:
        """{run: about how many seconds it takes}; 60 where that was not measured."""
        return {run: self._costs.get(job.name, 60) for run, job in self.jobs.items()}

    @property
    def longest(self) -> str:
        """The stale run that takes longest, and so decides when all have ended."""
        return max(self.stale, key=self.seconds.__getitem__, default="")

    def estimate(self) -> str:
        """How long the stale runs took where they were measured, in words."""
        cores = (os.cpu_count() or 1) // (self.resources.threads or 1)
        hours = sum(self.seconds[run] for run in self.stale) / 3600
        said = f"{len(self.stale)} of {len(self.jobs)} to run"
        known = all(self.jobs[run].name in self._costs for run in self.stale)
        if not (self.stale and known):
            return said + ("; how long that takes was not measured" if self.stale else "")
        return f"{said}: {hours:.1f} hours of a core where it was measured; {cores} at once here"

    def title(self, run: str) -> str:
        """A run for readers: the notebook, with point and seed where there are several."""
        job = self.jobs[run]
        point = [f"{name} = {value}" for name, value in job.point.items()]
        seed = [f"seed {job.seed}"] if len(self.study.runs) > 1 else []
        return ", ".join([job.name, *(point if self.study.name else []), *seed])


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
            made += runner.run_job(plan.jobs[name], plan.force, say).status == "made"
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
        runner.run_job(plan.jobs[name], plan.force, functools.partial(print, flush=True))
    except BvError as error:
        print(f"bv: {error}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
