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

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bvlib.core.errors import BvError, unknown
from bvlib.run import records, settings
from bvlib.run.notebooks import find, runs_folder
from bvlib.run.records import Job

KEYS = ("profile", "seeds", "grid", "points")


@dataclass(frozen=True)
class Study:
    """Notebooks (all but the long ones, if none is named) on a profile, for every point and seed.

    A point is a dict of parameters. ``name`` is that of a sweep.
    """

    notebooks: tuple[str, ...]
    profile: str
    seeds: tuple[int, ...] = (0,)
    points: tuple[Mapping[str, Any], ...] = ({},)
    name: str | None = None

    @property
    def runs(self) -> list[tuple[Mapping[str, Any], int]]:
        """Every (point, seed), the seeds innermost."""
        return [(point, seed) for point in self.points for seed in self.seeds]

    @property
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


def read_sweep(
    path: Path, notebooks: Sequence[str], profile: str | None = None, seeds: list[int] | None = None
) -> Study:
    """The sweep of a file; a profile and seeds that are given take the place of the file's. Equal
    points count once.

    BvError, in one line, for a file that is none, an unknown key, a grid without values and an
    unknown parameter.
    """
    try:
        content = settings.numbers(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BvError(f"cannot read the sweep {path}: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict) or not ({"grid", "points"} & content.keys()):
        raise BvError(f"{path} is no sweep: give it a `grid:` of lists, or `points:`")
    if strange := [key for key in content if key not in KEYS]:
        raise unknown("key of a sweep", strange[0], KEYS)
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
    study = Study(names, profile, tuple(dict.fromkeys(seeds)), tuple(points), path.stem)
    study.jobs  # noqa: B018  (checks every name and value)
    return study


def _points(path: Path, content: Mapping[str, Any]) -> list[Any]:
    """The combinations of the grid, then the single points."""
    grid, single = content.get("grid", {}), content.get("points", [])
    grid, single = {} if grid is None else grid, [] if single is None else single
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
