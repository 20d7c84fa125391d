"""The three forms of a report that :func:`summary.gather` made: JSON, text and Markdown."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable
from typing import Any

from bvlib.report.claims import CLAIMS
from bvlib.report.reference import SECONDS
from bvlib.report.tables import markdown, seeds_in_words


def names_of(dicts: Iterable[dict[str, Any]]) -> list[str]:
    """The keys of several dicts, each once, in order of appearance."""
    return list(dict.fromkeys(name for content in dicts for name in content))


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
        return [f"## {title}", "", *markdown(header, rows), ""]

    return "\n".join([f"# {_title(report)}", "", *_blocks(report, block)])


def _title(report: dict[str, Any]) -> str:
    name, seeds, reference = report["profile"], report["seeds"], report["reference"]
    alone = "no intervals" if report["committed"] else "intervals over images, 95 %"
    if not seeds:
        title = f"Profile {name}: no run yet, make one with `bv run --profile {name}`"
    else:
        title = f"Profile {name}, {'committed reference: ' * report['committed']}"
        title += _over(seeds, alone)
    if reference:
        title += f"; committed reference: {_over(reference['seeds'], 'no intervals')}"
    return title


def _over(seeds: list[int], alone: str) -> str:
    several = "t-intervals over seeds, which share one base, 95 %"
    return f"{seeds_in_words(seeds)} ({alone if len(seeds) == 1 else several})"


def _blocks(report: dict[str, Any], block: Any) -> list[str]:
    own, reference = bool(report["seeds"]), report["reference"]
    lines: list[str] = []
    sides = [_side(report, "yours" if reference else "obtained", each=not reference)] if own else []
    sides += [_side(reference, "reference")] if reference else []
    if sides:
        titles = ["name", *(title for own_titles, _ in sides for title in own_titles)]
        rows = []
        for name in names_of(cells for _, cells in reversed(sides)):
            row = [cells.get(name, ["-"] * len(own_titles)) for own_titles, cells in sides]
            rows.append([name, *itertools.chain(*row)])
        lines += block("Headline", titles, rows)
    for parameter, key in SECONDS.items():
        if other := report[key]:
            titles, cells = _side(other, f"second {parameter}")
            joint = "on" if parameter == "base" else "with"
            title = f"Headline {joint} a second {parameter} ({other[parameter]})"
            rows = [
                [name, _number(other["first"].get(name), entry["unit"]), *cells[name]]
                for name, entry in other["headline"].items()
            ]
            lines += block(title, ["name", f"first {parameter}, same seeds", *titles], rows)
    tested = f"{len(report['claims'])} tested, one primary test each"
    title = f"Claims ({tested}; a direction needs two seeds or more)"
    lines += block(title, *_claims(report["claims"], own, reference))
    if report["awaiting"]:
        waiting = report["awaiting"].items()
        lines += ["Awaiting redraw (committed figures and tables made by earlier versions)", ""]
        lines += [*(f"  {name}: {', '.join(reasons)}" for name, reasons in waiting), ""]
    if report["seconds"]:
        rows = [[name, f"{seconds:.0f}"] for name, seconds in report["seconds"].items()]
        rows.append(["all", f"{sum(report['seconds'].values()):.0f}"])
        lines += block("Seconds from nothing", ["notebook", "seconds"], rows)
    return lines


def _side(
    part: dict[str, Any], title: str, each: bool = True
) -> tuple[list[str], dict[str, list[str]]]:
    """Titles and {name: cells} of one summary: the mean, its interval, and each seed's value if
    there are several."""
    each = each and len(part["seeds"]) > 1
    cells = {}
    for name, entry in part["headline"].items():
        cells[name] = [_number(entry["mean"], entry["unit"]), _span(entry)]
        cells[name] += [", ".join(map(_number, entry["values"]))] if each else []
    return [title, "interval", *([seeds_in_words(part["seeds"])] if each else [])], cells


def _claims(
    own_claims: list[dict], own: bool, reference: dict[str, Any] | None
) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of the claims; your own columns are left out when there is a reference and
    no run."""
    titles = ["claim"]
    rows = [[c["id"] + " (designed in)" * c["designed_in"]] for c in own_claims]
    sides = []
    if own or not reference:
        sides.append(("status", "yours" if reference else "obtained", own_claims))
    if reference:
        sides.append(("reference status", "reference", reference["claims"]))
    for status, obtained, entries in sides:
        titles += [status, f"{obtained} (interval)"]
        for row, entry in zip(rows, entries, strict=True):
            span = _span(entry)
            between = f" ({span})" if span != "-" else ""
            row += [entry["status"], _number(entry["obtained"]) + between]
    for row, claim in zip(rows, CLAIMS, strict=True):
        row += [claim.expected, claim.test]
    return [*titles, "expected (paper, on CLIP)", "test"], rows


def _number(value: float | None, unit: str = "") -> str:
    if value is None or not math.isfinite(value):
        return "-"
    text = f"{value:.1f}" if abs(value) >= 1 or value == 0 else f"{value:.3g}"
    return f"{text} {unit}".strip()


def _span(entry: dict[str, Any]) -> str:
    low, high = _number(entry["low"]), _number(entry["high"])
    return "-" if "-" in (low, high) else f"{low} to {high}"
