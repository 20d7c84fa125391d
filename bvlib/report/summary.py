"""What the runs gave beside the committed reference: headline numbers with intervals, claims with
statuses, seconds.

Your own runs are `runs/<profile>/seed-<n>/` of the default parameters, the reference is
`figures/<profile>/seeds.csv`. With one seed an interval is the run's own over images; with several
it is the t-interval over seeds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bvlib.core.errors import MissingData
from bvlib.files.safe import write_whole
from bvlib.report.claims import CLAIMS, check, finite, unit
from bvlib.report.reference import SECONDS, awaiting, committed, committed_second
from bvlib.report.results import cold_seconds, collect, results, seeds_run
from bvlib.run import notebooks, settings


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
    own = {
        seed: results(profile, seed) for seed in (seeds_run(profile) if seeds is None else seeds)
    }
    times = [cold_seconds(own[seed]) for seed in sorted(own)]
    reference = committed(profile)
    return {
        "profile": profile,
        "committed": False,
        **summary(own),
        "seconds": {
            name: round(sum(t[name] for t in times if name in t) / sum(name in t for t in times), 1)
            for name in sorted(_names(times))
        },
        "reference": summary(reference) if reference else None,
        "awaiting": awaiting(profile),
        **{
            key: second(parameter, profile, own, reference, seeds)
            for parameter, key in SECONDS.items()
        },
    }


def gather_committed(profile: str, seeds: Sequence[int] | None = None) -> dict[str, Any]:
    """The same of the committed runs, in place of your own: without seconds and reference.

    BvError for an unknown profile, MissingData when nothing of it is committed.
    """
    settings.load(profile)
    runs = committed(profile)
    if not runs:
        raise MissingData(
            f"nothing committed of profile {profile}: `bv publish --profile {profile}`"
        )
    chosen = {seed: runs[seed] for seed in runs if seeds is None or seed in seeds}
    others = {key: second(p, profile, None, runs, seeds) for p, key in SECONDS.items()}
    told = {"profile": profile, "committed": True, **summary(chosen), "seconds": {}}
    return {**told, "reference": None, "awaiting": awaiting(profile), **others}


def summary(runs: Mapping[int, list[dict[str, Any]]]) -> dict[str, Any]:
    """{seeds, headline, claims} of {seed: results}; seeds without a result are left out.

    headline: {name: {mean, low, high, unit, values}}; claims: [{id, expected, obtained, low, high,
    status, designed_in, values}]; values: one a seed, in order, None where a seed has none.
    """
    seeds = [seed for seed in sorted(runs) if runs[seed]]
    headlines = [collect(runs[seed], "headline") for seed in seeds]
    measures = [collect(runs[seed], "measures") for seed in seeds]
    return {
        "seeds": seeds,
        "headline": {
            name: _headline([h.get(name) for h in headlines]) for name in _names(headlines)
        },
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
        runs = {seed: runs[seed] for seed in runs if seeds is None or seed in seeds}
    elif chosen := [s for s in seeds_run(profile, choice) if seeds is None or s in seeds]:
        runs, first = {seed: results(profile, seed, choice) for seed in chosen}, own
    same = (
        summary({seed: first[seed] for seed in runs})
        if all(first.get(seed) for seed in runs)
        else {"headline": {}}
    )
    means = {name: entry["mean"] for name, entry in same["headline"].items()}
    return {parameter: value, **summary(runs), "first": means} if runs else None


def _names(dicts: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for content in dicts for name in content))


def _interval(values: list[float], of_unit: str) -> tuple[float | None, float | None, float | None]:
    """(mean, low, high) over seeds; an interval of rates ("%") is cut at 0 and 100."""
    if not values:
        return None, None, None
    if len(values) == 1:
        return values[0], None, None
    from bvlib.core.metrics import seed_interval

    mean, low, high = seed_interval(values)
    return (
        (mean, max(low, 0.0), min(high, 100.0))
        if of_unit == "%" and 0 <= mean <= 100
        else (mean, low, high)
    )


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


# The three forms


def as_json(report: dict[str, Any]) -> str:
    """The report for scripts: valid JSON, what is undefined is null."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items()}
        if isinstance(value, list):
            return [clean(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(clean(report), indent=1, ensure_ascii=False, allow_nan=False)


def as_text(report: dict[str, Any]) -> str:
    """The report for a terminal: aligned columns."""

    def block(title: str, header: list[str], rows: list[list[str]]) -> list[str]:
        widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in [header, *rows]
        ]
        return [title, *("  " + line for line in lines), ""]

    return "\n".join([_title(report), "", *_blocks(report, block)]).rstrip()


def as_markdown(report: dict[str, Any]) -> str:
    """The report as Markdown tables."""

    def block(title: str, header: list[str], rows: list[list[str]]) -> list[str]:
        table = [header, ["---"] * len(header), *rows]
        return [f"## {title}", "", *("| " + " | ".join(row) + " |" for row in table), ""]

    return "\n".join([f"# {_title(report)}", "", *_blocks(report, block)])


def _title(report: dict[str, Any]) -> str:
    name, seeds, reference = report["profile"], report["seeds"], report["reference"]
    alone = "no intervals" if report["committed"] else "intervals over images, 95 %"
    title = (
        f"Profile {name}, {'committed reference: ' * report['committed']}{_over(seeds, alone)}"
        if seeds
        else f"Profile {name}: no run yet, make one with `bv run --profile {name}`"
    )
    return title + (
        f"; committed reference: {_over(reference['seeds'], 'no intervals')}" if reference else ""
    )


def _over(seeds: list[int], alone: str) -> str:
    return (
        f"{_seeds(seeds)} "
        f"({alone if len(seeds) == 1 else 't-intervals over seeds, which share one base, 95 %'})"
    )


def _seeds(seeds: list[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _blocks(report: dict[str, Any], block: Any) -> list[str]:
    own, reference = bool(report["seeds"]), report["reference"]
    lines: list[str] = []
    sides = [_side(report, "yours" if reference else "obtained", each=not reference)] if own else []
    sides += [_side(reference, "reference")] if reference else []
    if sides:
        header = ["name", *(title for titles, _ in sides for title in titles)]
        lines += block(
            "Headline",
            header,
            [
                [
                    name,
                    *(
                        cell
                        for titles, cells in sides
                        for cell in cells.get(name, ["-"] * len(titles))
                    ),
                ]
                for name in _names(cells for _, cells in reversed(sides))
            ],
        )
    for parameter, key in SECONDS.items():
        if other := report[key]:
            titles, cells = _side(other, f"second {parameter}")
            where = (
                f"{'on' if parameter == 'base' else 'with'} a second {parameter} "
                f"({other[parameter]})"
            )
            lines += block(
                f"Headline {where}",
                ["name", f"first {parameter}, same seeds", *titles],
                [
                    [name, _number(other["first"].get(name), entry["unit"]), *cells[name]]
                    for name, entry in other["headline"].items()
                ],
            )
    lines += block(
        f"Claims ({len(report['claims'])} tested, one primary test each; a direction needs two "
        "seeds or more)",
        *_claims(report["claims"], own, reference),
    )
    if report["awaiting"]:
        waiting = report["awaiting"].items()
        lines += ["Awaiting redraw (committed figures and tables made by earlier versions)", ""]
        lines += [*(f"  {name}: {', '.join(reasons)}" for name, reasons in waiting), ""]
    if report["seconds"]:
        rows = [[name, f"{seconds:.0f}"] for name, seconds in report["seconds"].items()]
        lines += block(
            "Seconds from nothing",
            ["notebook", "seconds"],
            [*rows, ["all", f"{sum(report['seconds'].values()):.0f}"]],
        )
    return lines


def _side(
    part: dict[str, Any], title: str, each: bool = True
) -> tuple[list[str], dict[str, list[str]]]:
    """Titles and {name: cells} of one summary: the mean, its interval, and each seed's value if
    there are several."""
    each = each and len(part["seeds"]) > 1
    return (
        [title, "interval", *([_seeds(part["seeds"])] if each else [])],
        {
            name: [
                _number(entry["mean"], entry["unit"]),
                _span(entry),
                *([", ".join(map(_number, entry["values"]))] if each else []),
            ]
            for name, entry in part["headline"].items()
        },
    )


def _claims(
    own_claims: list[dict], own: bool, reference: dict[str, Any] | None
) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of the claims; your own columns are left out when there is a reference and
    no run."""
    titles, rows = (
        ["claim"],
        [[c["id"] + (" (designed in)" if c["designed_in"] else "")] for c in own_claims],
    )
    sides = (
        [("status", "yours" if reference else "obtained", own_claims)]
        if own or not reference
        else []
    )
    sides += [("reference status", "reference", reference["claims"])] if reference else []
    for status, obtained, entries in sides:
        titles += [status, f"{obtained} (interval)"]
        for row, entry in zip(rows, entries, strict=True):
            span = _span(entry)
            row += [
                entry["status"],
                _number(entry["obtained"]) + (f" ({span})" if span != "-" else ""),
            ]
    for row, claim in zip(rows, CLAIMS, strict=True):
        row += [claim.expected, claim.test]
    return [*titles, "expected (paper, on CLIP)", "test"], rows


def _number(value: float | None, unit: str = "") -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return (
        f"{value:.1f} {unit}".strip()
        if abs(value) >= 1 or value == 0
        else f"{value:.3g} {unit}".strip()
    )


def _span(entry: dict[str, Any]) -> str:
    low, high = _number(entry["low"]), _number(entry["high"])
    return "-" if "-" in (low, high) else f"{low} to {high}"


def write(profile: str) -> Path:
    """Write `report.md` and `report.json` beside the runs of a profile; the path of the first."""
    report, folder = gather(profile), notebooks.runs_folder() / profile
    for name, text in (("report.json", as_json(report) + "\n"), ("report.md", as_markdown(report))):
        write_whole(
            folder / name, lambda draft, text=text: draft.write_text(text, encoding="utf-8")
        )
    return folder / "report.md"
