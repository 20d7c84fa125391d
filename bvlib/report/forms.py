"""The three forms of a report that :func:`summary.gather` made: JSON, text and Markdown."""

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

from bvlib.report.claims import CLAIMS, DESIGNED
from bvlib.report.reference import SECONDS
from bvlib.report.tables import aligned, markdown, seeds_in_words


def names_of(dicts: Iterable[dict[str, Any]]) -> list[str]:
    """The keys of several dicts, each once, in order of appearance."""
    return list(dict.fromkeys(name for content in dicts for name in content))


def as_json(report: dict[str, Any]) -> str:
    """The report for scripts: valid JSON, what is undefined is null."""
    plain = json.loads(json.dumps(report), parse_constant=lambda undefined: None)
    return json.dumps(plain, indent=1, ensure_ascii=False)


def as_text(report: dict[str, Any]) -> str:
    """The report for a terminal: aligned columns."""
    lines = [_title(report), ""]
    for title, *table in _tables(report):
        lines += [title, *("  " + line for line in aligned(*table)), ""]
    return "\n".join(lines).rstrip()


def as_markdown(report: dict[str, Any]) -> str:
    """The report as Markdown tables."""
    lines = [f"# {_title(report)}", ""]
    for title, *table in _tables(report):
        lines += [f"## {title}", "", *markdown(*table), ""]
    return "\n".join(lines)


def _title(report: dict[str, Any]) -> str:
    name, seeds, reference = report["profile"], report["seeds"], report["reference"]
    alone = "no intervals" if report["committed"] else "intervals over images, 95 %"
    whose = "committed reference: " * report["committed"]
    title = f"Profile {name}, {whose}{_over(seeds, alone)}"
    if not seeds:
        title = f"Profile {name}: no run yet, make one with `bv run --profile {name}`"
    if reference:
        title += f"; committed reference: {_over(reference['seeds'], 'no intervals')}"
    return title


def _over(seeds: list[int], alone: str) -> str:
    several = "t-intervals over seeds, which share one base, 95 %"
    return f"{seeds_in_words(seeds)} ({alone if len(seeds) == 1 else several})"


Table = tuple[str, list[str], list[list[str]]]  # title, titles of the columns, rows


def _tables(report: dict[str, Any]) -> Iterator[Table]:
    """What a report shows, in order."""
    reference = report["reference"]
    sides = {"yours" if reference else "obtained": report} if report["seeds"] else {}
    sides |= {"reference": reference} if reference else {}
    if sides:
        parts = [_side(part, title, each=title != "yours") for title, part in sides.items()]
        yield "Headline", *_beside(parts)
    for parameter, key in SECONDS.items():
        if other := report[key]:
            joint = "on" if parameter == "base" else "with"
            title = f"Headline {joint} a second {parameter} ({other[parameter]})"
            means = {
                name: [_number(other["first"].get(name), entry["unit"])]
                for name, entry in other["headline"].items()
            }
            first = [f"first {parameter}, same seeds"], means
            yield title, *_beside([first, _side(other, f"second {parameter}")])
    yield _claims(sides or {"obtained": report})
    if report["awaiting"]:
        title = "Awaiting redraw (committed figures and tables made by earlier versions)"
        reasons = [[f"{name}: {', '.join(told)}"] for name, told in report["awaiting"].items()]
        yield title, ["notebook: what has changed"], reasons
    if report["seconds"]:
        seconds = report["seconds"] | {"all": sum(report["seconds"].values())}
        rows = [[name, f"{each:.0f}"] for name, each in seconds.items()]
        yield "Seconds from nothing", ["notebook", "seconds"], rows


Side = tuple[list[str], dict[str, list[str]]]  # titles of the columns, {name: cells}


def _beside(sides: list[Side]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of sides beside each other; names of the last side come first."""
    titles, rows = ["name"], {name: [name] for name in names_of(c for _, c in reversed(sides))}
    for own, cells in sides:
        titles += own
        for name, row in rows.items():
            row += cells.get(name, ["-"] * len(own))
    return titles, list(rows.values())


def _side(part: dict[str, Any], title: str, each: bool = True) -> Side:
    """Titles and {name: cells} of one summary: the mean, its interval, and each seed's value if
    there are several."""
    each = each and len(part["seeds"]) > 1
    cells = {}
    for name, entry in part["headline"].items():
        cells[name] = [_number(entry["mean"], entry["unit"]), _span(entry)]
        cells[name] += [", ".join(map(_number, entry["values"]))] if each else []
    return [title, "interval", *([seeds_in_words(part["seeds"])] if each else [])], cells


def _claims(sides: dict[str, dict[str, Any]]) -> Table:
    """Each claim with its status and value, on each side."""
    titles, rows = ["claim"], [[c.id + DESIGNED[c.designed_in]] for c in CLAIMS]
    for title, part in sides.items():
        status = "reference status" if title == "reference" else "status"
        titles += [status, f"{title} (interval)"]
        for row, entry in zip(rows, part["claims"], strict=True):
            between = f" ({_span(entry)})" if _span(entry) != "-" else ""
            row += [entry["status"], _number(entry["obtained"]) + between]
    for row, claim in zip(rows, CLAIMS, strict=True):
        row += [claim.expected, claim.test]
    tested = f"{len(CLAIMS)} tested, one primary test each"
    title = f"Claims ({tested}; a direction needs two seeds or more)"
    return title, [*titles, "expected (paper, on CLIP)", "test"], rows


def _number(value: float | None, unit: str = "") -> str:
    if value is None or not math.isfinite(value):
        return "-"
    text = f"{value:.1f}" if abs(value) >= 1 or value == 0 else f"{value:.3g}"
    return f"{text} {unit}".strip()


def _span(entry: dict[str, Any]) -> str:
    low, high = _number(entry["low"]), _number(entry["high"])
    return "-" if "-" in (low, high) else f"{low} to {high}"
