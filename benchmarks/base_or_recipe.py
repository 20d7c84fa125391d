"""What changed the claims between the old and the new mini: the base, or the recipe of fine-tuning?

Both bases with both recipes, BadNets and BadMerging-On in the merge by task arithmetic, λ = 0.3:
ASR (%) of the attacked merge and of the clean merge with the same trigger. All else is mini as it
is now, so the triggers are of today's kind in all four.

    python benchmarks/base_or_recipe.py --seeds 10,11,12   # 20 minutes a seed on one core
"""

import itertools

from report import seeds_asked, write

from bvlib.run.lab import Lab

BASES = {"small": "old", "toy": "new"}
RECIPES = {"old": {"steps": 100, "lr": 3e-4}, "new": {"steps": 75, "lr": 2e-4}}
ATTACKS = ("badnets", "badmerging-on")


def measure(which: dict, seed: int, train: dict, **parameters) -> list[dict]:
    """A row an attack: ASR (%) alone, merged and of the clean merge, and the accuracy of that.

    ``which`` names the cell, ``train`` is what its recipe of fine-tuning changes of mini's, and
    ``parameters`` are those of notebook 01.
    """
    lab = Lab.start("01_badmerging", profile="mini", seed=seed, **parameters)
    lab.p["train"] = {**lab.p["train"], **train}
    clean, rows = lab.merge(), []
    for name in ATTACKS:
        b = lab.backdoor(name)
        rates = {"alone": b.theta, "merged": lab.merge(b.theta), "clean merge": clean}
        found = {what: lab.asr(model, b).percent for what, model in rates.items()}
        row = {**which, "seed": seed, "attack": name, **found}
        rows.append({**row, "merged accuracy": lab.accuracy(clean)})
    return rows


def main() -> None:
    rows = []
    for seed in seeds_asked(__doc__):
        for base, recipe in itertools.product(BASES, RECIPES):
            which = {"base": BASES[base], "recipe": recipe}
            rows += measure(which, seed, RECIPES[recipe], base=base)
    write("base_or_recipe", rows)


if __name__ == "__main__":
    main()
