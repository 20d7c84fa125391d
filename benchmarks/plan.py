"""What `bv plan` says beside what a short run then takes, on the toy base. See README.md here.

With `--count runs/mini/seed-0` it counts finished runs anew instead, and prints `passes` and `uses`
to be put into plan.yaml. What a notebook trains beside the store (tuning, rivals) stays as it is.
"""

import json
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import yaml
from report import write

from bvlib.attacks.recipes import attack
from bvlib.core.encoder import EVALUATED, default_device
from bvlib.files.weights import card_of
from bvlib.run import plan, settings, store
from bvlib.run.adversary import Adversary
from bvlib.run.notebooks import root_folder
from bvlib.study import experiments

STEPS, PROBE, ROUNDS, MERGES = 40, 60.0, 2, 4
USES = {"clean": [1, 2, 3], "backdoored": [1, 2], "trigger": [1]}
BESIDE = ("tuning", "rivals")


def kind_of(item: dict, steps: int) -> str:
    """The kind in plan.yaml of an artefact that a run used."""
    name = item["name"].rsplit("-", 2 if item["kind"] == "trigger" else 1)[0]
    if item["kind"] == "trigger":
        kind = "off-trigger" if name == "off-universal" else "trigger"
        own = json.loads(card_of(root_folder() / item["path"]).read_text())["args"]["steps"]
        return kind if own == steps else f"{kind}@{own}"
    if item["name"].startswith("cleanse-"):
        return "cleanse"
    return "backdoored" if name in attack else name.partition("_")[0]


def count(folder: Path) -> dict:
    """{"passes": ..., "uses": ...} of one seed's finished runs, as in plan.yaml."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("[0-9]*.json"))]
    p, old = settings.load(runs[0]["profile"]), yaml.safe_load(plan.COUNTS.read_text())
    numbers, passes, uses = defaultdict(dict), {}, {}
    for run in runs:
        kinds, judged = defaultdict(set), 0
        for item in run["artefacts"]:
            if not item["name"].startswith("images-"):
                kind = kind_of(item, p["trigger"]["steps"])
                known = numbers[kind]
                kinds[kind].add(known.setdefault(item["key"], len(known) + 1))
                judged += (
                    old["worth"][kind].get("image", 0) if kind == "cleanse" and item["made"] else 0
                )
        passes[run["notebook"]] = round(run["images_evaluated"] / plan.sizes(p)[0] - judged, 1)
        beside = {k: v for k, v in old["uses"].get(run["notebook"], {}).items() if k in BESIDE}
        uses[run["notebook"]] = {kind: sorted(kinds[kind]) for kind in sorted(kinds)} | beside
    return {"passes": passes, "uses": uses}


def main() -> None:
    p = {**settings.load("mini"), "seed": 0, "profile": "mini"}
    p |= {"tasks": ["digits", "shapes", "letters"], "train": {**p["train"], "steps": STEPS}}
    p |= {"trigger": {**p["trigger"], "steps": STEPS}}
    passes = MERGES * (len(p["tasks"]) + 1)  # a merge on every task, with the trigger on one
    worth = yaml.safe_load(plan.COUNTS.read_text())["worth"]
    rows = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            plan.COUNTS = Path(folder) / "plan.yaml"
            counts = {"worth": worth, "passes": {"short": passes}, "uses": {"short": USES}}
            plan.COUNTS.write_text(yaml.safe_dump(counts))
            said = plan.estimate(["short"], p, plan.probe(p, PROBE)).loc["short"]
            shop = Adversary(p, store.Store(folder, default_device().type))  # draws the images
            began, before = time.perf_counter(), EVALUATED["images"]
            shop.vectors()
            backdoors = [shop.backdoor(name) for name in ("badnets", "badmerging-on")]
            for b in backdoors:
                for model in (shop.merge(b.theta), shop.merge(None)):
                    experiments.accuracies(model, shop.tasks)
                    experiments.asr(model, shop.adversary, b.trigger, b.target)
            took, seen = time.perf_counter() - began, EVALUATED["images"] - before
        planned = 3600 * said["hours"]
        what = f"{STEPS} steps: 3 clean, 2 backdoored, 1 trigger, {MERGES} merges"
        times = {"planned (s)": planned, "took (s)": took, "planned / took": planned / took}
        images = {"images planned": said["images"], "images seen": seen}
        rows.append({"run": what, **times, **images})
    write("plan", rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--count"]:
        print(yaml.safe_dump(count(Path(sys.argv[2])), default_flow_style=None, sort_keys=False))
    else:
        main()
