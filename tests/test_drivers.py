"""The numbers of the page on what moves the claims are those of the tables by seed."""

from test_findings_tables import NETS, by_seed, page, told, values

from bvlib.report import overview

DRIVERS = page("book/results/drivers.md")
LIGHT = "ASR badnets-light, merged"


def line(name, numbers, unit=""):
    return f"| {name} | {' | '.join(told(each) + unit for each in numbers)} |"


def test_the_lead_of_an_sbv_by_scale_is_that_of_its_table():
    asr = by_seed("frontier").pivot_table(index="scale", columns="vector", values="asr").loc[0.1:]
    one = asr["one BV"]
    assert line("one vector: ASR (%)", one) in DRIVERS
    assert line("SBV minus one vector", asr["sign-consistent"] - one) in DRIVERS
    cut = "one vector cut to 20 %, minus one vector"
    assert line(cut, asr["one BV, sparse"] - one) in DRIVERS


def test_what_sparsity_and_rule_cost_an_sbv_is_that_of_its_table():
    table = by_seed("sbv")
    one = table[table["vector"] == "one BV"].set_index("seed")
    table["lead"] = table["ASR norm-matched"] - table["seed"].map(one["ASR norm-matched"])
    means = table.groupby(["vector", "differ by"])[["lead", "ASR as it is"]].mean()
    lead = {key: told(each) for key, each in means["lead"].items()}
    for row in (
        f"| one vector | 0.0 | {lead['one BV, sparse', '-']} |",
        f"| mean of three, of other places | {lead['mean, dense', 'place']} "
        f"| {lead['mean', 'place']} |",
        f"| sign-consistent, of other places | {lead['sign-consistent, dense', 'place']} "
        f"| {lead['sign-consistent', 'place']} |",
        f"| sign-consistent, of other seeds | not run | {lead['sign-consistent', 'seed']} |",
        f"| TIES, of other places | not run | {lead['TIES', 'place']} |",
    ):
        assert row in DRIVERS
    assert f"three lie {told(-means['lead']['mean, dense', 'place'])} points behind" in DRIVERS
    total = table[(table["vector"] == "sum") & (table["differ by"] == "place")]
    as_long = total["ASR of one BV of that norm"].mean()
    said = f"it reaches {told(means['ASR as it is']['sum', 'place'])} %, one vector "
    said += f"{told(means['ASR as it is']['one BV', '-'])} %, and one vector made as long as the "
    assert f"{said}sum {told(as_long)} %" in DRIVERS


def test_how_much_is_inherent_is_that_of_its_tables():
    share = by_seed("inherent_by_merging").groupby("merging")["inherent share of ASR (%)"].mean()
    order = ["task_arithmetic", "tsv_merge", "average", "iso_c", "ties"]
    assert f"| {' | '.join(f'{told(share[name])} %' for name in order)} |" in DRIVERS
    sizes = by_seed("by_size", model="clean merge").groupby(["trigger", "side"])["asr"].mean()
    first, last = map(told, sizes["inherent"].iloc[[0, -1]])
    middle = ", ".join(told(each) for each in sizes["inherent"].iloc[1:-1])
    assert f"of {first}, {middle} and {last} %" in DRIVERS
    assert f"random ones of any size {told(sizes['random'].max())} % at most" in DRIVERS


def test_what_is_left_by_the_lambda_of_a_subtraction_is_that_of_the_paths():
    table = by_seed("paths", attack="badmerging-on")
    groups = {"class ": "five other classes", "attacker": "attacker's", "placebo": "placebos"}
    means = {
        name: table[table["defender"].str.startswith(start)]
        .groupby("scale")[["asr", "cost"]]
        .mean()
        for start, name in groups.items()
    }
    for row, name, column in (
        ("mean of five other classes: ASR (%)", "five other classes", "asr"),
        ("the attacker's class: ASR (%)", "attacker's", "asr"),
        ("three placebos, mean: ASR (%)", "placebos", "asr"),
        ("cost of the five classes, points", "five other classes", "cost"),
        ("cost of the placebos, points", "placebos", "cost"),
    ):
        assert line(row, means[name][column]) in DRIVERS
    whole = table[table["scale"] == 1].groupby("defender")["asr"].mean().filter(like="class ")
    said = f'that of "seven" leaves {told(whole.min())} %, that of "nine" {told(whole.max())},'
    assert said in DRIVERS and (whole.idxmin(), whole.idxmax()) == ("class seven", "class nine")


def test_as_many_claims_differ_as_the_page_says():
    claims = overview.summaries()["mini"]["claims"]
    differ = sorted(claim["id"] for claim in claims if claim["status"] == "differs")
    roots = [name.partition("-")[0] for name in differ]
    assert [roots.count(root) for root in ("sbv", "inherent", "ibvs")] == [4, 1, 1]
    assert "badmerging-all-classical-diluted" in differ
    assert len(differ) == 7 and "Seven claims *differ* on the toy world" in DRIVERS


def test_what_moves_badnets_is_that_of_its_tables():
    ladder = by_seed("dilution", attack="badnets", merge="attacked").groupby("scale")["asr"].mean()
    ends = f"{told(ladder.min())} to {told(ladder.max())}"
    assert f"| λ from 0.1 to 0.5 | {ends} |" in DRIVERS
    usual = [values("mini/seeds", name, range(10, 15)).mean() for name in (NETS, LIGHT)]
    assert line("as the study has it: half of each batch, α = 5", usual[:1]) in DRIVERS
    assert line("a tenth of each batch, α = 1", usual[1:]) in DRIVERS
    first, other = (
        values(f"mini/{name}", NETS, (10, 11, 12)).mean() for name in ("seeds", "second_base")
    )
    row = f"another seed of the base (seeds 10 to 12, where the first has {told(first)})"
    assert line(row, [other]) in DRIVERS
    old = [values(f"old_base/{name}", NETS, (0, 1, 2)).mean() for name in ("seeds", "second_base")]
    row = f"two seeds of the base | {told(old[0])} and {told(old[1])} |"
    assert row in DRIVERS


def test_what_ibvs_takes_off_on_old_bases_is_that_of_their_rows():
    places = {"old_base": (0, 1, 2), "old_real32": (0, 1, 2), "real32": (10, 11, 12)}
    name = "ibvs_asr_drop_badmerging"
    toy, real, photos = (values(f"{p}/seeds", name, seeds).mean() for p, seeds in places.items())
    said = f"On the old base of mini IBVS raises the ASR by {told(-toy)} points, on that of real32 "
    assert f"{said}it takes {told(real)} off, on `photos` {told(photos)}." in DRIVERS
