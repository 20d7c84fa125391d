"""What the admission of a base measures: clean models, and patches on models that nobody attacked.

All numbers are percent or points unless said otherwise.
"""

import copy
import itertools
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from bvlib.attacks import triggers
from bvlib.core import training
from bvlib.core.metrics import attack_success_rate
from bvlib.core.rng import derive
from bvlib.core.vectors import TaskVector
from bvlib.report.criteria import CRITERIA, GAIN, LAMBDA, MAX_SIZE, WEAK, WITHIN
from bvlib.run import settings
from bvlib.study import experiments, transfer
from bvlib.study.tasks import closest_classes
from bvlib.worlds import bases


def measure(lab, plan: Mapping[str, Any], say: Callable[[str], None]) -> dict[str, pd.DataFrame]:
    """The tables named in :data:`criteria.TABLES`, of a lab of a development seed and its profile's
    ``admission``; models and triggers come from the lab's store."""
    own = {}
    for name in lab.tasks:
        say(f"fine-tune of {name}")
        own[name] = lab.clean(name)
    vectors = {name: TaskVector.between(theta, lab.base, name) for name, theta in own.items()}
    merged = lab.merge(method="task_arithmetic", coefficient=LAMBDA)
    say("accuracy of base, fine-tunes and merges")
    tasks = _tasks(lab, own, vectors, merged)
    models = {"base": lab.base, "clean merge": merged}
    models |= {f"fine-tune of {name}": theta for name, theta in own.items()}
    weakness = _weakness(lab, plan, models, say)
    recipes = _recipes(lab, plan, say)
    say("time of a training step")
    return {
        "tasks": tasks,
        "recipes": recipes,
        "heads": _heads(lab),
        "cosines": _cosines(vectors),
        "weakness": weakness,
        "criteria": criteria(tasks, recipes, weakness, _cost(lab), plan["cost"]),
    }


def _tasks(lab, own, vectors, merged) -> pd.DataFrame:
    def dev(theta) -> pd.Series:
        return experiments.accuracies(lab.model(theta), lab.tasks, "dev")[list(lab.tasks)]

    table = pd.DataFrame({"zero_shot": dev(lab.base)})
    for name, theta in own.items():
        alone = experiments.accuracy(lab.model(theta), lab.tasks[name], "dev")
        table.loc[name, "fine_tuned"] = alone.percent
    table["merged"], table["merged_ties"] = dev(merged), dev(lab.merge(method="ties"))
    table["gain"] = table["fine_tuned"] - table["zero_shot"]
    gained = table["merged"] - table["zero_shot"]
    table["recovered"] = 100 * gained / table["gain"].where(table["gain"] >= 5)
    table["norm"] = pd.Series({name: vector.norm() for name, vector in vectors.items()})
    table["times_median"] = table["norm"] / table["norm"].median()
    return table.rename_axis("task").reset_index()


def _recipes(lab, plan: Mapping[str, Any], say: Callable[[str], None]) -> pd.DataFrame:
    """Recipes of fine-tuning, the profile's own and a grid of steps and learning rates: accuracy
    of the models on their own tasks and of the merge, the share of the gap recovered, and the
    median norm of a task vector."""
    own = {key: lab.p["train"][key] for key in ("steps", "lr")}
    grid = [{"steps": s, "lr": lr} for s in plan["steps"] for lr in plan["rates"]]
    before, rows = _mean(lab, {}), []
    for recipe in [own, *(each for each in grid if each != own)]:
        say(f"fine-tuning by {recipe['steps']} steps at {recipe['lr']:g}")
        other = copy.copy(lab)
        other.p = {**lab.p, "train": {**lab.p["train"], **recipe}}
        models = other.cleans()
        merged = other.merge(method="task_arithmetic", coefficient=LAMBDA)
        vectors = [TaskVector.between(theta, lab.base) for theta in models.values()]
        alone, together = _mean(lab, models), _mean(lab, dict.fromkeys(models, merged))
        recovered = 100 * (together - before) / (alone - before) if alone > before else math.nan
        norm = float(pd.Series([vector.norm() for vector in vectors]).median())
        rows.append((recipe["steps"], recipe["lr"], alone, together, recovered, norm))
    columns = ["steps", "lr", "own", "merged", "recovered", "norm"]
    return pd.DataFrame(rows, columns=columns)


def _mean(lab, models: Mapping[str, Any]) -> float:
    """Mean dev accuracy over the tasks, each by its model (the base where there is none)."""
    found = [
        experiments.accuracy(lab.model(models.get(name)), task, "dev").percent
        for name, task in lab.tasks.items()
    ]
    return sum(found) / len(found)


def gentlest(recipes: pd.DataFrame) -> Any:
    """Index of the recipe with the shortest task vectors among those whose ``own`` accuracy is
    within a point of the best."""
    good = recipes[recipes["own"] >= recipes["own"].max() - WITHIN]
    return good["norm"].idxmin()


