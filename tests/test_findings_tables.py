"""The numbers of the findings that come from tables by seed are those of these tables."""

from pathlib import Path

import pandas as pd
import pytest

from bvlib.core.metrics import seed_interval

FIGURES = Path(__file__).parents[1] / "figures"


def page(path):
    """The text of a page with single spaces."""
    return " ".join((FIGURES.parent / path).read_text(encoding="utf-8").split())


PAGE, README = page("book/results/toy-world.md"), page("README.md")
OWN, NETS = "ASR badmerging-on, merged", "ASR badnets, merged"
CLEAN = "ASR badmerging-on trigger, clean merge"
FACTORIAL = {  # rows of the table of halves
    "white square, plain loss (BadNets)": NETS,
    "white square, interpolated loss": "ASR interpolation-only, merged",
    "optimised patch, plain loss": "ASR universal-only, merged",
    "both (BadMerging-On)": OWN,
}


def by_seed(name, profile="mini", **where):
    """A table of a profile on the reporting seeds, where its columns have these values."""
    table = pd.read_csv(FIGURES / f"{profile}/by_seed/{name}.csv")
    for column, value in where.items():
        table = table[table[column] == value]
    return table[table["seed"].between(10, 99)]


def values(place, name, seeds):
    """What a file of rows gives by this name on these seeds."""
    rows = pd.read_csv(FIGURES / f"{place}.csv")
    found = pd.to_numeric(rows.loc[rows["seed"].isin(seeds) & (rows["name"] == name), "value"])
    assert len(found) == len(seeds), (place, name)
    return found


def told(number):
    return f"{number:.1f}".replace("-", "−")


def between(numbers):
    """ "mean [low, high]" of one number a seed; no rate is above 100 %."""
    mean, low, high = (told(min(end, 100)) for end in seed_interval(list(numbers)))
    return mean, f"[{low}, {high}]"


@pytest.mark.parametrize("row, name", FACTORIAL.items())
def test_a_row_of_the_halves_of_badmerging_is_that_of_its_runs(row, name):
    places = {"mini/seeds": range(10, 15), "mini/second_base": (10, 11, 12)}
    places["real32/seeds"] = (10, 11, 12)
    cells = [told(values(place, name, seeds).mean()) for place, seeds in places.items()]
    assert f"| {row} | {' | '.join(cells)} |" in PAGE


def test_the_ladder_of_merging_coefficients_is_that_of_its_table():
    def row(attack, merge, column):
        table = by_seed("dilution", attack=attack, merge=merge)
        return " | ".join(told(v) for v in table.groupby("scale")[column].mean())

    own = "badmerging-on"
    assert f"attacked merge: ASR (%) | {row(own, 'attacked', 'asr')} |" in PAGE
    assert f"same trigger: ASR (%) | {row(own, 'clean', 'asr')} |" in PAGE
    assert f"BadNets, attacked merge: ASR (%) | {row('badnets', 'attacked', 'asr')} |" in PAGE
    digits = row(own, "clean", "adversary_accuracy")
    assert f"clean merge: accuracy on digits (%) | {digits} |" in PAGE
    for scale, said in ((0.2, "There the attack adds {} points {}"), (0.5, "is diluted: {} % {}")):
        asr = by_seed("dilution", attack=own, scale=scale).pivot(
            index="seed", columns="merge", values="asr"
        )
        number = asr["attacked"] - asr["clean"] if scale == 0.2 else asr["attacked"]
        assert said.format(*between(number)) in PAGE


def test_the_coefficients_of_the_readme_are_those_of_the_table():
    table = by_seed("dilution", attack="badmerging-on")
    asr = table.groupby(["scale", "merge"])["asr"].mean()
    for scale, said in ((0.2, "With λ = 0.2 it does so on {} % ({}),"), (0.5, "0.5 on {} % ({}).")):
        assert said.format(told(asr[scale, "clean"]), told(asr[scale, "attacked"])) in README


def test_what_target_classes_give_is_that_of_the_table():
    asr = by_seed("classes").groupby("target")["clean merge, task_arithmetic / inherent"].mean()
    assert (asr.idxmin(), asr.idxmax()) == ("eight", "nine")
    said = f'toward "eight" on {asr.min():.0f} %, one toward "nine" on {asr.max():.0f} %'
    assert said in PAGE


