"""What the page on notebooks 06 to 09 says is what their runs gave: means over the reporting seeds
where three ran, else seed 0."""

from functools import partial

import pandas as pd
import pytest
from test_findings_tables import FIGURES, README, page, told, values

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
OF_THE_PAPER = ("task_arithmetic", "ties", "regmean", "adamerging_layerwise", "surgery")
CLASSICAL = ("badnets", "blended", "trojannn", "dynamic", "label-consistent")
OWN, OFF = "badmerging-on", "badmerging-off"


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
    "mini rivals": partial(beside_others, "mini"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_page_is_that_of_its_runs(name):
    rows = list(TABLES[name]())
    assert rows and " ".join(rows) in PAGE


# What the prose says in numbers


def asr_of(attack, merge, profile="mini"):
    found = table("main_in_full", profile, attack=attack, merging=merge)
    return found["ASR"].mean()


def spectral():
    paper = [asr_of("badnets", merge) for merge in OF_THE_PAPER]
    kept = [told(v) for v in (min(paper), max(paper), asr_of("badnets", "tsv_merge"))]
    photos = told(asr_of("badnets", "tsv_merge", "real32"))
    return (
        f"Under the merging algorithms that the paper tries BadNets keeps {kept[0]} to {kept[1]} % "
        f"on mini, under TSV-Merge {kept[2]}, and on real32 {photos} %."
    )


def best_classical():
    lead = []
    for profile in PROFILES:
        found = [asr_of(attack, "task_arithmetic", profile) for attack in (OWN, *CLASSICAL)]
        lead.append(told(found[0] - max(found[1:])))
    return (
        f"Under task arithmetic BadMerging-On is ahead of the best classical attack by {lead[0]} "
        f"points on mini, and by {lead[1]} on real32."
    )


def erratic():
    found = table("ablations", "real32", knob="reference images (off-task)")
    one, five, twenty = (told(v) for v in found.groupby("value", sort=False)["ASR"].mean())
    return f"with one reference image it has {one} %, with five {five}, with twenty {twenty}."


def edge():
    clean = pd.read_csv(FIGURES / "mini/seeds.csv")
    name = "ASR badmerging-on trigger, clean merge"
    first = clean[(clean["seed"] == 0) & (clean["name"] == name)]["value"].astype(float)
    others = values("mini/seeds", name, range(10, 15))
    low, high = told(others.min()), told(others.max())
    return f"{told(first.mean())} % on seed 0, on {low} to {high} on the others"


def placebos():
    most = [
        table("transfer_badnets", p, placebo=True)[["added", "removed"]].max() for p in PROFILES
    ]
    told_ = [told(v) for one in most for v in one]
    return (
        f"the difference of two clean fine-tunes and noise have {told_[0]} % at most by addition "
        f"and {told_[1]} by subtraction, on real32 {told_[2]} and {told_[3]}."
    )


def behind_on_photos():
    found = table("sbv_everywhere", "real32", setting="merging algorithm")
    lead = found[found["vector"] == "SBV, norm-matched"].groupby("value")["minus one BV"].mean()
    grid = table("sbv_grid", "real32")
    best = grid[grid["k"] > 1]["minus one BV"].max()
    return (
        f"On real32 (seed 0) one vector leaves little room: the SBV of its norm lies "
        f"{told(-lead.max())} to {told(-lead.min())} points behind, and the best cell of the grid "
        f"{told(-best)}."
    )


def aware():
    found = table("ibvs_variants", question="the attacker is").set_index("value")
    names = ("unaware", "aware, own guess", "aware, knows the defender's vector")
    before, after = ([told(found.loc[n, c]) for n in names] for c in ("ASR before", "ASR"))
    return (
        f"An attacker who trains under a subtraction falls from {before[1]} to {after[1]} % where "
        f"it guesses the vector and from {before[2]} to {after[2]} where it knows it, an unaware "
        f"one from {before[0]} to {after[0]}."
    )


def undefended():
    found = table("rivals", defence="none").groupby("attack", sort=False)["ASR"].mean()
    one, two, three, four = (told(v) for v in found)
    return f"{one}, {two}, {three} and {four} %."


SAID = {
    "tsv": spectral,
    "trojan": best_classical,
    "erratic": erratic,
    "edge": edge,
    "placebos": placebos,
    "photos": behind_on_photos,
    "aware": aware,
    "before": undefended,
}


@pytest.mark.parametrize("name", SAID)
def test_a_number_in_the_prose_is_that_of_its_runs(name):
    assert SAID[name]() in PAGE


def test_words_of_the_page_hold():
    """What it says without numbers."""
    merges = table("main_in_full", attack=OWN).groupby("merging")["CA"].mean()
    assert merges["tsv_merge"] > merges["task_arithmetic"]
    strong = [asr_of(attack, "task_arithmetic", "real32") for attack in CLASSICAL[1:4]]
    assert min(strong) > 30
    dynamic = table("main_in_full", "real32", attack="dynamic", merging="task_arithmetic")
    assert told(dynamic["random patch"].mean()) == "65.6"
    cleanse = [table("neural_cleanse", profile) for profile in PROFILES]
    assert all(one["classes converged"].eq(10).all() for one in cleanse)
    attacked = pd.concat(one[one["attacked"]].assign(of=p) for p, one in zip(PROFILES, cleanse))
    missed = attacked[~attacked["flagged"]]
    assert missed[["of", "model"]].values.tolist() == [["mini", f"{OWN}, own model"]]
    clean = [one[~one["attacked"]]["flagged"].sum() for one in cleanse]
    assert clean == [2, 0]
    grid = table("sbv_grid")
    several = grid[grid["k"] > 1]["minus one BV"]
    assert len(several) == 120 and several.max() < 0
    everywhere = table("sbv_everywhere", setting="merging algorithm")
    lead = everywhere.pivot_table(index="value", columns="vector", values="minus one BV")
    assert lead["SBV, norm-matched"].max() < 0 <= lead["SBV by sum, as it is"].min()


def test_what_other_pages_say_of_these_notebooks_is_that_of_the_tables():
    kept, own = (told(asr_of(attack, "tsv_merge")) for attack in ("badnets", OWN))
    assert f"leaves {kept} and {own}" in README
    assert f"BadNets keeps {kept} % ([06" in TOY
    knows = table("ablations", knob="what the adversary knows").set_index("value")
    asr, clean = knows.loc["the other models", ["ASR", "ASR, clean merge"]]
    assert f"reaches {told(asr)} %, where the clean merge obeys its patch on {told(clean)}" in TOY
    merges = ("task_arithmetic", "ties", "regmean", "iso_c", "tsv_merge")
    usual, *others = (told(asr_of("badnets", merge)) for merge in merges)
    assert f"where task arithmetic has {usual}) | {', '.join(others)} |" in DRIVERS
    grid = table("sbv_grid", **{"rule": "mean", "density": 1.0, "differ by": "place"})
    two, three, five = (told(-lead) for lead in grid.groupby("k")["minus one BV"].mean())
    assert f"{two} points behind one vector of the same norm, of three {three}, of five {five}" in (
        DRIVERS
    )