def _cost(lab) -> float:
    """Time of a training step of this base over that of smoke's, both measured in turn, the
    fastest of three."""
    other = bases.load(settings.load("smoke")["base"])
    images, labels = lab.adversary.train.images[:128], lab.adversary.train.labels[:128]
    names, prompts = lab.adversary.classnames, lab.adversary.prompts
    how = {"steps": 5, "batch": 128, "lr": 1e-4, "weight_decay": 0.0, "warmup": 0, "seed": 0}
    times: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(3):
        for which, encoder in enumerate((lab.encoder, other)):
            head, began = encoder.head(names, prompts), time.perf_counter()
            training.finetune(encoder, encoder.theta, head, images, labels, training.clean(), **how)
            times[which].append(time.perf_counter() - began)
    return min(times[0]) / min(times[1])


def _heads(lab) -> pd.DataFrame:
    """How close the classes of each task's zero-shot head are."""
    rows = []
    for task in lab.tasks.values():
        found = closest_classes(lab.head(task), task.classnames)
        rows.append({"task": task.name, "classes": len(task.classnames), **found})
    return pd.DataFrame(rows).rename(columns=lambda name: name.replace(" ", "_"))


def _cosines(vectors: Mapping[str, Any]) -> pd.DataFrame:
    matrix = transfer.cosines(vectors)
    rows = [(a, b, matrix.loc[a, b]) for a, b in itertools.combinations(vectors, 2)]
    return pd.DataFrame(rows, columns=["a", "b", "cosine"])


def _weakness(lab, plan: Mapping[str, Any], models: Mapping[str, Any], say) -> pd.DataFrame:
    """ASR of patches on models without any attack, on dev images of the adversary's task; size 0
    is no patch at all."""
    task, rows = lab.adversary, []
    classes = [task.check_class(c) for c in plan["classes"]]

    def asr(theta, patch) -> dict[int, float]:
        predicted = lab.model(theta).predict(task, patch, "dev")
        known = task.dev.labels, len(task.classnames)
        rates = {c: attack_success_rate(predicted, known[0], c, known[1]) for c in classes}
        return {c: rate.percent for c, rate in rates.items()}

    def add(model, size, patch, values) -> None:
        rows.extend((model, c, task.classnames[c], size, patch, values[c]) for c in classes)

    for name, theta in models.items():
        add(name, 0, "none", asr(theta, None))
    for size in plan["sizes"]:
        say(f"patches of {size} px")
        found = {c: lab.trigger("universal", target=c, size=size) for c in classes}
        seeds = [derive(lab.seed, "admission", i) for i in range(plan["random_patches"])]
        noise = [triggers.random_patch(size, seed) for seed in seeds]
        for name, theta in models.items():
            add(name, size, "universal", {c: asr(theta, found[c])[c] for c in classes})
            add(name, size, "random", pd.DataFrame([asr(theta, patch) for patch in noise]).mean())
            add(name, size, "white", asr(theta, triggers.solid(size)))
    return pd.DataFrame(rows, columns=["model", "target", "class", "size", "patch", "asr"])


def criteria(
    tasks: pd.DataFrame,
    recipes: pd.DataFrame,
    weakness: pd.DataFrame,
    cost: float,
    most_cost: float,
) -> pd.DataFrame:
    """What was asked and what came out: id, criterion, obtained, bound, met (blank where there is
    no bound).

    ``tasks`` needs the columns zero_shot, merged, gain, recovered, times_median; ``recipes`` own
    and norm, the profile's first; ``weakness`` model, target, size, patch, asr. The patch is judged
    at the size, 6 px at most, that works for most classes (the larger of equals).
    """
    seen = weakness[weakness["size"] > 0]
    universal = seen[(seen["model"] == "base") & (seen["patch"] == "universal")]
    universal = universal.pivot(index="size", columns="target", values="asr")
    noise = seen[(seen["patch"] == "random") & seen["model"].isin(["base", "clean merge"])]
    noise = noise.groupby(["size", "model"])["asr"].mean().groupby("size").max()
    works, classes = (universal >= WEAK).sum(axis=1), universal.shape[1]
    most, gap = classes // 2 + 1, tasks["gain"].sum()
    recovered = 100 * (tasks["merged"] - tasks["zero_shot"]).sum() / gap if gap > 0 else math.nan
    size = max((s for s in works.index if s <= MAX_SIZE), key=lambda s: (works[s], s), default=None)
    smallest = min((s for s in works.index if works[s] >= most), default=math.nan)
    gentle = recipes["norm"].iloc[0] / recipes["norm"][gentlest(recipes)]
    obtained = {
        "gain": ((tasks["gain"] >= GAIN).sum(), len(tasks) // 2 + 1),
        "recovered": (recovered, 60),
        "recovered_mean": (tasks["recovered"].mean(), None),
        "norms": (tasks["times_median"].max(), 2),
        "gentle": (gentle, 1),
        "cost": (cost, most_cost),
        "random": (noise.loc[size] if size else math.nan, 5),
        "weakness": (works[size] if size else math.nan, most),
        "smallest_size": (smallest, None),
    }
    rows = []
    for name, (value, bound) in obtained.items():
        text, least = CRITERIA[name]
        met = None if least is None else bool(value >= bound if least else value <= bound)
        if name in ("weakness", "random") and size:
            text += f" [{size} px, {classes} classes]"
        rows.append((name, text, float(value), bound, met))
    return pd.DataFrame(rows, columns=["id", "criterion", "obtained", "bound", "met"])