def test_what_a_merge_keeps_is_that_of_its_rows():
    places = {"mini/seeds": range(10, 15), "old_base/seeds": (0, 1, 2)}
    places |= {"real32/seeds": (10, 11, 12), "old_real32/seeds": (0, 1, 2)}
    kept = [told(values(place, "gap_recovered", seeds).mean()) for place, seeds in places.items()]
    assert f"mean over tasks | {' | '.join(kept)} |" in PAGE
    assert f"tasks the merge keeps {kept[0]} % of what fine-tuning gains" in PAGE
    assert f"keep {kept[2]} % of what fine-tuning gains" in page("book/results/real-images.md")


def test_what_sparsity_takes_is_that_of_the_two_rows():
    names = ("ASR one BV, merged, at equal norm", "ASR one BV, sparse, merged, at equal norm")
    whole, sparse = (values("mini/seeds", name, range(10, 15)).mean() for name in names)
    assert f"points sparsity takes {told(whole - sparse)}," in PAGE


@pytest.mark.parametrize(
    "row, attack",
    {
        "BadMerging-On": "badmerging-on",
        "BadMerging-Off": "badmerging-off",
        "an SBV made by summing": "sbv",
        "BadNets (has 3.6 % to lose)": "badnets",
    }.items(),
)
def test_a_row_of_placebos_is_that_of_the_summary(row, attack):
    drop = by_seed("summary", attack=attack).pivot(
        index="seed", columns="defence", values="ASR drop"
    )
    placebos = drop.filter(like="placebo")
    assert placebos.shape[1] == (2 if attack in ("badmerging-off", "sbv") else 3)
    cells = [drop["IBVS"].mean(), placebos.mean(axis=1).mean(), placebos.max(axis=1).mean()]
    assert f"| {row} | {' | '.join(told(cell) for cell in cells)} |" in PAGE
    if attack == "badmerging-on":
        more = between(drop["IBVS"] - placebos.mean(axis=1))
        assert (
            "Beside the mean of the placebos IBVS takes off {} points more {}".format(*more) in PAGE
        )


@pytest.mark.parametrize(
    "row, attack",
    [
        ("BadMerging-On", "badmerging-on"),
        ("BadNets", "badnets"),
        ("BadMerging-Off", "badmerging-off"),
    ],
)
def test_a_row_of_placebos_on_photos_is_that_of_the_summary(row, attack):
    table = by_seed("summary", profile="real32", attack=attack)
    drop = table.pivot(index="seed", columns="defence", values="ASR drop")
    before = table["asr"].add(table["ASR drop"]).mean()
    placebos = drop.filter(like="placebo")
    cells = [drop["IBVS"].mean(), placebos.mean(axis=1).mean(), placebos.max(axis=1).mean()]
    cells += [drop["IBVS, another task"].mean(), drop["oracle"].mean()]
    said = f"| {row} (has {told(before)} %) | {' | '.join(told(cell) for cell in cells)} |"
    assert said in page("book/results/real-images.md")


def test_what_a_defender_of_three_costs_is_that_of_the_table():
    cost = by_seed("defended", attack="badmerging-on").groupby("defender")["clean cost"].mean()
    assert f'({cost["class three"]:.1f} for the defender of class "three")' in PAGE
    assert cost.filter(like="class ").max() == cost["class three"]


def test_how_little_room_transfer_has_is_that_of_its_tables():
    path = by_seed("scaling", vector="BV").groupby("scale")["asr"].mean()
    assert f"30 % of the own vector bring {path[0.3]:.1f}" in PAGE
    assert f"model stays at {path[0.3]:.1f} % until 70 %" in PAGE
    pairs = by_seed("transfer", placebo=False, itself=False)
    pairs = pairs[pairs["axis"].isin(["place", "seed"])]
    cosines = pairs.groupby("axis")["cosine"].mean()
    assert f"a cosine of {cosines.min():.2f} to {cosines.max():.2f}," in PAGE
    left_out = pairs["removed"].isna().sum()
    assert f"{left_out} of {len(pairs)} among seeds and places" in PAGE
    old = values("old_base/seeds", "asr_rise_over_scaling", (0, 1, 2)).mean()
    assert f"with {old:.0f} points to gain" in PAGE


