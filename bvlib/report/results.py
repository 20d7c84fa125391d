"""What notebooks left in `runs/<profile>/seed-<n>/<notebook>.json`: read per seed, as tidy rows,
and back from such rows."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bvlib.files.safe import read_json, read_json_if
from bvlib.report.claims import finite, unit
from bvlib.run import notebooks
from bvlib.run.records import artefact_seconds

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["seed", "notebook", "part", "name", "value", "unit"]  # of the tidy rows
PARTS = ("headline", "measures")  # what `part` may be


def runs(
    profile: str, parameters: Mapping[str, Any] | None = None
) -> dict[int, list[dict[str, Any]]]:
    """{seed: results} of all seeds that were run with these parameters (the defaults if None),
    sorted: the JSON of each notebook, in order, its record under "record"."""
    end = notebooks.out_folder(profile, 0, parameters).name.removeprefix("seed-0")
    found: dict[int, list[dict[str, Any]]] = {}
    for path in sorted((notebooks.runs_folder() / profile).glob(f"seed-*{end}/[0-9]*.json")):
        if match := re.fullmatch(rf"seed-(\d+){re.escape(end)}", path.parent.name):
            record = read_json_if(path.parent / ".records" / path.name) or {}
            result = {"notebook": path.stem, **read_json(path), "record": record}
            found.setdefault(int(match[1]), []).append(result)
    return dict(sorted(found.items()))


def collect(runs: Iterable[Mapping[str, Any]], part: str) -> dict[str, Any]:
    """One dict of a part ("headline", "measures") of all notebooks; the first to give a name wins.

    A name that two notebooks give with different values is said on stderr.
    """
    found: dict[str, tuple[Any, str]] = {}
    for run in runs:
        for name, value in run.get(part, {}).items():
            known, first = found.setdefault(name, (value, run["notebook"]))
            if known != value:
                both = f"{first} and {run['notebook']}"
                print(f"bv: {name} differs between {both}: the first is shown", file=sys.stderr)
    return {name: value for name, (value, _) in found.items()}


def numbers(found: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str, str, Any, str]]:
    """(notebook, part, name, value, unit) of each number in some results."""
    for run in found:
        for name, entry in run["headline"].items():
            yield run["notebook"], "headline", name, entry["value"], entry["unit"]
        for name, value in run["measures"].items():
            yield run["notebook"], "measures", name, value, unit(name)


def per_seed(profile: str, parameters: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Tidy rows (with :data:`COLUMNS`) of all seeds that were run with these parameters."""
    return rows_of(runs(profile, parameters))


def rows_of(found: Mapping[int, Iterable[Mapping[str, Any]]]) -> pd.DataFrame:
    """Tidy rows (with :data:`COLUMNS`) of {seed: results}."""
    rows = [(seed, *number) for seed in found for number in numbers(found[seed])]
    import pandas as pd  # here, so that `bv report` of nothing new answers at once

    return pd.DataFrame(rows, columns=COLUMNS)


def from_rows(rows: pd.DataFrame) -> dict[int, list[dict[str, Any]]]:
    """{seed: results} of tidy rows whose cells are text, without records and intervals over images.

    ValueError, KeyError or AttributeError for rows of another form.
    """
    found: dict[int, dict[str, dict[str, Any]]] = {}
    for row in rows.itertuples():
        empty = {"notebook": row.notebook, **{part: {} for part in PARTS}}
        run = found.setdefault(int(row.seed), {}).setdefault(row.notebook, empty)
        [value] = finite([float(row.value or "nan")]) or [None]
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
