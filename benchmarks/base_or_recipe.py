"""What changed the claims between the old and the new mini: the base, or the recipe of fine-tuning?

Both bases with both recipes, BadNets and BadMerging-On in the merge by task arithmetic, λ = 0.3:
ASR (%) of the attacked merge and of the clean merge with the same trigger. All else is mini as it
is now, so the triggers are of today's kind in all four.

    python benchmarks/base_or_recipe.py --seeds 10,11,12   # 20 minutes a seed on one core
"""

import argparse

from report import write

from bvlib.run.lab import Lab

BASES = {"small": "old", "toy": "new"}
RECIPES = {"old": {"steps": 100, "lr": 3e-4}, "new": {"steps": 75, "lr": 2e-4}}
ATTACKS = ("badnets", "badmerging-on")


def measure(base: str, recipe: str, seed: int) -> list[dict]:
    """A row an attack."""
    lab = Lab.start("01_badmerging", profile="mini", base=base, seed=seed)
    lab.p["train"] = {**lab.p["train"], **RECIPES[recipe]}
    clean, rows = lab.merge(), []
    for name in ATTACKS:
        b = lab.backdoor(name)
        rates = {"alone": b.theta, "merged": lab.merge(b.theta), "clean merge": clean}
        found = {what: lab.asr(model, b).percent for what, model in rates.items()}
        which = {"base": BASES[base], "recipe": recipe, "seed": seed, "attack": name}
        rows.append({**which, **found, "merged accuracy": lab.accuracy(clean)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", default="10,11,12")
    seeds = map(int, parser.parse_args().seeds.split(","))
    cells = [(base, recipe, s) for s in seeds for base in BASES for recipe in RECIPES]
    write("base_or_recipe", [row for cell in cells for row in measure(*cell)])


if __name__ == "__main__":
    main()
