"""What notebooks left in `runs/<profile>/seed-<n>/<notebook>.json`: read per seed, as tidy rows,
and back from such rows."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from bvlib.files.safe import read_json
from bvlib.report.claims import unit
from bvlib.run import notebooks
from bvlib.run.records import artefact_seconds

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["seed", "notebook", "part", "name", "value", "unit"]  # of the tidy rows
PARTS = ("headline", "measures")  # what `part` may be


def results(
    profile: str, seed: int, parameters: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The JSON of each notebook run with these parameters (the defaults if None), in order, its
    record under "record"."""
    found = []
    folder = notebooks.out_folder(profile, seed, parameters)
    for path in sorted(folder.glob("[0-9]*.json")):
        record = folder / ".records" / path.name
        kept = read_json(record) if record.is_file() else {}
        found.append({"notebook": path.stem, **read_json(path), "record": kept})
    return found


def seeds_run(profile: str, parameters: Mapping[str, Any] | None = None) -> list[int]:
    """The seeds that have at least one result of these parameters (the defaults if None),
    sorted."""
    end = notebooks.out_folder(profile, 0, parameters).name.removeprefix("seed-0")
    runs = (notebooks.runs_folder() / profile).glob(f"seed-*{end}")
    found = [re.fullmatch(r"seed-(\d+)", path.name.removesuffix(end)) for path in runs]
    seeds = sorted(int(match[1]) for match in found if match)
    return [seed for seed in seeds if results(profile, seed, parameters)]


def collect(runs: Iterable[Mapping[str, Any]], part: str) -> dict[str, Any]:
    """One dict of a part ("headline", "measures") of all notebooks; the first to give a name wins.

    A name that two notebooks give with different values is said on stderr.
    """
    found: dict[str, Any] = {}
    source: dict[str, str] = {}
    for run in runs:
        for name, value in run.get(part, {}).items():
            first = source.setdefault(name, run["notebook"])
            if found.setdefault(name, value) != value:
                both = f"{first} and {run['notebook']}"
                print(f"bv: {name} differs between {both}: the first is shown", file=sys.stderr)
    return found


def per_seed(profile: str, parameters: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Tidy rows (with :data:`COLUMNS`) of all seeds that were run with these parameters."""
    rows = []
    for seed in seeds_run(profile, parameters):
        for run in results(profile, seed, parameters):
            for name, entry in run["headline"].items():
                told = entry["value"], entry["unit"]
                rows.append((seed, run["notebook"], "headline", name, *told))
            for name, value in run["measures"].items():
                rows.append((seed, run["notebook"], "measures", name, value, unit(name)))
    import pandas as pd  # here, so that `bv report` of nothing new answers at once

    return pd.DataFrame(rows, columns=COLUMNS)


def from_rows(rows: pd.DataFrame) -> dict[int, list[dict[str, Any]]]:
    """{seed: results} of tidy rows whose cells are text, without records and intervals over images.

    Of a name that two notebooks give, the first is kept. ValueError, KeyError or AttributeError for
    rows of another form.
    """
    found: dict[int, dict[str, dict[str, Any]]] = {}
    for row in rows.drop_duplicates(["seed", "part", "name"]).itertuples():
        empty = {"notebook": row.notebook, **{part: {} for part in PARTS}}
        run = found.setdefault(int(row.seed), {}).setdefault(row.notebook, empty)
        value = float(row.value or math.nan)
        value = value if math.isfinite(value) else None
        entry = {"value": value, "low": None, "high": None, "unit": row.unit}
        run[row.part][row.name] = entry if row.part == "headline" else value
    return {seed: list(runs.values()) for seed, runs in found.items()}


def cold_seconds(runs: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """{notebook: seconds as if nothing was stored}, a shared result counted at its first user."""
    paid: set[str] = set()
    seconds = {}
    for run in runs:
        used = run.get("artefacts", [])
        outside = run.get("seconds", 0.0) - sum(item.get("elapsed", 0.0) for item in used)
        own = run["record"].get("own", max(0.0, outside))
        parts = artefact_seconds(used)
        seconds[run["notebook"]] = own + sum(s for key, s in parts.items() if key not in paid)
        paid |= set(parts)
    return seconds
