"""All committed profiles at a glance, from their ``seeds.csv`` alone: the picture
``figures/overview``, the claims' table and page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from bvlib.core.metrics import seed_interval
from bvlib.files.safe import file_sha256, write_whole
from bvlib.report.page import claims_page, claims_table
from bvlib.report.reference import committed, folder
from bvlib.report.summary import summary
from bvlib.run.notebooks import root_folder, shown
from bvlib.study import figures

PROFILES = {"mini": "toy world", "real32": "real images"}
ATTACKS = {"badnets": "BadNets", "badmerging-on": "BadMerging-On"}
ROWS = [  # what is shown, its headline in notebook 01, its colour
    ("alone", "ASR {}, alone", "attack"),
    ("merged (task arithmetic)", "ASR {}, merged", "attack"),
    ("merged (TIES)", "ASR {}, merged by TIES", "attack"),
    ("same trigger, clean merge (task arithmetic)", "ASR {} trigger, clean merge", "clean"),
    ("same trigger, clean merge (TIES)", "ASR {} trigger, clean merge by TIES", "clean"),
    ("same trigger, base", "ASR {} trigger, base", "base"),
    ("random patch (task arithmetic)", "ASR random patch, merge with {}", "random"),
]
BEGIN, END = "<!-- claims: written by bv publish -->", "<!-- /claims -->"


def summaries() -> dict[str, dict[str, Any]]:
    """{profile: the summary of its committed runs} for those of :data:`PROFILES` that are
    committed."""
    return {profile: summary(runs) for profile in PROFILES if (runs := committed(profile))}


def asr_rows(of: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Columns profile, attack, what, seed, asr (%) for each bar of the picture; what was not
    measured is left out."""
    rows = [
        (profile, attack, what, seed, asr)
        for profile, part in of.items()
        for attack in ATTACKS
        for what, headline, _ in ROWS
        for seed, asr in zip(
            part["seeds"],
            part["headline"].get(headline.format(attack), {}).get("values", []),
            strict=False,
        )
        if asr is not None
    ]
    return pd.DataFrame(rows, columns=["profile", "attack", "what", "seed", "asr"])


def draw(rows: pd.DataFrame):
    """One panel a profile: bars are means over seeds, with their 95 % t-interval, and each seed is
    a point."""
    shown_profiles = list(rows["profile"].unique())
    order, roles = (
        {what: i for i, (what, _, _) in enumerate(ROWS)},
        {what: role for what, _, role in ROWS},
    )
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
                ax.errorbar(
                    mean,
                    at,
                    xerr=[[max(mean - low, 0)], [max(high - mean, 0)]],
                    fmt="none",
                    ecolor="black",
                    lw=0.8,
                )
            ax.text(105, at, f"{mean:.1f}", va="center", fontsize=7.5)
        for attack in part["attack"].unique():
            ax.text(
                0,
                tops[attack] + 0.85,
                ATTACKS[attack],
                fontweight="bold",
                fontsize=8.5,
                va="center",
            )
        ax.set(
            yticks=list(ticks),
            yticklabels=list(ticks.values()),
            xlim=(0, 118),
            ylim=(min(ticks) - 0.7, 1.4),
            xlabel="ASR (%): mean, 95 % interval, seeds",
            title=f"{profile}: {PROFILES[profile]}, {_seeds(sorted(part['seed'].unique()))}",
        )
        ax.set_xticks(range(0, 101, 25))
        ax.grid(axis="y", visible=False)
    return fig


def _seeds(seeds: list[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def write(say: Callable[[str], Any] = print) -> list[Path]:
    """Write ``figures/overview`` (picture, data, provenance), the page ``figures/claims.md``, and
    the table of claims into README.md.

    In the README it goes between the lines :data:`BEGIN` and :data:`END`; `say` tells when they
    are not there. Nothing is written as long as none of :data:`PROFILES` is committed. The paths
    written are returned.
    """
    of, root = summaries(), root_folder()
    if not of:
        return []
    rows, page, written = (
        asr_rows(of),
        claims_page(of, root / "figures"),
        [root / "figures" / "claims.md"],
    )
    write_whole(written[0], lambda draft: draft.write_text(page, encoding="utf-8"))
    if len(rows):
        card = {
            "caption": "ASR (%) of each attack and its controls; bar: mean over seeds, line: 95 % "
            "t-interval, points: seeds",
            "profiles": {
                profile: {
                    "seeds": part["seeds"],
                    "seeds.csv": file_sha256(folder(profile) / "seeds.csv"),
                }
                for profile, part in of.items()
            },
        }
        written += figures.save(draw(rows), root / "figures" / "overview", rows, card)
    readme = root / "README.md"
    if not replace_between(readme, BEGIN, END, claims_table(of)):
        say(
            f"the claims are in {shown(written[0])} only: README.md lacks the lines {BEGIN} and "
            f"{END}"
        )
        return written
    return [*written, readme]


def replace_between(path: Path, begin: str, end: str, text: str) -> bool:
    """Put `text` between the lines `begin` and `end` of a file; False, and nothing is written,
    when they are not there."""
    before, found, rest = (path.read_text(encoding="utf-8") if path.is_file() else "").partition(
        begin
    )
    _, closed, after = rest.partition(end)
    if closed:
        write_whole(
            path,
            lambda draft: draft.write_text(
                f"{before}{found}\n{text}{closed}{after}", encoding="utf-8"
            ),
        )
    return bool(closed)
