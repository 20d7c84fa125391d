"""What notebooks left in `runs/<profile>/seed-<n>/<notebook>.json`: read per seed, as tidy rows,
and back from such rows."""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bvlib.files.safe import write_whole
from bvlib.report.claims import unit
from bvlib.run import notebooks
from bvlib.run.records import artefact_seconds

COLUMNS = [
    "seed",
    "notebook",
    "part",
    "name",
    "value",
    "unit",
]  # of the tidy rows; part is one of PARTS
PARTS = ("headline", "measures")


def results(
    profile: str, seed: int, parameters: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The JSON of each notebook run with these parameters (the defaults if None), in order, its
    record under "record"."""
    found = []
    folder = notebooks.out_folder(profile, seed, parameters)
    for path in sorted(folder.glob("[0-9]*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        record = folder / ".records" / path.name
        content["record"] = (
            json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
        )
        found.append({"notebook": path.stem, **content})
    return found


def seeds_run(profile: str, parameters: Mapping[str, Any] | None = None) -> list[int]:
    """The seeds that have at least one result of these parameters (the defaults if None),
    sorted."""
    end = notebooks.out_folder(profile, 0, parameters).name.removeprefix("seed-0")
    names = [
        path.name.removesuffix(end)
        for path in (notebooks.runs_folder() / profile).glob(f"seed-*{end}")
    ]
    seeds = sorted(int(name[5:]) for name in names if re.fullmatch(r"seed-\d+", name))
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
                print(
                    f"bv: {name} differs between {first} and {run['notebook']}: the first is shown",
                    file=sys.stderr,
                )
    return found


def per_seed(profile: str, parameters: Mapping[str, Any] | None = None) -> Any:
    """Tidy rows (a DataFrame with :data:`COLUMNS`) of all seeds that were run with these
    parameters."""
    import pandas

    rows = []
    for seed in seeds_run(profile, parameters):
        for run in results(profile, seed, parameters):
            rows += [
                (seed, run["notebook"], "headline", name, entry["value"], entry["unit"])
                for name, entry in run["headline"].items()
            ]
            rows += [
                (seed, run["notebook"], "measures", name, value, unit(name))
                for name, value in run["measures"].items()
            ]
    return pandas.DataFrame(rows, columns=COLUMNS)


def from_rows(rows: Iterable[Mapping[str, str]]) -> dict[int, list[dict[str, Any]]]:
    """{seed: results} of tidy rows as a CSV gives them, without records and intervals over images.

    Of a name that two notebooks give, the first is kept. ValueError or KeyError for rows of
    another form.
    """
    found: dict[int, dict[str, dict[str, Any]]] = {}
    seen = set()
    for row in rows:
        seed, part, name, value = (
            int(row["seed"]),
            row["part"],
            row["name"],
            float(row["value"] or math.nan),
        )
        value = value if math.isfinite(value) else None
        run = found.setdefault(seed, {}).setdefault(
            row["notebook"], {"notebook": row["notebook"], **{p: {} for p in PARTS}}
        )
        if (seed, part, name) not in seen:
            run[part][name] = (
                {"value": value, "low": None, "high": None, "unit": row["unit"]}
                if part == "headline"
                else value
            )
        seen.add((seed, part, name))
    return {seed: list(runs.values()) for seed, runs in found.items()}


def write_rows(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> None:
    """Write dicts as a CSV, cells as they stand; the columns are all keys in order of appearance,
    blank where a row lacks one."""

    def write(draft: Path) -> None:
        with open(draft, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(
                file,
                columns or list(dict.fromkeys(name for row in rows for name in row)),
                restval="",
                lineterminator="\n",
            )
            table.writeheader()
            table.writerows(rows)

    write_whole(path, write)


def prefixed(before: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with the columns `before` in front; a column of its own of the same name becomes
    "<name> (column)"."""
    return {
        **before,
        **{f"{name} (column)" if name in before else name: value for name, value in row.items()},
    }


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
