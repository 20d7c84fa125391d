"""The claims as Markdown: ten of them for the README, and the page ``figures/claims.md`` with
each figure beside its claims.

Both are made from {profile: ``report.summary`` of its committed runs}; a profile that is not in
there was not run.
"""

from collections import Counter
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from bvlib.core.versions import raised
from bvlib.files.safe import read_json_if
from bvlib.report.claims import ABOVE, CLAIMS, DESIGNED, MEASURES, STATUSES, Claim, unit
from bvlib.report.tables import markdown, seeds_in_words
from bvlib.run import settings

PROFILES = {  # whose runs are committed, and what each is called
    "mini": "mini",
    "old_base": "mini, old base",
    "real32": "real32",
    "old_real32": "real32, old base",
    "paper": "paper profile",
}
OLD = {"mini": "old_base", "real32": "old_real32"}  # rows of an earlier base, by profile
SHOWN = (  # what the README shows of the claims
    "badmerging-classical-diluted",
    "badmerging-beats-classical",
    "badmerging-adds-to-clean-merge",
    "badmerging-keeps-utility",
    "inherent-is-the-core",
    "inherent-is-the-core-any-merge",
    "bv-asr-rises",
    "sbv-beats-single",
    "sbv-as-it-is",
    "ibvs-weakens-badmerging",
)
WIDTH = 840  # pixels that the pictures of one figure share


PAGE = """\
# The claims of both papers, each beside its figure

{counts}

Each claim has one primary test, written before the run unless it says otherwise; four rules that \
tests rest on were mended after first results: at which scale the SBV is compared (03; now fixed \
on development seeds), which λ IBVS tries, which placebo it has to beat, and that it has to take \
off more than a point (05). It has the \
*same direction* if the 95 % t-interval over seeds \
lies wholly on the side that the test asks for, it *differs* if the interval lies wholly on the \
other, else (and with a single seed) it is *inconclusive*. *No room*: what it speaks of hardly \
happens on that base, or in full already. All seeds of a profile share one base. \
The papers' numbers are for CLIP at 224 px: they are shown, never tested here. *Designed in* marks \
what the choice of the base, or in part its training, already asked for. Pictures show seed 0, \
which claims on mini are not read from. Written by `bv publish`.

## What depends on the base

Claims that came out otherwise on the old base of a profile ([how the bases \
compare](admission/README.md)). Beside the base, the recipe of fine-tuning, seeds and versions of \
some methods differ. A claim that one of them leaves inconclusive may still agree. Where our test \
was changed in between, a claim is left out.

{by_base}

## Each claim

{contents}

{figures}
"""
CLAIM = """\
<a id="{claim.id}"></a>

### {statement}

- `{claim.id}`, from: {claim.where}
- primary test: {claim.test}
- kind of agreement: {claim.kind}, the interval lies {asked}
- paper, on CLIP: {claim.expected}
- designed in: {designed}
{notes}
{table}"""

# The table


def claims_table(of: Mapping[str, dict[str, Any]]) -> str:
    """:data:`SHOWN` claims with what each committed profile makes of them, as Markdown.

    A claim links to its place on the page, from where the README lies. Old bases are left out.
    """
    rows, profiles = [], [profile for profile in of if profile not in OLD.values()]
    for claim in (each for name in SHOWN for each in CLAIMS if each.id == name):
        link = f"[{_statement(claim)}](figures/claims.md#{claim.id})"
        found = [_cell(_entry(of, profile, claim), unit(claim.measure)) for profile in profiles]
        told = [link + DESIGNED[claim.designed_in], claim.expected, _asked(claim), *found]
        rows.append(told)
    titles = ["claim", "paper, on CLIP", "we ask for", *(_title(of, p) for p in profiles)]
    return "\n".join([*markdown(titles, rows), ""])


def _asked(claim: Claim) -> str:
    """On which side of its bound the interval of a claim has to lie: "below 30 %"."""
    side = "above" if claim.kind in ABOVE else "below"
    what = unit(claim.measure)
    return f"{side} {claim.bound:g} {'point' if (claim.bound, what) == (1, 'points') else what}"


