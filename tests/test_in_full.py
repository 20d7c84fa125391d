"""The tables of the page on notebooks 06 to 09 are those of their runs: means over the reporting
seeds where three ran, else seed 0."""

from functools import partial

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
CLASSICAL = ("badnets", "blended", "trojannn", "dynamic", "label-consistent")
OWN = "badmerging-on"


def table(name, profile="mini", **where):
    """A table by seed, where its columns have these values."""
    found = pd.read_csv(FIGURES / f"{profile}/by_seed/{name}.csv")
    reporting = found["seed"].between(10, 99)
    found = found[reporting if found[reporting]["seed"].nunique() >= 3 else found["seed"] == 0]
    for column, value in where.items():
        found = found[found[column] == value]
    return found


def line(name, numbers):
    return f"| {name} | {' | '.join(told(each) for each in numbers)} |"


def attacks_by_merge(profile):
    """A row a merge: ASR of each attack, BadMerging-On's trigger on the clean merge, CA."""
    alone = table("alone", profile).groupby("attack")[["ASR, own model", "ASR, clean fine-tune"]]
    means = alone.mean()
    own = [*means.loc[[*CLASSICAL, OWN], "ASR, own model"], means.loc[OWN, "ASR, clean fine-tune"]]
    yield f"{line('alone', own)} |"
    found = table("main_in_full", profile).pivot_table(index="merging", columns="attack")
    for merge, name in MERGES.items():
        one = found.loc[merge]
        clean = one["ASR, clean merge", OWN], one["CA", OWN]
        yield line(name, [*(one["ASR", attack] for attack in (*CLASSICAL, OWN)), *clean])


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
        what = "On" if attack == OWN else "Off"
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


def pruned():
    """A row a merge of each profile: ASR of BadMerging-On's trigger after each half of
    Fine-Pruning."""
    for profile in PROFILES:
        found = table("fine_pruning", profile, trigger=OWN)
        for model in (f"{OWN}, merge", "clean merge"):
            one = found[found["model"] == model].groupby("defence", sort=False)["ASR"].mean()
            name = f"{profile}, {model.replace(OWN, 'BadMerging-On')}"
            yield line(name, one[["nothing", "prune", "tune", "prune and tune"]])


def scaled():
    """A row an attack of each profile: AUROC of Scale-Up, with two decimals."""
    for profile in PROFILES:
        found = table("scale_up", profile).groupby("model").mean(numeric_only=True)
        for attack, name in (("badnets", "BadNets"), (OWN, "BadMerging-On")):
            trigger, merge = found["AUROC, trigger"], f"{attack}, merge"
            clean = f"{trigger['clean merge']:.2f}" if attack == OWN else "not run"
            random = found.loc[merge, "AUROC, random patch"]
            each = f"{trigger[f'{attack}, own model']:.2f} | {trigger[merge]:.2f}"
            yield f"| {profile}, {name} | {each} | {clean} | {random:.2f} |"


def sbv_by_merge(profile):
    """A row a merge: one BV, the SBV at its norm and as it is, the sum, and the clean merge."""
    found = table("sbv_everywhere", profile, setting="merging algorithm")
    asr = found.pivot_table(index="value", columns="vector", values="ASR")
    clean = found.groupby("value")["ASR, clean merge"].mean()
    vectors = ("one BV", "SBV, norm-matched", "SBV, as it is", "SBV by sum, as it is")
    for merge, name in MERGES.items():
        yield line(name, [*(asr.loc[merge, vector] for vector in vectors), clean[merge]])


def transferred():
    """A row an axis: how much of its own vector's effect another vector of BadNets has, added and
    subtracted, in percent, on each profile."""
    found = [
        table("transfer_badnets", profile, placebo=False, itself=False) for profile in PROFILES
    ]
    for axis in found[0]["axis"].unique():
        means = [one.loc[one["axis"] == axis, ["added", "removed"]].mean() for one in found]
        yield line(axis, [v for one in means for v in one])


def by_count(profile):
    """A row a way of differing: lead of dense means of 2, 3, 5 and 8 vectors over one BV."""
    found = table("sbv_grid", profile, rule="mean", density=1.0)
    for by, one in found.groupby("differ by", sort=False):
        lead = one.groupby("k")["minus one BV"].mean()
        row = line(f"of other {by}s", lead)
        yield row if len(lead) == 4 else f"{row} – |"


def defended(profile):
    """A row a merge: ASR of BadMerging-On before, and the points that the mean vector, one vector
    and the placebo take off; (0) where the rule allows no subtraction."""
    found = table("ibvs_by_merging", profile, attack=OWN)
    drop = found.pivot_table(index="merging", columns="defender", values=["ASR drop", "scale"])
    before = found.groupby("merging")["ASR before"].mean()
    who = ("IBVS, mean vector", "IBVS, one class", "placebo (two clean seeds)")
    for merge, name in MERGES.items():
        one = drop.loc[merge]
        cells = [told(one["ASR drop", w]) if one["scale", w] else "(0)" for w in who]
        yield f"| {name} | {told(before[merge])} | {' | '.join(cells)} |"


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
    "tasks": partial(knob, "merged tasks", OWN),
    "single": partial(knob, "models of one task, averaged", "badnets", OWN),
    "informed": partial(knob, "what the adversary knows", OWN),
    "alpha": partial(knob, "weight α", OWN),
    "cleanse": cleansed,
    "pruned": pruned,
    "scaled": scaled,
    "mini sbv": partial(sbv_by_merge, "mini"),
    "transfer": transferred,
    "mini count": partial(by_count, "mini"),
    "mini defended": partial(defended, "mini"),
    **{f"{profile} rivals": partial(beside_others, profile) for profile in PROFILES},
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_page_is_that_of_its_runs(name):
    rows = list(TABLES[name]())
    assert rows and " ".join(rows) in PAGE
