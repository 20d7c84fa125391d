"""What the runs gave: headline numbers with intervals, claims with statuses, seconds; and drift.

Everything comes from `runs/<profile>/seed-<n>/<notebook>.json` of the default parameters. With one seed an
interval is the run's own over images; with several it is the t-interval over seeds.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from . import notebook, profiles
from .claims import CLAIMS, MEASURES, check, finite
from .errors import MissingData
from .files import write_json, write_whole
from .runner import artefact_seconds

TOLERANCE = 5.0  # points: what another CPU or thread count may move a value on a small world


def results(profile: str, seed: int) -> list[dict[str, Any]]:
    """The JSON of each notebook run with the default parameters, in order, with its record under "record"."""
    found = []
    folder = notebook.out_folder(profile, seed)
    for path in sorted(folder.glob("[0-9]*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        record = folder / ".records" / path.name
        content["record"] = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
        found.append({"notebook": path.stem, **content})
    return found


def seeds_run(profile: str) -> list[int]:
    """The seeds that have at least one result of the default parameters, sorted."""
    names = [path.name for path in (notebook.runs_folder() / profile).glob("seed-*")]
    seeds = sorted(int(name[5:]) for name in names if re.fullmatch(r"seed-\d+", name))
    return [seed for seed in seeds if results(profile, seed)]


def gather(profile: str, seeds: Sequence[int] | None = None) -> dict[str, Any]:
    """{profile, seeds, headline, claims, seconds} of the runs that are there; all seeds by default.

    headline: {name: {mean, low, high, unit}}; claims: [{id, expected, obtained, low, high, status,
    designed_in}]; seconds: {notebook: cold seconds, mean over seeds}, where a stored result counts for the
    first notebook that uses it, so that they add up to one cold run. BvError for an unknown profile.
    """
    profiles.load(profile)
    seeds = sorted(set(seeds)) if seeds is not None else seeds_run(profile)
    runs = {seed: results(profile, seed) for seed in seeds}
    seeds = [seed for seed in seeds if runs[seed]]
    headlines = [collect(runs[seed], "headline") for seed in seeds]
    measures = [collect(runs[seed], "measures") for seed in seeds]
    times = [cold_seconds(runs[seed]) for seed in seeds]
    return {
        "profile": profile, "seeds": seeds,
        "headline": {name: _headline([h[name] for h in headlines if name in h])
                     for name in _names(headlines)},
        "claims": [_claim(claim, [m.get(claim.measure) for m in measures]) for claim in CLAIMS],
        "seconds": {name: round(sum(t[name] for t in times if name in t) / sum(name in t for t in times), 1)
                    for name in sorted(_names(times))},
    }


def collect(runs: Iterable[dict[str, Any]], part: str) -> dict[str, Any]:
    """One dict of a part ("headline", "measures") of all notebooks; the first to give a name wins.

    A name that two notebooks give with different values is said on stderr.
    """
    found: dict[str, Any] = {}
    source: dict[str, str] = {}
    for run in runs:
        for name, value in run.get(part, {}).items():
            first = source.setdefault(name, run["notebook"])
            if found.setdefault(name, value) != value:
                print(f"bv: {name} differs between {first} and {run['notebook']}: the first is shown",
                      file=sys.stderr)
    return found


def per_seed(profile: str) -> Any:
    """Tidy rows of all seeds that were run: seed, notebook, part ("headline" or "measures"), name, value, unit."""
    import pandas

    rows = []
    for seed in seeds_run(profile):
        for run in results(profile, seed):
            rows += [(seed, run["notebook"], "headline", name, entry["value"], entry["unit"])
                     for name, entry in run["headline"].items()]
            rows += [(seed, run["notebook"], "measures", name, value, _unit(name))
                     for name, value in run["measures"].items()]
    return pandas.DataFrame(rows, columns=["seed", "notebook", "part", "name", "value", "unit"])


def cold_seconds(runs: Iterable[dict[str, Any]]) -> dict[str, float]:
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


def _names(dicts: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for content in dicts for name in content))


def _interval(values: list[float]) -> tuple[float | None, float | None, float | None]:
    if not values:
        return None, None, None
    if len(values) == 1:
        return values[0], None, None
    from .metrics import seed_interval
    return seed_interval(values)


def _headline(entries: list[dict[str, Any]]) -> dict[str, Any]:
    mean, low, high = _interval(finite([entry.get("value") for entry in entries]))
    if len(entries) == 1:
        low, high = entries[0].get("low"), entries[0].get("high")
    return {"mean": mean, "low": low, "high": high, "unit": entries[0].get("unit", "")}


def _claim(claim: Any, values: list[float | None]) -> dict[str, Any]:
    mean, low, high = _interval(finite(values))
    return {"id": claim.id, "expected": claim.expected, "obtained": mean, "low": low, "high": high,
            "status": check(claim, values), "designed_in": claim.designed_in}


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
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                 for row in [header, *rows]]
        return [title, *("  " + line for line in lines), ""]
    return "\n".join([_title(report), "", *_blocks(report, block)]).rstrip()


def as_markdown(report: dict[str, Any]) -> str:
    """The report as Markdown tables."""
    def block(title: str, header: list[str], rows: list[list[str]]) -> list[str]:
        table = [header, ["---"] * len(header), *rows]
        return [f"## {title}", "", *("| " + " | ".join(row) + " |" for row in table), ""]
    return "\n".join([f"# {_title(report)}", "", *_blocks(report, block)])


def _title(report: dict[str, Any]) -> str:
    if not report["seeds"]:
        name = report["profile"]
        return f"Profile {name}: no run yet, make one with `bv run --profile {name}`"
    count = len(report["seeds"])
    kind = "intervals over images" if count == 1 else "t-intervals over seeds, which share one base"
    return (f"Profile {report['profile']}, seed{'s' if count > 1 else ''} "
            f"{', '.join(map(str, report['seeds']))} ({kind}, 95 %)")


def _blocks(report: dict[str, Any], block: Any) -> list[str]:
    reference = _read_expected(report["profile"]).get("headline", {})
    lines: list[str] = []
    if report["headline"]:
        lines += block("Headline", ["name", "obtained", "interval", "committed (seed 0)"], [
            [name, _number(entry["mean"], entry["unit"]), _span(entry),
             _number(reference.get(name, {}).get("value"), entry["unit"])]
            for name, entry in report["headline"].items()])
    statements = {claim.id: claim for claim in CLAIMS}
    lines += block(f"Claims ({len(report['claims'])} tested, one primary test each; a direction needs "
                   "two seeds or more)",
                   ["claim", "status", "obtained", "interval", "expected (paper, on CLIP)", "test"], [
        [entry["id"] + (" (designed in)" if entry["designed_in"] else ""), entry["status"],
         _number(entry["obtained"]), _span(entry), entry["expected"], statements[entry["id"]].test]
        for entry in report["claims"]])
    if report["seconds"]:
        rows = [[name, f"{seconds:.0f}"] for name, seconds in report["seconds"].items()]
        lines += block("Seconds from nothing", ["notebook", "seconds"],
                       [*rows, ["all", f"{sum(report['seconds'].values()):.0f}"]])
    return lines


def _number(value: float | None, unit: str = "") -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.1f} {unit}".strip() if abs(value) >= 1 or value == 0 else f"{value:.3g} {unit}".strip()


def _span(entry: dict[str, Any]) -> str:
    low, high = _number(entry["low"]), _number(entry["high"])
    return "-" if "-" in (low, high) else f"{low} to {high}"


def write(profile: str) -> Path:
    """Write `report.md` and `report.json` beside the runs of a profile; the path of the first."""
    report, folder = gather(profile), notebook.runs_folder() / profile
    for name, text in (("report.json", as_json(report) + "\n"), ("report.md", as_markdown(report))):
        write_whole(folder / name, lambda draft, text=text: draft.write_text(text, encoding="utf-8"))
    return folder / "report.md"


# The committed values and drift from them

def expected_path(profile: str) -> Path:
    """Where the committed seed-0 values of a profile lie."""
    return notebook.root_folder() / "figures" / profile / "expected.json"


def _read_expected(profile: str) -> dict[str, Any]:
    path = expected_path(profile)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _seed_zero(profile: str) -> dict[str, dict[str, Any]]:
    runs = results(profile, 0)
    if not runs:
        raise MissingData(f"no run of profile {profile} with seed 0: "
                          f"make it with `bv run --profile {profile}`")
    headline = collect(runs, "headline")
    measures = collect(runs, "measures")
    return {"headline": {name: {"value": _plain(entry.get("value")), "unit": entry.get("unit", "")}
                         for name, entry in headline.items()},
            "measures": {name: {"value": _plain(value), "unit": _unit(name)}
                         for name, value in measures.items()}}


def _plain(value: float | None) -> float | None:
    return round(float(value), 4) if value is not None and math.isfinite(value) else None


def _unit(measure: str) -> str:
    return "%" if MEASURES.get(measure, "").endswith("%") else "points"


def write_expected(profile: str, tolerance: float | None = None) -> Path:
    """Commit the seed-0 values of a profile: writes expected.json, whose path is returned.

    Tolerances (in the unit of the value) that are already there stay, unless `tolerance` is given; new
    values get TOLERANCE. MissingData without a run of seed 0.
    """
    old, new = _read_expected(profile), _seed_zero(profile)
    for part, entries in new.items():
        for name, entry in entries.items():
            known = old.get(part, {}).get(name, {}).get("tolerance", TOLERANCE)
            entry["tolerance"] = known if tolerance is None else tolerance
    write_json(expected_path(profile), {"profile": profile, "seed": 0, **new})
    return expected_path(profile)


def drift(profile: str) -> list[str]:
    """One line for each seed-0 value that is missing or further from the committed one than its tolerance.

    MissingData if there is no run of seed 0 or nothing is committed.
    """
    expected = _read_expected(profile)
    if not expected:
        raise MissingData(f"nothing committed at {notebook.shown(expected_path(profile))}: "
                          f"write it with `bv publish --profile {profile}`")
    obtained, lines = _seed_zero(profile), []
    for part in ("headline", "measures"):
        for name, entry in expected.get(part, {}).items():
            want, got = entry["value"], obtained[part].get(name, {}).get("value")
            if name not in obtained[part]:
                lines.append(f"{part} {name}: missing, committed {_number(want, entry['unit'])}")
            elif None in (want, got) and want is not got or None not in (want, got) \
                    and abs(got - want) > entry["tolerance"]:
                got, want = ("undefined" if value is None else f"{value:.2f}" for value in (got, want))
                lines.append(f"{part} {name}: {got}, committed {want} {entry['unit']} "
                             f"(tolerance {entry['tolerance']:g})")
    return lines
