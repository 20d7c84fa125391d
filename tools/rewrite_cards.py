"""Once: committed cards tell recipes with versions in place of hashes of code.

Every recipe is at version 1. Which a notebook uses is taken from its smoke run and from the lists of
methods and attacks in the card itself, as real profiles compare more. No picture, no CSV is touched.
"""

import json
import sys
from pathlib import Path

RUN = Path(sys.argv[1])  # runs/smoke/seed-0 of this code


def used(notebook, p):
    found = set(json.loads((RUN / f"{notebook}.json").read_text(encoding="utf-8"))["recipes"])
    kinds = {r.partition(":")[0] for r in found}
    if notebook[:2] in ("06",):
        found |= {f"attack:{name}/1" for name in p.get("attacks", [])}
        found |= {
            "trigger:trojan/1",
            "trigger:dynamic/1",
            "trigger:checkerboard/1",
            "trigger:blended/1",
        }
    if notebook[:2] in ("04", "06", "08", "09") and "merging" in kinds:
        found |= {f"merging:{name}/1" for name in p.get("methods", [])}
    if p.get("world") != "toy":
        found.discard("world:toy/1")
    return sorted(found)


for path in Path("figures").glob("*/**/*.json"):
    card = json.loads(path.read_text(encoding="utf-8"))
    if "source" not in card:
        continue
    del card["source"]
    if "notebook" in card:
        card["recipes"] = used(card["notebook"], card["parameters"])
    else:
        base = [
            "admission/1",
            "merging:task_arithmetic/1",
            "merging:ties/1",
            "training:finetune/1",
            "trigger:universal/1",
        ]
        card["recipes"] = sorted(
            base + (["world:toy/1"] if card["parameters"]["world"] == "toy" else [])
        )
    if "recipe" in card:
        del card["recipe"]["code"]
        card["recipe"]["drawn by"] = "world:toy/1"
    path.write_text(
        json.dumps(card, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )

for path in Path("bvlib/worlds/weights").glob("*.json"):
    card = json.loads(path.read_text(encoding="utf-8"))
    for profile, frozen in card.get("frozen", {}).items():
        admission = json.loads(
            Path(f"figures/admission/{profile}/admission.json").read_text(encoding="utf-8")
        )
        frozen["recipe"].pop("code", None)
        frozen["recipe"]["drawn by"] = "world:toy/1"
        frozen |= {"base": card["sha256"], "data": admission["data"]}
    path.write_text(
        json.dumps(card, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )
