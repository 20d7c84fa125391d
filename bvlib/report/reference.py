"""What is committed in `figures/<profile>/`: the reference runs of several seeds, and the seed-0
values that a rerun must meet."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from bvlib.core.errors import BvError, MissingData
from bvlib.core.versions import raised
from bvlib.files.safe import read_json, write_json
from bvlib.report.claims import ACCURACIES, MEASURES, TOLERANCES, unit
from bvlib.report.results import PARTS, collect, from_rows, results
from bvlib.report.tables import read_cells
from bvlib.run import notebooks, settings

# what a profile may name to be run once more: parameter -> key of the profile, and stem of the
# committed file
SECONDS = {"base": "second_base", "adversary": "second_adversary"}
# quantity of a headline number that is no accuracy by its unit, else an ASR
OF_UNIT = {"index": "index", "% of own effect": "transfer"}


def folder(profile: str) -> Path:
    """Where the committed outputs of a profile lie."""
    return notebooks.root_folder() / "figures" / profile


def committed(profile: str) -> dict[int, list[dict[str, Any]]]:
    """{seed: results} of the committed reference runs, from `seeds.csv`; empty if there is none.
    BvError if it is damaged."""
    return _read(folder(profile) / "seeds.csv")


def committed_second(profile: str, parameter: str, value: str) -> dict[int, list[dict[str, Any]]]:
    """The same with the second base or adversary of this name, from the file that :data:`SECONDS`
    names."""
    return _read(folder(profile) / f"{SECONDS[parameter]}.csv", parameter, value)


def _read(path: Path, column: str = "", value: str = "") -> dict[int, list[dict[str, Any]]]:
    if not path.is_file():
        return {}
    try:
        rows = read_cells(path)
        return from_rows(rows[rows[column] == value] if column else rows)
    except (KeyError, ValueError, TypeError, AttributeError):
        mend = "take it from git again, or run `bv publish`"
        raise BvError(f"{notebooks.shown(path)} is damaged: {mend}") from None


def expected_path(profile: str) -> Path:
    """Where the committed seed-0 values of a profile lie."""
    return folder(profile) / "expected.json"


def _read_expected(profile: str) -> dict[str, Any]:
    path = expected_path(profile)
    return read_json(path) if path.is_file() else {}


def _seed_zero(profile: str) -> dict[str, dict[str, Any]]:
    long = {each.name for each in notebooks.every() if each.long}
    # the values of long notebooks are in seeds.csv alone: no default run has them
    runs = [run for run in results(profile, 0) if run["notebook"] not in long]
    if not runs:
        raise missing_seed_zero(profile)
    headline, measures = (collect(runs, part) for part in PARTS)
    return {
        "headline": {
            name: {"value": _plain(entry.get("value")), "unit": entry.get("unit", "")}
            for name, entry in headline.items()
        },
        "measures": {
            name: {"value": _plain(value), "unit": unit(name)} for name, value in measures.items()
        },
    }


def missing_seed_zero(profile: str) -> MissingData:
    """The error for a profile whose seed 0 was not run. It is returned, not raised."""
    way = f"make it with `bv run --profile {profile}`"
    return MissingData(f"no run of profile {profile} with seed 0: {way}")


def _plain(value: float | None) -> float | None:
    return round(float(value), 4) if value is not None and math.isfinite(value) else None


def write_expected(profile: str, tolerance: float | None = None) -> Path:
    """Commit the seed-0 values of a profile: writes expected.json, whose path is returned.

    Tolerances (in the unit of the value) that are already there stay, unless `tolerance` is given;
    new values get that of :func:`tolerance_of`. MissingData without a run of seed 0.
    """
    old, new = _read_expected(profile), _seed_zero(profile)
    for part, entries in new.items():
        for name, entry in entries.items():
            known = old.get(part, {}).get(name, {})
            usual = known.get("tolerance", tolerance_of(name, entry["unit"]))
            entry["tolerance"] = usual if tolerance is None else tolerance
    write_json(expected_path(profile), {"profile": profile, "seed": 0, **new})
    return expected_path(profile)


def tolerance_of(name: str, of_unit: str) -> float:
    """How far a rerun may lie from a committed value, in its unit: by its quantity in the YAML."""
    if name in MEASURES:
        return TOLERANCES[MEASURES[name].quantity]
    return TOLERANCES["accuracy" if name in ACCURACIES else OF_UNIT.get(of_unit, "asr")]


def awaiting(profile: str) -> dict[str, list[str]]:
    """{notebook: why its committed figures and tables await being drawn again}; empty if none does.

    A recipe that made them has moved on, or the profile names other settings or another base now.
    This is a status, not a fault: what they show was right for the versions that their cards name.
    """
    now, found = settings.load(profile), {}
    for path in sorted([*folder(profile).glob("*.json"), *folder(profile).glob("tables/*.json")]):
        card = read_json(path)
        if "recipes" not in card:
            continue  # expected.json
        kept = {key: card["parameters"].get(key) for key in now}
        reasons = raised(card["recipes"])
        reasons += [f"setting {key} has changed" for key in now if kept[key] != now[key]]
        if reasons:
            known = found.setdefault(card["notebook"], [])
            known += [reason for reason in reasons if reason not in known]
    return found


def drift(profile: str) -> list[str]:
    """One line for each seed-0 value that is missing or further from the committed one than its
    tolerance; values of notebooks that await being drawn again are not compared.

    MissingData if there is no run of seed 0 or nothing is committed.
    """
    expected = _read_expected(profile)
    if not expected:
        where = notebooks.shown(expected_path(profile))
        mend = f"write it with `bv publish --profile {profile}`"
        raise MissingData(f"nothing committed at {where}: {mend}")
    obtained, lines, waiting = _seed_zero(profile), [], awaiting(profile)
    of = {
        (part, name): run["notebook"]
        for run in reversed(committed(profile).get(0, []))
        for part in PARTS
        for name in run[part]
    }
    for part in PARTS:
        for name, entry in expected.get(part, {}).items():
            if of.get((part, name)) in waiting:
                continue
            want, got = entry["value"], obtained[part].get(name, {}).get("value")
            committed_as = f"committed {_shown(want)} {entry['unit']}"
            if name not in obtained[part]:
                lines.append(f"{part} {name}: missing, {committed_as}")
            elif _apart(want, got) > entry["tolerance"]:
                within = f"(tolerance {entry['tolerance']:g})"
                lines.append(f"{part} {name}: {_shown(got)}, {committed_as} {within}")
    return lines


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"


def _apart(want: float | None, got: float | None) -> float:
    """How far two values are from each other; infinitely far if just one is undefined."""
    if want is None or got is None:
        return 0.0 if want is got else math.inf
    return abs(got - want)
