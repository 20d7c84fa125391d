"""All committed profiles at a glance, from their ``seeds.csv`` alone: the picture
``figures/overview``, the claims' table and page."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from bvlib.core.metrics import seed_interval
from bvlib.files.safe import file_sha256, write_text
from bvlib.report.page import PROFILES, claims_page, claims_table
from bvlib.report.reference import reported, rows_path
from bvlib.report.summary import summary
from bvlib.report.tables import seeds_in_words
from bvlib.run.notebooks import root_folder, shown
from bvlib.study import figures

ATTACKS = {"badnets": "BadNets", "badmerging-on": "BadMerging-On"}
ROWS = [  # what is shown, its headline in notebook 01, its colour
    ("alone", "ASR {}, alone", "attack"),
    ("merged", "ASR {}, merged", "attack"),
    ("merged by TIES", "ASR {}, merged by TIES", "attack"),
    ("clean merge", "ASR {} trigger, clean merge", "clean"),
    ("clean merge by TIES", "ASR {} trigger, clean merge by TIES", "clean"),
    ("base", "ASR {} trigger, base", "base"),
    ("merged, random patch", "ASR random patch, merge with {}", "random"),
]
BEGIN, END = "<!-- claims: written by bv publish -->", "<!-- /claims -->"


def summaries() -> dict[str, dict[str, Any]]:
    """{profile: the summary of its committed runs} for those of :data:`PROFILES` that are
    committed."""
    return {profile: summary(runs) for profile in PROFILES if (runs := reported(profile))}


def asr_rows(of: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Columns profile, attack, what, seed, asr (%) for each bar of the picture; what was not
    measured is left out."""
    rows = []
    for profile, part in of.items():
        for attack, (what, headline, _) in itertools.product(ATTACKS, ROWS):
            values = part["headline"].get(headline.format(attack), {}).get("values", [])
            each = zip(part["seeds"], values)
            rows += [(profile, attack, what, seed, asr) for seed, asr in each if asr is not None]
    return pd.DataFrame(rows, columns=["profile", "attack", "what", "seed", "asr"])


def draw(rows: pd.DataFrame):
    """One panel a profile: bars are means over seeds, with their 95 % t-interval, and each seed is
    a point. Where no merge is named it is task arithmetic."""
    profiles = list(rows["profile"].unique())
    order = {what: i for i, (what, _, _) in enumerate(ROWS)}
    colours = {what: figures.ROLES[role] for what, _, role in ROWS}
    tops = {attack: -i * (len(ROWS) + 1.2) for i, attack in enumerate(ATTACKS)}
    fig, axes = figures.grid(len(profiles), width=3.3, height=4.2, sharey=True)
    ticks = {}
    for ax, profile in zip(axes, profiles, strict=True):
        part = rows[rows["profile"] == profile]
        for (attack, what), bar in part.groupby(["attack", "what"], sort=False):
            at = tops[attack] - order[what]
            mean, low, high = seed_interval(bar["asr"])
            ticks[at] = what
            ax.barh(at, mean, color=colours[what], height=0.7, alpha=0.75)
            ax.plot(bar["asr"], [at] * len(bar), "o", color="black", mfc="white", ms=3.5, mew=0.8)
            if len(bar) > 1:
                reach = [[max(mean - max(low, 0), 0)], [max(min(high, 100) - mean, 0)]]
                ax.errorbar(mean, at, xerr=reach, fmt="none", ecolor="black", lw=0.8)
            ax.text(105, at, f"{mean:.1f}", va="center", fontsize=9)
        for attack in part["attack"].unique():
            bold = {"fontweight": "bold", "fontsize": 9, "va": "center"}
            ax.text(0, tops[attack] + 0.85, ATTACKS[attack], **bold)
        seeds = seeds_in_words(sorted(part["seed"].unique()))
        ax.set(
            yticks=list(ticks),
            yticklabels=list(ticks.values()),
            xlim=(0, 124),
            ylim=(min(ticks) - 0.7, 1.4),
            xlabel="ASR (%)",
            title=f"{PROFILES[profile]}\n{seeds}",
        )
        ax.set_xticks(range(0, 101, 25))
        ax.tick_params(labelsize=9)
        ax.grid(axis="y", visible=False)
    return fig


def write(say: Callable[[str], Any] = print) -> None:
    """Write ``figures/overview`` (picture, data, provenance), the page ``figures/claims.md``, and
    the table of claims into README.md.

    In the README it goes between the lines :data:`BEGIN` and :data:`END`; `say` tells when they
    are not there. Nothing is written as long as none of :data:`PROFILES` is committed.
    """
    of, root = summaries(), root_folder()
    if not of:
        return
    rows, page = asr_rows(of), root / "figures" / "claims.md"
    write_text(page, claims_page(of, root / "figures"))
    if len(rows):
        origin = {
            profile: {"seeds": part["seeds"], "seeds.csv": file_sha256(rows_path(profile))}
            for profile, part in of.items()
        }
        caption = "ASR (%) of each attack and its controls; bar: mean over seeds, line: 95 % "
        caption += "t-interval, points: seeds"
        card = {"caption": caption, "profiles": origin}
        figures.save(root / "figures" / "overview", rows, card, draw)
    if not replace_between(root / "README.md", BEGIN, END, claims_table(of)):
        where = f"README.md lacks the lines {BEGIN} and {END}"
        say(f"the claims are in {shown(page)} only: {where}")


def replace_between(path: Path, begin: str, end: str, text: str) -> bool:
    """Put `text` between the lines `begin` and `end` of a file; False, and nothing is written,
    when they are not there."""
    whole = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, found, rest = whole.partition(begin)
    _, closed, after = rest.partition(end)
    if closed:
        write_text(path, f"{before}{found}\n{text}{closed}{after}")
    return bool(closed)
