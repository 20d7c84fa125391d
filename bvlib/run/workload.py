"""How much work notebooks are: counted once from finished runs, then stated in units for any
profile; see :mod:`bvlib.run.plan`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bvlib.attacks import recipes
from bvlib.core.errors import BvError, unknown
from bvlib.files.safe import write_json
from bvlib.files.weights import card_of
from bvlib.run import settings
from bvlib.run.notebooks import root_folder
from bvlib.worlds import images, tasks, toy
from bvlib.worlds.papers import table

COUNTS = Path(__file__).with_name("plan_counts.json")
ADAPTED = (
    "regmean",
    "adamerging_taskwise",
    "adamerging_layerwise",
)  # data-driven merges, each as large as a model
EVERY = 10  # steps of Neural Cleanse between two judgements


# Counting what was done


def count(folder: str | Path) -> dict[str, Any]:
    """The counts of one seed's finished runs, from the notebooks' JSON in ``folder`` (such as
    runs/mini/seed-0).

    For each notebook: "artefacts" {key: kind}, with keys so that what notebooks share is counted
    once, and "passes", images evaluated over the mean number of test images of a task. Raises
    BvError when there are no runs, when one was made before images were counted, and for an
    artefact whose cost is not known here.
    """
    runs = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(Path(folder).glob("[0-9]*.json"))
    ]
    if not runs:
        raise BvError(
            f"no finished runs in {folder}: give one seed's folder, such as runs/mini/seed-0"
        )
    p, found = settings.load(runs[0]["profile"]), {}
    size = sizes(p)
    for run in runs:
        if run.get("images_evaluated") is None:
            raise BvError(
                f"{run['notebook']}.json says no images_evaluated: run it again (bv run "
                f"{run['notebook'][:2]} --force)"
            )
        kinds = {
            item["key"][:12]: (_kind(item, p), item["made"])
            for item in run["artefacts"]
            if not item["name"].startswith("images-")
        }
        judged = sum(
            work(kind, p, size).get("image", 0)
            for kind, made in kinds.values()
            if kind == "cleanse" and made
        )
        found[run["notebook"]] = {
            "passes": round((run["images_evaluated"] - judged) / _mean_test(p, size), 1),
            "artefacts": {key: kind for key, (kind, _) in kinds.items()},
        }
    return {"profile": runs[0]["profile"], "seed": runs[0]["seed"], "notebooks": found}


def _kind(item: Mapping[str, Any], p: Mapping[str, Any]) -> str:
    """What is made, without its task: "clean", an attack, a trigger's kind (with "@steps" where
    they are its own), ..."""
    if item["name"].startswith("cleanse-"):
        return "cleanse"
    kind = item["name"].rsplit("-", 2 if item["kind"] == "trigger" else 1)[0]
    card = card_of(root_folder() / item["path"])
    if item["kind"] == "trigger" and card.is_file():
        steps = json.loads(card.read_text(encoding="utf-8"))["args"]["steps"]
        kind += "" if steps == p["trigger"]["steps"] else f"@{steps}"
    work(kind, p, sizes(p))
    return kind


def load(path: Path = COUNTS) -> dict[str, Any]:
    """The committed counts. Raises BvError when they are missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise BvError(
            f"{path.name} is missing or damaged: make it with bv plan --count runs/mini/seed-0"
        ) from None


def write_counts(folder: str | Path) -> Path:
    """Write :func:`count` of a folder to ``plan_counts.json`` beside this module; its path. Raises
    the BvErrors of `count`."""
    write_json(COUNTS, count(folder))
    return COUNTS


# From counts to units of work


