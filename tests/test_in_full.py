"""The tables of the page on notebooks 06 to 09 are those of their runs, means over the seeds that
ran."""

from functools import partial

import pandas as pd
import pytest
from test_findings_tables import FIGURES, README, page, told

PAGE = page("book/results/in-full.md")
TOY, DRIVERS = page("book/results/toy-world.md"), page("book/results/drivers.md")
PROFILES = ("mini", "real32")
MERGES = {
    "average": "Average",
    "task_arithmetic": "Task arithmetic",
    "ties": "TIES",
    "regmean": "RegMean",
    "adamerging_layerwise": "AdaMerging",
    "surgery": "Surgery",
    "iso_c": "Iso-C",
    "tsv_merge": "TSV-Merge",
}
ATTACKS = ("badnets", "blended", "trojannn", "dynamic", "label-consistent", "badmerging-on")


def table(name, profile="mini", **where):
    """A table by seed, where its columns have these values."""
    found = pd.read_csv(FIGURES / f"{profile}/by_seed/{name}.csv")
    for column, value in where.items():
        found = found[found[column] == value]
    return found


def line(name, numbers):
    return f"| {name} | {' | '.join(told(each) for each in numbers)} |"


def attacks_by_merge(profile):
    """A row a merge: ASR of each attack, BadMerging-On's trigger on the clean merge, CA."""
    found = table("main_in_full", profile).pivot_table(index="merging", columns="attack")
    for merge, name in MERGES.items():
        one = found.loc[merge]
        clean = one["ASR, clean merge", "badmerging-on"], one["CA", "badmerging-on"]
        yield line(name, [*(one["ASR", attack] for attack in ATTACKS), *clean])


def off_goals(profile):
    """A row a goal of the off-task attack: attacked, clean merge, base, random patch."""
    keys, shown = ["target task", "class"], ["ASR", "ASR, clean merge", "ASR, base", "random patch"]
    for (task, name), one in table("off_targets", profile).groupby(keys, sort=False):
        yield line(f"{task}: {name}", one[shown].mean())


def parts():
    """A row a part of BadMerging: what it brings at λ = 0.3 and 0.5 on each profile."""
    keys, found = ["attack", "part taken out", "λ"], []
    for profile in PROFILES:
        found.append(table("parts", profile).groupby(keys, sort=False)["difference"].mean())
    for attack, part in dict.fromkeys(key[:2] for key in found[0].index):
        what = "On" if attack.endswith("-on") else "Off"
        yield line(f"{what}: {part}", [v for one in found for v in one[attack, part]])


def knob(name, *attacks):
    """Rows of the ASR by the values of a knob: attacked and clean merge of each profile."""
    for profile in PROFILES:
        for attack in attacks:
            found = table("ablations", profile, knob=name, attack=attack)
            means = found.groupby("value", sort=False)[["ASR", "ASR, clean merge"]].mean()
            what = f"{profile}, {'BadNets' if attack == 'badnets' else 'BadMerging-On'}"
            yield line(what, means["ASR"])
            yield line(f"{what}, clean models only", means["ASR, clean merge"])


def cleansed():
    """A row a model: its anomaly index, and the class that stands out, on each profile."""
    found = [table("neural_cleanse", profile) for profile in PROFILES]
    for model in found[0]["model"].unique():
        cells = []
        for one in (each[each["model"] == model] for each in found):
            stand_out = ", ".join(one["class that stands out"].unique())
            cells.append(f"{told(one['anomaly index'].mean())} | {stand_out}")
        yield f"| {model} | {' | '.join(cells)} |"


def sbv_by_merge(profile):
    """A row a merge: one BV, the SBV at its norm and as it is, the sum, and the clean merge."""
    found = table("sbv_everywhere", profile, setting="merging algorithm")
    asr = found.pivot_table(index="value", columns="vector", values="ASR")
    clean = found.groupby("value")["ASR, clean merge"].mean()
    vectors = ("one BV", "SBV, norm-matched", "SBV, as it is", "SBV by sum, as it is")
    for merge, name in MERGES.items():
        yield line(name, [*(asr.loc[merge, vector] for vector in vectors), clean[merge]])


def transferred(profile):
    """A row an axis: how much of its own vector's effect another vector of BadNets has, added and
    subtracted, in percent."""
    found = table("transfer_badnets", profile, placebo=False, itself=False)
    for axis, one in found.groupby("axis", sort=False):
        yield line(axis, one[["added", "removed"]].mean())


def by_count(profile):
    """A row a way of differing: lead of dense means of 2, 3, 5 and 8 vectors over one BV."""
    found = table("sbv_grid", profile, rule="mean", density=1.0)
    for by, one in found.groupby("differ by", sort=False):
        lead = one.groupby("k")["minus one BV"].mean()
        yield line(f"of other {by}s", lead)


def defended(profile):
    """A row a merge: ASR of BadMerging-On before, and the points that the mean vector, one vector
    and the placebo take off."""
    found = table("ibvs_by_merging", profile, attack="badmerging-on")
    drop = found.pivot_table(index="merging", columns="defender", values="ASR drop")
    before = found.groupby("merging")["ASR before"].mean()
    who = ("IBVS, mean vector", "IBVS, one class", "placebo (two clean seeds)")
    for merge, name in MERGES.items():
        yield line(name, [before[merge], *(drop.loc[merge, each] for each in who)])


def beside_others(profile):
    """A row a defence: points that it takes off each attack, and its cost, averaged over them."""
    found = table("rivals", profile)
    for name, one in found[found["defence"] != "none"].groupby("defence", sort=False):
        drop = one.groupby("attack", sort=False)["ASR drop"].mean()
        yield line(name, [*drop, one["clean cost"].mean()])


TABLES = {
    **{f"{profile} attacks": partial(attacks_by_merge, profile) for profile in PROFILES},
    **{f"{profile} goals": partial(off_goals, profile) for profile in PROFILES},
    "parts": parts,
    "tasks": partial(knob, "merged tasks", "badmerging-on"),
    "single": partial(knob, "models of one task, averaged", "badnets", "badmerging-on"),
    "cleanse": cleansed,
    "mini sbv": partial(sbv_by_merge, "mini"),
    "mini transfer": partial(transferred, "mini"),
    "mini count": partial(by_count, "mini"),
    "mini defended": partial(defended, "mini"),
    "mini rivals": partial(beside_others, "mini"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_page_is_that_of_its_runs(name):
    rows = list(TABLES[name]())
    assert rows and " ".join(rows) in PAGE


def test_what_other_pages_say_of_these_notebooks_is_that_of_the_tables():
    spectral = table("main_in_full", merging="tsv_merge").groupby("attack")["ASR"].mean()
    kept, own = told(spectral["badnets"]), told(spectral["badmerging-on"])
    assert f"leaves {kept} and {own} (seed 0)" in README
    assert f"BadNets keeps {kept} % ([06, seed 0]" in TOY
    knows = table("ablations", knob="what the adversary knows").set_index("value")
    asr, clean = knows.loc["the other models", ["ASR", "ASR, clean merge"]]
    assert f"reaches {told(asr)} %, where the clean merge obeys its patch on {told(clean)}" in TOY
    grid = table("sbv_grid", **{"rule": "mean", "density": 1.0, "differ by": "place"})
    two, three, five = (told(-lead) for lead in grid.groupby("k")["minus one BV"].mean())
    assert f"{two} points behind one vector of the same norm, of three {three}, of five {five}" in (
        DRIVERS
    )
