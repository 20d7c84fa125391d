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

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from bvlib.core.errors import BvError, unknown
from bvlib.report.results import per_seed
from bvlib.report.tables import read_cells, with_front, write_csv
from bvlib.run import runner, settings
from bvlib.run.notebooks import check_parameters, find, out_folder, runs_folder, shown

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
    path: Path,
    notebooks: Sequence[str],
    profile: str | None = None,
    seeds: Sequence[int] | None = None,
) -> Sweep:
    """The sweep of a file; a profile and seeds that are given take the place of the file's. Equal
    points count once.

    BvError, in one line, for a file that is none, an unknown key, a grid without values and an
    unknown parameter.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise BvError(f"cannot read the sweep {path}: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict) or not ({"grid", "points"} & content.keys()):
        raise BvError(f"{path} is no sweep: give it a `grid:` of lists, or `points:`")
    for key in content:
        if key not in KEYS:
            raise unknown("key of a sweep", key, KEYS)
    grid, single = content.get("grid") or {}, content.get("points") or []
    if not isinstance(grid, dict) or not isinstance(single, list):
        forms = "`grid:` holds `name: [values]`, `points:` a list of `{name: value}`"
        raise BvError(f"{path}: {forms}")
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise BvError(f"{path}: `{name}` in the grid wants a list of values, got {values!r}")
    points = [dict(zip(grid, each)) for each in itertools.product(*grid.values())] if grid else []
    chosen, unique = find(list(notebooks)), []
    for point in [*points, *single]:
        if not isinstance(point, dict):
            raise BvError(f"{path}: a point is `{{name: value}}`, got {point!r}")
        check_parameters(chosen, point)
        if point not in unique:
            unique.append(point)
    profile = profile or content.get("profile", "mini")
    settings.load(profile)
    wanted = content.get("seeds", [0]) if seeds is None else seeds
    if not isinstance(wanted, (list, tuple)) or not wanted or {type(s) for s in wanted} != {int}:
        raise BvError(f"{path}: seeds are a list of whole numbers, got {wanted!r}")
    names = tuple(notebook.name for notebook in chosen)
    return Sweep(Path(path).stem, names, profile, tuple(dict.fromkeys(wanted)), tuple(unique))


def run(sweep: Sweep, jobs: int = 1, say: Callable[[str], Any] = print) -> list[str]:
    """Run what is not up to date, gather the tables, and return one line for each run that failed.

    With several ``jobs`` the cores are shared out between them by OMP_NUM_THREADS, unless that is
    set: another number of threads is another run, as bits depend on it.
    """
    if jobs < 1:
        raise BvError(f"--jobs wants at least 1, not {jobs}")
    environ = dict(os.environ)
    if jobs > 1 and "OMP_NUM_THREADS" not in environ:
        environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
        os.environ["OMP_NUM_THREADS"] = environ["OMP_NUM_THREADS"]
    pending = [
        (point, seed)
        for point, seed in sweep.runs
        if not runner.up_to_date(sweep.notebooks, sweep.profile, seed, point)
    ]
    ready = len(sweep.runs) - len(pending)
    what = f"{len(sweep.runs)} runs of {', '.join(sweep.notebooks)} on {sweep.profile}"
    say(f"sweep {sweep.name}: {what}, {ready} up to date")
    failed: list[str] = []
    running: set[subprocess.Popen] = set()
    lock, stopped, began = threading.Lock(), threading.Event(), time.perf_counter()

    def one(point: Mapping[str, Any], seed: int) -> str | None:
        command = [sys.executable, "-m", "bvlib.cli", "run", *sweep.notebooks]
        command += ["--profile", sweep.profile, "--seed", str(seed)]
        for name, value in point.items():
            command += ["-p", f"{name}={value!r}"]
        with lock:
            if stopped.is_set():
                return None
            process = subprocess.Popen(
                command,
                env=environ,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C reaches it once, from here
            )
            running.add(process)
        error = process.communicate()[1]
        running.discard(process)
        if process.returncode == 0:
            return None
        return (error.strip().splitlines() or [f"exit code {process.returncode}"])[-1]

    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(one, point, seed): (point, seed) for point, seed in pending}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                label, error = _label(*futures[future]), future.result()
                told = ""
                if error:
                    error = error.removeprefix("bv: ")
                    failed.append(f"{label}: {error}")
                    told = f": failed, {error}"
                left = (time.perf_counter() - began) / done * (len(pending) - done)
                to_go = f"({left / 60:.0f} minutes to go)"
                say(f"  {done} of {len(pending)}  {label}{told}  {to_go}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stopped.set()
            with lock:
                for process in running:
                    process.send_signal(signal.SIGINT)
            raise
    for path in gather(sweep):
        say(f"gathered    {shown(path)}")
    return failed


def _label(point: Mapping[str, Any], seed: int) -> str:
    return ", ".join([*(f"{name} = {value}" for name, value in point.items()), f"seed {seed}"])


def gather(sweep: Sweep) -> list[Path]:
    """Write ``rows.csv`` (the tidy rows of all runs, the point's parameters as first columns) and
    ``tables/<name>.csv``.

    The latter stack the table of each run, with its columns ``parameter <name>`` and ``seed`` in
    front. Runs that are missing are left out. Returns the paths written.
    """
    names = list(dict.fromkeys(name for point in sweep.points for name in point))
    rows: list[pd.DataFrame] = []
    tables: dict[str, list[pd.DataFrame]] = {}
    for point in sweep.points:
        wanted = {name: point.get(name, "") for name in names}
        found = per_seed(sweep.profile, point)
        rows.append(with_front(wanted, found[found["seed"].isin(sweep.seeds)]))
        before = {f"parameter {name}": value for name, value in wanted.items()}
        for seed in sweep.seeds:
            folder = out_folder(sweep.profile, seed, point) / "tables"
            for path in sorted(folder.glob("*.csv")):
                table = with_front({**before, "seed": seed}, read_cells(path))
                tables.setdefault(path.name, []).append(table)
    write_csv(sweep.folder / "rows.csv", pd.concat(rows), blank="nan")
    for name, found in tables.items():
        write_csv(sweep.folder / "tables" / name, pd.concat(found))
    return [sweep.folder / "rows.csv", *([sweep.folder / "tables"] if tables else [])]
