"""The seed-0 values that are committed in `figures/<profile>/expected.json`, and how far a rerun is
from them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from bvlib.core.errors import MissingData
from bvlib.files.safe import read_json, write_json
from bvlib.report.claims import ACCURACIES, MEASURES, TOLERANCES, finite
from bvlib.report.reference import awaiting, committed, folder
from bvlib.report.results import PARTS, collect, numbers, runs
from bvlib.run import notebooks

# quantity of a headline number that is no accuracy by its unit, else an ASR
OF_UNIT = {"index": "index", "% of own effect": "transfer"}


def expected_path(profile: str) -> Path:
    """Where the committed seed-0 values of a profile lie."""
    return folder(profile) / "expected.json"


def _read_expected(profile: str) -> dict[str, Any]:
    path = expected_path(profile)
    return read_json(path) if path.is_file() else {}


def _usual(found: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Without the results of long notebooks: no default run has them."""
    long = {each.name for each in notebooks.every() if each.long}
    return [run for run in found if run["notebook"] not in long]


def _values(found: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """{part: {name: {value, unit}}} of the results of one seed, see :func:`_usual`."""
    usual, values = _usual(found), {part: {} for part in PARTS}
    whole = {"notebook": "all", **{part: collect(usual, part) for part in PARTS}}
    for _, part, name, value, of_unit in numbers([whole]):
        [plain] = [round(each, 4) for each in finite([value])] or [None]
        values[part][name] = {"value": plain, "unit": of_unit}
    return values


def missing_seed_zero(profile: str, names: Collection[str] = ()) -> MissingData:
    """The error for a profile, or for notebooks of it, whose seed 0 was not run. It is returned,
    not raised."""
    which = " ".join(name[:2] for name in names)
    way = f"make it with `bv run {which}".rstrip() + f" --profile {profile}`"
    of = f", of {', '.join(names)}" if names else ""
    return MissingData(f"no run of profile {profile} with seed 0{of}: {way}")


def write_expected(profile: str, tolerance: float | None = None) -> None:
    """Commit the seed-0 values of a profile, those of its committed rows: writes expected.json.

    Tolerances (in the unit of the value) that are already there stay, unless `tolerance` is given;
    new values get that of :func:`tolerance_of`.
    """
    old, new = _read_expected(profile), _values(committed(profile).get(0, []))
    for part, entries in new.items():
        for name, entry in entries.items():
            known = old.get(part, {}).get(name, {})
            usual = known.get("tolerance", tolerance_of(name, entry["unit"]))
            entry["tolerance"] = usual if tolerance is None else tolerance
    write_json(expected_path(profile), {"profile": profile, "seed": 0, **new})


def tolerance_of(name: str, of_unit: str) -> float:
    """How far a rerun may lie from a committed value, in its unit: by its quantity in the YAML."""
    if name in MEASURES:
        return TOLERANCES[MEASURES[name].quantity]
    return TOLERANCES["accuracy" if name in ACCURACIES else OF_UNIT.get(of_unit, "asr")]


def drift(profile: str, only: Collection[str] = ()) -> list[str]:
    """One line for each seed-0 value that is missing or further from the committed one than its
    tolerance; values of notebooks that await being drawn again are not compared. With ``only``,
    those of the notebooks of these names alone are.

    MissingData if there is no run of seed 0 or nothing is committed.
    """
    expected = _read_expected(profile)
    if not expected:
        where = notebooks.shown(expected_path(profile))
        mend = f"write it with `bv publish --profile {profile}`"
        raise MissingData(f"nothing committed at {where}: {mend}")
    own = runs(profile).get(0)
    if not own:
        raise missing_seed_zero(profile)
    obtained, lines, waiting = _values(own), [], awaiting(profile)
    of: dict[tuple[str, str], str] = {}  # of a name that two give: the first, as in `collect`
    for notebook, part, name, *_ in numbers(_usual(committed(profile).get(0, []))):
        of.setdefault((part, name), notebook)
    for part in PARTS:
        for name, entry in expected.get(part, {}).items():
            notebook = of.get((part, name))
            if notebook in waiting or (only and notebook not in only):
                continue
            want, got = entry["value"], obtained[part].get(name, {}).get("value")
            committed_as = f"committed {_shown(want)} {entry['unit']}"
            if name not in obtained[part]:
                lines.append(f"{part} {name}: missing, {committed_as}")
            elif not _near(want, got, entry["tolerance"]):
                within = f"(tolerance {entry['tolerance']:g})"
                lines.append(f"{part} {name}: {_shown(got)}, {committed_as} {within}")
    return lines


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"


def _near(want: float | None, got: float | None, tolerance: float) -> bool:
    """Whether two values are at most so far from each other; an undefined one is near another."""
    return want is got or (None not in (want, got) and abs(got - want) <= tolerance)
