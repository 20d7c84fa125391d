"""A grid of runs from one file: each point a notebook run of its own, finished points skipped, one
tidy table at the end.

    profile: mini                    # optional, as are seeds
    seeds: [0, 1]
    grid:                            # every combination, in this order
      attack: [badnets, badmerging-on]
      coefficient: [0.1, 0.3]
    points:                          # and these, as they stand
      - {attack: badmerging-on, trigger_size: 4}

Points run in processes of their own (``jobs`` at once); one that fails is told and does not stop
the others. Each leaves its run in ``runs/<profile>/seed-<n>+<hash>``, so the same call goes on
where it was stopped.
"""

import asyncio
import itertools
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from bvlib.core.errors import BvError, unknown
from bvlib.files.safe import write_whole
from bvlib.report.results import per_seed
from bvlib.run import records
from bvlib.run.notebooks import find, out_folder, runs_folder, shown

KEYS = ("profile", "seeds", "grid", "points")


@dataclass(frozen=True)
class Sweep:
    """What a file asks for: points (each a dict of parameters) times seeds, of some notebooks on a
    profile."""

    name: str
    notebooks: tuple[str, ...]
    profile: str
    seeds: tuple[int, ...]
    points: tuple[dict[str, Any], ...]

    @property
    def runs(self) -> list[tuple[dict[str, Any], int]]:
        """Every (point, seed), the seeds innermost."""
        return [(point, seed) for point in self.points for seed in self.seeds]

    @property
    def folder(self) -> Path:
        """Where its tables go: ``runs/<profile>/sweep-<name>``."""
        return runs_folder() / self.profile / f"sweep-{self.name}"


def read(
    path: Path, notebooks: Sequence[str], profile: str | None = None, seeds: list[int] | None = None
) -> Sweep:
    """The sweep of a file; a profile and seeds that are given take the place of the file's. Equal
    points count once.

    BvError, in one line, for a file that is none, an unknown key, a grid without values and an
    unknown parameter.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
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
        records.jobs(notebooks, profile, seeds[0], point)  # checks its names
        points += [point] if point not in points else []
    names = tuple(each.name for each in find(notebooks))
    return Sweep(path.stem, names, profile, tuple(dict.fromkeys(seeds)), tuple(points))


def _points(path: Path, content: Mapping[str, Any]) -> list[Any]:
    """The combinations of the grid, then the single points."""
    grid, single = content.get("grid") or {}, content.get("points") or []
    if not isinstance(grid, dict) or not isinstance(single, list):
        forms = "`grid:` holds `name: [values]`, `points:` a list of `{name: value}`"
        raise BvError(f"{path}: {forms}")
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise BvError(f"{path}: `{name}` in the grid wants a list of values, got {values!r}")
    combined = itertools.product(*grid.values()) if grid else []
    return [*(dict(zip(grid, values)) for values in combined), *single]


def run(sweep: Sweep, jobs: int = 1, say: Callable[[str], Any] = print) -> list[str]:
    """Run what is not up to date, gather the tables, and return one line for each run that failed.

    With several ``jobs`` the cores are shared out between them by OMP_NUM_THREADS, unless that is
    set: another number of threads is another run, as bits depend on it.
    """
    if jobs < 1:
        raise BvError(f"--jobs wants at least 1, not {jobs}")
    if jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    pending = [
        (point, seed)
        for point, seed in sweep.runs
        if not records.up_to_date(records.jobs(sweep.notebooks, sweep.profile, seed, point))
    ]
    done = len(sweep.runs) - len(pending)
    what = f"{len(sweep.runs)} runs of {', '.join(sweep.notebooks)} on {sweep.profile}"
    say(f"sweep {sweep.name}: {what}, {done} up to date")
    failed = asyncio.run(_run_all(sweep, pending, jobs, say))
    for path in gather(sweep):
        say(f"gathered    {shown(path)}")
    return failed


async def _run_all(sweep: Sweep, pending: list, jobs: int, say: Callable[[str], Any]) -> list[str]:
    free, failed, done = asyncio.Semaphore(jobs), [], itertools.count(1)

    async def one(point: Mapping[str, Any], seed: int) -> None:
        async with free:
            error = await _run_point(sweep, point, seed)
        label = ", ".join([*(f"{k} = {v}" for k, v in point.items()), f"seed {seed}"])
        say(f"  {next(done)} of {len(pending)}  {label}{': failed, ' + error if error else ''}")
        if error:
            failed.append(f"{label}: {error}")

    async with asyncio.TaskGroup() as group:  # stops all of them when one is interrupted
        for point, seed in pending:
            group.create_task(one(point, seed))
    return failed


async def _run_point(sweep: Sweep, point: Mapping[str, Any], seed: int) -> str:
    """Run one point in a process of its own; the last line of its error, empty if there is none."""
    words = ["--profile", sweep.profile, "--seed", str(seed)]
    for name, value in point.items():
        words += ["-p", f"{name}={value!r}"]
    command = [sys.executable, "-m", "bvlib.cli", "run", *sweep.notebooks, *words]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=DEVNULL, stderr=PIPE, start_new_session=True
    )
    try:
        _, error = await process.communicate()
    except asyncio.CancelledError:  # Ctrl-C reaches it once, from here
        process.send_signal(signal.SIGINT)
        await process.wait()
        raise
    lines = error.decode().strip().splitlines() or [f"exit code {process.returncode}"]
    return lines[-1].removeprefix("bv: ") if process.returncode else ""


def gather(sweep: Sweep) -> list[Path]:
    """Write ``rows.csv`` (the tidy rows of all runs, the point's parameters as first columns) and
    ``tables/<name>.csv``.

    The latter stack the table of each run, with its columns ``parameter <name>`` and ``seed`` in
    front; a column of its own of such a name becomes ``<name> (column)``. Runs that are missing
    are left out. Returns the paths written.
    """
    names = dict.fromkeys(name for point in sweep.points for name in point)
    stacks: dict[str, list[pd.DataFrame]] = defaultdict(list)
    for point, seed in sweep.runs:
        rows = per_seed(sweep.profile, point)
        tables = {"rows.csv": rows[rows["seed"] == seed].drop(columns="seed")}
        for path in sorted((out_folder(sweep.profile, seed, point) / "tables").glob("*.csv")):
            tables[f"tables/{path.name}"] = pd.read_csv(path, dtype=str, keep_default_na=False)
        for file, table in tables.items():
            form = "{}" if file == "rows.csv" else "parameter {}"
            labels = {form.format(name): str(point.get(name, "")) for name in names}
            labels["seed"] = str(seed)
            table = table.rename(columns={name: f"{name} (column)" for name in labels})
            front = pd.DataFrame(labels, index=table.index)
            stacks[file].append(pd.concat([front, table], axis=1))
    for file, tables in stacks.items():
        text = pd.concat(tables).to_csv(index=False)
        write_whole(sweep.folder / file, lambda draft, text=text: draft.write_text(text))
    return [sweep.folder / name for name in dict.fromkeys(file.split("/")[0] for file in stacks)]
