"""The numbers of the findings, in the README and in the book, are those of the committed tables."""

from pathlib import Path

import pytest

from bvlib.report import overview

ROOT = Path(__file__).parents[1]
README, BOOK, BASE = "README.md", "book/results/toy-world.md", "book/base.md"
PHOTOS = "book/results/real-images.md"
NEW, OLD, REAL, OLD_REAL = "mini", "old_base", "real32", "old_real32"
ALL = (NEW, OLD, REAL, OLD_REAL)
OWN, NETS = "ASR badmerging-on, merged", "ASR badnets, merged"
CLEAN, TIES = "ASR badmerging-on trigger, clean merge", "ASR badmerging-on, merged by TIES"
CLEAN_TIES = "ASR badmerging-on trigger, clean merge by TIES"
RANDOM = "ASR random patch, merge with badnets"
DROP = "ibvs-weakens-badmerging"
# what is said, and the headline or claim of mini whose mean {v} and interval {low}, {high} it
# gives; {minus} is the mean without its sign
SAID = [
    (README, "BadNets keeps {v} % [{low}, {high}]", NETS),
    (README, "own task (*On*) {v} % [{low}, {high}]", OWN),
    (README, "they keep {v} and", "ASR badnets, merged by TIES"),
    (README, "and {v} %.", TIES),
    (README, "on {v} % of the images under TIES", CLEAN_TIES),
    (README, "({v} with the attack)", TIES),
    (README, "on {v} % under task arithmetic", CLEAN),
    (README, "under task arithmetic ({v}).", OWN),
    (README, "attacks {minus} points *less*", "sbv-beats-single"),
    (README, "(IBVS), takes {v} points off BadMerging-On", DROP),
    (README, "send {v} % or more", "ASR badnets, alone"),
    (BOOK, "zero-shot {v} %", "zero-shot accuracy"),
    (BOOK, "one model a task {v} %", "fine-tuned accuracy"),
    (BOOK, "one merge for all {v} %", "merged accuracy (task arithmetic)"),
    (BOOK, "a tenth of each batch poisoned keeps {v} %", "ASR badnets-light, merged"),
    (BOOK, "falls by {v} points [{low}, {high}]", "badmerging-keeps-utility"),
    (
        BOOK,
        "The loss adds {v} points [{low}, {high}]",
        "merged ASR, badmerging-on minus universal-only",
    ),
    (BOOK, "adds {v} points [{low}, {high}]. Under TIES", "badmerging-adds-to-clean-merge"),
    (BOOK, "the clean merge obeys on {v} %", CLEAN_TIES),
    (BOOK, "the SBV reaches {v} %", "ASR sign-consistent, merged, as they are"),
    (BOOK, "one vector reaches {v},", "ASR one BV, merged, as they are"),
    (BOOK, "{minus} points less [−{low}, −{high}]. At equal length", "sbv-beats-single"),
    (
        BOOK,
        "At equal length it is {minus} points less [−{low}, −{high}]",
        "sbv-beats-single-at-equal-norm",
    ),
    (BOOK, "old length has {v} %", "ASR one BV, sparse, merged, at equal norm"),
    (BOOK, "rule stays {minus} points below", "sbv-sign-consistent-best"),
    (BOOK, "by {v} points [{low}, {high}]. *Control:* one vector scaled", "sbv-as-it-is"),
    (BOOK, "beats the sum by {minus} points", "sbv-gain-is-not-norm"),
    (BOOK, "takes {v} points [{low}, {high}] off BadMerging-On", DROP),
    (BOOK, "from {v} to", "ASR badmerging-on before IBVS"),
    (BOOK, "to {v} %, for", "ASR badmerging-on after IBVS"),
    (BOOK, "for {v} points of clean accuracy", "ibvs-clean-cost"),
    (BOOK, "than the best placebo: −{minus} points [−{low}, {high}]", "ibvs-beats-placebo"),
    (
        BOOK,
        "takes {v} points more off than the others [{low}, {high}]",
        "ibvs-class-does-not-matter",
    ),
    (BOOK, "on the untouched base has {v} %", "ASR inherent trigger, clean merge"),
    (BOOK, "a random patch {v}. Of what", "ASR random patch, clean merge"),
    (BOOK, "the clean merge flips {v} % as well", "inherent-is-the-core"),
    (BOOK, "ways to merge it is {v} % [{low}, {high}]", "inherent-is-the-core-any-merge"),
    (BOOK, "obeys the patch on {v} % before", "ASR at λ_BV = 0"),
    (PHOTOS, "on the merge with BadNets has {v} %", RANDOM),
    (PHOTOS, "and {v} % are called automobiles", "false-target rate, merge with badnets"),
    (PHOTOS, "uncertain: {v} points [{low}, {high}]", "badmerging-adds-to-clean-merge"),
    (PHOTOS, "There, one vector reaches {v} %", "ASR one BV, merged, as they are"),
    (PHOTOS, "the SBV reaches {v}:", "ASR sign-consistent, merged, as they are"),
    (PHOTOS, "{minus} points less [−{low}, −{high}]", "sbv-beats-single"),
    (PHOTOS, "{minus} less [−{low}, −{high}] at equal", "sbv-beats-single-at-equal-norm"),
    (PHOTOS, "its old length has {v} %", "ASR one BV, sparse, merged, at equal norm"),
    (PHOTOS, "one vector has {v} % and the sum", OWN),
    (PHOTOS, "sum of three {v} %,", "ASR SBV by sum, as it is"),
    (PHOTOS, "For {v} points of clean accuracy [−{low}, {high}]", "ibvs-clean-cost"),
    (PHOTOS, "take {v} points off BadMerging-On", DROP),
    (PHOTOS, "they take {v} points [{low}, {high}]", "ibvs-weakens-badnets"),
]
# rows of the first table: alone, merged, by TIES, clean merge, that by TIES
ROWS = {
    "BadNets: white square, plain loss": "badnets",
    "BadMerging-On: optimised patch, interpolated loss": "badmerging-on",
}
# rows of numbers over mini and real32, today's base and the old one of each
BESIDE = [
    (README, "BadNets kept {} % on an earlier base,", (OLD,), NETS),
    (README, "On today's it keeps {},", (NEW,), NETS),
    (README, "on photos (seeds 10 to 12) {},", (REAL,), NETS),
    (README, "There BadMerging keeps {} %,", (REAL,), OWN),
    (README, "any malicious model obeys on {} %", (REAL,), CLEAN),
    (BOOK, "the loss added {} points to the patch", (OLD,), "badmerging-interpolation-adds"),
    (BOOK, "the patch {} to the loss", (OLD,), "badmerging-universal-adds"),
    (BOOK, "of another place removed {} %", (OLD,), "transfer across place, by subtraction"),
    (
        BOOK,
        "| base itself, same trigger | {} | {} | {} | {} |",
        ALL,
        "ASR badmerging-on trigger, base",
    ),
    (BOOK, "| BadNets, merged | {} | {} | {} | {} |", ALL, NETS),
    (BOOK, "| BadMerging-On, merged | {} | {} | {} | {} |", ALL, OWN),
    (BOOK, "| clean merge, same trigger | {} | {} | {} | {} |", ALL, CLEAN),
    (BOOK, "| clean merge by TIES, same trigger | {} | {} | {} | {} |", ALL, CLEAN_TIES),
    (BOOK, "| random patch on the merge with BadNets | {} | {} | {} | {} |", ALL, RANDOM),
    (
        BOOK,
        "| IBVS: points off BadMerging-On | {} | {} | {} | {} |",
        ALL,
        DROP,
    ),
    (BOOK, "and of its {} % a clean merge", (REAL,), NETS),
    (BOOK, "a clean merge has {} without", (REAL,), "ASR badnets trigger, clean merge"),
    (BASE, "BadNets keeps {} %", (REAL,), NETS),
    (BASE, "BadMerging-On {} %", (REAL,), OWN),
    (BASE, "by TIES {} % (94)", (REAL,), CLEAN_TIES),
    (BASE, "merge has {} % without any attack", (REAL,), "ASR badnets trigger, clean merge"),
    (BASE, "obeys the optimised trigger on {} %", (REAL,), "ASR badmerging-on trigger, base"),
]