def test_bases_and_recipes_crossed_are_those_of_the_benchmark():
    rows = pd.read_csv(FIGURES.parent / "benchmarks/results/base_or_recipe.csv")
    means = rows.groupby(["base", "recipe", "attack"])[["merged", "clean merge"]].mean()
    on = "BadMerging-On"
    for what, attack, column in (
        ("BadNets", "badnets", "merged"),
        (on, "badmerging-on", "merged"),
        (f"clean merge, trigger of {on}", "badmerging-on", "clean merge"),
    ):
        for which, base in (("old", "small"), ("new", "toy")):
            cells = [told(means.loc[which, how, attack][column]) for how in ("old", "new")]
            assert f"| {what}, on `{base}` | {cells[0]} | {cells[1]} |" in PAGE
    drivers, nets = page("book/results/drivers.md"), means["merged"].xs("badnets", level="attack")
    mine, before = told(nets["new", "new"]), told(nets["new", "old"])
    assert f"(seeds 10 and 11, where today's has {mine}) | {before} |" in drivers
    assert f"today's fine-tune (seeds 10 and 11) | {told(nets['old', 'new'])} |" in drivers


def test_two_seeds_of_the_old_base_are_those_of_their_rows():
    for place, name in (("seeds", "small"), ("second_base", "small-b")):
        kept = "{} % {}".format(*between(values(f"old_base/{place}", NETS, (0, 1, 2))))
        assert f"{kept} on `{name}`" in PAGE
    other = values("old_base/second_base", NETS, (0, 1, 2)).mean()
    today = values("mini/second_base", NETS, (10, 11, 12)).mean()
    assert f"{told(other)} % on another seed of it" in README
    assert f"on another seed {told(today)} %" in README


def test_two_seeds_of_the_base_for_photos_are_those_of_their_rows():
    photos = page("book/results/real-images.md")
    for row, name in (
        ("BadNets, merged", NETS),
        ("white square, interpolated loss, merged", FACTORIAL["white square, interpolated loss"]),
        ("BadMerging-On, merged", OWN),
        ("clean merge, trigger of BadMerging-On", CLEAN),
        ("random patch on the merge with BadNets", "ASR random patch, merge with badnets"),
    ):
        cells = [
            " ".join(between(values(f"real32/{file}", name, (10, 11, 12))))
            for file in ("seeds", "second_base")
        ]
        assert f"| {row} | {' | '.join(cells)} |" in photos
    mean, interval = between(values("real32/second_base", NETS, (10, 11, 12)))
    assert f"another seed {mean} %. There BadMerging" in README
    assert f"BadNets keeps {mean} % {interval} where" in page("book/base.md")
    assert f"{mean} {interval} on `photos-b`" in PAGE


def test_what_is_left_at_a_cost_of_one_point_is_that_of_the_frontier():
    table = by_seed("defence_frontier_at", attack="badmerging-on")
    left = table.pivot(index="defender", columns="seed", values="ASR at 1 points")
    placebos = left[left.index.str.startswith("placebo")]
    best = placebos.min()
    tried = [left.loc["another task"], left.loc["class seven"]]
    means = [best.mean(), *(each.mean() for each in tried)]
    said = (
        "the best placebo leaves {:.1f} % of BadMerging-On. A vector made on *another task* leaves "
        '{:.1f}, that of the class "seven" {:.1f}'
    )
    assert said.format(*means) in PAGE
    less, seven = (int((each < best).sum()) for each in tried)
    said = f"the first does so on {less} of {len(best)} seeds, the second on {seven}"
    assert said in PAGE
    said = f"leaves between {placebos.min().min():.0f} and {placebos.max().max():.0f} %"
    assert said in PAGE
    others = left.loc[["class eight", "class nine"]].mean(axis=1)
    said = 'The vectors of "eight" and "nine" leave {:.0f} and {:.0f}'
    assert said.format(*others) in PAGE


def test_what_another_seed_of_the_base_gives_is_that_of_its_rows():
    added = "ASR badmerging-on trigger, attacked minus clean merge"
    given = []
    for name in (NETS, OWN, CLEAN, added):
        for place in ("mini/second_base", "mini/seeds"):
            given.append(f"{values(place, name, (10, 11, 12)).mean():.1f}")
    said = (
        "BadNets keeps {} % in its merge (`toy` {}), BadMerging-On {} ({}). Its clean merge "
        "follows the trigger on {} % ({}), so the attack adds {} points ({})."
    )
    assert said.format(*given) in PAGE


def test_what_needs_no_poisoned_model_is_that_of_the_figure():
    table = by_seed("effort", model="clean merge")
    asr = table[table["question"] == "optimised on"].groupby("value")["asr"].mean()
    said = "models sends {:.1f} % of the images to the attacker's class on a merge of six clean"
    assert said.format(asr["the others' merge"]) in PAGE
    assert f"another base {asr['toy-b, another base']:.1f}," in PAGE
    merged = values("mini/seeds", OWN, (10, 11, 12)).mean()
    assert f"reaches {merged:.1f} % on these seeds" in PAGE
