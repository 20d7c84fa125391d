"""The reference runs that are committed in `figures/<profile>/`, of several seeds, and which await
being drawn again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bvlib.core.errors import BvError
from bvlib.core.versions import raised
from bvlib.files.safe import read_json, read_json_if
from bvlib.report import results
from bvlib.report.results import from_rows
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
    read, kept = card.get("read"), card["parameters"]
    of_profiles = settings.FIELDS.keys() - settings.RUN.keys()
    gone = (set(read or ()) & kept.keys() & of_profiles) - now.keys()
    names = [*settings.deciding(now, read, kept), *sorted(gone)]
    base = (read_json_if(WEIGHTS / f"{now['base']}.json") or {}).get("sha256")
    reasons = raised(card["recipes"])
    reasons += [f"setting {key} has changed" for key in names if kept.get(key) != now.get(key)]
    if kept.get("base") == now["base"] and base not in (None, card.get("base")):
        reasons.append(f"base {now['base']} has other weights")
    return reasons
