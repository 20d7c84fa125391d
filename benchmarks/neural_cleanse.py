"""Neural Cleanse at the budget that we first gave it and until its norms settle, on models with and
without a backdoor.

python benchmarks/neural_cleanse.py --write    # half an hour on a core
"""

import argparse
import tempfile
import time

from report import write

from bvlib.defences.detectors import neural_cleanse
from bvlib.run.lab import Lab
from bvlib.study.ablations import judged

BUDGETS = {"150 steps": {"steps": 150, "settle": 10**6}, "until settled": {"steps": 1500}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="mini")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="to benchmarks/results")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as out:
        lab = Lab("07", {"profile": asked.profile, "seed": asked.seed, "out": out})
    task, rows = lab.adversary, []
    models = {"base": lab.base, "clean fine-tune": lab.clean()}
    models |= {name: lab.backdoor(name).theta for name in ("badnets", "badmerging-on")}
    for budget, how in BUDGETS.items():
        for name, theta in models.items():
            began, seen = time.perf_counter(), (lab.encoder, theta, lab.head(task))
            found = neural_cleanse(*seen, task.dev.images, batch=16, seed=asked.seed, **how)
            said = judged(found, lab.target, task.classnames)
            seconds = round(time.perf_counter() - began)
            rows.append({"budget": budget, "model": name, **said, "seconds": seconds})
            print(rows[-1], flush=True)
    if asked.write:
        write("neural_cleanse", rows)


if __name__ == "__main__":
    main()
