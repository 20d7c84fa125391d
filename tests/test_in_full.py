"""The tables of the page on notebooks 06 to 09 are those of their runs, means over the seeds that
ran."""

import pandas as pd
import pytest
from test_findings_tables import FIGURES, page, told

PAGE = page("book/results/in-full.md")
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


def parts(profile):
    """A row a part of BadMerging: what it brings at λ = 0.3 and 0.5."""
    for (attack, part), one in table("parts", profile).groupby(
        ["attack", "part taken out"], sort=False
    ):
        what = "On" if attack.endswith("-on") else "Off"
        yield line(f"{what}: {part}", one.groupby("λ")["difference"].mean())


def knob(profile, name, attack):
    """Two rows, attacked and clean, of the ASR by the values of a knob."""
    found = table("ablations", profile, knob=name, attack=attack)
    means = found.groupby("value", sort=False)[["ASR", "ASR, clean merge"]].mean()
    yield line("attacked", means["ASR"])
    yield line("clean merge, same trigger", means["ASR, clean merge"])


def cleansed(profile):
    """A row a model: its anomaly index, and which class stands out on how many seeds."""
    for model, one in table("neural_cleanse", profile).groupby("model", sort=False):
        yield line(model, [one["anomaly index"].mean()])[:-1] + f"| {classes(one)} |"


def classes(one):
    return ", ".join(one["class that stands out"].unique())


TABLES = {"attacks": attacks_by_merge, "goals": off_goals, "parts": parts, "cleanse": cleansed}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_page_is_that_of_its_runs(name, profile):
    for row in TABLES[name](profile):
        assert row in PAGE
