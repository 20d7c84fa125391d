"""The claims as Markdown: the short table of the README, and the page ``figures/claims.md`` with
each figure beside its claims.

Both are made from {profile: ``report.summary`` of its committed runs}; a profile that is not in
there was not run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from bvlib.core.versions import raised
from bvlib.report.claims import ABOVE, CLAIMS, STATUSES, Claim, unit

PROFILES = {"mini": "mini", "real32": "real32", "paper": "paper profile"}  # and what each is called
WIDTH = 840  # pixels that the pictures of one figure share


# The table


def claims_table(of: Mapping[str, dict[str, Any]]) -> str:
    """Every claim with what each profile makes of it, as Markdown, after one line that counts the
    statuses.

    A claim links to its place on the page, from where the README lies.
    """
    cells = [
        [
            f"[{_statement(claim)}](figures/claims.md#{claim.id})"
            + (" (designed in)" if claim.designed_in else ""),
            claim.expected,
            *(_cell(_entry(of, profile, claim), unit(claim.measure)) for profile in PROFILES),
        ]
        for claim in CLAIMS
    ]
    titles = ["claim", "paper, on CLIP", *(_title(of, profile) for profile in PROFILES)]
    return "\n".join(
        [
            f"{counts(of)} In brackets: 95 % t-interval over seeds, which share one base.",
            "",
            *_table(titles, cells),
            "",
        ]
    )


def counts(of: Mapping[str, dict[str, Any]]) -> str:
    """How many claims have which status on each profile, as one sentence."""
    told = []
    for profile, name in PROFILES.items():
        statuses = (
            Counter(claim["status"] for claim in of[profile]["claims"]) if profile in of else {}
        )
        found = ", ".join(
            f"{statuses[status]} {status}" for status in STATUSES if status in statuses
        )
        told.append(f"{found} on {name}" if found else f"{name} not run")
    return f"{len(CLAIMS)} tests: {'; '.join(told)}."


# The page


def claims_page(of: Mapping[str, dict[str, Any]], figures: Path) -> str:
    """The page as Markdown, to be written into `figures`, the folder that holds
    ``<profile>/<figure>.png``.

    A section for each figure: its pictures side by side, then the claims that it shows. Only files
    that exist are linked.
    """
    stems = list(dict.fromkeys(claim.figure for claim in CLAIMS))
    groups = {stem: [claim for claim in CLAIMS if claim.figure == stem] for stem in stems}
    lines = [
        "# The claims of both papers, each beside its figure",
        "",
        counts(of),
        "",
        "Each claim has one primary test, written before the run unless it says otherwise; two "
        "rules that tests rest on were mended after "
        "first results: the scale at which the SBV is compared (notebook 03) and the λ that IBVS "
        "tries (05). It has the *same direction* if the 95 % t-interval over seeds "
        "lies wholly on the side that the test asks for, it *differs* if the interval lies wholly "
        "on the other, else (and with a "
        "single seed) it is *inconclusive*. All seeds of a profile share one base. The papers' "
        "numbers are for CLIP at 224 px: "
        "they are shown, never tested here. *Designed in* marks what the choice of the base "
        "already asked for. Pictures show "
        "seed 0. Written by `bv publish`; the README has the same as one table.",
        "",
        *(
            f"- [{_name(stem)}](#{_anchor(stem)}): "
            + ", ".join(f"[{claim.id}](#{claim.id})" for claim in groups[stem])
            for stem in stems
        ),
        "",
    ]
    for stem in stems:
        lines += [
            f'<a id="{_anchor(stem)}"></a>',
            "",
            f"## {_name(stem)}",
            "",
            *(_pictures(stem, figures) if stem else []),
        ]
        for claim in groups[stem]:
            lines += _section(claim, of, figures)
    return "\n".join(lines)


def _name(stem: str) -> str:
    return f"Figure `{stem}`" if stem else "Without a figure"


def _anchor(stem: str) -> str:
    return f"figure-{stem or 'none'}"


def _pictures(stem: str, figures: Path) -> list[str]:
    """Caption and origin of a figure, and one picture a profile side by side; "not run" where
    there is none."""
    there = [profile for profile in PROFILES if (figures / profile / f"{stem}.png").is_file()]
    lines = []
    for card in [
        figures / profile / f"{stem}.json"
        for profile in there
        if (figures / profile / f"{stem}.json").is_file()
    ][:1]:
        told = json.loads(card.read_text(encoding="utf-8"))
        lines += [f"- what it shows: {told['caption']}"] if "caption" in told else []
        executed = _links(figures, f"notebooks/{told['notebook']}.ipynb")
        lines.append(
            f"- drawn by notebook {told['notebook']}"
            + (f", as it ran: {executed}" if executed else "")
        )
    for profile in there:
        card = figures / profile / f"{stem}.json"
        told = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
        if moved := raised(told.get("recipes", [])):
            lines.append(f"- awaiting redraw on {PROFILES[profile]}: {', '.join(moved)}")
    data = _links(figures, f"by_seed/{stem}.csv", f"{stem}.csv")
    lines += [f"- what is drawn, every seed: {data}", ""] if data else [""]
    cells = [
        (
            f'<a href="{p}/{stem}.png"><img src="{p}/{stem}.png" width="{WIDTH // len(there)}" '
            f'alt="{escape(stem)} on {p}"></a>'
        )
        if p in there
        else "not run"
        for p in PROFILES
    ]
    return [
        *lines,
        "<table>",
        "<tr>" + "".join(f"<th>{name}</th>" for name in PROFILES.values()) + "</tr>",
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>",
        "</table>",
        "",
    ]


def _section(claim: Claim, of: Mapping[str, dict[str, Any]], figures: Path) -> list[str]:
    """What one claim says, how it is tested, and a row for each profile."""
    of_unit = unit(claim.measure)
    side = "above" if claim.kind in ABOVE else "below"
    lines = [
        f'<a id="{claim.id}"></a>',
        "",
        f"### {_statement(claim)}",
        "",
        f"- `{claim.id}`, from: {claim.where}",
        f"- primary test: {claim.test}",
        f"- kind of agreement: {claim.kind}, the interval lies {side} {claim.bound:g} {of_unit}",
        f"- paper, on CLIP: {claim.expected}",
        f"- designed in: {'yes' if claim.designed_in else 'no'}",
        *(["- this test was written after the first runs"] if claim.later else []),
    ]
    table = claim.table
    if table and (found := _links(figures, f"by_seed/{table}.csv", f"tables/{table}.csv")):
        lines.append(
            "- the figure does not show this very number, or not on every profile: see the table "
            f"`{table}` of {found}"
        )
    rows = [
        _row(_entry(of, profile, claim), of.get(profile), name, of_unit)
        for profile, name in PROFILES.items()
    ]
    return [
        *lines,
        "",
        *_table(["profile", "obtained", "interval", "each seed", "status"], rows),
        "",
    ]


def _row(
    entry: dict[str, Any] | None, part: dict[str, Any] | None, name: str, of_unit: str
) -> list[str]:
    if not entry or entry["obtained"] is None:
        return [name, "-", "-", "-", "not run"]
    values = ", ".join(
        f"{seed}: {value:.1f}"
        for seed, value in zip(part["seeds"], entry["values"], strict=True)
        if value is not None
    )
    interval = (
        f"{entry['low']:.1f} to {entry['high']:.1f}"
        if entry["low"] is not None
        else "none: one seed"
    )
    return [name, f"{entry['obtained']:.1f} {of_unit}", interval, values, entry["status"]]


# What both use


def _statement(claim: Claim) -> str:
    return claim.statement.rstrip(".")


def _entry(of: Mapping[str, dict[str, Any]], profile: str, claim: Claim) -> dict[str, Any] | None:
    return next(
        (entry for entry in of.get(profile, {}).get("claims", []) if entry["id"] == claim.id), None
    )


def _cell(entry: dict[str, Any] | None, of_unit: str) -> str:
    if not entry or entry["obtained"] is None:
        return "not run"
    interval = f" [{entry['low']:.1f} to {entry['high']:.1f}]" if entry["low"] is not None else ""
    return f"{entry['obtained']:.1f} {of_unit}{interval}: {entry['status']}"


def _title(of: Mapping[str, dict[str, Any]], profile: str) -> str:
    seeds = of[profile]["seeds"] if profile in of else []
    return PROFILES[profile] + (
        f" (seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))})" if seeds else ""
    )


def _table(titles: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in [titles, ["---"] * len(titles), *rows]]


def _links(figures: Path, *names: str) -> str:
    """Links to the first of these files that each profile has, by the profile's name; empty where
    none has any."""
    found = {
        p: [f"{p}/{name}" for name in names if (figures / p / name).is_file()] for p in PROFILES
    }
    return ", ".join(f"[{PROFILES[p]}]({paths[0]})" for p, paths in found.items() if paths)
