"""How much of a backdoor survives the merge, by the length of the fine-tune and by α?

Of mini one thing is changed at a time: the steps that every model is fine-tuned for, or the weight
α of the backdoor loss. BadNets and BadMerging-On, merged by task arithmetic with λ = 0.3: ASR (%)
alone, merged, and of the clean merge with the same trigger.

    python benchmarks/length_and_alpha.py --seeds 10,11,12   # 15 minutes a seed on one core
"""

from base_or_recipe import measure
from report import seeds_asked, write

STEPS = (25, 75, 150, 300)  # mini: 75
ALPHAS = (1.0, 5.0, 10.0)  # mini: 5


def main() -> None:
    rows = []
    for seed in seeds_asked(__doc__):
        for steps in STEPS:
            rows += measure({"changed": "steps", "value": steps}, seed, {"steps": steps})
        for alpha in ALPHAS:
            rows += measure({"changed": "alpha", "value": alpha}, seed, {}, alpha=alpha)
    write("length_and_alpha", rows)


if __name__ == "__main__":
    main()