@pytest.fixture(scope="module")
def committed():
    return overview.summaries()


def of(committed, profile, name):
    """{mean, low, high} of a headline or a claim."""
    found = committed[profile]
    claims = {claim["id"]: {**claim, "mean": claim["obtained"]} for claim in found["claims"]}
    return found["headline"].get(name) or claims[name]


def plain(page):
    return " ".join((ROOT / page).read_text(encoding="utf-8").split())


@pytest.mark.parametrize("page, said, name", SAID)
def test_a_number_of_the_findings_is_that_of_its_table(committed, page, said, name):
    entry = of(committed, REAL if page == PHOTOS else NEW, name)
    low, high = (f"{entry[end] or 0:.1f}" for end in ("low", "high"))
    if "−{low}" in said:
        low, high = low.removeprefix("-"), high.removeprefix("-")
    given = {"v": f"{entry['mean']:.1f}", "minus": f"{-entry['mean']:.1f}"}
    assert said.format(**given, low=low, high=high) in plain(page)


@pytest.mark.parametrize("page, profile", [(BOOK, NEW), (PHOTOS, REAL)])
@pytest.mark.parametrize("words, attack", ROWS.items())
def test_a_row_of_the_first_table_is_that_of_its_headlines(committed, page, profile, words, attack):
    names = ("{}, alone", "{}, merged", "{}, merged by TIES", "{} trigger, clean merge")
    names = [f"ASR {name.format(attack)}" for name in (*names, "{} trigger, clean merge by TIES")]
    alone, merged, ties, clean, clean_ties = (of(committed, profile, name) for name in names)
    with_interval = [
        f"{entry['mean']:.1f} [{entry['low']:.1f}, {entry['high']:.1f}]"
        if entry["high"] > entry["low"]
        else f"{entry['mean']:.1f}"
        for entry in (merged, clean)
    ]
    cells = [f"{alone['mean']:.1f}", with_interval[0], f"{ties['mean']:.1f}"]
    cells += [with_interval[1], f"{clean_ties['mean']:.1f}"]
    assert f"| {words} | {' | '.join(cells)} |" in plain(page)


@pytest.mark.parametrize("page, said, profiles, name", BESIDE)
def test_numbers_beside_each_other_are_those_of_their_tables(committed, page, said, profiles, name):
    means = [of(committed, profile, name)["mean"] for profile in profiles]
    assert said.format(*(f"{mean:.1f}".replace("-", "−") for mean in means)) in plain(page)


def test_a_first_look_at_photos_is_that_of_its_rows_and_of_the_old_base(committed):
    clean, old, old_ties = (
        of(committed, profile, name)
        for profile, name in ((REAL, CLEAN), (OLD_REAL, CLEAN), (OLD_REAL, CLEAN_TIES))
    )
    said = f"CLIP's: {clean['mean']:.1f} % [{clean['low']:.1f}, {clean['high']:.1f}] (83)"
    assert said in plain(BASE)
    said = f"arithmetic ({old['mean']:.1f} %) and nearer under TIES ({old_ties['mean']:.1f} %)"
    assert said in plain(BASE)
