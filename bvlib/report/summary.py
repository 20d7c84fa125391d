"""What the runs gave beside the committed reference: headline numbers with intervals, claims with
statuses, seconds.

Your own runs are `runs/<profile>/seed-<n>/` of the default parameters, the reference is
`figures/<profile>/seeds.csv`. With one seed an interval is the run's own over images; with several
it is the t-interval over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bvlib.core.errors import MissingData
from bvlib.core.metrics import seed_interval
from bvlib.files.safe import write_text
from bvlib.report.claims import CLAIMS, check, finite, unit
from bvlib.report.forms import as_json, as_markdown, as_text, names_of
from bvlib.report.reference import SECONDS, awaiting, committed, committed_second
from bvlib.report.results import PARTS, cold_seconds, collect, results, seeds_run
from bvlib.run import notebooks, settings

__all__ = ["as_json", "as_markdown", "as_text", "gather", "gather_committed", "summary", "write"]


def gather(profile: str, seeds: Sequence[int] | None = None) -> dict[str, Any]:
    """{profile, committed, seeds, headline, claims, seconds, reference, second_base,
    second_adversary}; all seeds that were run by default.

    seeds, headline, claims as in :func:`summary`, of your own runs; seconds: {notebook: cold
    seconds, mean over seeds}, where a stored result counts for the first notebook that uses it, so
    that they add up to one cold run. reference: the summary of the committed runs, None without
    any; awaiting: see :func:`reference.awaiting`. second_base, second_adversary: see
    :func:`second`. committed: whether these are not your own runs, see :func:`gather_committed`.
    BvError for an unknown profile.
    """
    settings.load(profile)
    chosen = seeds_run(profile) if seeds is None else seeds
    own = {seed: results(profile, seed) for seed in chosen}
    reference = committed(profile)
    told = {"profile": profile, "committed": False, **summary(own), "seconds": _seconds(own)}
    told["reference"] = summary(reference) if reference else None
    return told | _second_and_awaiting(profile, own, reference, seeds)


def _seconds(own: Mapping[int, list[dict[str, Any]]]) -> dict[str, float]:
    """{notebook: its cold seconds, mean over the seeds that have it}."""
    times = [cold_seconds(own[seed]) for seed in sorted(own)]
    each = {name: [t[name] for t in times if name in t] for name in sorted(names_of(times))}
    return {name: round(sum(seconds) / len(seconds), 1) for name, seconds in each.items()}


def _second_and_awaiting(profile: str, own, reference, seeds) -> dict[str, Any]:
    others = {key: second(p, profile, own, reference, seeds) for p, key in SECONDS.items()}
    return {"awaiting": awaiting(profile), **others}


def gather_committed(profile: str, seeds: Sequence[int] | None = None) -> dict[str, Any]:
    """The same of the committed runs, in place of your own: without seconds and reference.

    BvError for an unknown profile, MissingData when nothing of it is committed.
    """
    settings.load(profile)
    runs = committed(profile)
    if not runs:
        mend = f"`bv publish --profile {profile}`"
        raise MissingData(f"nothing committed of profile {profile}: {mend}")
    told = {"profile": profile, "committed": True, **summary(_of(runs, seeds)), "seconds": {}}
    return told | {"reference": None} | _second_and_awaiting(profile, None, runs, seeds)


def _of(runs: Mapping[int, list], seeds: Sequence[int] | None) -> dict[int, list]:
    """The runs of these seeds; all if None."""
    return {seed: run for seed, run in runs.items() if seeds is None or seed in seeds}


def summary(runs: Mapping[int, list[dict[str, Any]]]) -> dict[str, Any]:
    """{seeds, headline, claims} of {seed: results}; seeds without a result are left out.

    headline: {name: {mean, low, high, unit, values}}; claims: [{id, expected, obtained, low, high,
    status, designed_in, values}]; values: one a seed, in order, None where a seed has none.
    """
    seeds = [seed for seed in sorted(runs) if runs[seed]]
    headlines, measures = ([collect(runs[seed], part) for seed in seeds] for part in PARTS)
    names = names_of(headlines)
    return {
        "seeds": seeds,
        "headline": {name: _headline([h.get(name) for h in headlines]) for name in names},
        "claims": [_claim(claim, [m.get(claim.measure) for m in measures]) for claim in CLAIMS],
    }


def second(
    parameter: str,
    profile: str,
    own: Mapping[int, list] | None,
    reference: Mapping[int, list],
    seeds: Sequence[int] | None = None,
) -> dict[str, Any] | None:
    """The summary of the runs with the profile's second base or adversary: your own if there are
    any, else (and if `own` is None) the committed ones.

    Adds the parameter with its value, and first: {name: mean of the usual runs over the same
    seeds}, empty unless all of these were run. None if the profile names no second one or it was
    never run.
    """
    value = settings.load(profile).get(SECONDS[parameter])
    if not value:
        return None
    choice = {parameter: value}
    runs, first = committed_second(profile, parameter, value), reference
    if own is None:
        runs = _of(runs, seeds)
    elif chosen := [s for s in seeds_run(profile, choice) if seeds is None or s in seeds]:
        runs, first = {seed: results(profile, seed, choice) for seed in chosen}, own
    complete = all(first.get(seed) for seed in runs)
    same = summary({seed: first[seed] for seed in runs}) if complete else {"headline": {}}
    means = {name: entry["mean"] for name, entry in same["headline"].items()}
    return {parameter: value, **summary(runs), "first": means} if runs else None


def _interval(values: list[float], of_unit: str) -> tuple[float | None, float | None, float | None]:
    """(mean, low, high) over seeds; an interval of rates ("%") is cut at 0 and 100."""
    if not values:
        return None, None, None
    if len(values) == 1:
        return values[0], None, None
    mean, low, high = seed_interval(values)
    if of_unit == "%" and 0 <= mean <= 100:
        low, high = max(low, 0.0), min(high, 100.0)
    return mean, low, high


def _headline(entries: list[dict[str, Any] | None]) -> dict[str, Any]:
    there = [entry for entry in entries if entry]
    of_unit = there[0].get("unit", "")
    mean, low, high = _interval(finite([entry.get("value") for entry in there]), of_unit)
    if len(there) == 1:
        low, high = there[0].get("low"), there[0].get("high")
    return {
        "mean": mean,
        "low": low,
        "high": high,
        "unit": of_unit,
        "values": [entry.get("value") if entry else None for entry in entries],
    }


def _claim(claim: Any, values: list[float | None]) -> dict[str, Any]:
    mean, low, high = _interval(finite(values), unit(claim.measure))
    return {
        "id": claim.id,
        "expected": claim.expected,
        "obtained": mean,
        "low": low,
        "high": high,
        "status": check(claim, values),
        "designed_in": claim.designed_in,
        "values": values,
    }


def write(profile: str) -> Path:
    """Write `report.md` and `report.json` beside the runs of a profile; the path of the first."""
    report, folder = gather(profile), notebooks.runs_folder() / profile
    write_text(folder / "report.json", as_json(report) + "\n")
    write_text(folder / "report.md", as_markdown(report))
    return folder / "report.md"
