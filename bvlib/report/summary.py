"""What the runs gave beside the committed reference: headline numbers with intervals, claims with
statuses, seconds.

Your own runs are `runs/<profile>/seed-<n>/` of the default parameters, the reference is
`figures/<profile>/seeds.csv`. With one seed an interval is the run's own over images; with several
it is the t-interval over seeds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bvlib.core.errors import MissingData
from bvlib.core.metrics import seed_interval
from bvlib.files.safe import write_text
from bvlib.report.claims import CLAIMS, Claim, check, finite, unit
from bvlib.report.forms import as_json, as_markdown, as_text, names_of
from bvlib.report.reference import SECONDS, awaiting, reported
from bvlib.report.results import PARTS, cold_seconds, collect, runs
from bvlib.run import notebooks, settings

__all__ = ["as_json", "as_markdown", "as_text", "gather", "summary", "write"]


def gather(profile: str, seeds: Sequence[int] | None = None, own: bool = True) -> dict[str, Any]:
    """{profile, committed, seeds, headline, claims, seconds, reference, awaiting, second_base,
    second_adversary}; all seeds that were run by default.

    seeds, headline, claims as in :func:`summary`, of your own runs; seconds: {notebook: cold
    seconds, mean over seeds}, where a stored result counts for the first notebook that uses it, so
    that they add up to one cold run. reference: the summary of the committed runs, None without
    any; awaiting: see :func:`reference.awaiting`. second_base, second_adversary: see
    :func:`second`. Not ``own``: the committed runs take the place of your own (``committed`` says
    so), without seconds and reference. BvError for an unknown profile, MissingData when committed
    runs are wanted and there are none.
    """
    settings.load(profile)
    reference = reported(profile)
    if not own and not reference:
        mend = f"`bv publish --profile {profile}`"
        raise MissingData(f"nothing committed of profile {profile}: {mend}")
    first = runs(profile) if own else reference
    chosen = _of(first, seeds)
    return {
        "profile": profile,
        "committed": not own,
        **summary(chosen),
        "seconds": _seconds(chosen) if own else {},
        "reference": summary(reference) if own and reference else None,
        "awaiting": awaiting(profile),
        **{key: second(p, profile, first, seeds, own) for p, key in SECONDS.items()},
    }


def _seconds(own: Mapping[int, list[dict[str, Any]]]) -> dict[str, float]:
    """{notebook: its cold seconds, mean over the seeds that have it}."""
    times = [cold_seconds(found) for found in own.values()]
    each = {name: [t[name] for t in times if name in t] for name in sorted(names_of(times))}
    return {name: round(sum(seconds) / len(seconds), 1) for name, seconds in each.items()}


def _of(found: Mapping[int, list], seeds: Sequence[int] | None) -> dict[int, list]:
    """The runs of these seeds; all if None."""
    return {seed: run for seed, run in found.items() if seeds is None or seed in seeds}


def summary(found: Mapping[int, list[dict[str, Any]]]) -> dict[str, Any]:
    """{seeds, headline, claims} of {seed: results}; seeds without a result are left out.

    headline: {name: {mean, low, high, unit, values}}; claims: [{id, expected, obtained, low, high,
    status, designed_in, values}]; values: one a seed, in order, None where a seed has none.
    """
    seeds = [seed for seed in sorted(found) if found[seed]]
    headlines, measures = ([collect(found[seed], part) for seed in seeds] for part in PARTS)
    names = names_of(headlines)
    return {
        "seeds": seeds,
        "headline": {name: _headline([h.get(name) for h in headlines]) for name in names},
        "claims": [_claim(claim, measures) for claim in CLAIMS],
    }


def second(
    parameter: str,
    profile: str,
    first: Mapping[int, list],
    seeds: Sequence[int] | None = None,
    own: bool = True,
) -> dict[str, Any] | None:
    """The summary of the runs with the profile's second base or adversary: your own if there are
    any, else (and if not ``own``) the committed ones.

    ``first`` are the usual runs, {seed: results}. Adds the parameter with its value, and first:
    {name: mean of the usual runs over the same seeds}, empty unless all of these were run. None if
    the profile names no second one or it was never run.
    """
    value = settings.load(profile).get(SECONDS[parameter])
    if not value:
        return None
    found = _of(runs(profile, {parameter: value}), seeds) if own else {}
    if not found:
        found = _of(reported(profile, {parameter: value}), None if own else seeds)
        first = reported(profile)
    complete = all(first.get(seed) for seed in found)
    same = summary({seed: first[seed] for seed in found}) if complete else {"headline": {}}
    means = {name: entry["mean"] for name, entry in same["headline"].items()}
    return {parameter: value, **summary(found), "first": means} if found else None


def _over_seeds(values: Sequence[float | None], of_unit: str) -> dict[str, float | None]:
    """{mean, low, high} over seeds, None where there is none; an interval of rates ("%") is cut at
    0 and 100."""
    there = finite(values)
    if len(there) < 2:
        return {"mean": there[0] if there else None, "low": None, "high": None}
    mean, low, high = seed_interval(there)
    if of_unit == "%" and 0 <= mean <= 100:
        low, high = max(low, 0.0), min(high, 100.0)
    return {"mean": mean, "low": low, "high": high}


def _headline(entries: list[dict[str, Any] | None]) -> dict[str, Any]:
    there = [entry for entry in entries if entry]
    values = [entry.get("value") if entry else None for entry in entries]
    told = _over_seeds(values, of_unit := there[0].get("unit", ""))
    if len(there) == 1:
        told |= {end: there[0].get(end) for end in ("low", "high")}
    return {**told, "unit": of_unit, "values": values}


def _claim(claim: Claim, measures: list[dict[str, Any]]) -> dict[str, Any]:
    values = [each.get(claim.measure) for each in measures]
    room = [each.get(claim.room.get("measure")) for each in measures]
    told = _over_seeds(values, unit(claim.measure))
    return {
        "id": claim.id,
        "expected": claim.expected,
        "obtained": told.pop("mean"),
        **told,
        "status": check(claim, values, room),
        "designed_in": claim.designed_in,
        "values": values,
    }


def write(profile: str) -> Path:
    """Write `report.md` and `report.json` beside the runs of a profile; the path of the first."""
    report, folder = gather(profile), notebooks.runs_folder() / profile
    write_text(folder / "report.json", as_json(report) + "\n")
    write_text(folder / "report.md", as_markdown(report))
    return folder / "report.md"
