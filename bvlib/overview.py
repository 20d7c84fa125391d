"""All committed profiles at a glance, from their ``seeds.csv`` alone: the picture ``figures/overview`` and the table of claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from . import figures
from .claims import CLAIMS, STATUSES
from .files import file_sha256, write_whole
from .metrics import seed_interval
from .notebook import root_folder, shown
from .reference import committed, folder
from .report import summary
from .runs import unit

PROFILES = {"mini": "toy world", "real32": "real images"}
ATTACKS = {"badnets": "BadNets", "badmerging-on": "BadMerging-On"}
ROWS = [  # what is shown, its headline in notebook 01, its colour
    ("alone", "ASR {}, alone", "attack"), ("merged (task arithmetic)", "ASR {}, merged", "attack"),
    ("merged (TIES)", "ASR {}, merged by TIES", "attack"),
    ("same trigger, clean merge (task arithmetic)", "ASR {} trigger, clean merge", "clean"),
    ("same trigger, clean merge (TIES)", "ASR {} trigger, clean merge by TIES", "clean"),
    ("same trigger, base", "ASR {} trigger, base", "base"),
    ("random patch (task arithmetic)", "ASR random patch, merge with {}", "random"),
]
BEGIN, END = "<!-- claims: written by bv publish -->", "<!-- /claims -->"


def summaries() -> dict[str, dict[str, Any]]:
    """{profile: the summary of its committed runs} for those of :data:`PROFILES` that are committed."""
    return {profile: summary(runs) for profile in PROFILES if (runs := committed(profile))}


def asr_rows(of: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Columns profile, attack, what, seed, asr (%) for each bar of the picture; what was not measured is left out."""
    rows = [(profile, attack, what, seed, asr)
            for profile, part in of.items() for attack in ATTACKS for what, headline, _ in ROWS
            for seed, asr in zip(part["seeds"], part["headline"].get(headline.format(attack), {}).get("values", []), strict=False)
            if asr is not None]
    return pd.DataFrame(rows, columns=["profile", "attack", "what", "seed", "asr"])


def draw(rows: pd.DataFrame):
    """One panel a profile: bars are means over seeds, with their 95 % t-interval, and each seed is a point."""
    shown_profiles = list(rows["profile"].unique())
    order, roles = {what: i for i, (what, _, _) in enumerate(ROWS)}, {what: role for what, _, role in ROWS}
    tops = {attack: -i * (len(ROWS) + 1.2) for i, attack in enumerate(ATTACKS)}
    fig, axes = figures.grid(len(shown_profiles), width=5.2, height=4.2)
    for ax, profile in zip(axes, shown_profiles, strict=True):
        part, ticks = rows[rows["profile"] == profile], {}
        for (attack, what), bar in part.groupby(["attack", "what"], sort=False):
            at = tops[attack] - order[what]
            mean, low, high = seed_interval(bar["asr"])
            ticks[at] = what
            ax.barh(at, mean, color=figures.ROLES[roles[what]], height=0.7, alpha=0.75)
            ax.plot(bar["asr"], [at] * len(bar), "o", color="black", mfc="white", ms=3.5, mew=0.8)
            if len(bar) > 1:
                low, high = max(low, 0), min(high, 100)
                ax.errorbar(mean, at, xerr=[[max(mean - low, 0)], [max(high - mean, 0)]], fmt="none", ecolor="black", lw=0.8)
            ax.text(105, at, f"{mean:.1f}", va="center", fontsize=7.5)
        for attack in part["attack"].unique():
            ax.text(0, tops[attack] + 0.85, ATTACKS[attack], fontweight="bold", fontsize=8.5, va="center")
        ax.set(yticks=list(ticks), yticklabels=list(ticks.values()), xlim=(0, 118), ylim=(min(ticks) - 0.7, 1.4),
               xlabel="ASR (%): mean, 95 % interval, seeds",
               title=f"{profile}: {PROFILES[profile]}, {_seeds(sorted(part['seed'].unique()))}")
        ax.set_xticks(range(0, 101, 25))
        ax.grid(axis="y", visible=False)
    return fig


def claims_table(of: dict[str, dict[str, Any]]) -> str:
    """Every claim with what each profile makes of it, as Markdown, after one line that counts the statuses."""
    by_id = {profile: {claim["id"]: claim for claim in part["claims"]} for profile, part in of.items()}
    counts = []
    for profile in PROFILES:
        statuses = Counter(claim["status"] for claim in by_id.get(profile, {}).values())
        told = ", ".join(f"{statuses[status]} {status}" for status in STATUSES if statuses[status])
        counts.append(f"{told} on {profile}" if told else f"{profile} not run")
    cells = [[f"{claim.statement.rstrip('.')}{' (designed in)' if claim.designed_in else ''}", claim.expected,
              *(_cell(by_id[profile][claim.id], unit(claim.measure)) if profile in of else "not run" for profile in PROFILES),
              "not run"] for claim in CLAIMS]
    titles = ["claim", "paper, on CLIP", *(_title(profile, of.get(profile)) for profile in PROFILES), "paper profile"]
    rows = [titles, ["---"] * len(titles), *cells]
    return "\n".join([f"{len(CLAIMS)} tests: {'; '.join(counts)}; paper profile not run. In brackets: 95 % t-interval over seeds, "
                      "which share one base.", "", *("| " + " | ".join(row) + " |" for row in rows), ""])


def _title(profile: str, part: dict[str, Any] | None) -> str:
    return f"{profile} ({_seeds(part['seeds'])})" if part else profile


def _seeds(seeds: list[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _cell(claim: dict[str, Any], of_unit: str) -> str:
    if claim["obtained"] is None:
        return claim["status"]
    interval = f" [{claim['low']:.1f} to {claim['high']:.1f}]" if claim["low"] is not None else ""
    return f"{claim['obtained']:.1f} {of_unit}{interval}: {claim['status']}"


def write(say: Callable[[str], Any] = print) -> list[Path]:
    """Write ``figures/overview`` (picture, data, provenance), ``figures/claims.md``, and the same table into README.md.

    In the README it goes between the lines :data:`BEGIN` and :data:`END`; `say` tells when they are not there. Nothing is
    written as long as none of :data:`PROFILES` is committed. The paths written are returned.
    """
    of, root = summaries(), root_folder()
    if not of:
        return []
    rows, table, written = asr_rows(of), claims_table(of), [root / "figures" / "claims.md"]
    write_whole(written[0], lambda draft: draft.write_text(table, encoding="utf-8"))
    if len(rows):
        card = {"caption": "ASR (%) of each attack and its controls; bar: mean over seeds, line: 95 % t-interval, points: seeds",
                "profiles": {profile: {"seeds": part["seeds"], "seeds.csv": file_sha256(folder(profile) / "seeds.csv")}
                             for profile, part in of.items()}}
        written += figures.save(draw(rows), root / "figures" / "overview", rows, card)
    readme = root / "README.md"
    if not replace_between(readme, BEGIN, END, table):
        say(f"the table of claims is in {shown(written[0])} only: README.md lacks the lines {BEGIN} and {END}")
        return written
    return [*written, readme]


def replace_between(path: Path, begin: str, end: str, text: str) -> bool:
    """Put `text` between the lines `begin` and `end` of a file; False, and nothing is written, when they are not there."""
    before, found, rest = (path.read_text(encoding="utf-8") if path.is_file() else "").partition(begin)
    _, closed, after = rest.partition(end)
    if closed:
        write_whole(path, lambda draft: draft.write_text(f"{before}{found}\n{text}{closed}{after}", encoding="utf-8"))
    return bool(closed)