def counts(of: Mapping[str, dict[str, Any]]) -> str:
    """How many claims have which status on each profile, as one sentence."""
    told = []
    for profile, name in PROFILES.items():
        counted = Counter(claim["status"] for claim in of.get(profile, {}).get("claims", []))
        found = ", ".join(f"{counted[status]} {status}" for status in STATUSES if counted[status])
        told.append(f"{found} on {name}" if found else f"{name} not run")
    return f"{len(CLAIMS)} tests: {'; '.join(told)}."


def _title(of: Mapping[str, dict[str, Any]], profile: str) -> str:
    seeds = of.get(profile, {}).get("seeds")
    return PROFILES[profile] + (f" ({seeds_in_words(seeds)})" if seeds else "")


def _cell(entry: dict[str, Any] | None, of_unit: str) -> str:
    if not entry or entry["status"] == "no room":
        return entry["status"] if entry else "not run"
    ends = _interval(entry).replace(" to ", ", ")
    between = f" [{ends}]" if ends else " (one seed)"
    there = sum(value is not None for value in entry["values"])
    fewer = f" ({there} seeds)" if 1 < there < len(entry["values"]) else ""
    return f"{entry['obtained']:.1f} {of_unit}{between}: {entry['status']}{fewer}"


# The page


def claims_page(of: Mapping[str, dict[str, Any]], figures: Path) -> str:
    """The page as Markdown, to be written into `figures`, the folder that holds
    ``<profile>/<figure>.png``.

    A section for each figure: its pictures side by side, then the claims that it shows. Only files
    that exist are linked.
    """
    groups: dict[str, list[Claim]] = {}
    for claim in CLAIMS:
        groups.setdefault(claim.figure, []).append(claim)
    contents, sections = [], []
    for stem, group in groups.items():
        name, anchor = f"Figure `{stem}`", f"figure-{stem}"
        links = ", ".join(f"[{claim.id}](#{claim.id})" for claim in group)
        contents.append(f"- [{name}](#{anchor}): {links}")
        sections += [f'<a id="{anchor}"></a>', f"## {name}", _pictures(stem, figures)]
        sections += [_section(claim, of, figures) for claim in group]
    moved = "\n".join(by_base(of))
    listed = {"by_base": moved, "contents": "\n".join(contents), "figures": "\n\n".join(sections)}
    return PAGE.format(counts=counts(of), **listed)


def by_base(of: Mapping[str, dict[str, Any]]) -> list[str]:
    """For each profile with two bases a table: a row for each claim that was measured on both with
    two statuses, those first that agree on one and differ on the other; without those whose test
    was changed in between."""
    lines = []
    for pair in OLD.items():
        rows = []
        for claim in CLAIMS:
            now, old = (_entry(of, profile, claim) for profile in pair)
            if now and old and not claim.changed and now["status"] != old["status"]:
                link = f"[{_statement(claim)}](#{claim.id})"
                vague = bool({"inconclusive", "no room"} & {now["status"], old["status"]})
                rows.append((vague, [link, *(_cell(e, unit(claim.measure)) for e in (now, old))]))
        if rows:
            rows.sort(key=lambda row: row[0])
            titles = ["claim", *(_title(of, profile) for profile in pair)]
            lines += [*markdown(titles, [row for _, row in rows]), ""]
    return lines[:-1] or ["None."]


