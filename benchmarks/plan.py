"""What `bv plan` says beside what a short run then takes, on the toy base within one run. See
README.md here."""

import tempfile
import time

from report import write

from bvlib.core.encoder import EVALUATED, default_device
from bvlib.run import plan, settings, store, workload
from bvlib.run.probe import probe
from bvlib.run.workshop import Workshop
from bvlib.study import experiments

STEPS, PROBE, ROUNDS = 40, 60.0, 2
DONE = {
    "a": "clean",
    "b": "clean",
    "c": "clean",
    "d": "badnets",
    "e": "badmerging-on",
    "f": "universal",
}


def main() -> None:
    p = {
        **settings.load("mini"),
        "seed": 0,
        "profile": "mini",
        "tasks": ["digits", "shapes", "letters"],
    }
    p |= {"train": {**p["train"], "steps": STEPS}, "trigger": {**p["trigger"], "steps": STEPS}}
    merges = 4  # each evaluated on every task, and with the trigger on one
    short = {"passes": merges * (len(p["tasks"]) + 1), "artefacts": DONE}
    counts = {"profile": "mini", "seed": 0, "notebooks": {"short": short}}
    rows = []
    for _ in range(ROUNDS):
        part = workload.tally(counts, ["short"], p)["short"]
        said = plan.seconds(part, probe(p, set(part.units), PROBE).speeds)
        with tempfile.TemporaryDirectory() as folder:
            shop = Workshop(
                p, store.Store(folder, default_device().type)
            )  # draws the images: not in the plan
            began, before = time.perf_counter(), EVALUATED["images"]
            shop.vectors()
            backdoors = [shop.backdoor(name) for name in ("badnets", "badmerging-on")]
            for theta, b in [
                (shop.merge(b.theta if attacked else None), b)
                for b in backdoors
                for attacked in (True, False)
            ]:
                experiments.accuracies(shop.encoder, theta, shop.tasks)
                experiments.asr(shop.encoder, theta, shop.adversary, b.trigger, b.target)
            took, seen = time.perf_counter() - began, EVALUATED["images"] - before
        rows.append(
            {
                "run": f"{STEPS} steps: 3 clean, 2 backdoored, 1 trigger, {merges} merges",
                "planned (s)": said,
                "took (s)": took,
                "planned / took": said / took,
                "images planned": part.units["image"],
                "images seen": seen,
            }
        )
    write("plan", rows)


if __name__ == "__main__":
    main()
