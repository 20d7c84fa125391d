"""What a call asks for: notebooks × points of parameters × seeds, from the command line or from a
file.

    profile: mini                    # a sweep; optional, as are seeds
    seeds: [0, 1]
    grid:                            # every combination, in this order
      attack: [badnets, badmerging-on]
      coefficient: [0.1, 0.3]
    points:                          # and these, as they stand
      - {attack: badmerging-on, trigger_size: 4}
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from bvlib.core.errors import BvError, check_choice
from bvlib.files.digests import digest
from bvlib.files.safe import read_json_if, read_yaml
from bvlib.run import records, settings
from bvlib.run.notebooks import find, runs_folder
from bvlib.run.parts import Resources
from bvlib.run.records import Job

KEYS = ("profile", "seeds", "grid", "points")


@dataclass(frozen=True)
class Plan:
    """Notebooks (all but the long ones, if none is named) on a profile, for every point and seed,
    and what of it still has to run.

    A point is a dict of parameters. ``name`` is that of a sweep. ``force``: all of it has to run.
    """

    notebooks: Sequence[str] = ()
    profile: str = "mini"
    seeds: Sequence[int] = (0,)
    points: Sequence[Mapping[str, Any]] = ({},)
    name: str | None = None
    force: bool = False

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> Plan:
        """The plan of plain values, its fields.

        BvError for an unknown key, notebook, profile or parameter, and a value that does not fit.
        """
        known = [spec.name for spec in fields(cls)]
        for key in asked:
            check_choice("key of the workflow", key, known)
        plan = cls(**asked)
        plan.jobs  # noqa: B018  (checks every name and value)
        return plan

    @property
    def runs(self) -> list[tuple[Mapping[str, Any], int]]:
        """Every (point, seed), the seeds innermost."""
        return [(point, seed) for point in self.points for seed in self.seeds]

    @functools.cached_property
    def jobs(self) -> dict[str, Job]:
        """The runs of notebooks by name, "mini/seed-0/01_badmerging": notebook by notebook.

        BvError for an unknown notebook, profile or parameter, and a value that does not fit.
        """
        found = [
            job
            for point, seed in self.runs
            for job in records.jobs(self.notebooks, self.profile, seed, point)
        ]
        return {f"{job.profile}/{job.out.name}/{job.name}": job for job in found}

    @property
    def folder(self) -> Path:
        """Where the tables of a sweep go: ``runs/<profile>/sweep-<name>``."""
        return runs_folder() / self.profile / f"sweep-{self.name}"

    @functools.cached_property
    def stale(self) -> dict[str, str]:
        """{run: why it has to run} of those that are not up to date."""
        reasons = {run: self.why_stale(run) for run in self.jobs}
        return {run: reason for run, reason in reasons.items() if reason}

    def why_stale(self, run: str) -> str:
        """Why a run has to run, as things stand now; "" if it does not."""
        return records.stale(self.jobs[run]) or ("forced" if self.force else "")

    @functools.cached_property
    def resources(self) -> Resources:
        """What a run takes."""
        return settings.resources(self.profile)

    def state(self, run: str) -> str:
        """A digest (16 hex digits) of what decides whether a run is out of date."""
        job = self.jobs[run]
        kept = read_json_if(job.hidden("json"))
        return digest([records.fingerprint(job), records.stale(job), kept])[:16]

    @functools.cached_property
    def _costs(self) -> dict[str, float]:
        """{notebook: seconds} of a run from nothing on the profile, where it was measured."""
        table = Path(__file__).with_name("costs.yaml").read_text(encoding="utf-8")
        return yaml.safe_load(table).get(self.profile, {})

    @functools.cached_property
    def seconds(self) -> dict[str, float]:
        """{run: about how many seconds it takes}; 60 where that was not measured."""
        return {run: self._costs.get(job.name, 60) for run, job in self.jobs.items()}

    @property
    def longest(self) -> str:
        """The stale run that takes longest, and so decides when all have ended."""
        return max(self.stale, key=self.seconds.__getitem__, default="")

    def estimate(self) -> str:
        """How long the stale runs will take, by what they took where they were measured."""
        cores = max(1, (os.cpu_count() or 1) // (self.resources.threads or 1))
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
        seed = [f"seed {job.seed}"] if len(self.runs) > 1 else []
        return ", ".join([job.name, *(point if self.name else []), *seed])


def read_sweep(
    path: Path, notebooks: Sequence[str], profile: str | None = None, seeds: list[int] | None = None
) -> Plan:
    """The sweep of a file; a profile and seeds that are given take the place of the file's. Equal
    points count once.

    BvError, in one line, for a file that is none, an unknown key, a grid without values and an
    unknown parameter.
    """
    try:
        content = settings.numbers(read_yaml(path))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BvError(f"cannot read the sweep {path}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not ({"grid", "points"} & content.keys()):
        raise BvError(f"{path} is no sweep: give it a `grid:` of lists, or `points:`")
    for key in content:
        check_choice("key of a sweep", key, KEYS)
    profile = profile or content.get("profile", "mini")
    seeds = content.get("seeds", [0]) if seeds is None else seeds
    if not isinstance(seeds, (list, tuple)) or not seeds or {type(n) for n in seeds} != {int}:
        raise BvError(f"{path}: seeds are a list of whole numbers, got {seeds!r}")
    points: list[dict[str, Any]] = []
    for point in _points(path, content):
        if not isinstance(point, dict):
            raise BvError(f"{path}: a point is `{{name: value}}`, got {point!r}")
        points += [point] if point not in points else []
    names = tuple(each.name for each in find(notebooks))
    asked = {"notebooks": names, "profile": profile, "seeds": tuple(dict.fromkeys(seeds))}
    return Plan.of({**asked, "points": points, "name": path.stem})


def _points(path: Path, content: Mapping[str, Any]) -> list[Any]:
    """The combinations of the grid, then the single points."""
    grid, single = content.get("grid") or {}, content.get("points") or []
    if not (grid or single):
        raise BvError(f"{path} is a sweep without points: fill `grid:` or `points:`")
    if not isinstance(grid, dict) or not isinstance(single, list):
        forms = "`grid:` holds `name: [values]`, `points:` a list of `{name: value}`"
        raise BvError(f"{path}: {forms}")
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise BvError(f"{path}: `{name}` in the grid wants a list of values, got {values!r}")
    combined = itertools.product(*grid.values()) if grid else []
    return [*(dict(zip(grid, values)) for values in combined), *single]