def _pictures(stem: str, figures: Path) -> str:
    """Caption and origin of a figure, and one picture a profile side by side; "not run" where
    there is none."""
    there = [profile for profile in PROFILES if (figures / profile / f"{stem}.png").is_file()]
    found = {profile: read_json_if(figures / profile / f"{stem}.json") for profile in there}
    cards = {profile: card for profile, card in found.items() if card}
    lines = []
    for told in list(cards.values())[:1]:
        lines += [f"- what it shows: {told['caption']}"] if "caption" in told else []
        executed = _links(figures, f"notebooks/{told['notebook']}.ipynb")
        as_it_ran = f", as it ran: {executed}" if executed else ""
        lines.append(f"- drawn by notebook {told['notebook']}{as_it_ran}")
    for profile, told in cards.items():
        if moved := raised(told.get("recipes", [])):
            lines.append(f"- awaiting redraw on {_drawn_on(profile, told)}: {', '.join(moved)}")
    data = _links(figures, f"by_seed/{stem}.csv", f"{stem}.csv")
    lines += [f"- what is drawn, every seed: {data}"] if data else []

    def cell(profile: str) -> str:
        path, alt = f"{profile}/{stem}.png", f"{escape(stem)} on {profile}"
        image = f'<img src="{path}" width="{WIDTH // len(there)}" alt="{alt}">'
        return f'<td><a href="{path}">{image}</a></td>'

    cells = [cell(p) for p in there] or ["<td>no picture yet</td>"]
    titles = [f"<th>{_drawn_on(p, found[p] or {})}</th>" for p in there]
    table = ["<table>", f"<tr>{''.join(titles)}</tr>", f"<tr>{''.join(cells)}</tr>", "</table>"]
    return "\n".join([*lines, "", *table])


def _drawn_on(profile: str, card: Mapping[str, Any]) -> str:
    """What a profile is called under a picture with this card, which may show an earlier base."""
    base = card.get("parameters", {}).get("base")
    earlier = base and profile in OLD and base != settings.load(profile)["base"]
    return PROFILES[OLD[profile] if earlier else profile]


def _section(claim: Claim, of: Mapping[str, dict[str, Any]], figures: Path) -> str:
    """What one claim says, how it is tested, and a row for each profile."""
    notes = ["- this test was written after the first runs"] if claim.later else []
    if room := claim.room:
        ends = [f"at {end} {room[end]:g}" for end in ("least", "most") if end in room]
        needed = f"{' and '.join(ends)} {unit(room['measure'])}"
        notes.append(f"- it needs room: *{MEASURES[room['measure']].what}* of {needed}")
    notes += [f"- note: {claim.note}"] if claim.note else []
    table = claim.table
    if table and (found := _links(figures, f"by_seed/{table}.csv", f"tables/{table}.csv")):
        which = "the figure does not show this very number, or not on every profile"
        notes.append(f"- {which}: see the table `{table}` of {found}")
    rows = []
    for profile, name in PROFILES.items():
        row = [name, "-", "-", "-", "not run"]
        if entry := _entry(of, profile, claim):
            each = zip(of[profile]["seeds"], entry["values"], strict=True)
            values = ", ".join(f"{seed}: {value:.1f}" for seed, value in each if value is not None)
            value = f"{entry['obtained']:.1f} {unit(claim.measure)}"
            row = [name, value, _interval(entry) or "none: one seed", values, entry["status"]]
        rows.append(row)
    return CLAIM.format(
        claim=claim,
        statement=_statement(claim),
        asked=_asked(claim),
        designed=claim.designed_in,
        notes="".join(f"{note}\n" for note in notes),
        table="\n".join(markdown(["profile", "obtained", "interval", "each seed", "status"], rows)),
    )


def _links(figures: Path, *names: str) -> str:
    """Links to the first of these files that each profile has, by the profile's name; empty where
    none has any."""
    found = {}
    for profile in PROFILES:
        found[profile] = [f"{profile}/{n}" for n in names if (figures / profile / n).is_file()]
    return ", ".join(f"[{PROFILES[p]}]({paths[0]})" for p, paths in found.items() if paths)


# What both use


def _statement(claim: Claim) -> str:
    return claim.statement.rstrip(".")


def _entry(of: Mapping[str, dict[str, Any]], profile: str, claim: Claim) -> dict[str, Any] | None:
    """What a profile gave for a claim; None if that is nothing."""
    entries = of.get(profile, {}).get("claims", [])
    given = (e for e in entries if e["id"] == claim.id and e["obtained"] is not None)
    return next(given, None)


def _interval(entry: dict[str, Any]) -> str:
    return "" if entry["low"] is None else f"{entry['low']:.1f} to {entry['high']:.1f}"