def sizes(p: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """{task: numbers of "train", "dev" and "test" images and of "classes"}, from the tables: no
    data need be there."""
    found, asked = {}, p["sizes"]
    for name in dict.fromkeys([*p["tasks"], p["off_task"]["task"], *p["other_tasks"]]):
        if p["world"] == "paper":
            one = table.row(name)
            train = one.train[-1] if isinstance(one.train, tuple) else one.train
            drawn, test, classes = one.drawn_dev(train), one.test, one.classes
            whole = {"train": train - drawn, "dev": one.dev or drawn, "test": test}
        elif name == tasks.HANDWRITTEN:
            whole, classes = {"train": 1100, "dev": 200, "test": 497}, 10
        elif name in toy.TASKS:
            whole, classes = asked, len(toy.KINDS[name])
        else:
            info = images.describe(name)
            classes, whole = (
                info.classes,
                {"train": info.train - asked["dev"], "dev": asked["dev"], "test": info.test},
            )
            whole = whole if info.train else asked  # a set of the reader's own
        found[name] = {
            part: min(n, n if asked[part] is None else asked[part]) for part, n in whole.items()
        }
        found[name]["classes"] = classes
    return found


def _mean_test(p, size) -> float:
    return sum(size[name]["test"] for name in p["tasks"]) / len(p["tasks"])


def training_steps(p: Mapping[str, Any], size: Mapping[str, Mapping[str, int]]) -> float:
    """Steps of a training by the profile's recipe, their mean over the tasks."""
    return sum(table.steps(t, size[t]["train"], p["train"]) for t in p["tasks"]) / len(p["tasks"])


def work(
    kind: str, p: Mapping[str, Any], size: Mapping[str, Mapping[str, int]]
) -> dict[str, float]:
    """Units of work that an artefact of a kind takes: steps of each sort, or images. Raises
    BvError for an unknown kind."""
    name, _, own = kind.partition("@")
    trigger, dev = p["trigger"], sum(size[t]["dev"] for t in p["tasks"])
    if name == "clean":
        return {"clean step": training_steps(p, size)}
    if name in recipes.ATTACKS:
        return {"backdoored step": training_steps(p, size)}
    if (
        name in recipes.OPTIMISED
    ):  # off-task, references are pushed away first: 40 steps, each half as dear again
        pushed = (
            1.5 * 40 * p["off_task"]["augmented"] / trigger["batch"]
            if name == "off-universal"
            else 0
        )
        return {"trigger step": (int(own) if own else trigger["steps"]) + pushed}
    if name == "regmean":
        return {
            "gram image": sum(
                min(p["adaptive"]["regmean"]["images"], size[t]["train"]) for t in p["tasks"]
            )
        }
    if name in ADAPTED:
        return {"adaptive step": p["adaptive"]["adamerging"]["steps"]}
    if name == "surgery":
        return {"image": 2 * dev}
    if name == "cleanse":
        how, one = p["neural_cleanse"], size[p["adversary"]]
        return {
            "trigger step": how["steps"] * how["batch"] * one["classes"] / trigger["batch"],
            "image": one["classes"]
            * min(one["dev"], how.get("images", one["dev"]))
            * (how["steps"] // EVERY + 1),
        }
    known = ["clean", *recipes.ATTACKS, *recipes.OPTIMISED, *ADAPTED, "surgery", "cleanse"]
    raise unknown("kind of artefact for a plan", kind, known)


def outside(notebook: str, p: Mapping[str, Any]) -> dict[str, float]:
    """Units of work of what the long notebooks train or infer beside the store, read off their
    cells (rough)."""
    tune, batch, n = (
        p["fine_pruning"]["steps"] * 96 / p["train"]["batch"],
        p["train"]["batch"],
        len(p["tasks"]),
    )
    if notebook.startswith("07"):
        return {"clean step": 6 * tune}
    if notebook.startswith(
        "09"
    ):  # four attacks, each against Fine-Pruning, fine-tuning, TBAR, LFPM, DAM and occlusion
        how = p["rivals"]
        steps = (
            2 * tune + (32 * how["tbar"] + 5 * 32 * how["lfpm"] + 3 * 8 * n * how["dam"]) / batch
        )
        return {"clean step": 4 * steps, "occluded image": 4 * how["sample"] * (n + 1)}
    return {}


@dataclass(frozen=True)
class Tally:
    """One notebook's part: kinds of artefact that it is the first to need, kinds that it needs at
    all, units of work."""

    new: Counter
    used: Counter
    units: Counter


def tally(
    counts: Mapping[str, Any], notebooks: Sequence[str], p: Mapping[str, Any]
) -> dict[str, Tally]:
    """{notebook: its part}, one seed, in this order: an artefact counts where it is needed first.

    Raises BvError for a notebook without counts.
    """
    size, seen, found = sizes(p), set(), {}
    for name in notebooks:
        if name not in counts["notebooks"]:
            raise BvError(
                f"no counts for {name}: run it once (bv run {name[:2]} --profile "
                f"{counts['profile']}), then "
                f"bv plan --count runs/{counts['profile']}/seed-{counts['seed']}"
            )
        one = counts["notebooks"][name]
        new = Counter(kind for key, kind in one["artefacts"].items() if key not in seen)
        seen |= one["artefacts"].keys()
        units = Counter(
            {"image": one["passes"] * _mean_test(p, size), "merge": one["passes"]}
        )  # at most a merge a pass
        units.update(outside(name, p))
        for kind, times in new.items():
            units.update({unit: times * amount for unit, amount in work(kind, p, size).items()})
        found[name] = Tally(new, Counter(one["artefacts"].values()), units)
    return found


def is_model(kind: str) -> bool:
    """Whether an artefact of this kind is as large as a model."""
    return kind == "clean" or kind in recipes.ATTACKS or kind in ADAPTED
