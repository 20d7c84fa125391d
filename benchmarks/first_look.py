"""A first look at notebooks 00, 01, 03 and 05 (those of them that were run), on seeds that nothing
was chosen on.

    bv run 00 01 03 05 --profile mini --seeds 10,11,12
    python benchmarks/first_look.py --profile mini

Writes figures/first_look/seeds.csv, every number of every seed, and README.md: the headline with
intervals over seeds, and each claim beside what the committed reference says of it. Beside them it
puts the picture of the triggers. The reference runs come later, once.
"""

import argparse
import shutil

from bvlib.core.versions import recipe
from bvlib.files.safe import write_text
from bvlib.report import summary
from bvlib.report.claims import CLAIMS, unit
from bvlib.report.reference import committed
from bvlib.report.results import per_seed, runs
from bvlib.report.tables import markdown, seeds_in_words, write_csv
from bvlib.run import settings
from bvlib.run.notebooks import out_folder, root_folder

SEEDS = (10, 11, 12)
NOTEBOOKS = ("00", "01", "03", "05")
INTRODUCTION = """\
What does the new base `{base}` give, before the reference runs are made anew? Six models are
merged. The adversary is that of {adversary}; its trigger is a patch of {trigger_size} px. Merges
are by task arithmetic, λ = {coefficient:g}, where nothing else is said. *Clean merge* and *base*
were never attacked and see the same trigger. *Alone* is the attacked model before merging. CA and
BA are the clean accuracy without and with the attacked model, ASR is the attack success rate.

Numbers are means with 95 % t-intervals over seeds, which share one base. One seed has no interval,
and leaves a claim inconclusive. No seed here had a say in any choice. *Before* is the committed
reference: old base, other seeds, earlier versions of some methods. Fine-tuning is at {rate:g}
(`{recipe}`). Written by `benchmarks/first_look.py`.
"""


def interval(entry, of_unit):
    """ "45.9 % (42.7 to 49.2)", or a dash."""
    middle = entry["obtained"] if "obtained" in entry else entry["mean"]
    if middle is None:
        return "-"
    if entry["low"] is None:
        return f"{middle:.1f} {of_unit}"
    return f"{middle:.1f} {of_unit} ({entry['low']:.1f} to {entry['high']:.1f})"


def page(profile, seeds, notebooks, found, before):
    """The page of one profile: ``found`` and ``before`` are summaries of runs."""
    chosen, old = settings.load(profile), {claim["id"]: claim for claim in before["claims"]}
    rate = chosen["train"]["lr"]
    lines = [f"# A first look: {profile}, {seeds_in_words(seeds)}, notebooks {notebooks}", ""]
    lines += [INTRODUCTION.format(rate=rate, recipe=recipe("training:finetune"), **chosen)]
    lines += ["## Claims", ""]
    rows = []
    for claim, entry in zip(CLAIMS, found["claims"]):
        if entry["status"] == "not run":
            continue
        kind, was = unit(claim.measure), old.get(claim.id, {"obtained": None, "status": "not run"})
        now = interval(entry, kind)
        rows.append(
            (f"`{claim.id}`", claim.test, now, entry["status"], interval(was, kind), was["status"])
        )
    lines += markdown(("claim", "test", "here", "status", "before", "status before"), rows)
    lines += ["", "## Headline", ""]
    told = [(name, interval(entry, entry["unit"])) for name, entry in found["headline"].items()]
    return "\n".join([*lines, *markdown(("what", "here"), told), ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--profile", default="mini")
    profile = parser.parse_args().profile
    own = {
        seed: [each for each in found if each["notebook"][:2] in NOTEBOOKS]
        for seed, found in runs(profile).items()
        if seed in SEEDS
    }
    name = "first_look" if profile == "mini" else f"first_look_{profile}"
    folder = root_folder() / "figures" / name
    table = per_seed(profile)
    kept = table["seed"].isin(SEEDS) & table["notebook"].str[:2].isin(NOTEBOOKS)
    write_csv(folder / "seeds.csv", table[kept])
    names = ", ".join(sorted(set(table[kept]["notebook"].str[:2])))
    given = summary.summary(own), summary.summary(committed(profile))
    text = page(profile, sorted(own), names, *given)
    write_text(folder / "README.md", text)
    shutil.copy(out_folder(profile, SEEDS[0]) / "figures" / "triggers.png", folder)
    print(folder / "README.md")


if __name__ == "__main__":
    main()
