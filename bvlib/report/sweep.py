"""The tables of a sweep: those of its runs, with point and seed in front."""

import sys
from collections import defaultdict
from pathlib import Path

import pandas as pd

from bvlib.files.safe import read_json, write_text
from bvlib.report.results import per_seed
from bvlib.report.tables import read_cells, with_front
from bvlib.run.notebooks import out_folder
from bvlib.run.points import Plan


def gather(sweep: Plan) -> list[Path]:
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
            tables[f"tables/{path.name}"] = read_cells(path)
        for file, table in tables.items():
            form = "{}" if file == "rows.csv" else "parameter {}"
            labels = {form.format(name): str(point.get(name, "")) for name in names}
            stacks[file].append(with_front({**labels, "seed": str(seed)}, table))
    for file, tables in stacks.items():
        write_text(sweep.folder / file, pd.concat(tables).to_csv(index=False))
    return [sweep.folder / name for name in dict.fromkeys(file.split("/")[0] for file in stacks)]


if __name__ == "__main__":
    gather(Plan.of(read_json(Path(sys.argv[1]))))
