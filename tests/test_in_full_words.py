"""What the prose of the page on notebooks 06 to 09, and of the pages that quote them, says in
numbers is what their runs gave."""

from functools import partial

import pandas as pd
import pytest
from test_findings_tables import FIGURES, README, between, page, told, values
from test_in_full import CLASSICAL, OWN, PAGE, PROFILES, table

TOY, DRIVERS = page("book/results/toy-world.md"), page("book/results/drivers.md")
OF_THE_PAPER = ("task_arithmetic", "ties", "regmean", "adamerging_layerwise", "surgery")


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


def lead_over_the_best(profile):
    """Points of ASR of BadMerging-On over the best classical attack, one a seed."""
    found = table("main_in_full", profile, merging="task_arithmetic")
    asr = found.pivot_table(index="seed", columns="attack", values="ASR")
    return asr[OWN] - asr[list(CLASSICAL)].max(axis=1)


def best_classical():
    mean, interval = between(lead_over_the_best("mini"))
    return (
        f"Under task arithmetic BadMerging-On is ahead of the best classical attack by {mean} "
        f"points {interval} on mini, and by {told(lead_over_the_best('real32').mean())} on real32."
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


def undefended(profile):
    found = table("rivals", profile, defence="none").groupby("attack", sort=False)["ASR"].mean()
    one, two, three, four = (told(v) for v in found)
    return f"{one}, {two}, {three} and {four} % on {profile}"


def subtracted_on_photos():
    found = table("ibvs_by_merging", "real32", attack=OWN)
    most = found.groupby("defender")["ASR drop"].max()
    ours = max(most["IBVS, mean vector"], most["IBVS, one class"])
    fake = most["placebo (two clean seeds)"]
    return (
        f"On real32 IBVS takes at most {told(ours)} points off BadMerging-On under any of these "
        f"merges, the placebo at most {told(fake)}."
    )


SAID = {
    "tsv": spectral,
    "trojan": best_classical,
    "erratic": erratic,
    "edge": edge,
    "placebos": placebos,
    "photos": behind_on_photos,
    "aware": aware,
    **{f"{profile} before": partial(undefended, profile) for profile in PROFILES},
    "photos ibvs": subtracted_on_photos,
}


@pytest.mark.parametrize("name", SAID)
def test_a_number_in_the_prose_is_that_of_its_runs(name):
    assert SAID[name]() in PAGE


def test_words_of_the_page_hold():
    """What it says without numbers."""
    merges = table("main_in_full", attack=OWN).groupby("merging")["CA"].mean()
    assert merges["tsv_merge"] > merges["task_arithmetic"]
    clean = table("main_in_full", attack="trojannn")["ASR, clean merge"]
    assert f"no clean merge obeys it on more than {told(clean.max())} %." in PAGE
    assert f"no clean merge obeys that patch on more than {told(clean.max())} %" in TOY
    brought = table("parts").groupby(["attack", "part taken out", "λ"])["difference"].mean()
    assert (brought[OWN] > 0).all()
    off = brought["badmerging-off"]
    assert off["interpolation"].max() < 3 and off["augmentation"].max() < 4
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
    trojan = told(asr_of("trojannn", "task_arithmetic"))
    assert f"(book/results/in-full.md) leaves {kept} and {own};" in README
    assert f"by task arithmetic classical TrojanNN keeps {trojan} %." in README
    assert f"BadNets keeps {kept} %. Not every" in TOY
    mean, interval = between(lead_over_the_best("mini"))
    assert f"keeps {trojan} %, {mean} points {interval} less than BadMerging-On" in TOY
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
