"""What is committed in `figures/<profile>/`: the reference runs of several seeds, and the seed-0
values that a rerun must meet."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bvlib.core.errors import BvError, MissingData
from bvlib.core.versions import raised
from bvlib.files.safe import read_json, read_json_if, write_json
from bvlib.report import results
from bvlib.report.claims import ACCURACIES, MEASURES, TOLERANCES, finite
from bvlib.report.results import PARTS, collect, from_rows, numbers, runs
from bvlib.report.tables import read_cells
from bvlib.run import notebooks, settings
from bvlib.worlds import WEIGHTS

if TYPE_CHECKING:
    import pandas as pd

# what a profile may name to be run once more: parameter -> key of the profile, and stem of the
# committed file
SECONDS = {"base": "second_base", "adversary": "second_adversary"}
# Seeds that claims are read from. From 100 on are those on which choices are made: what they gave
# is never published.
REPORTING = range(10, 100)
COLUMNS = [*results.COLUMNS, "made"]  # of the committed rows; for the last see report.pieces
# quantity of a headline number that is no accuracy by its unit, else an ASR
OF_UNIT = {"index": "index", "% of own effect": "transfer"}


def folder(profile: str) -> Path:
    """Where the committed outputs of a profile lie."""
    return notebooks.root_folder() / "figures" / profile


def rows_path(profile: str, parameters: Mapping[str, Any] | None = None) -> Path:
    """Where the tidy rows of runs are committed: `seeds.csv`, or with a parameter of
    :data:`SECONDS` the file that it names."""
    stem = "".join(SECONDS[name] for name in parameters or {}) or "seeds"
    return folder(profile) / f"{stem}.csv"


def rows(path: Path, parameters: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """The committed rows of a file, with :data:`COLUMNS`, cells as text: those with these
    parameters, none without a file. ``made`` is blank where it is not known. BvError if the file is
    damaged."""
    import pandas as pd

    if not path.is_file():
        return pd.DataFrame(columns=[*(parameters or {}), *COLUMNS])
    try:
        found = read_cells(path)
        for name, value in (parameters or {}).items():
            found = found[found[name] == value]
        from_rows(found)
    except (KeyError, ValueError, TypeError, AttributeError):
        mend = "take it from git again, or run `bv publish`"
        raise BvError(f"{notebooks.shown(path)} is damaged: {mend}") from None
    return found if "made" in found else found.assign(made="")


def committed(
    profile: str, parameters: Mapping[str, Any] | None = None
) -> dict[int, list[dict[str, Any]]]:
    """{seed: results} of the committed reference runs, or of those with a second base or adversary,
    from :func:`rows_path`. Empty if there is none, BvError if it is damaged."""
    path = rows_path(profile, parameters)  # without one `bv report` answers at once
    return from_rows(rows(path, parameters)) if path.is_file() else {}


def counted(seeds: Collection[int]) -> list[int]:
    """The seeds that claims are read from: those of :data:`REPORTING`, or all if there is none.
    What lies below serves for pictures and reruns."""
    return [seed for seed in seeds if seed in REPORTING] or list(seeds)


def reported(
    profile: str, parameters: Mapping[str, Any] | None = None
) -> dict[int, list[dict[str, Any]]]:
    """Those of the :func:`committed` runs that claims are read from, see :func:`counted`."""
    found = committed(profile, parameters)
    return {seed: found[seed] for seed in counted(found)}


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


def awaiting(profile: str) -> dict[str, list[str]]:
    """{notebook: why its committed figures and tables await being drawn again}; empty if none does.

    A recipe that made them has moved on, or the profile names other settings or another base now.
    This is a status, not a fault: what they show was right for the versions that their cards name.
    """
    now, found = settings.load(profile), {}
    for path in sorted([*folder(profile).glob("*.json"), *folder(profile).glob("tables/*.json")]):
        card = read_json(path)
        if "recipes" in card and (reasons := moved(card, now)):  # not in expected.json
            known = found.setdefault(card["notebook"], [])
            known += [reason for reason in reasons if reason not in known]
    return found


def moved(card: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What has changed, in the settings ``now``, since a run or a figure was made as its card
    tells: the version of a recipe, a setting, the weights of the base."""
    kept = {key: card["parameters"].get(key) for key in now}
    base = (read_json_if(WEIGHTS / f"{now['base']}.json") or {}).get("sha256")
    reasons = raised(card["recipes"])
    reasons += [f"setting {key} has changed" for key in now if kept[key] != now[key]]
    if kept.get("base") == now["base"] and base not in (None, card.get("base")):
        reasons.append(f"base {now['base']} has other weights")
    return reasons


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
